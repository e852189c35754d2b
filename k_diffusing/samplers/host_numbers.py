"""Noise levels as k_diffusion's functions and the pipelines compute with them: on the host, each answer once.

    sigmas = host_grid(sigmas)
    sigmas[0] * 0.5  # a tensor's answer to the last bit, given again when the next run on the grid asks for it

A step works on the latents in a few operations and on noise levels in many, each of which takes torch as long as one on
small latents does. Python's arithmetic takes a tenth of that, and on one grid all runs ask for the same.
"""

import ctypes
import functools
import operator
from collections.abc import Callable
from typing import Any

import torch

REMEMBERED = 2**13  # answers: those of some ten grids, in a few megabytes
MADE = 64  # numbers at a time


class HostNumber(torch.Tensor):
    """A 0-dim tensor on the CPU, whose arithmetic is Python's.

    An operation with other such numbers, or with numbers of Python, is looked up by its operands. Any other is torch's,
    with `plain` in its place. Both are shared, and nothing may be written into them: who might gets a clone of `plain`.
    Python's 0.0 and -0.0 count as one operand.

    Attributes:
        plain: the same as a plain tensor.
        value: the same as a number of Python.
    """

    __hash__ = object.__hash__  # by identity: 0.0 and -0.0 are two numbers
    plain: torch.Tensor
    value: float


class HostGrid(torch.Tensor):
    """A grid [n] of noise levels on the CPU, whose elements are HostNumbers."""

    numbers: tuple[HostNumber, ...]

    def __len__(self) -> int:
        return len(self.numbers)

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


def _number(value: float, dtype: torch.dtype) -> HostNumber:
    try:
        number = _BLANK[dtype].pop()
    except (KeyError, IndexError):
        _BLANK[dtype] = _blanks(dtype)
        return _number(value, dtype)
    number.plain.fill_(value)
    number.value = value
    return number


# Numbers to come, made some at a time: what is small and stays, put where large tensors come and go, leaves holes that
# they do not fit in any more.
_BLANK: dict[torch.dtype, list[HostNumber]] = {}


def _blanks(dtype: torch.dtype) -> list[HostNumber]:
    found = []
    with torch.inference_mode(False):  # what is made in that mode is not for use elsewhere
        for plain in torch.empty(MADE, dtype=dtype, device="cpu").unbind():
            found.append(torch.Tensor._make_subclass(HostNumber, plain))
            found[-1].plain = plain
    return found


@functools.lru_cache(REMEMBERED)
def _answer(name: str, number: HostNumber, *others) -> HostNumber | bool:
    """A tensor's answer to the method: Python's, rounded, where that is the same, else torch's own."""
    dtype = number.dtype
    if name in _EXACT and dtype in _ROUNDED:
        rounded = _ROUNDED[dtype]
        try:
            found = _EXACT[name](number.value, *[_value(other, dtype, rounded) for other in others])
        except (ArithmeticError, ValueError):  # division by 0, and what is not exact
            pass
        else:
            if isinstance(found, bool):
                return found
            return number if found == number.value != 0 else _number(rounded(found), dtype)
    plain = (other.plain if isinstance(other, HostNumber) else other for other in others)
    found = getattr(torch.Tensor, name)(number.plain, *plain)
    return found.item() if found.dtype == torch.bool else _number(found.item(), found.dtype)


def _value(operand: HostNumber | float, dtype: torch.dtype, rounded: Callable[[float], float]) -> float:
    """Of an operand in an operation of that dtype. Raises ValueError for a number of another."""
    if not isinstance(operand, HostNumber):
        return rounded(operand)
    if operand.dtype != dtype:
        raise ValueError(operand.dtype)
    return operand.value


def _squared(base: float, exponent: float) -> float:
    """The square. Raises ValueError for any other power."""
    if exponent == 2:
        return base * base
    raise ValueError(exponent)


# To the nearest number that the dtype has. A sum, a product or a quotient of single precision that is computed in
# double, as Python does, is rounded to what it would be at once (Figueroa 1995). torch's roots are not the nearest.
_ROUNDED: dict[torch.dtype, Callable[[float], float]] = {
    torch.float32: lambda value: ctypes.c_float(value).value,
    torch.float64: float,
}
_EXACT: dict[str, Callable] = {
    **{f"__{name}__": getattr(operator, name) for name in ("add", "sub", "mul", "truediv", "neg", "abs")},
    **{f"__{name}__": getattr(operator, name) for name in ("lt", "le", "gt", "ge", "eq", "ne")},
    **{"neg": operator.neg, "abs": abs, "__pow__": _squared},
    **{"__radd__": operator.add, "__rmul__": operator.mul, "__rsub__": lambda number, other: other - number},
}


def _remembering(name: str) -> Callable:
    """The method of a tensor, looked up where all operands are numbers."""
    operation = getattr(torch.Tensor, name)

    def method(self, *others) -> Any:
        for other in others:
            if not isinstance(other, (HostNumber, float, int)):
                return operation(self.plain, *others)
        return _answer(name, self, *others)

    return method


def _reflected(name: str, forward: str) -> Callable:
    """The method of a right operand. A tensor to the left does not come first, since this is of a subclass."""
    of_tensors, of_numbers = getattr(torch.Tensor, forward), getattr(torch.Tensor, name)

    def method(self, other) -> Any:
        if isinstance(other, torch.Tensor):
            return of_tensors(other, self.plain)
        return _answer(name, self, other) if isinstance(other, (float, int)) else of_numbers(self.plain, other)

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
