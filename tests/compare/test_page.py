"""The page of a comparison: what is on it, that nothing leaves it, and the figure."""

import base64
import io
import json
import re
import sys
from dataclasses import replace

import pytest
from markupsafe import escape
from page_elements import HOSTILE, Elements
from PIL import Image
from tiny_models import flux_prompt, sdxl_prompt, tiny_flux, tiny_sdxl

from flux_comfy_pipeline import FluxPipeline
from k_diffusing.compare.compare import compare_samplers
from k_diffusing.compare.figure import figure, figure_png
from k_diffusing.compare.page import page
from k_diffusing.trace.difference import Finding
from sdxl_comfy_pipeline import StableDiffusionXLPipeline

SIZE = {"height": 16, "width": 16}


@pytest.fixture(scope="module")
def pipe():
    return tiny_sdxl(StableDiffusionXLPipeline)


@pytest.fixture(scope="module")
def parting(pipe):
    return compare_samplers(pipe, "k:euler", "k:heun", {**sdxl_prompt(), **SIZE}, steps=4)


@pytest.fixture(scope="module")
def agreeing(pipe):
    return compare_samplers(pipe, "k:euler", "k:euler", {**sdxl_prompt(), **SIZE}, steps=2)


@pytest.fixture(scope="module")
def text(parting):
    """The whole page, film strips and all."""
    strip = Image.new("RGB", (64, 16))
    return page(parting, (strip, strip))


@pytest.fixture
def no_matplotlib(monkeypatch):
    """Also for the tests that look at other parts of the page: a figure takes a second to draw."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)


def table_rows(text):
    return re.findall(r"<tr[^>]*>.*?</tr>", text[text.index("<tbody>") : text.index("</tbody>")])


def requests(text):
    """Whatever a browser would fetch: addresses, and sources other than data."""
    return re.findall(r"""(?:src|srcset|href)=(?!["']?data:)\S*|url\([^)]*|@import\S*|https?:\S*""", text)


def test_it_says_what_was_run_and_what_came_of_it(text, parting):
    assert parting.verdict in text and '<header class="part">' in text
    assert all(f"<code>{label}</code>" in text for label in ("k:euler", "k:heun"))
    assert "4 steps, 4 network calls" in text and "4 steps, 7 network calls" in text
    assert all(f"<li>Step {one.step}, {escape(str(one))}</li>" in text for one in parting.difference.findings)
    assert re.search("<dt>seed</dt><dd>0</dd>", text)


def test_every_step_has_a_row_and_that_in_which_they_part_is_marked(text, parting):
    rows = table_rows(text)
    assert [re.search("<td>(.*?)</td>", row)[1] for row in rows] == ["0", "1", "2", "3", "end"]
    assert ["parting" in row for row in rows] == [True, False, False, False, False]
    assert "they part here" in rows[0] and f"{parting.difference.rows[0].sigma[1]:.4f}" in rows[0]


def test_a_run_that_ends_before_the_other_parts_at_the_end(parting, no_matplotlib):
    late = replace(parting.difference, findings=[Finding(4, "sigma grid", "a takes 4 steps, b 5")])
    rows = table_rows(page(replace(parting, difference=late)))
    assert ["parting" in row for row in rows] == [False, False, False, False, True]


def test_nothing_that_was_found_is_said_twice(text, parting):
    """The first finding stands under the headline, the others behind one line."""
    first, *others = parting.difference.findings
    text = text.partition("</head>")[2]  # the title has the verdict
    assert others and all(text.count(str(escape(str(one)))) == 1 for one in (first, *others))
    assert f"<summary>{len(others)} more</summary>" in text and text.index(str(escape(str(first)))) < text.index(
        "</header>"
    )


def test_differences_without_effect_are_told_as_such(agreeing, no_matplotlib):
    small = replace(agreeing.difference, findings=[Finding(1, "timestep", "1 against 1.2", "rounding")])
    text = page(replace(agreeing, difference=small))
    assert "<summary>1 below the tolerance</summary>" in text and '<header class="agree">' in text
    assert "<summary>" not in page(agreeing)


def test_the_later_calls_of_a_step_are_told(text, parting):
    """heun's second call of each step but the last, which euler does not make."""
    later = parting.difference.later_calls
    assert [(one.step, one.stage) for one in later] == [(0, 1), (1, 1), (2, 1)]
    assert all(one.sigma[0] is one.timestep[0] is one.x is one.denoised is None for one in later)
    assert [one.sigma[1] for one in later] == [row.sigma[1] for row in parting.difference.rows[1:]]
    table = text[text.index("Table of later network calls") :]
    cells = re.findall("<td>(.*?)</td>", table[: table.index("</tbody>")])
    assert cells[:8] == ["0", "1", "–", f"{later[0].sigma[1]:.4f}", "–", f"{later[0].timestep[1]:.2f}", "–", "–"]


def test_later_calls_of_both_runs_are_compared(pipe, no_matplotlib):
    found = compare_samplers(pipe, "heun", "k:heun", {**sdxl_prompt(), **SIZE}, steps=3)
    assert [(one.x, one.denoised) for one in found.difference.later_calls] == [(0.0, 0.0)] * 2
    assert "0.0e+00" in page(found) and [one["stage"] for one in json.loads(found.to_json())["later_calls"]] == [1, 1]


def test_pictures_that_differ_say_by_how_much(parting, no_matplotlib):
    pictures = Image.new("RGB", (8, 8), (10, 0, 0)), Image.new("RGB", (8, 8), (10, 30, 0))
    assert "differ by 10 of 255 levels on average, by 30 at most" in page(replace(parting, pictures=pictures))
    assert "The pictures are the same." in page(replace(parting, pictures=pictures[:1] * 2))


def test_runs_told_call_by_call_speak_of_calls(parting, no_matplotlib):
    traces = tuple(replace(trace, steps_from=None) for trace in parting.traces)
    text = page(replace(parting, traces=traces, difference=replace(parting.difference, unit="network call")))
    assert "part at network call 0</h1>" in text and "<h2>Network calls</h2>" in text and "<li>Network call 0," in text
    assert "<br>4 network calls</dd>" in text and "<br>7 network calls</dd>" in text


def test_runs_that_agree_are_not_marked(agreeing, no_matplotlib):
    text = page(agreeing)
    assert '<header class="agree">' in text and agreeing.verdict in text and 'class="parting"' not in text


def test_nothing_is_fetched(text):
    assert not requests(text) and "default-src 'none'" in text
    assert text.count('src="data:image/png;base64,') == 5  # two pictures, the figure, two strips
    assert requests('<script src="https://example.org/a.js">')


@pytest.mark.parametrize("text", HOSTILE)
def test_what_users_wrote_is_escaped(parting, no_matplotlib, text):
    def written(text):
        rows = [replace(row, parted=text) for row in parting.difference.rows]
        found = replace(parting.difference, rows=rows, findings=[Finding(1, text, text, text)])
        changed = {
            "labels": (text, "k:heun"),
            "call": {**parting.call, text: text},
            "notes": [text],
            "difference": found,
        }
        return page(replace(parting, **changed), (Image.new("RGB", (64, 16)),) * 2)

    found, usual = Elements(written(text)), Elements(written("plain"))
    assert found.tags() == usual.tags() and not found.handlers() and not found.addresses()
    assert written(text).count("<script>") == written(text).count("</script") == 1
    assert not re.search(r"""alt="[^"]*[<>']""", written(text))
    assert f"picture of a, {text}" in [one["alt"] for one in found.all("img")]
    for tag in ("title", "code", "dt", "dd", "td", "strong", "li"):
        assert any(text in told for inner, told in found.texts if inner == tag), tag


def test_the_slider_has_what_its_script_needs(text):
    assert Elements(text).slider() == [1, 1, 1, 1] and Elements(text).tags().count("output") == 1


def test_film_strips_are_made_smaller_alike_and_can_be_left_out(parting, no_matplotlib):
    strips = Image.new("RGB", (1600, 800)), Image.new("RGB", (1600, 800))
    encoded = re.findall('class="strip".*?base64,(.*?)"', page(parting, strips))
    assert [Image.open(io.BytesIO(base64.b64decode(text))).size for text in encoded] == [(512, 256)] * 2
    assert 'class="strip"' not in page(parting)


def test_without_matplotlib_there_is_still_a_page(parting, no_matplotlib):
    text = page(parting)
    assert "pip install matplotlib" in text and 'class="figure"' not in text and len(table_rows(text)) == 5
    with pytest.raises(ImportError):
        figure_png(parting)


def test_the_figure_shows_both_runs_their_distance_and_where_they_part(parting):
    top, bottom = figure(parting).axes
    assert [line.get_label() for line in top.lines] == ["x of a", "denoised of a", "x of b", "denoised of b"]
    states = parting.traces[0].states[:-1]  # sigma is 0 in the last one
    assert list(top.lines[0].get_xdata()) == [float(state.sigma) for state in states]
    assert list(top.lines[0].get_ydata()) == [state.x.rms for state in states]
    assert list(bottom.lines[0].get_ydata()) == [row.x for row in parting.difference.rows[1:]]  # x is equal at first
    assert bottom.lines[-1].get_label() == "they part: step 0"
    assert Image.open(io.BytesIO(figure_png(parting))).width >= 800


def test_a_label_of_one_long_word_stands_over_the_figure_in_brief(parting):
    label = "diffusers:FlowMatchEulerDiscreteScheduler,use_karras_sigmas=True,invert_sigmas=True"
    title = figure(replace(parting, labels=(label, "k:heun"))).get_suptitle()
    assert title == "a: diffusers:FlowMatchEulerDiscreteScheduler,use_karras_sigmas…\nb: k:heun"


def test_a_figure_without_any_distance_can_be_drawn(agreeing):
    assert not list(figure(agreeing).axes[1].lines[0].get_ydata())
    assert Image.open(io.BytesIO(figure_png(agreeing, dark=True))).getpixel((0, 0))[:3] == (21, 24, 28)


def test_runs_in_two_coordinates_share_the_axis_of_flow_time():
    call = {**flux_prompt(), **SIZE}
    found = compare_samplers(
        tiny_flux(FluxPipeline), "k:euler", "diffusers:FlowMatchEulerDiscreteScheduler", call, steps=3
    )
    top, _ = figure(found).axes
    assert found.traces[1].coordinates == "flow"
    assert list(top.lines[0].get_xdata()) == pytest.approx(list(top.lines[2].get_xdata()), rel=1e-4)
    assert list(top.lines[0].get_ydata()) == pytest.approx(list(top.lines[2].get_ydata()), rel=1e-4)
    assert max(top.lines[0].get_xdata()) < 1
