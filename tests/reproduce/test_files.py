"""Where programs put what they tell, and files that tell nothing: a clear error for each."""

import json
import os
import struct
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from workflows import Editor, edited_sdxl, flux, node, sdxl, write_json, write_picture

from k_diffusing import read_recipe
from k_diffusing.reproduce.call import calls_of
from k_diffusing.reproduce.files import USER_COMMENT, user_comment
from k_diffusing.reproduce.show import gaps_text, python, table
from k_diffusing.reproduce.values import BadFile

PARAMETERS = "ein großer Kreis, 大きな円\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 64x64"
MAKE, MODEL, EXIF = 0x010F, 0x0110, 0x8769


def picture():
    return Image.new("RGB", (8, 8), "red")


def prompt_of(recipe):
    return recipe.stages[0].prompt.text


def test_png_of_comfyui(tmp_path):
    run, edited = sdxl(), edited_sdxl().json()
    both = write_picture(tmp_path / "both.png", prompt=json.dumps(run), workflow=json.dumps(edited))
    assert read_recipe(both).source == "ComfyUI's workflow, API form"  # what was run
    one = write_picture(tmp_path / "one.png", workflow=json.dumps(edited))
    assert calls_of(read_recipe(one)) == calls_of(read_recipe(both))


@pytest.mark.parametrize("suffix", ["webp", "jpg"])
def test_exif_of_comfyui(tmp_path, suffix):
    image, exif = picture(), Image.Exif()
    exif[MODEL] = f"prompt:{json.dumps(sdxl())}"
    exif[MAKE] = f"workflow:{json.dumps(edited_sdxl().json())}"
    image.save(tmp_path / f"a.{suffix}", exif=exif)
    assert prompt_of(read_recipe(tmp_path / f"a.{suffix}")) == "a large yellow square"


@pytest.mark.parametrize("suffix", ["webp", "jpg"])
@pytest.mark.parametrize("order", ["utf-16-be", "utf-16-le"])
def test_exif_of_a1111(tmp_path, suffix, order):
    image, exif = picture(), Image.Exif()
    exif[EXIF] = {USER_COMMENT: b"UNICODE\0" + PARAMETERS.encode(order)}
    image.save(tmp_path / f"a.{suffix}", exif=exif)
    assert prompt_of(read_recipe(tmp_path / f"a.{suffix}")) == "ein großer Kreis, 大きな円"


def test_other_user_comments():
    assert user_comment(b"ASCII\0\0\0abc") == user_comment(b"\0" * 8 + b"abc") == user_comment("abc") == "abc"


def test_png_of_a1111(tmp_path):
    assert (
        prompt_of(read_recipe(write_picture(tmp_path / "a.png", parameters=PARAMETERS))) == "ein großer Kreis, 大きな円"
    )


def with_chunk(path, kind, content):
    """A picture with a chunk before its data."""
    picture().save(path)
    png = path.read_bytes()
    chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    path.write_bytes(png[:33] + chunk + png[33:])
    return path


def test_utf_8_where_latin_1_belongs(tmp_path):
    path = with_chunk(tmp_path / "a.png", b"tEXt", b"parameters\0" + PARAMETERS.encode())
    assert prompt_of(read_recipe(path)) == "ein großer Kreis, 大きな円"
    path = with_chunk(
        tmp_path / "b.png", b"tEXt", b"parameters\0" + "Größe\nSteps: 1, Sampler: Euler, Seed: 1".encode("latin-1")
    )
    assert prompt_of(read_recipe(path)) == "Größe"


def test_a_text_file(tmp_path):
    (tmp_path / "a.txt").write_text(PARAMETERS, encoding="utf-8")
    assert prompt_of(read_recipe(tmp_path / "a.txt")) == "ein großer Kreis, 大きな円"


# Files that tell nothing.


def refused(path, *said):
    with pytest.raises(BadFile) as error:
        read_recipe(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600
    for words in said:
        assert words in str(error.value)


def test_a_picture_without_texts(tmp_path):
    picture().save(tmp_path / "a.png")
    refused(tmp_path / "a.png", "does not tell how it was made", "no texts")
    refused(write_picture(tmp_path / "b.png", Comment="hello"), "'Comment'")


def test_no_such_file(tmp_path):
    refused(tmp_path / "none.png", "none.png cannot be read")
    refused(tmp_path, "cannot be read")


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b"\x89PNG\r\n", b"MZ\0\0", b"hello", b"{", b"[]", b"{}", b"null", b"{1:2}"]
)
def test_no_workflow(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    refused(tmp_path / "a.json")


def test_a_picture_cut_short(tmp_path):
    Image.frombytes("RGB", (64, 64), os.urandom(64 * 64 * 3)).save(tmp_path / "whole.png")
    content = write_picture(tmp_path / "a.png", Image.open(tmp_path / "whole.png"), parameters=PARAMETERS).read_bytes()
    for end in (20, 60, len(content) // 2):
        (tmp_path / "a.png").write_bytes(content[:end])
        refused(tmp_path / "a.png", "cut short or damaged")


def test_a_huge_text(tmp_path):
    with_chunk(tmp_path / "a.png", b"zTXt", b"parameters\0\0" + zlib.compress(b"a" * 2**23))
    refused(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes(b"a" * (2**24 + 1))
    refused(tmp_path / "a.txt", "at most")


def test_a_huge_picture(tmp_path):
    """Of 30,000 x 30,000 pixels, as its header says."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    picture().save(tmp_path / "a.png")
    chunk = b"IHDR" + header
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[33:])
    refused(tmp_path / "a.png")


def test_deep_json(tmp_path):
    (tmp_path / "a.json").write_text('{"a":' + "[" * 200_000 + "]" * 200_000 + "}")
    refused(tmp_path / "a.json", "nested too deeply")


def test_many_nodes(tmp_path):
    refused(write_json(tmp_path / "a.json", {str(i): node("Note") for i in range(20_001)}), "20,001 nodes")


def test_long_chains_are_read(tmp_path):
    """Longer than Python's recursion goes."""
    workflow = sdxl(n3=None)
    for i in range(1000, 6000):
        workflow[str(i)] = node("LoraLoaderModelOnly", model=(str(i - 1) if i > 1000 else "4", 0), lora_name="x")
    workflow["3"] = sdxl()["3"] | {"inputs": {**sdxl()["3"]["inputs"], "model": ["5999", 0]}}
    assert len(read_recipe(write_json(tmp_path / "a.json", workflow)).stages[0].loras) == 5000


CIRCLES = {
    "reroute": {"n20": node("Reroute", x=("20", 0))},
    "network": {
        "n20": node("LoraLoaderModelOnly", model=("21", 0)),
        "n21": node("LoraLoaderModelOnly", model=("20", 0)),
    },
}


@pytest.mark.parametrize("changed", CIRCLES.values(), ids=CIRCLES)
def test_circles(tmp_path, changed):
    workflow = sdxl(**changed)
    workflow["3"]["inputs"]["model"] = ["20", 0]
    path = write_json(tmp_path / "a.json", workflow)
    if "n21" in changed:
        refused(path, "circle")
    else:
        refused(path, "circle")
    workflow = sdxl()
    workflow["3"]["inputs"]["latent_image"] = ["3", 0]
    refused(write_json(tmp_path / "b.json", workflow), "3 KSampler", "circle")


def test_nothing_that_samples(tmp_path):
    refused(write_json(tmp_path / "a.json", sdxl(n8=node("LoadImage", image="a.png"))), "no sampler leads to node 9")
    refused(write_json(tmp_path / "b.json", {"1": node("Note")}), "no node that saves a picture")
    refused(write_json(tmp_path / "c.json", Editor().json()), "no node that saves a picture")


@pytest.mark.parametrize(
    "name, value",
    [("seed", "x"), ("seed", -1), ("steps", 1.5), ("steps", 0), ("steps", True), ("cfg", None), ("cfg", float("nan")),
     ("cfg", 1e300), ("sampler_name", 3), ("scheduler", ["a"]), ("denoise", {}), ("steps", 10**400)],
)  # fmt: skip
def test_values_of_a_wrong_kind(tmp_path, name, value):
    workflow = sdxl()
    workflow["3"]["inputs"][name] = value
    refused(write_json(tmp_path / "a.json", workflow), f"{name} of node 3 KSampler")


def test_what_is_told_acts_on_no_terminal(tmp_path):
    workflow = sdxl(n6=node("CLIPTextEncode", text="a\x1b[2J\x07 \ud800 square", clip=("4", 1)))
    recipe = read_recipe(write_json(tmp_path / "a.json", workflow))
    assert not any(ord(letter) < 32 and letter != "\n" for letter in table(recipe) + python(recipe))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 30) | st.floats() | st.text(max_size=8) | st.sampled_from(["3", "4"]),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from("id type mode inputs link".split()), inner)
    ),
    max_leaves=8,
)
PLACES = [("api", sdxl), ("api", flux), ("editor", lambda: edited_sdxl().json())]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), value=VALUES)
@pytest.mark.parametrize("kind, make", PLACES, ids=["sdxl", "flux", "editor"])
def test_anything_anywhere(tmp_path, kind, make, data, value):
    """Whatever stands in a workflow's place, it is read or refused."""
    content = make()
    at, path = content, []
    while isinstance(at, (dict, list)) and at and (len(path) < 1 or data.draw(st.booleans())):
        path.append(data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at)))))
        at, before = at[path[-1]], at
    before[path[-1]] = value
    try:
        recipe = read_recipe(write_json(tmp_path / "a.json", content))
    except BadFile:
        return
    assert table(recipe) and python(recipe) and gaps_text(recipe)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=VALUES | st.dictionaries(st.sampled_from(["nodes", "links", "prompt", "definitions", "1"]), VALUES))
def test_any_json(tmp_path, content):
    with pytest.raises(BadFile):
        read_recipe(write_json(tmp_path / "a.json", content))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(max_size=200)
    | st.lists(st.sampled_from(["Steps: ", "3", ", ", "Seed: ", '"', "Size: 6x6", "\n"])).map("".join)
)
def test_any_text(tmp_path, text):
    path = write_picture(tmp_path / "a.png", parameters=text.encode("utf-8", "replace").decode() or " ")
    try:
        assert table(read_recipe(path))
    except BadFile:
        return
