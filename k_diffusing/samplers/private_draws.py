"""Random draws that neither advance nor rewind anybody's generator, for trying a sampler out."""

import functools

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class PrivateDraws(TorchDispatchMode):
    """Inside, this thread's random operations draw from generators of their own.

    Neither torch's global ones nor a user's advance. None is put back either: that would rewind it for other threads.
    """

    def __init__(self):
        super().__init__()
        self.generator = functools.cache(lambda device: torch.Generator(device).manual_seed(0))

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not _draws(func):
            return func(*args, **kwargs or {})
        draw, kwargs = func.overloadpacket, kwargs or {}
        if draw.__name__.endswith("_like"):  # these take no generator in older versions of torch
            x, *bounds = args
            given = {name: value for name, value in kwargs.items() if value is not None and name != "memory_format"}
            kwargs = {"dtype": x.dtype, "device": x.device} | given
            draw, args = getattr(torch.ops.aten, draw.__name__.removesuffix("_like")), (*map(int, bounds), x.shape)
        of_tensors = (value.device for value in args if isinstance(value, torch.Tensor))
        device = torch.device(kwargs.get("device") or next(of_tensors, "cpu"))
        return draw(*args, **kwargs | {"generator": self.generator(device)})


@functools.cache
def _draws(func) -> bool:
    """Whether it is a draw; also tagged, for what they may do, are functions that take no generator: attention, ..."""
    packet = func.overloadpacket
    parameters = {each.name for name in packet.overloads() for each in getattr(packet, name)._schema.arguments}
    tagged = torch.Tag.nondeterministic_seeded in func.tags
    return tagged and ("generator" in parameters or packet.__name__.endswith("_like"))
