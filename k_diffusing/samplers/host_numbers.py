"""Noise levels as k_diffusion's functions and the pipelines compute with them: by torch, once.

    sigmas = host_grid(sigmas)
    sigmas[0].log().neg()  # torch's own answer, given again when the next run on the grid asks for it

A step works on the latents in a few operations and on noise levels in many, each of which takes as long as one on small
latents does. On one grid all runs ask for the same.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch

REMEMBERED = 2**13  # answers: those of some ten grids, in a few megabytes


class HostNumber(torch.Tensor):
    """A 0-dim tensor on the CPU, for which torch's answers are remembered.

    An operation with other such numbers, or with numbers of Python, is looked up by its operands. Any other is torch's,
    with `plain` in its place. Both are shared, and nothing may be written into them: who might gets a clone of `plain`.
    Python's 0.0 and -0.0 count as one operand.

    Attributes:
        plain: the same as a plain tensor.
    """

    __hash__ = object.__hash__  # by identity: 0.0 and -0.0 are two numbers
    plain: torch.Tensor


class HostGrid(torch.Tensor):
    """A grid [n] of noise levels on the CPU, whose elements are HostNumbers."""

    numbers: tuple[HostNumber, ...]

    def __getitem__(self, index: Any) -> torch.Tensor:
        return self.numbers[index] if type(index) is int else super().__getitem__(index)


def host_grid(sigmas: torch.Tensor) -> HostGrid:
    """The grid, a tensor [n] on the CPU, with what is remembered of its levels."""
    grid = torch.Tensor._make_subclass(HostGrid, sigmas)
    grid.numbers = tuple(_level(value.hex(), sigmas.dtype) for value in sigmas.tolist())
    return grid


@functools.lru_cache(REMEMBERED)
def _level(value: str, dtype: torch.dtype) -> HostNumber:
    return _number(float.fromhex(value), dtype)


@torch.inference_mode(False)  # what is made there is not for use elsewhere
def _number(value: float, dtype: torch.dtype) -> HostNumber:
    plain = torch.tensor(value, dtype=dtype, device="cpu")
    number = torch.Tensor._make_subclass(HostNumber, plain)
    number.plain = plain
    return number


@functools.lru_cache(REMEMBERED)
def _answer(operation: Callable, *operands) -> HostNumber | bool:
    found = operation(*(number.plain if isinstance(number, HostNumber) else number for number in operands))
    return found.item() if found.dtype == torch.bool else _number(found.item(), found.dtype)


def _remembering(name: str) -> Callable:
    """The method of a tensor, looked up where all operands are numbers."""
    operation = getattr(torch.Tensor, name)

    def method(self, *others) -> Any:
        for other in others:
            if not isinstance(other, (HostNumber, float, int)):
                return operation(self.plain, *others)
        return _answer(operation, self, *others)

    return method


def _reflected(name: str, forward: str) -> Callable:
    """The method of a right operand. A tensor to the left does not come first, since this is of a subclass."""
    of_tensors, of_numbers = getattr(torch.Tensor, forward), getattr(torch.Tensor, name)

    def method(self, other) -> Any:
        if isinstance(other, torch.Tensor):
            return of_tensors(other, self.plain)
        return _answer(of_numbers, self, other) if isinstance(other, (float, int)) else of_numbers(self.plain, other)

    return method


for _kind in (HostNumber, HostGrid):  # what torch makes of them is a plain tensor
    setattr(_kind, "__torch_function__", torch._C._disabled_torch_function_impl)  # noqa: B010 - of another type
_METHODS = ("neg", "abs", "sqrt", "log", "exp", "expm1", "lerp", "__neg__", "__abs__")
_METHODS += ("__lt__", "__le__", "__gt__", "__ge__", "__eq__", "__ne__")
for _name in _METHODS:
    setattr(HostNumber, _name, _remembering(_name))
for _name in ("add", "sub", "mul", "truediv", "pow"):
    setattr(HostNumber, f"__{_name}__", _remembering(f"__{_name}__"))
    setattr(HostNumber, f"__r{_name}__", _reflected(f"__r{_name}__", f"__{_name}__"))
