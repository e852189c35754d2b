"""A workflow of ComfyUI as nodes and the links between them, from what it runs: its API form."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from k_diffusing.reproduce import nodes
from k_diffusing.reproduce.values import BadFile, brief

MAX_NODES = 20_000


class Link(NamedTuple):
    """An output of a node: the node's id, and which of its outputs."""

    node: str
    slot: int


@dataclass(frozen=True)
class Node:
    """A node.

    Attributes:
        id: Its number; in subgraphs after that of the node it is in: "5:3".
        kind: Its class.
        inputs: Values, and links, by name.
    """

    id: str
    kind: str
    inputs: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """What it is called in tables and messages."""
        return f"{self.id} {self.kind}"


@dataclass(frozen=True)
class Graph:
    """Nodes by their ids."""

    nodes: dict[str, Node]

    def source(self, value: Any) -> tuple[Node, int] | None:
        """The node that a link comes from, past reroutes; None for what is no link, or leads nowhere.

        Raises:
            BadFile: Reroutes lead in a circle.
        """
        passed = set()
        while isinstance(value, Link):
            node = self.nodes.get(value.node)
            if node is None:
                return None
            if node.kind != "Reroute":
                return node, value.slot
            if node.id in passed:
                raise BadFile(f"node {node.label}: its links lead in a circle")
            passed.add(node.id)
            value = next((one for one in node.inputs.values() if isinstance(one, Link)), None)
        return None

    def value(self, node: Node, name: str) -> Any:
        """An input's value: the node's own, that of a primitive, the default; a Link if another node computes it."""
        value = node.inputs.get(name, nodes.default(node.kind, name))
        found = self.source(value)
        if found and found[0].kind in nodes.PRIMITIVES:
            return found[0].inputs.get("value", nodes.default(found[0].kind, "value"))
        return value


def api_graph(content: dict[str, Any]) -> Graph:
    """A graph from what ComfyUI runs: {id: {"class_type": ..., "inputs": {...}}}.

    Raises:
        BadFile: It is none.
    """
    if len(content) > MAX_NODES:
        raise BadFile(f"the workflow has {len(content):,} nodes: at most {MAX_NODES:,} are read")
    found = {}
    for key, node in content.items():
        if not isinstance(node, dict) or not isinstance(node.get("class_type"), str):
            raise BadFile(f"node {brief(key)} of the workflow is {brief(node)}, without a class_type")
        inputs = node.get("inputs", {})
        if not isinstance(inputs, dict):
            raise BadFile(f"node {key} {node['class_type']}: its inputs are {brief(inputs)}, no object")
        found[str(key)] = Node(str(key), node["class_type"], {name: _input(one) for name, one in inputs.items()})
    return Graph(found)


def _input(value: Any) -> Any:
    """A link where it is one: [id, slot]."""
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], (str, int)) and isinstance(value[1], int):
        return Link(str(value[0]), value[1])
    return value
