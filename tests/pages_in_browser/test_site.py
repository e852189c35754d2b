"""The site of docs/ in Chromium, opened as files: nothing from outside, no error, nothing wider than the screen."""

import re
from pathlib import Path

import built_site
import pytest

PAGES = sorted(path.stem for path in (Path(__file__).resolve().parents[2] / "docs").glob("*.md")) + ["cards"]
DRAWN = ("cards", "sigma_grids", "architecture")  # with drawings of ours, in the palette's colours


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    return built_site.build(tmp_path_factory.mktemp("site"))


def wider(page) -> int:
    """Pixels by which the page is wider than the screen."""
    return page.evaluate("document.documentElement.scrollWidth - innerWidth")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_a_phone(site, visit, name):
    page = visit(site / f"{name}.html", 390)
    assert page.locator("article h1").count() == 1 and wider(page) <= 0


@pytest.mark.parametrize("name", DRAWN)
def test_drawings_have_the_palettes_colours(site, visit, name, width, scheme):
    page = visit(site / f"{name}.html", width, scheme)
    text = page.locator("article svg text, article svg circle, article svg polyline").first
    colour = text.evaluate("one => { const s = getComputedStyle(one); return s.fill === 'none' ? s.stroke : s.fill }")
    levels = [float(number) for number in re.findall(r"[\d.]+", colour)]
    assert wider(page) <= 0 and len(levels) >= 3
    assert (sum(levels[:3]) > 300) == (scheme == "dark")


def test_pictures_of_the_cards_are_there(site, visit):
    page = visit(site / "cards.html")
    sheet = page.locator(".tile").first.evaluate("one => getComputedStyle(one).backgroundImage")
    size = page.evaluate(
        "url => new Promise(done => { const i = new Image(); i.onload = () => done(i.width); i.src = url })",
        re.search(r'url\("(.+?)"\)', sheet)[1],
    )
    assert size == 9 * 96


def test_the_search_finds_a_page(site, visit):
    """Where the site is opened as files, workers are refused: a frame stands in for the search's."""
    page = visit(site / "options.html")
    page.click(".md-search__input")
    page.keyboard.type("brownian tree")
    page.wait_for_selector(".md-search-result__link")
    assert "noise.html" in page.locator(".md-search-result__link").first.get_attribute("href")
