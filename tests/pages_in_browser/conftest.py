"""A headless Chromium: the one that CHROME names, or the system's. Without one, or without playwright, tests skip."""

import os
import shutil

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
WIDTHS = (390, 1400)  # CSS pixels: a phone's and a desk's


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent.name == "pages_in_browser":
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install '.[pages]'")
    program = os.environ.get("CHROME") or next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no Chromium: install one that is called {', '.join(NAMES)}, or name it with CHROME")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=program, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser):
    """visit(path, width=1400, scheme="light", hash="", **context) opens a page.

    Nothing that is done to it may say an error or ask for anything but data and files.
    """
    contexts, said, asked = [], [], []

    def visit(path, width=1400, scheme="light", hash="", **context):
        sized = {"width": width, "height": 900 if width > 600 else 844}
        contexts.append(browser.new_context(viewport=sized, color_scheme=scheme, **context))
        page = contexts[-1].new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri() + hash)
        return page

    yield visit
    outside = [url for url in asked if not url.startswith(("data:", "file:"))]
    for context in contexts:
        context.close()
    assert not outside and not [text for text in said if "ERR_FILE_NOT_FOUND" not in text]


@pytest.fixture(params=WIDTHS)
def width(request):
    return request.param


@pytest.fixture(params=("light", "dark"))
def scheme(request):
    return request.param


@pytest.fixture(scope="session")
def grid_file(tmp_path_factory):
    """The page of samplers, evaluations, prompts and seeds, and of what they converge to."""
    from made_pages import write_grid

    return write_grid(tmp_path_factory.mktemp("grid"))


@pytest.fixture
def grid(visit, grid_file, width):
    """That page, opened, with its filter."""
    page = visit(grid_file, width)
    if not page.locator("form details").evaluate("one => one.open"):
        page.click("form summary")
    return page
