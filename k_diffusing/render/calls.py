"""Calls of a network that can be one: the rows of each, with a timestep and a prompt of their own, one after the other.

torch is imported in the functions that need it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

# What FLUX's transformer is told once for all rows: the places of tokens. Every other tensor has a row for each.
OF_ALL_ROWS = ("img_ids", "txt_ids")


class Call(NamedTuple):
    """A call of a network, or of what turns latents into pictures.

    Attributes:
        function: What is called.
        args: Its arguments; the first of these, or of the keywords, is the network's input.
        kwargs: Its keywords.
        decodes: Whether it makes pictures, which is done for each by itself.
    """

    function: Callable
    args: tuple
    kwargs: dict[str, Any]
    decodes: bool = False

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return len(self.given)

    @property
    def given(self) -> Any:
        """The network's input, or the latents."""
        return next(iter((*self.args, *self.kwargs.values())))

    def answer(self) -> Any:
        """What the function returns."""
        return self.function(*self.args, **self.kwargs)

    def joins(self, other: "Call") -> bool:
        """Whether both can be one call: rows of the same shapes and dtypes, and everything else alike."""
        if self.decodes or other.decodes or self.function is not other.function:
            return False
        return _alike(list(self.args), list(other.args)) and _alike(self.kwargs, other.kwargs)


def answers(calls: list[Call]) -> list[Any]:
    """What each call returns: by one call of the network if they are several, which must join.

    A network returns a tuple, whose first part has the rows.
    """
    if len(calls) == 1:
        return [calls[0].answer()]
    args = _joined([list(call.args) for call in calls])
    rows = calls[0].function(*args, **_joined([call.kwargs for call in calls]))[0].split([call.rows for call in calls])
    return [(part,) for part in rows]


class Once:
    """Tensors of which each content is kept once, so that they can be told apart without looking into them again.

    A run gives the same tensors in each of its calls. Their contents are looked at in the first one alone, since a GPU
    has to be waited for.
    """

    def __init__(self):
        self.kept: list[Any] = []

    def of_run(self) -> Callable[[dict[str, Any]], dict[str, Any]]:
        """What changes the keywords of a run's calls, so that what is alike in several runs is one object."""
        seen: list[tuple] = []

        def kept(tensor):
            for given, known in seen:
                if given is tensor:
                    return known
            seen.append((tensor, self._known(tensor)))
            return seen[-1][1]

        return lambda kwargs: kwargs | {name: kept(kwargs[name]) for name in OF_ALL_ROWS if name in kwargs}

    def _known(self, tensor):
        import torch

        same = (known for known in self.kept if known.dtype == tensor.dtype and torch.equal(known, tensor))
        found = next(same, None)
        if found is None:
            self.kept.append(found := tensor)
        return found


def _alike(one: Any, other: Any, name: str | None = None) -> bool:
    import torch

    if one is other:
        return True
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(value, other[key], key) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if not (isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)):
        return type(one) is type(other) and one == other
    if name in OF_ALL_ROWS:
        return False  # another object has another content: see Once
    return (one.shape[1:], one.dtype, one.device) == (other.shape[1:], other.dtype, other.device)


def _joined(values: list[Any], name: str | None = None) -> Any:
    import torch

    first = values[0]
    if isinstance(first, dict):
        return {key: _joined([value[key] for value in values], key) for key in first}
    if isinstance(first, list):
        return [_joined(list(parts)) for parts in zip(*values, strict=True)]
    if isinstance(first, torch.Tensor) and name not in OF_ALL_ROWS:
        return torch.cat(values)
    return first
