"""What is bound anew of k_diffusion, in a copy of a function made for one call.

There is nothing to restore when a sampler raises and nothing that another thread could see.
"""

import inspect
import types
from collections.abc import Callable
from typing import Any

import torch


def to_d(x: torch.Tensor, sigma: torch.Tensor, denoised: torch.Tensor) -> torch.Tensor:
    """The derivative dx/dsigma of the probability-flow ODE (Karras et al. 2022, eq. 3); sigma is 0-dim or [B]."""
    if sigma.ndim == 0:
        return (x - denoised).div_(sigma)
    return (x - denoised) / sigma.reshape(-1, *[1] * (x.ndim - 1))


class Bound:
    """A module with some of its names bound anew; the module itself is left as it is."""

    def __init__(self, module, **names):
        self.__dict__.update(names, _module=module)

    def __getattr__(self, name):
        return getattr(self._module, name)


def rebound(function: Callable, names: dict[str, Any]) -> Callable:
    """A copy of a Python function that sees `names` in place of the globals it uses by those names.

    The function itself if it uses none of them, or is not written in Python.
    """
    plain = inspect.unwrap(function)
    if not isinstance(plain, types.FunctionType):
        return function
    names = {name: value for name, value in names.items() if name in plain.__globals__}
    if not names:
        return function
    namespace = {**plain.__globals__, **names}
    copy = types.FunctionType(plain.__code__, namespace, plain.__name__, plain.__defaults__, plain.__closure__)
    copy.__kwdefaults__ = plain.__kwdefaults__
    return torch.no_grad()(copy)
