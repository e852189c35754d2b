"""How a page is rendered: what is missing is an error, and an installed copy has all that it needs."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from k_diffusing.web import pages

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "k_diffusing" / "web" / "static"
GRID = {"title": "t", "shared": "1 picture", "figures": [], "data": {}}

RENDER = f"from k_diffusing.web import pages; print(pages.__file__); pages.render('grid.html', {GRID})"


@pytest.mark.parametrize("name", GRID)
def test_a_value_that_is_missing_is_an_error(name):
    values = {key: value for key, value in GRID.items() if key != name}
    assert pages.render("grid.html", GRID).startswith("<!DOCTYPE html>")
    with pytest.raises((UndefinedError, TypeError), match=f"'{name}' is undefined|StrictUndefined is not JSON"):
        pages.render("grid.html", values)


def test_a_field_that_a_record_lacks_is_an_error():
    with pytest.raises(UndefinedError, match="label"):
        pages.render("grid.html", {**GRID, "figures": [{"shown": 1, "address": "a", "size": (1, 1), "uri": "data:,"}]})


@pytest.mark.parametrize("file", sorted(path.name for path in STATIC.iterdir()))
def test_a_style_or_script_cannot_end_its_element(file):
    assert not re.search(r"</|<!--", pages.static(file))


def test_both_colour_schemes_have_every_colour():
    light, dark = pages.palette(), pages.palette(dark=True)
    assert set(light) == set(dark) and not set(light.items()) & set(dark.items())
    assert all(re.fullmatch("#[0-9a-f]{6}", color) for color in [*light.values(), *dark.values()])
    used = {name for file in STATIC.glob("*.css") for name in re.findall(r"var\(--([\w-]+)\)", file.read_text("utf-8"))}
    assert used - {"w", "h", "cut", "room", "tone", "tone-paper"} <= set(light)


def test_an_installed_copy_renders_pages(installed, tmp_path):
    code = [sys.executable, "-c", RENDER]
    environment = os.environ | {"PYTHONPATH": str(installed)}
    run = subprocess.run(code, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    assert Path(run.stdout.strip()).is_relative_to(installed)


SCRIPTS, STYLES = sorted(STATIC.glob("*.js")), sorted(STATIC.glob("*.css"))
TEMPLATES = sorted((STATIC.parent / "templates").glob("*.html"))


def texts(paths):
    return "\n".join(path.read_text(encoding="utf-8") for path in paths)


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_one(path):
    run = subprocess.run(["node", "--check", path], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_scripts_have_small_functions_and_short_lines_and_no_eval():
    for path in SCRIPTS:
        lines = path.read_text(encoding="utf-8").splitlines()
        starts = [n for n, line in enumerate(lines) if re.match(r"(async )?function ", line)]
        ends = [next(n for n in range(start, len(lines)) if re.search(r"^}|}$", lines[n])) for start in starts]
        assert all(end - start < 30 for start, end in zip(starts, ends, strict=True)), path.name
        assert max(map(len, lines)) <= 120, path.name
    assert not re.search(
        r"\beval\(|innerHTML|outerHTML|insertAdjacentHTML|document\.write|new Function|\bvar ", texts(SCRIPTS)
    )


def test_what_a_script_defines_is_used_and_defined_once():
    script = re.sub(r"//.*", "", texts(SCRIPTS))
    defined = re.findall(r"^(?:async )?function (\w+)|^(?:const|let) (\w+)", script, re.MULTILINE)
    names = [one or other for one, other in defined]
    assert len(names) > 50 and len(set(names)) == len(names)
    assert [name for name in names if len(re.findall(rf"\b{name}\b", script)) < 2] == []


def test_every_class_of_a_style_is_on_a_page():
    style = re.sub(r"/\*.*?\*/|\{[^{}]*\}", " ", texts(STYLES), flags=re.DOTALL)
    classes = set(re.findall(r"\.([a-z][\w-]*)", style))
    words = set(re.findall(r"[\w-]+", texts(TEMPLATES + SCRIPTS)))
    assert len(classes) > 40 and classes <= words


@pytest.mark.parametrize("path", STYLES, ids=lambda path: path.name)
def test_a_style_is_well_formed(path):
    text = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert text.count("{") == text.count("}") and max(map(len, text.splitlines())) <= 120
    for block in re.findall(r"\{([^{}]*)\}", text):
        assert re.fullmatch(r"\s*(?:-{0,2}[a-z][\w-]*:\s[^:;{}]+;\s*)+", block), block
