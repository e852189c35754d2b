"""The site of docs/: it builds without a warning, asks for nothing outside, and shows what the code has."""

import html
import json
import math
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import built_site
import pytest

import k_diffusing
from k_diffusing.grids.named import SIGMA_GRIDS
from k_diffusing.names.samplers import SAMPLER_NAMES
from k_diffusing.samplers.facts import ALL_FACTS, FACTS

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
sys.path.append(str(DOCS / "hooks"))


class Loaded(HTMLParser):
    """What a page asks for when it is opened."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        wanted = {"script": "src", "img": "src", "iframe": "src", "link": "href"}.get(tag)
        self.found += [value for name, value in attrs if name == wanted and dict(attrs).get("rel") != "canonical"]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """In a process of its own, five seconds of it: that the build is strict is what is tested."""
    return built_site.build(tmp_path_factory.mktemp("site"))


def test_pages_ask_for_files_of_the_site_alone(site):
    """Each is there, too."""
    pages = list(site.rglob("*.html"))
    for page in pages:
        for link in Loaded(page.read_text(encoding="utf-8")).found:
            path = link.split("?")[0].split("#")[0]
            assert not re.match(r"(\w+:)?//", link), (page, link)
            there = site / path.lstrip("/") if path.startswith("/") else (page.parent / path).resolve()
            assert there.exists(), (page, link)
    assert len(pages) > len(list(DOCS.glob("*.md")))


def test_styles_ask_for_nothing_outside(site):
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import )['\"]?(https?:)?//", sheet.read_text(encoding="utf-8"))


def test_source_files_that_pages_link_to_have_a_page(site):
    page = (site / "outside/k_diffusing/samplers/er_sde.py.html").read_text(encoding="utf-8")
    assert "sample_er_sde" in page and "outside/k_diffusing/samplers/er_sde.py.html" in (
        site / "samplers.html"
    ).read_text(encoding="utf-8")
    assert (site / "outside/notebooks/samplers.ipynb").is_file()


def test_diagrams_are_drawn(site):
    """By us: mermaid's script would come from outside."""
    page = (site / "architecture.html").read_text(encoding="utf-8")
    assert 'class="layers"' in page and 'class="sequence"' in page and "mermaid" not in page


def test_a_diagram_that_is_not_understood_is_an_error():
    pytest.importorskip("mkdocs")
    import diagrams

    for text in ("pie\n a", "sequenceDiagram\n participant A as b\n alt c"):
        with pytest.raises(ValueError, match="not drawn"):
            diagrams.drawn(text)


def test_the_reference_has_every_public_name():
    shown = set(re.findall(r"^::: k_diffusing\.([\w.]+)\.(\w+)$", (DOCS / "api.md").read_text("utf-8"), re.MULTILINE))
    homes = {(module, name) for name, module in k_diffusing._HOMES.items()}
    tables = {name for _, name in homes if name.isupper()}
    assert {(module, name) for module, name in homes if name not in tables} <= shown
    assert all(f"`{name}`" in (DOCS / "api.md").read_text("utf-8") for name in tables)


# The cards of the samplers, and the drawings of the grids.


@pytest.fixture(scope="module")
def cards() -> dict[str, str]:
    """Each sampler's card, as the page has it."""
    pytest.importorskip("mkdocs")
    import cards

    data = {name: json.loads((DOCS / "data" / f"{name}.json").read_text("utf-8")) for name in cards.DATA}
    parts = re.split(r"^### `(\w+)`$", cards.page(data), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_sampler_has_a_card(cards):
    import formulas

    assert set(cards) == set(ALL_FACTS) == set(formulas.FORMULAS) and set(formulas.SOURCES) == set(FACTS)


def test_a_card_says_what_tables_and_data_say(cards):
    found = {row["sampler"]: row for row in json.loads((DOCS / "data" / "samplers.json").read_text("utf-8"))["rows"]}
    for name, card in cards.items():
        row = SAMPLER_NAMES.get(name)
        for other in (*row.comfyui, *row.a1111, *row.diffusers) if row else ():
            assert f"<code>{html.escape(other)}</code>" in card
        assert f"<dd>{ALL_FACTS[name]['order']}" in card
        if name in found:
            assert all(f"{value:.3f}" in card for model in ("sdxl", "flux") for value in found[name]["w1"][model])
        noiseless = not ALL_FACTS[name]["stochastic"] or ALL_FACTS[name].get("noiseless", {}) is not None
        assert ('class="curve"' in card) == (noiseless and not ALL_FACTS[name].get("adaptive"))
        assert ('class="curve"' in card) != ("<dt>Curve</dt><dd>none: it " in card)
        assert all(f"<dt>{program}</dt><dd>" in card for program in ("diffusers", "ComfyUI", "A1111"))


def test_a_curve_falls_by_the_order(cards):
    """Down the drawing as far as the errors say: Euler's halves when evaluations double."""
    import curves

    places = re.search(r'<use href="#axes"/><polyline points="(.+?)"', cards["euler"])[1].split()
    first, last = ([float(number) for number in places[i].split(",")] for i in (0, -1))
    slope = math.log(curves.ERRORS[1] / curves.ERRORS[0]) / curves.HEIGHT
    fell = (last[1] - first[1]) * slope / ((last[0] - first[0]) * math.log(640 / 5) / curves.WIDTH)
    assert fell == pytest.approx(1.0, abs=0.05)


def test_every_grid_is_drawn(site):
    page = (site / "sigma_grids.html").read_text(encoding="utf-8")
    drawn = re.findall(r'<svg class="grid-drawing".*?aria-label="(\w+), \d+ steps"', page)
    assert set(drawn) == set(SIGMA_GRIDS) and len(drawn) == len(SIGMA_GRIDS)
