"""A workflow of ComfyUI as its editor saves it, made the graph that it runs.

Reroutes, primitives, muted and bypassed nodes and subgraphs are the editor's own: only their effect remains.
"""

from dataclasses import dataclass, field
from typing import Any

from k_diffusing.reproduce.graph import MAX_NODES, Graph, Link, Node
from k_diffusing.reproduce.nodes import named_values
from k_diffusing.reproduce.values import BadFile, brief

MUTED, BYPASSED = 2, 4
ENTRANCE, EXIT = "-10", "-20"  # of a subgraph: the nodes that stand for its inputs and outputs
MAX_DEPTH = 32  # of subgraphs in subgraphs
MAX_SIZE = 100_000  # nodes and links of all subgraphs, each counted where it is used


@dataclass(frozen=True)
class Sheet:
    """The nodes of one level: the workflow's own, or a subgraph's where it is used.

    Attributes:
        prefix: Begins the ids of its nodes: "" or "5:".
        nodes: As the file has them, by id.
        links: (node, slot) that each link comes from, by the link's id.
        exits: The link to each output of a subgraph, by slot.
        around: The sheet that a subgraph is used in, and the node it is there.
        inner: The sheets of the subgraphs used in this one, by the node's id.
    """

    prefix: str
    nodes: dict[str, dict]
    links: dict[str, tuple[str, int]]
    exits: dict[int, str]
    around: tuple["Sheet", dict] | None = None
    inner: dict[str, "Sheet"] = field(default_factory=dict)

    @property
    def depth(self) -> int:
        """How many subgraphs it lies in."""
        return self.prefix.count(":")


def editor_graph(content: dict[str, Any]) -> Graph:
    """A graph from a saved workflow.

    Args:
        content: {"nodes": [...], "links": [...], "definitions": {"subgraphs": [...]}}.

    Raises:
        BadFile: It is none, or leads in a circle.
    """
    listed = _part(_part(content, "definitions", dict), "subgraphs", list)
    subgraphs = {str(one["id"]): one for one in listed if isinstance(one, dict) and "id" in one}
    sheets = _sheets(content, subgraphs)
    found = {}
    for sheet in sheets:
        for key, node in sheet.nodes.items():
            if key not in sheet.inner and node.get("mode") not in (MUTED, BYPASSED) and _in_use(sheet):
                found[sheet.prefix + key] = _node(sheet, key, node)
    return Graph(found)


def _in_use(sheet: Sheet) -> bool:
    """Whether the subgraph is neither muted nor bypassed, nor is one that it lies in."""
    while sheet.around:
        sheet, instance = sheet.around
        if instance.get("mode") in (MUTED, BYPASSED):
            return False
    return True


def _sheets(content: dict[str, Any], subgraphs: dict[str, dict]) -> list[Sheet]:
    """The workflow's own sheet, and those of all subgraphs in it."""
    sheets, size = [_sheet(content, "", None)], 0
    for sheet in sheets:  # which grows
        for key, node in sheet.nodes.items():
            inside = subgraphs.get(str(node["type"]))
            if inside is None:
                continue
            if sheet.depth >= MAX_DEPTH:
                raise BadFile(f"node {sheet.prefix}{key}: subgraphs lie in each other without end")
            size += 1 + len(_part(inside, "nodes", list)) + len(_part(inside, "links", list))
            if size > MAX_SIZE:
                raise BadFile(f"the workflow's subgraphs have more than {MAX_SIZE:,} nodes and links in all")
            sheet.inner[key] = _sheet(inside, f"{sheet.prefix}{key}:", (sheet, node))
            sheets.append(sheet.inner[key])
    return sheets


def _sheet(content: dict[str, Any], prefix: str, around: tuple[Sheet, dict] | None) -> Sheet:
    found, links, exits = {}, {}, {}
    listed = _part(content, "nodes", list)
    if len(listed) > MAX_NODES:
        raise BadFile(f"the workflow has {len(listed):,} nodes: at most {MAX_NODES:,} are read")
    for node in listed:
        if not isinstance(node, dict) or not isinstance(node.get("type"), str) or not _is_id(node.get("id")):
            raise BadFile(f"a node of the workflow is {brief(node)}, without an id or a type")
        found[str(node["id"])] = node
    for link in _part(content, "links", list):
        key, origin, slot, target, place = _link(link)
        links[key] = (origin, slot)
        if target == EXIT:
            exits[place] = key
    return Sheet(prefix, found, links, exits, around)


def _link(link: Any) -> tuple[str, str, int, str, int]:
    """A link's id, the node and slot it comes from, those it leads to: a list, or an object in newer files."""
    names = ("id", "origin_id", "origin_slot", "target_id", "target_slot")
    parts = [link.get(name) for name in names] if isinstance(link, dict) else link
    if not (isinstance(parts, list) and len(parts) >= 5 and all(_is_id(part) for part in parts[:5])):
        raise BadFile(f"a link of the workflow is {brief(link)}: it has an id, two nodes and two slots")
    if not (isinstance(parts[2], int) and isinstance(parts[4], int)):
        raise BadFile(f"link {parts[0]} of the workflow: its slots are {brief(parts[2])} and {brief(parts[4])}")
    return str(parts[0]), str(parts[1]), parts[2], str(parts[3]), parts[4]


def _is_id(value: Any) -> bool:
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def _part(content: dict[str, Any], name: str, kind: type) -> Any:
    """A list or an object of the file, empty where there is none. Raises BadFile where it is something else."""
    value = content.get(name)
    if value is not None and not isinstance(value, kind):
        raise BadFile(f"the workflow's {name} is {brief(value)}, no {'list' if kind is list else 'object'}")
    return value or kind()


def _slots(node: dict) -> list[dict]:
    """A node's inputs, as the file lists them."""
    return [one for one in _part(node, "inputs", list) if isinstance(one, dict)]


def _values(node: dict) -> dict[str, Any]:
    """The values of a node's widgets, by name."""
    values = node.get("widgets_values") or []
    if isinstance(values, dict):
        return {str(name): value for name, value in values.items()}
    if not isinstance(values, list):
        raise BadFile(f"node {node['id']} {node['type']}: its widgets_values is {brief(values)}, no list")
    return named_values(node["type"], values, [str(one.get("name")) for one in _slots(node) if one.get("widget")])


def _node(sheet: Sheet, key: str, node: dict) -> Node:
    inputs = _values(node)
    for slot in _slots(node):
        if slot.get("link") is not None:
            found = _origin(sheet, str(slot["link"]))
            if found is not None:
                inputs[str(slot.get("name"))] = found[0]
            elif not slot.get("widget"):
                inputs.pop(str(slot.get("name")), None)
    return Node(sheet.prefix + key, node["type"], inputs)


def _origin(sheet: Sheet, link: str) -> tuple[Any] | None:
    """What comes over a link: (a Link,) or (a value,). None where nothing does."""
    passed = set()
    while link in sheet.links:
        if (sheet.prefix, link) in passed:
            raise BadFile(f"link {sheet.prefix}{link}: the workflow's links lead in a circle")
        passed.add((sheet.prefix, link))
        key, slot = sheet.links[link]
        if key == ENTRANCE and sheet.around:
            sheet, instance = sheet.around
            entrance = _slots(instance)[slot : slot + 1] if slot >= 0 else []
            if not entrance or entrance[0].get("link") is None:
                return _promoted(instance, entrance)
            link = str(entrance[0]["link"])
            continue
        node = sheet.nodes.get(key)
        if node is None or node.get("mode") == MUTED:
            return None
        if key in sheet.inner and node.get("mode") != BYPASSED:
            sheet = sheet.inner[key]
            link = sheet.exits.get(slot, "")
        elif node["type"] == "PrimitiveNode":
            values = node.get("widgets_values")
            return (values[0],) if isinstance(values, list) and values else None
        elif node["type"] == "Reroute" or node.get("mode") == BYPASSED:
            link = _passed_on(node, slot)
        else:
            return (Link(sheet.prefix + key, slot),)
    return None


def _promoted(instance: dict, entrance: list[dict]) -> tuple[Any] | None:
    """The value of a subgraph's widget, where the node that stands for the subgraph has it."""
    names = [one.get("name") for one in _slots(instance) if one.get("widget")]
    values = instance.get("widgets_values")
    if entrance and isinstance(values, list) and len(values) == len(names) and entrance[0].get("name") in names:
        return (values[names.index(entrance[0].get("name"))],)
    return None


def _passed_on(node: dict, slot: int) -> str:
    """The link that a reroute or a bypassed node passes on for an output: of its type, that in the same place first."""
    inputs, outputs = _slots(node), _part(node, "outputs", list)
    if node["type"] == "Reroute":
        same = inputs
    else:
        kind = outputs[slot].get("type") if 0 <= slot < len(outputs) and isinstance(outputs[slot], dict) else None
        same = [one for one in inputs if one.get("type") == kind and kind is not None]
        same.sort(key=lambda one: inputs.index(one) != slot)
    return next((str(one["link"]) for one in same if one.get("link") is not None), "")
