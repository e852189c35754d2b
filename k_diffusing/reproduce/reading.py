"""The inputs of a workflow's nodes, checked as they are read; what cannot be known is noted in the recipe."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from k_diffusing.reproduce import values
from k_diffusing.reproduce.graph import Graph, Link, Node
from k_diffusing.reproduce.recipe import Recipe
from k_diffusing.reproduce.values import BadFile

T = TypeVar("T")


class Reading(NamedTuple):
    """A workflow that is being read into a recipe."""

    graph: Graph
    recipe: Recipe

    def whole(self, node: Node, name: str, least: int = 0, most: int = values.MAX_STEPS) -> int | None:
        """A whole number; None, noted, if another node computes it. Raises BadFile for any other value."""
        return self._value(node, name, lambda value, said: values.whole(value, said, least, most))

    def real(self, node: Node, name: str, least: float = -values.MAX_NUMBER) -> float | None:
        """A number. As `whole`."""
        return self._value(node, name, lambda value, said: values.real(value, said, least))

    def text(self, node: Node, name: str) -> str | None:
        """A text. As `whole`."""
        return self._value(node, name, values.text)

    def flag(self, node: Node, name: str) -> bool | None:
        """A yes or a no. As `whole`."""
        return self._value(node, name, values.flag)

    def _value(self, node: Node, name: str, check: Callable[[Any, str], T]) -> T | None:
        said, value = f"{name} of node {node.label}", self.graph.value(node, name)
        if not isinstance(value, Link):
            return check(value, said)
        found = self.graph.source(value)
        if found is None:
            raise BadFile(f"{said} comes from a node that is not there")
        guess = _only(found[0], check)
        supposed = "it is not known here" if guess is None else f"taken to be {values.brief(guess)}"
        self.recipe.lacks(found[0].label, f"computes {said}: {supposed}")
        return guess

    def follow(self, node: Node, *names: str) -> tuple[Node, int] | None:
        """The node, and which of its outputs, that the first linked input of these names comes from."""
        found = (self.graph.source(node.inputs.get(name)) for name in names)
        return next((one for one in found if one), None)

    def onward(self, node: Node, slot: int, *names: str) -> tuple[Node, int] | None:
        """The same for a node that is not known: of its other links, the first if no name is one of these.

        A node with several outputs of a kind has inputs in the same order: `slot` is which output is asked for.
        """
        named = [name for name in names if isinstance(node.inputs.get(name), Link)]
        linked = [name for name, value in node.inputs.items() if isinstance(value, Link)]
        order = [*named[slot : slot + 1], *named, *linked]
        return self.follow(node, *order)


def _only(node: Node, check: Callable[[Any, str], T]) -> T | None:
    """The one value of a node that could be what is asked of it; None if there are more, or none."""
    found = []
    for value in node.inputs.values():
        try:
            found.append(check(value, ""))
        except BadFile:
            continue
    return found[0] if len(found) == 1 else None
