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

    def end(self, value: Any) -> Any:
        """Where a link leads past reroutes, switches and primitives: a Link, or a value; what is no link is itself.

        Raises:
            BadFile: They lead in a circle.
        """
        passed = set()
        while isinstance(value, Link) and (node := self.nodes.get(value.node)):
            if node.id in passed:
                raise BadFile(f"node {node.label}: its links lead in a circle")
            passed.add(node.id)
            if node.kind in nodes.PRIMITIVES:
                return node.inputs.get("value", nodes.default(node.kind, "value"))
            if node.kind == "Reroute":
                value = next((one for one in node.inputs.values() if isinstance(one, Link)), None)
            elif (side := self._switched(node)) is not None:
                value = node.inputs.get(side)
            else:
                return value
        return value

    def _switched(self, node: Node) -> str | None:
        """The input that a switch passes on; None if it is no switch, or its setting is computed."""
        setting = node.inputs.get("switch")
        if isinstance(setting, Link) and (found := self.nodes.get(setting.node)) and found.kind in nodes.PRIMITIVES:
            setting = found.inputs.get("value")
        if node.kind != "ComfySwitchNode" or not isinstance(setting, bool):
            return None
        return "on_true" if setting else "on_false"

    def source(self, value: Any) -> tuple[Node, int] | None:
        """The node that a link comes from, and which of its outputs; None for what is no link, or leads nowhere."""
        end = self.end(value)
        return (self.nodes[end.node], end.slot) if isinstance(end, Link) and end.node in self.nodes else None

    def value(self, node: Node, name: str) -> Any:
        """An input's value: the node's own, that of a primitive, the default; a Link if another node computes it."""
        return self.end(node.inputs.get(name, nodes.default(node.kind, name)))


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
