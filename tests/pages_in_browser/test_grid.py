"""A grid's page by mouse and keyboard: rows, columns, values, filters, references, full size, two pictures compared."""

import io
import re
from itertools import product

import pytest
from made_pages import EVALUATIONS, PROMPTS, SAMPLERS, SEEDS, cell, colour_of
from PIL import Image

from k_diffusing.render.page import grid_page

PICTURES = len(SAMPLERS) * len(EVALUATIONS) * 4 + 4


def heads(page, scope):
    return page.locator(f"main th[scope={scope}]").all_inner_texts()


def shown(page):
    """How many pictures are, and that the filter says the same."""
    count = page.locator("main figure").count()
    assert page.inner_text("form output") == f"{count} of {PICTURES}"
    return count


def choose(page, name, value):
    page.locator(f"form select[name='{name}']").select_option(label=value)


def chip(page, text):
    return page.locator("label.chip", has=page.get_by_text(text, exact=True))


def on(page, axis):
    """The values of an axis whose chips are on."""
    boxes = page.locator(f".axis[aria-label='{axis}'] input")
    return [box.get_attribute("value") for box in boxes.all() if box.is_checked()]


def pixel(page, selector, x=0.5, y=0.5):
    """The colour that is drawn at a place of an element."""
    with Image.open(io.BytesIO(page.locator(selector).screenshot())) as drawn:
        return drawn.convert("RGB").getpixel((round(drawn.width * x), round(drawn.height * y)))


def close_to(found, colour):
    return max(abs(a - b) for a, b in zip(found, colour, strict=True)) <= 2  # of 255: enlarged by the browser


# Rows and columns.


def test_samplers_against_evaluations_and_what_they_converge_to(grid):
    assert heads(grid, "row") == list(SAMPLERS) and heads(grid, "col") == ["5", "10", "20", "converged"]
    assert shown(grid) == PICTURES
    places = grid.locator("main td:not(.corner)")
    assert places.count() == 3 * 3 + 1 and grid.locator("td.beside").get_attribute("rowspan") == "3"
    assert grid.locator("td.beside figure").count() == 4


def test_another_axis_as_rows_changes_places_with_it(grid):
    choose(grid, "rows", "evaluations up to")
    assert heads(grid, "row") == ["5", "10", "20"] and heads(grid, "col") == [*SAMPLERS, "converged"]
    choose(grid, "columns", "seed")
    assert heads(grid, "row") == ["5", "10", "20", "converged"] and heads(grid, "col") == ["0", "1"]
    choose(grid, "rows", "prompt")
    assert heads(grid, "row") == list(PROMPTS) and shown(grid) == PICTURES
    assert grid.locator("main td", has_text="converged").count() == 4
    choose(grid, "rows", "none")
    assert heads(grid, "row") == [""] and heads(grid, "col") == ["0", "1"] and shown(grid) == PICTURES
    choose(grid, "columns", "none")
    assert grid.locator("main > .gallery > figure").count() == PICTURES


def test_every_arrangement_shows_every_picture(visit, grid_file):
    page = visit(grid_file)
    down, across = page.locator("form select").all()[:2]
    for rows, columns in product((*range(4), -1), repeat=2):
        down.select_option(str(rows))
        across.select_option(str(columns))
        files = page.locator("main figure a").evaluate_all("all => all.map(one => one.href)")
        assert shown(page) == len(set(files)) == PICTURES
        assert across.input_value() == str(columns) and (down.input_value() == str(rows) or rows == columns)


def test_pictures_of_one_place_stand_in_groups_under_what_they_share(grid):
    place = grid.locator("main tbody tr").first.locator("td").first
    assert place.locator(".over").all_inner_texts() == list(PROMPTS)
    assert place.locator(".differs:visible").all_inner_texts() == ["seed 0", "seed 1"] * 2
    assert place.locator(".sum").inner_text() == "4 of 8 words kept"
    choose(grid, "prompt", PROMPTS[0])
    assert place.locator(".over").count() == 0 and place.locator(".differs:visible").count() == 2
    choose(grid, "seed", "1")
    assert place.locator(".differs:visible").count() == 0 and place.locator(".sum").count() == 0


def test_a_picture_says_its_evaluations_its_steps_and_which_words_it_kept(grid):
    caption = grid.locator("main figcaption").first
    assert caption.locator("small").all_inner_texts() == ["5 evaluations, 2 steps", "1 of 2 words, not shape"]


def test_sizes(grid):
    def width():
        return grid.locator("main figure").first.evaluate("one => one.getBoundingClientRect().width")

    medium = width()
    choose(grid, "size", "small")
    small = width()
    choose(grid, "size", "large")
    assert small < medium < width() and "size=large" in grid.url
    choose(grid, "rows", "none")
    choose(grid, "columns", "none")
    large = width()
    choose(grid, "size", "small")
    assert width() < large


# Values.


def test_one_value_by_one_choice_and_by_arrow_keys(grid):
    choose(grid, "seed", "1")
    assert shown(grid) == PICTURES / 2 and on(grid, "seed") == ["1"]
    grid.locator("form select[name=seed]").focus()
    grid.keyboard.press("ArrowUp")
    assert on(grid, "seed") == ["0"]
    choose(grid, "seed", "all")
    assert on(grid, "seed") == ["0", "1"] and shown(grid) == PICTURES


def test_an_axis_that_follows_from_others_has_no_choice_of_its_own(visit, tmp_path):
    """Guidance, where each sampler has its own."""
    cells = [cell(tmp_path, sampler, 5, seed, PROMPTS[0], PROMPTS) for sampler in SAMPLERS for seed in SEEDS]
    for one in cells:
        one["axes"]["guidance"] = 5.0 if one["axes"]["sampler"] == "euler" else 1.0
    (tmp_path / "index.html").write_text(grid_page("t", cells), encoding="utf-8")
    page = visit(tmp_path / "index.html")
    names = page.locator("form select").evaluate_all("all => all.map(one => one.name)")
    assert names == ["rows", "columns", "sampler", "seed", "size"] and page.locator(".axis").count() == 3
    assert page.locator("form select:visible").count() == 3
    choose(page, "columns", "guidance")
    assert heads(page, "col") == ["1", "5"] and page.locator("form select[name=seed]").is_visible()


def test_a_chip_turns_a_value_off_and_on(grid):
    chip(grid, "euler").click()
    assert on(grid, "sampler") == list(SAMPLERS[1:]) and heads(grid, "row") == list(SAMPLERS[1:])
    chip(grid, "euler").locator("input").focus()
    grid.keyboard.press("Space")
    assert on(grid, "sampler") == list(SAMPLERS) and shown(grid) == PICTURES


def test_a_double_click_or_enter_shows_one_value_alone_and_all_again(grid):
    chip(grid, "10").dblclick()
    assert on(grid, "evaluations up to") == ["10"] and heads(grid, "col") == ["10", "converged"]
    chip(grid, "10").dblclick()
    assert on(grid, "evaluations up to") == ["5", "10", "20"]
    chip(grid, "20").locator("input").focus()
    grid.keyboard.press("Enter")
    assert on(grid, "evaluations up to") == ["20"] and grid.url.count("#") == 1


def test_all_none_and_the_way_back(grid):
    grid.get_by_role("button", name="seed: show none").click()
    assert shown(grid) == 0 and "every value of seed is off" in grid.inner_text("main")
    grid.get_by_role("button", name="Show all", exact=True).click()
    assert shown(grid) == PICTURES
    grid.get_by_role("button", name="seed: show none").focus()
    grid.keyboard.press("Enter")
    grid.get_by_role("button", name="seed: show all").focus()
    grid.keyboard.press("Space")
    assert shown(grid) == PICTURES


def test_a_value_that_is_off_is_not_struck_out(grid):
    chip(grid, "euler").click()
    text = chip(grid, "euler").locator("span")
    assert "line-through" not in text.evaluate("one => getComputedStyle(one).textDecorationLine")
    marks = "one => getComputedStyle(one, '::before').visibility"
    assert text.evaluate(marks) == "hidden" and chip(grid, "10").locator("span").evaluate(marks) == "visible"


def test_references_are_shown_or_not(grid):
    button = grid.get_by_role("button", name="Converged", exact=True)
    assert button.get_attribute("aria-pressed") == "true"
    button.click()
    assert button.get_attribute("aria-pressed") == "false" and heads(grid, "col") == ["5", "10", "20"]
    assert shown(grid) == PICTURES - 4
    button.focus()
    grid.keyboard.press("Space")
    assert shown(grid) == PICTURES


def test_the_address_keeps_the_view(visit, grid_file):
    page = visit(grid_file)
    choose(page, "columns", "seed")
    chip(page, "euler").click()
    choose(page, "size", "small")
    page.get_by_role("button", name="Converged", exact=True).click()
    again = visit(grid_file, hash=page.evaluate("location.hash"))
    assert heads(again, "col") == ["0", "1"] and heads(again, "row") == list(SAMPLERS[1:])
    assert on(again, "sampler") == list(SAMPLERS[1:]) and again.locator("main").get_attribute("data-size") == "small"


# By keyboard through the pictures.


def test_arrows_move_through_the_pictures(visit, grid_file):
    page = visit(grid_file, hash="#hide.prompt=" + PROMPTS[1].replace(" ", "+"))

    def at():
        return page.evaluate("document.activeElement.href").rsplit("/")[-1]

    page.locator("main figure a").first.focus()
    assert at() == "euler-5-0-0.png"
    for key, there in [
        ("ArrowRight", "euler-5-1-0.png"),
        ("ArrowRight", "euler-10-0-0.png"),
        ("ArrowDown", f"{SAMPLERS[1]}-10-0-0.png"),
        ("ArrowLeft", f"{SAMPLERS[1]}-5-1-0.png"),
        ("ArrowUp", "euler-5-1-0.png"),
        ("ArrowUp", "euler-5-1-0.png"),
    ]:
        page.keyboard.press(key)
        assert at() == there
    assert page.locator("main figure a[tabindex='0']").count() == 1


def test_a_picture_at_full_size(grid):
    grid.locator("main figure a").first.click()
    view = grid.locator("#view")
    assert view.is_visible() and view.locator("h2").inner_text().startswith(
        "euler, evaluations up to 5, seed 0, a small"
    )
    assert view.locator(".differing dt").all_inner_texts() == [
        "sampler",
        "evaluations up to",
        "seed",
        "prompt",
        "steps",
    ]
    assert "930.5 MiB" in view.locator(".results").inner_text()
    assert "--samplers euler" in view.locator("pre").inner_text() and not view.locator(".settings").is_visible()
    view.locator("summary").click()
    assert view.locator("summary").inner_text() == "All 9 settings" and view.locator(".settings dt").count() == 9
    view.get_by_role("button", name="next picture").click()
    assert ", seed 1, " in view.locator("h2").inner_text()
    grid.keyboard.press("ArrowLeft")
    assert ", seed 0, " in view.locator("h2").inner_text() and view.get_by_role("button", name="previous").is_disabled()
    view.get_by_role("button", name="Copy").click()
    view.get_by_role("status").filter(has_text=re.compile("copied|selected")).wait_for()
    grid.keyboard.press("Escape")
    assert not view.is_visible() and grid.evaluate("document.activeElement.href").endswith("euler-5-0-0.png")
    grid.keyboard.press("Enter")
    assert view.is_visible()
    view.get_by_role("button", name="Close").click()
    grid.locator("main figure a").first.click()
    grid.mouse.click(2, 2)  # the backdrop
    assert not view.is_visible()


def test_the_picture_fills_the_dialog(grid, width):
    grid.locator("main figure a").first.click()
    box, room = grid.locator("#view .full").bounding_box(), grid.locator("#view").bounding_box()
    beside = 22 * 16 if width > 900 else 0
    assert box["width"] >= 0.9 * (room["width"] - beside - 5 * 16)
    command, screen = grid.locator("#view pre").bounding_box(), grid.viewport_size
    assert width < 900 or command["y"] + command["height"] < screen["height"]


def test_a_file_that_is_not_beside_the_page(visit, grid_file, tmp_path):
    (alone := tmp_path / "index.html").write_bytes(grid_file.read_bytes())
    page = visit(alone)
    page.locator("main figure a").first.click()
    page.locator("#view .missing", has_text="thumbnail").wait_for()
    assert page.locator("#view img").get_attribute("src").startswith("data:")


# Two pictures.


@pytest.fixture
def pair(grid):
    """The comparison of the first two pictures, which differ in their seed."""
    for figure in grid.locator("main figure").all()[:2]:
        figure.hover()
        figure.locator(".mark").click()
    grid.locator("#compare").wait_for()
    return grid


def pressed(page):
    return [one.get_attribute("data-mode") for one in page.locator(".modes [aria-pressed=true]").all()]


def test_marked_pictures_are_compared(pair):
    compare = pair.locator("#compare")
    assert "seed 0" in compare.locator(".names > span").first.inner_text()
    rows = compare.locator("table.settings tbody tr").all_inner_texts()
    assert [row.split() for row in rows] == [["seed", "0", "1"]]
    assert compare.locator("table.results").is_hidden()
    pair.keyboard.press("Escape")
    assert pair.locator("main .mark[aria-pressed=true]").all_inner_texts() == ["a", "b"]
    pair.get_by_role("button", name="Compare", exact=True).click()
    assert compare.is_visible()
    compare.get_by_role("button", name="Close").click()
    pair.get_by_role("button", name="Clear").click()
    assert pair.locator("#tray").is_hidden() and pair.locator("main .mark[aria-pressed=true]").count() == 0


def test_the_slider_by_keyboard_and_mouse(pair):
    slider, both = pair.get_by_role("slider"), pair.locator(".wipe").bounding_box()
    pair.keyboard.press("ArrowRight")
    assert slider.input_value() == "51" and "a in the left 51 %" in slider.get_attribute("aria-valuetext")
    pair.mouse.move(both["x"] + both["width"] / 2, both["y"] + 40)
    pair.mouse.down()
    pair.mouse.move(both["x"] + both["width"] / 4, both["y"] + 40)
    pair.mouse.up()
    assert slider.input_value() == "25" and pressed(pair) == ["wipe"]
    assert close_to(pixel(pair, ".wipe", x=0.1), colour_of(5, 0)) and close_to(
        pixel(pair, ".wipe", x=0.6), colour_of(5, 1)
    )


def test_each_picture_alone_says_which_it_is(pair):
    letters = pair.locator(".wipe .letter:visible")
    assert letters.all_inner_texts() == ["a", "b"] and pressed(pair) == ["wipe"]
    pair.keyboard.press("Space")
    assert (
        letters.all_inner_texts() == ["a"]
        and pair.inner_text(".modes output") == "a is shown"
        and pressed(pair) == ["a"]
    )
    pair.get_by_role("button", name="Flip").click()
    assert letters.all_inner_texts() == ["b"] and pair.inner_text(".modes output") == "b is shown"
    pair.get_by_role("button", name="a", exact=True).click()
    assert pressed(pair) == ["a"]
    pair.get_by_role("button", name="Slider").focus()
    pair.keyboard.press("Enter")
    assert pressed(pair) == ["wipe"] and pair.inner_text(".modes output") == ""


def test_the_difference_is_drawn(visit, grid_file):
    """Of the colours (100, 0, 20) and (200, 1, 20): 100 levels of red, one of green."""
    page = visit(grid_file, hash="#columns=seed")
    for file in ("euler-10-0-0.png", "euler-20-1-0.png"):
        figure = page.locator("main figure", has=page.locator(f"a[href='{file}']"))
        figure.locator("a").focus()
        page.keyboard.press("c")
    page.get_by_role("button", name="Difference").click()
    assert pressed(page) == ["difference"] and page.inner_text(".modes output") == "|a − b| is shown"
    page.get_by_label("amplified").select_option("1")
    assert close_to(pixel(page, ".wipe"), (100, 1, 0))
    page.get_by_label("amplified").select_option("16")
    assert close_to(pixel(page, ".wipe"), (255, 16, 0))
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Compare", exact=True).click()
    page.keyboard.press("d")
    assert pressed(page) == ["difference"]


def test_a_picture_beside_what_it_converges_to(grid):
    grid.locator("main figure a").nth(4).click()
    grid.get_by_role("button", name="Compare with converged").click()
    names = grid.locator("#compare .names > span").all_inner_texts()
    assert names[0].startswith("a euler, evaluations up to 10, seed 0") and names[1].startswith("b converged, seed 0")
    grid.keyboard.press("Escape")
    assert grid.evaluate("document.activeElement.closest('figure') !== null")
    grid.locator("td.beside figure a").first.click()
    assert grid.get_by_role("button", name="Compare with converged").is_hidden()


def test_by_keyboard_alone(grid):
    grid.locator("main figure a").first.focus()
    grid.keyboard.press("c")
    assert "Mark another picture" in grid.inner_text("#tray")
    grid.keyboard.press("ArrowRight")
    grid.keyboard.press("Enter")
    grid.keyboard.press("c")
    assert grid.locator("#compare").is_visible() and grid.locator("#view").is_hidden()


def test_one_picture_has_no_controls(visit, tmp_path):
    from made_pages import write_grid

    path = write_grid(tmp_path, seeds=(0,), samplers=SAMPLERS[:1], evaluations=(5,), prompts=PROMPTS[:1])
    page = visit(path)
    assert page.locator("figure").count() == 2 and page.locator("main > .gallery").count() == 1
    page.locator("main figure a").first.click()
    assert page.locator("#view").is_visible()
