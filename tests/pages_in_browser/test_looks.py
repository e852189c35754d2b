"""All pages on a phone and on a desk, light and dark: words are whole, colours apart, controls named, focus is seen."""

import re
from pathlib import Path

import made_pages
import pytest

STATIC = Path(__file__).parents[2] / "k_diffusing" / "web" / "static"
LOOKS = Path(__file__).with_name("looks.js").read_text(encoding="utf-8")
WRITERS = {
    "grid": made_pages.write_grid,
    "compare": made_pages.write_comparison,
    "tune": made_pages.write_tuned,
    "again": made_pages.write_again,
}
CONTROLS = {"button", "link", "combobox", "checkbox", "slider", "dialog", "image", "region"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Each page's file, made when it is asked for."""
    made = {}

    def file(name):
        return (
            made.setdefault(name, None)
            or made.update({name: WRITERS[name](tmp_path_factory.mktemp(name))})
            or made[name]
        )

    return file


@pytest.fixture(params=WRITERS)
def name(request):
    return request.param


@pytest.fixture
def opened(visit, files, name, width):
    """opened(scheme="light"): the page, with all that can be unfolded."""

    def opened(scheme="light"):
        page = visit(files(name), width, scheme)
        for summary in page.locator("summary:visible").all():
            if not summary.evaluate("one => one.parentElement.open"):
                summary.click()
        return page

    return opened


def looks(page, name):
    return page.evaluate(f"() => ({LOOKS}).{name}()")


def states(page, name):
    """The page as it opens, and with each of its dialogs."""
    yield "page"
    if name == "grid":
        page.locator("main figure a").nth(4).click()
        page.locator("#view summary").click()
        yield "full size"
        page.get_by_role("button", name="Compare with converged").click()
        yield "comparison"


def unnamed(page):
    """The roles of what can be used or seen and has no name, as the browser tells an assistant."""
    nodes = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    found = [(node["role"]["value"], node.get("name", {}).get("value")) for node in nodes if not node["ignored"]]
    assert {role for role, _ in found} & CONTROLS
    return [role for role, name in found if role in CONTROLS and not name]


def test_a_page_can_be_read(opened, name, scheme):
    """No word is broken, nothing sticks out, texts stand out from their paper, and every control has a name."""
    page = opened(scheme)
    for state in states(page, name):
        assert (state, looks(page, "brokenWords"), looks(page, "faint"), unnamed(page)) == (state, [], [], [])
        assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"], state
        inside = "all => all.every(one => one.scrollWidth <= one.clientWidth + 1)"
        assert page.locator("dialog[open], header").evaluate_all(inside), state


def test_each_control_is_reached_by_tab_and_seen_to_be(opened):
    """The pictures of a grid are one stop: arrows move among them. And nothing moves by itself."""
    page = opened()
    stops, reached = looks(page, "stops"), {}
    for _ in range(len(stops) + 1):  # once it may be the browser's own, between the last and the first
        page.keyboard.press("Tab")
        label, outline = looks(page, "focused")
        reached[label] = outline
    reached.pop("BODY", None)
    assert set(stops) <= set(reached) and [label for label, outline in reached.items() if outline < 2] == []
    page.emulate_media(reduced_motion="reduce")
    assert looks(page, "moving") == 0


@pytest.mark.parametrize("name", ["compare", "tune", "again"])
def test_the_slider_of_each_page(opened):
    page = opened()
    slider, pressed = page.get_by_role("slider"), page.locator(".modes [aria-pressed=true]")
    slider.focus()
    page.keyboard.press("Home")
    assert slider.input_value() == "0" and pressed.inner_text() == "Slider"
    page.keyboard.press("Space")
    assert pressed.inner_text() == "a" and page.locator(".wipe .letter:visible").all_inner_texts() == ["a"]
    for mode in ("b", "Difference", "Slider"):
        page.get_by_role("button", name=mode, exact=True).click()
        assert pressed.inner_text() == mode
    box = page.locator(".wipe").bounding_box()
    page.mouse.click(box["x"] + 0.75 * box["width"], box["y"] + 20)
    assert slider.input_value() == "75"


def test_a_is_the_tuned_grid_as_in_the_drawings(visit, files):
    names = visit(files("tune")).locator(".names > span").all_inner_texts()
    assert names[0].startswith("a tuned, ") and names[1].startswith("b ")


def test_a_browser_knows_every_declaration(visit, files):
    page = visit(files("grid"))
    styles = {path.name: path.read_text(encoding="utf-8") for path in STATIC.glob("*.css")}
    for name, style in styles.items():
        blocks = re.findall(r"\{([^{}]*)\}", re.sub(r"/\*.*?\*/", "", style, flags=re.DOTALL))
        told = [one.split(": ", 1) for one in re.findall(r"[a-z-]+: [^;]+", " ".join(blocks).replace("!important", ""))]
        unknown = page.evaluate("all => all.filter(([name, value]) => !CSS.supports(name, value))", told)
        assert told and unknown == [], name
