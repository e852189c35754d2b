"""A page of a thousand pictures: a browser lays out those that are seen, whatever is chosen."""

import pytest
from made_pages import write_grid

SAMPLERS, EVALUATIONS, SEEDS = [f"sampler_{i}" for i in range(10)], (5, 10, 20, 40), range(25)
FIGURES = 1000 + 25  # with what they converge to
LAID_OUT = "all => all.filter(one => one.checkVisibility({ contentVisibilityAuto: true })).length"
MOST = 300  # pictures that are laid out at a time: those of the screen, and of screens around it


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    return write_grid(folder, seeds=SEEDS, samplers=SAMPLERS, evaluations=EVALUATIONS, prompts=("a ring",))


@pytest.fixture
def page(visit, file, width):
    return visit(file, width)


def laid_out(page):
    return page.locator("main figure img").evaluate_all(LAID_OUT)


def test_what_is_not_seen_is_not_laid_out(page):
    assert page.inner_text("form output") == f"{FIGURES} of {FIGURES}"
    assert 0 < laid_out(page) < MOST
    page.locator("main").evaluate("main => main.scrollTo(0, main.scrollHeight / 2)")
    assert 0 < laid_out(page) < MOST
    page.locator("form select").nth(0).select_option("-1")
    page.locator("form select").nth(1).select_option("-1")
    assert page.locator("main > .gallery").count() == 1 and laid_out(page) < MOST


def test_a_page_has_few_elements_for_each_picture(page):
    assert page.evaluate("document.querySelectorAll('*').length") < 15 * FIGURES


def test_a_filter_makes_no_element_of_a_picture_anew(page):
    first = page.locator("main figure").first.element_handle()
    page.locator("form select[name=seed]").evaluate("one => { one.value = 3; one.dispatchEvent(new Event('change')); }")
    assert page.locator("main figure").count() == 41 and page.locator("td.beside figure").count() == 1
    page.evaluate("location.hash = ''")
    page.locator("form output", has_text=f"{FIGURES} of").wait_for(state="attached")
    assert page.locator("main figure").first.evaluate("(one, before) => one === before", first)


def test_arrows_reach_pictures_that_were_not_laid_out(page):
    page.locator("main figure a").first.focus()
    for _ in range(30):
        page.keyboard.press("ArrowDown")
    figure = page.locator("figure:focus-within")
    box, room = figure.bounding_box(), page.locator("main").bounding_box()
    assert box["y"] >= room["y"] and box["y"] < room["y"] + room["height"]
    assert page.locator("main").evaluate("one => one.scrollTop") > 0 and laid_out(page) < MOST
