"""Workflows as ComfyUI's editor saves them say the same as what it runs."""

import pytest
from workflows import Editor, edited_sdxl, sdxl, write_json

from k_diffusing import read_recipe
from k_diffusing.reproduce.call import calls_of
from k_diffusing.reproduce.values import BadFile


@pytest.fixture
def call(tmp_path):
    def call(content):
        recipe = read_recipe(write_json(tmp_path / "edited.json", content))
        assert recipe.complete, recipe.gaps
        [one] = calls_of(recipe)
        return one

    return call


@pytest.fixture
def expected(tmp_path):
    return calls_of(read_recipe(write_json(tmp_path / "api.json", sdxl())))[0]


def linked(editor, key, name):
    """The slot of an input, to give it another link."""
    found = next(node for node in editor.nodes if node["id"] == key)
    return next((i, slot) for i, slot in enumerate(found["inputs"]) if slot["name"] == name)


def relink(editor, key, name, origin):
    i, slot = linked(editor, key, name)
    slot["link"] = editor.link(origin, key, i, slot["type"])


def test_the_same_call_as_of_what_is_run(call, expected):
    assert call(edited_sdxl().json()) == expected


def test_links_as_objects(call, expected):
    content = edited_sdxl().json()
    names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    content["links"] = [dict(zip(names, link, strict=True)) for link in content["links"]]
    assert call(content) == expected


def test_values_by_name(call, expected):
    content = edited_sdxl().json()
    content["nodes"][1]["widgets_values"] = {"width": 128, "height": 128, "batch_size": 1}
    assert call(content) == expected


def test_reroutes_and_primitives(call, expected):
    editor = edited_sdxl()
    editor.add(20, "Reroute", None, [("", "*", (4, 0))])
    editor.add(21, "PrimitiveNode", [5, "fixed"], outputs=("INT",))
    relink(editor, 3, "model", (20, 0))
    slot = {"name": "seed", "type": "INT", "link": editor.link((21, 0), 3, 4, "INT"), "widget": {"name": "seed"}}
    sampler = next(node for node in editor.nodes if node["id"] == 3)
    sampler["inputs"].append(slot)
    sampler["widgets_values"][0] = 999
    assert call(editor.json()) == expected


@pytest.mark.parametrize("mode", [2, 4])
def test_muted_and_bypassed_nodes(call, expected, mode):
    editor = edited_sdxl()
    inputs = [("model", "MODEL", (4, 0)), ("clip", "CLIP", (4, 1))]
    editor.add(20, "LoraLoader", ["x.safetensors", 1, 1], inputs, ("MODEL", "CLIP"), mode)
    if mode == 4:
        relink(editor, 6, "clip", (20, 1))
        relink(editor, 3, "model", (20, 0))
    assert call(editor.json()) == expected


def test_the_number_after_a_seed_is_no_input(call):
    editor = edited_sdxl()
    next(node for node in editor.nodes if node["id"] == 3)["widgets_values"].remove("randomize")
    assert call(editor.json()).keywords["num_inference_steps"] == 6  # files from before there was one


def subgraph(values=None):
    """The prompt's node in a subgraph; its text is an input of it."""
    editor = edited_sdxl()
    editor.nodes = [node for node in editor.nodes if node["id"] != 6]
    inputs = [("clip", "CLIP", (4, 1)), ("text", "STRING", None, "widget")]
    editor.add(30, "abc-def", values, inputs, ("CONDITIONING",))
    relink(editor, 3, "positive", (30, 0))
    inner = Editor()
    told = [("clip", "CLIP", (-10, 0)), ("text", "STRING", (-10, 1), "widget")]
    inner.add(6, "CLIPTextEncode", ["a large yellow square"], told, ("CONDITIONING",))
    inner.link((6, 0), -20, 0, "CONDITIONING")
    names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    links = [dict(zip(names, link, strict=True)) for link in inner.links]
    definition = {"id": "abc-def", "nodes": inner.nodes, "links": links, "inputs": [{}, {}], "outputs": [{}]}
    return editor, definition


def test_subgraphs(call, expected):
    editor, definition = subgraph()
    assert call(editor.json(definitions={"subgraphs": [definition]})) == expected


def test_a_subgraphs_own_value(call):
    editor, definition = subgraph(["another text"])
    assert call(editor.json(definitions={"subgraphs": [definition]})).keywords["prompt"] == "another text"


def test_a_subgraph_in_itself(tmp_path):
    editor, definition = subgraph()
    inner = Editor()
    inner.add(1, "abc-def")
    definition["nodes"] += inner.nodes
    content = editor.json(definitions={"subgraphs": [definition]})
    with pytest.raises(BadFile, match="without end"):
        read_recipe(write_json(tmp_path / "a.json", content))


def test_subgraphs_that_multiply(tmp_path):
    editor, definition = subgraph()
    levels = [{"id": f"level-{i}", "nodes": [{"id": j, "type": f"level-{i + 1}"} for j in range(30)]} for i in range(9)]
    editor.add(99, "level-0")
    content = editor.json(definitions={"subgraphs": [definition, *levels]})
    with pytest.raises(BadFile, match="more than 100,000"):
        read_recipe(write_json(tmp_path / "a.json", content))


def test_links_in_a_circle(tmp_path):
    editor = edited_sdxl()
    editor.add(20, "Reroute", None, [("", "*", (21, 0))])
    editor.add(21, "Reroute", None, [("", "*", (20, 0))])
    relink(editor, 3, "model", (20, 0))
    with pytest.raises(BadFile, match="circle"):
        read_recipe(write_json(tmp_path / "a.json", editor.json()))
