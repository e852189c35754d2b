"""The site of docs/: it builds without a warning, asks for nothing outside, and shows what the code has."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import k_diffusing

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
    """Built strictly: a broken link or anchor, or a page that the menu lacks, is an error."""
    pytest.importorskip("material", reason="the site's builder comes with `make docs`")
    pytest.importorskip("mkdocstrings")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=quiet)
    assert run.returncode == 0, run.stderr
    return folder


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
    page = (site / "outside/k_diffusing/samplers/er_sde.py/index.html").read_text(encoding="utf-8")
    assert "sample_er_sde" in page and "../outside/k_diffusing/samplers/er_sde.py/" in (
        site / "samplers/index.html"
    ).read_text(encoding="utf-8")
    assert (site / "outside/notebooks/samplers.ipynb").is_file()


def test_diagrams_are_drawn(site):
    """By us: mermaid's script would come from outside."""
    page = (site / "architecture/index.html").read_text(encoding="utf-8")
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
