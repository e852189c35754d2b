"""The page of a grid: every picture is on it, what it offers at first, and that nothing in a cell can break out."""

import base64
import io
import json
import re
from html import unescape

import pytest
from page_elements import HOSTILE, Elements
from PIL import Image

from k_diffusing.render.page import grid_page

AXES = {"model": "shapes", "sampler": "euler", "steps": 28, "seed": 0, "prompt": "a square", "eta": None}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One picture of each kind."""
    folder = tmp_path_factory.mktemp("pictures")
    Image.effect_noise((48, 32), 50).convert("RGB").save(folder / "small.png")
    Image.effect_noise((640, 320), 50).convert("RGB").save(folder / "large.png")
    Image.new("RGBA", (20, 20), (255, 0, 0, 128)).save(folder / "clear.png")
    return folder


@pytest.fixture
def cell(folder):
    """make(sampler="heun", ...) is a cell; file: its name on the page; picture: one of the folder's."""

    def make(file="small.png", picture="small.png", settings=None, result=None, command="python test.py", **axes):
        texts = {"settings": settings or {"dtype": "float32"}, "result": result or {"evaluations": 28, "seconds": 1.7}}
        return {"file": file, "picture": folder / picture, "axes": {**AXES, **axes}, "command": command, **texts}

    return make


def data(text):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])


def thumbnails(text):
    """(kind, picture) of every picture that is shown before a script has run."""
    found = re.findall(r'<img [^>]*src="data:image/(\w+);base64,([^"]*)"', text)
    return [(kind, Image.open(io.BytesIO(base64.b64decode(encoded)))) for kind, encoded in found]


def axes(*cells):
    found = data(grid_page("t", list(cells)))
    return {axis["name"]: axis["values"] for axis in found["axes"]}, found["rows"], found["columns"]


def test_every_cell_has_a_figure_a_link_to_its_file_and_its_record(cell):
    cells = [cell(f"p/{n}_{seed}.png", steps=n, seed=seed) for n in (5, 10) for seed in (0, 1, 2)]
    text = grid_page("Steps", cells)
    page, found = Elements(text), data(text)
    assert [link["href"] for link in page.all("a")] == [one["file"] for one in cells]
    assert len(page.all("figure")) == len(thumbnails(text)) == len(found["cells"]) == 6
    assert [one["label"] for one in found["cells"]][:4] == [
        f"steps {n}, seed {s}" for n, s in ((5, 0), (5, 1), (5, 2), (10, 0))
    ]
    assert [one["at"] for one in found["cells"]][-1] == [1, 2] and found["cells"][0]["size"] == [48, 32]
    assert [image["alt"] for image in page.all("img") if image["alt"]] == [one["label"] for one in found["cells"]]


def test_settings_results_and_the_command_are_told(cell):
    result = {"evaluations": 55, "seconds": 1.23456789, "adherence": {"shape": True, "colour": False}}
    text = grid_page(
        "t", [cell(settings={"dtype": "float16", "negative prompt": ""}, result=result, command="python x")]
    )
    told = data(text)["cells"][0]
    assert dict(told["settings"]) == {
        **{name: str(value) for name, value in AXES.items()},
        **{"eta": "(none)", "dtype": "float16", "negative prompt": "(empty)"},
    }
    assert dict(told["results"]) == {"evaluations": "55", "seconds": "1.235", "adherence": "shape: yes, colour: no"}
    assert told["command"] == "python x" and "55 evaluations" in text


def test_memory_has_its_unit_and_no_exponent(cell):
    result = {"network_seconds": 0.25, "peak_memory": 20480.4}
    told = data(grid_page("t", [cell(result=result)]))["cells"][0]
    assert told["results"] == [["network seconds", "0.25"], ["peak memory", "20480 MiB"]]


def test_what_all_pictures_share_is_said_once(cell):
    text = grid_page("t", [cell(steps=5), cell(steps=10)])
    assert "2 pictures · model shapes · sampler euler · seed 0 · prompt a square</p>" in text


def test_samplers_are_rows_and_the_first_other_axis_is_columns(cell):
    cells = [cell(model=m, sampler=s, steps=n) for m in ("b", "a") for s in ("heun", "euler") for n in (10, 5)]
    found, rows, columns = axes(*cells)
    assert found == {"model": ["b", "a"], "sampler": ["heun", "euler"], "steps": ["5", "10"]}
    assert (rows, columns) == ("sampler", "model")


def test_without_several_samplers_the_first_axis_is_rows(cell):
    assert axes(*[cell(steps=n, seed=seed) for n in (5, 10) for seed in (0, 1)])[1:] == ("steps", "seed")


def test_one_axis_is_a_gallery(cell):
    assert axes(cell(sampler="euler"), cell(sampler="heun")) == ({"sampler": ["euler", "heun"]}, None, None)


def test_an_axis_that_follows_from_the_sampler_makes_no_columns(cell):
    forced = [cell(sampler="euler", grid="scheduler"), cell(sampler="dpmpp_3m_sde", grid="karras")]
    assert axes(*forced)[1:] == (None, None)
    assert axes(*forced, cell(sampler="euler", grid="karras"))[1:] == ("sampler", "grid")


def test_one_cell(cell):
    text = grid_page("t", [cell("one.png")])
    assert data(text)["axes"] == [] and data(text)["cells"][0]["label"] == "one.png" and "1 picture ·" in text


def test_missing_values_come_first_and_are_named(cell):
    without = cell()
    del without["axes"]["eta"]
    found, *_ = axes(cell(eta=1), cell(eta=0.25), without, cell(eta=None))
    assert found == {"eta": ["(none)", "0.25", "1"]}
    assert data(grid_page("t", [cell(eta=0.5), without]))["cells"][1]["label"] == "eta (none)"


def test_no_cells():
    with pytest.raises(ValueError, match="cells is empty"):
        grid_page("t", [])


@pytest.mark.parametrize("file", ["/etc/x.png", "//example.org/x.png", ""])
def test_a_file_that_is_not_relative(cell, file):
    with pytest.raises(ValueError, match="is not relative"):
        grid_page("t", [cell(file)])


def test_a_file_name_cannot_be_an_address_of_another_kind(cell):
    names = ["javascript:alert(1).png", "https://example.org/a.png", """a "b'#?&%.png""", "ü/é.png"]
    links = [link["href"] for link in Elements(grid_page("t", [cell(name) for name in names])).all("a")]
    assert links == [
        "javascript%3Aalert%281%29.png",
        "https%3A//example.org/a.png",
        "a%20%22b%27%23%3F%26%25.png",
        "%C3%BC/%C3%A9.png",
    ]


def test_nothing_is_fetched_but_pictures_beside_the_page(cell):
    text = grid_page("t", [cell(), cell(seed=1)])
    page = Elements(text)
    policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'" and rules["img-src"] == "'self' file: data:"
    assert rules["script-src"] == rules["style-src"] == "'unsafe-inline'"
    assert not re.search(r"""https?:|["'(=]//|url\(|@import""", text)
    fetched = [attributes.get("src") for _, attributes in page.found if attributes.get("src")]
    assert len(fetched) == 2 and all(source.startswith("data:image/") for source in fetched)
    assert [link["href"] for link in page.all("link")] == ["data:,"]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_users_wrote_cannot_break_out(cell, text):
    hostile = {"settings": {text: text}, "result": {"evaluations": text, text: text}, "command": text, "model": text}
    cells = [cell(text, sampler=s, prompt=p, **{text: p}, **hostile) for s in (text, "euler") for p in (text, "b")]
    plain = [
        cell(sampler=s, prompt=p, more=p, result={"evaluations": 1}) for s in ("heun", "euler") for p in ("a", "b")
    ]
    written, usual = grid_page(text, cells), grid_page("t", plain)
    page = Elements(written)
    assert page.tags() == Elements(usual).tags() and not page.handlers()
    assert written.count("</script") == usual.count("</script") and written.count("<!--") == usual.count("<!--")
    assert [address for address in page.addresses() if ":" in address or address.startswith("/")] == []
    assert unescape(re.search("<title>(.*?)</title>", written)[1]) == text
    told = data(written)
    assert told["axes"][0]["values"][0] == told["cells"][0]["command"] == text
    assert [text, text] in told["cells"][0]["settings"] and [text, text] in told["cells"][0]["results"]
    assert not set(re.search('id="data">(.*?)</script>', written)[1]) & set("<>&\u2028\u2029\x85")


def test_the_slider_has_what_its_script_needs(cell):
    page = Elements(grid_page("t", [cell(seed=0), cell(seed=1)]))
    assert page.slider() == [1, 1, 1, 1] and page.tags().count("output") == 1


def test_a_small_picture_is_embedded_as_it_is_and_shown_larger(cell, folder):
    text = grid_page("t", [cell()])
    [(_, shown)] = thumbnails(text)
    with Image.open(folder / "small.png") as picture:
        assert shown.convert("RGB").tobytes() == picture.tobytes()
    assert '<figure style="--w: 160">' in text and "pixelated" not in text


def test_a_large_picture_is_made_smaller(cell):
    text = grid_page("t", [cell(picture="large.png")])
    [(kind, shown)] = thumbnails(text)
    assert kind == "webp" and shown.size == (256, 128)
    assert '<figure style="--w: 256">' in text and data(text)["cells"][0]["size"] == [640, 320]


def test_a_file_that_is_shorter_than_its_webp_is_embedded_itself(cell, folder):
    noise = Image.effect_noise((64, 64), 50)
    noise.save(folder / "photo.jpg", quality=10)
    noise.save(folder / "photo.tiff", compression="jpeg", quality=10)  # no browser shows it
    kinds = [thumbnails(grid_page("t", [cell(picture=f"photo.{ending}")]))[0][0] for ending in ("jpg", "tiff")]
    assert kinds == ["jpeg", "webp"]


def test_transparency_stays(cell):
    [(_, shown)] = thumbnails(grid_page("t", [cell(picture="clear.png")]))
    assert shown.convert("RGBA").getpixel((0, 0)) == (255, 0, 0, 128)


def test_a_long_value_labels_a_picture_in_brief_and_is_told_in_full(cell):
    long = "an astronaut " * 20
    told = data(grid_page("t", [cell(prompt=long), cell(prompt="b")]))["cells"][0]
    assert len(told["label"]) == 60 and told["label"].endswith("…") and ["prompt", long] in told["settings"]


def test_without_a_script_the_pictures_stand_in_a_gallery(cell):
    text = grid_page("t", [cell(seed=0), cell(seed=1)])
    before = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert re.search(r'<main[^>]*>\s*<div class="gallery">\s*<figure', before) and len(thumbnails(before)) == 2
    assert "<form hidden>" in before and '<span class="differs">seed 1</span>' in before


EVERY = {"sampler": ..., "steps": ..., "eta": ...}  # what a converged reference has on the axes of a sampler


def test_a_reference_stands_beside_all_values_and_is_none_of_them(cell):
    cells = [cell(sampler=s, steps=n, seed=seed) for s in ("euler", "heun") for n in (5, 10) for seed in (0, 1)]
    cells += [cell(seed=seed, settings={"sampler": "dpmpp_2m", "steps": 200}, **EVERY) for seed in (0, 1)]
    assert axes(*cells) == (
        {"sampler": ["euler", "heun"], "steps": ["5", "10"], "seed": ["0", "1"]},
        "sampler",
        "steps",
    )
    told = data(grid_page("t", cells))["cells"]
    assert [one["at"] for one in told[-2:]] == [[-1, -1, 0], [-1, -1, 1]] and told[-1]["label"] == "converged, seed 1"
    assert ["sampler", "dpmpp_2m"] in told[-1]["settings"] and ["steps", "200"] in told[-1]["settings"]


def test_references_make_neither_rows_nor_columns(cell):
    cells = [cell(steps=5), cell(steps=10), cell(**EVERY)]
    assert axes(*cells) == ({"steps": ["5", "10"]}, None, None)
    assert "3 pictures · model shapes · sampler euler · seed 0" in grid_page("t", cells[::-1])


def test_steps_are_told_where_no_axis_has_them_and_evaluations_differ(cell):
    def note(evaluations, **steps):
        text = grid_page("t", [cell(settings=steps, result={"evaluations": evaluations})])
        return re.search("<small>(.*?)</small>", text)[1]

    assert (note(9, steps=5), note(9, steps=9), note(9)) == ("9 evaluations, 5 steps", "9 evaluations", "9 evaluations")


def test_words_that_a_picture_kept_are_told_under_it(cell):
    kept = {"evaluations": 5, "adherence": {"shape": False, "colour": True, "one object": False}}
    text = grid_page("t", [cell(result=kept), cell(seed=1, result={"adherence": {"shape": True}}), cell(seed=2)])
    assert '<small class="kept lost">1 of 3 words<span>, not shape, one object</span></small>' in text
    assert '<small class="kept">1 of 1 words</small>' in text and text.count('class="kept') == 2
    assert [one["kept"] for one in data(text)["cells"]] == [[1, 3], [1, 1], [0, 0]]


BEGINNING = "an astronaut in a jungle, cold color palette, muted colors, detailed, "


@pytest.mark.parametrize(
    ("prompts", "labels"),
    [
        (["8k by day", "8k by night"], ["an astronaut in a ju…day", "an astronaut in a ju…night"]),
        (["8k", "12k", "16k"], ["an astronaut in a ju…8k", "an astronaut in a ju…12k", "an astronaut in a ju…16k"]),
        (["x" * 200 + "1", "x" * 200 + "2"], ["an astronaut in a ju…1", "an astronaut in a ju…2"]),
    ],
)
def test_long_values_are_cut_where_they_do_not_differ(cell, prompts, labels):
    cells = [cell(prompt=BEGINNING + prompt) for prompt in prompts]
    found = data(grid_page("t", cells))
    assert found["axes"][0]["labels"] == found["axes"][0]["heads"] == labels
    assert found["axes"][0]["values"] == [BEGINNING + prompt for prompt in prompts]


def test_values_that_no_brief_text_tells_apart_are_numbered(cell):
    found = data(
        grid_page("t", [cell(prompt=BEGINNING + "x" + 90 * "y" + end) for end in "abc"] + [cell(prompt=BEGINNING)])
    )
    assert len(set(found["axes"][0]["labels"])) == 4 and all(len(label) <= 60 for label in found["axes"][0]["labels"])
    two_ends = [f"{BEGINNING}{first}{'y' * 90}{last}" for first in "ab" for last in "cd"]
    labels = data(grid_page("t", [cell(prompt=prompt) for prompt in two_ends]))["axes"][0]["labels"]
    assert [label[:3] for label in labels] == ["1: ", "2: ", "1: ", "2: "] and len(set(labels)) == 4


def test_numbers_have_their_axis_s_name_in_a_label_alone(cell):
    [axis] = data(grid_page("t", [cell(steps=5), cell(steps=10)]))["axes"]
    assert (axis["heads"], axis["labels"]) == (["5", "10"], ["steps 5", "steps 10"])
