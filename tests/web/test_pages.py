"""How a page is rendered: what is missing is an error, and an installed copy has all that it needs."""

import os
import re
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
