"""A page from its template, whole in itself.

render("grid.html", values)    # str: styles and scripts are inlined, and what values hold is escaped
"""

import re
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def render(template: str, values: dict[str, Any]) -> str:
    """A template of this package filled in.

    Args:
        template: Its file's name.
        values: What it asks for, by name. Texts are escaped.

    Returns:
        The page, whole in itself.

    Raises:
        jinja2.UndefinedError: It asks for what `values` lack.
        TypeError: It asks for that as JSON.
    """
    return environment().get_template(template).render(values)


def environment() -> Environment:
    """Where templates come from and how they are rendered; inline(file) in them is a style or a script as it is."""
    loader = PackageLoader("k_diffusing.web", "templates")
    made = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    made.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    made.globals["inline"] = lambda file: Markup(static(file))
    return made


def static(file: str) -> str:
    """The text of a style or a script of this package."""
    return resources.files("k_diffusing.web").joinpath("static", file).read_text(encoding="utf-8")


def palette(dark: bool = False) -> dict[str, str]:
    """The pages' colours, {name: "#rrggbb"}, for pictures that are drawn to stand in them."""
    light, _, darker = static("palette.css").partition("@media (prefers-color-scheme: dark)")
    return dict(re.findall(r"--([\w-]+): (#\w+);", light + darker if dark else light))
