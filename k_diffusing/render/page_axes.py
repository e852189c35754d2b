"""The axes of a page: the values that its pictures have, in the words that it shows.

found = axes_of(cells)           # {"steps": PageAxis(values=["5", "10"], ...)}, those with several values
text(0.5), text(None), text({})  # "0.5", "(none)", ""
"""

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

LABEL = 60  # letters of a value that label a picture; the whole value is among its settings
BEGINNING = 20  # of them show how a long value begins if its end is what tells it from another


class PageAxis(NamedTuple):
    """An axis with several values, in their order.

    Attributes:
        values: Each in full.
        heads: Each in brief, over a row or a column.
        labels: Each in brief, under a picture: a number has the axis's name beside it.
    """

    values: list[str]
    heads: list[str]
    labels: list[str]


def axes_of(cells: list[dict]) -> dict[str, PageAxis]:
    """The axes with several values, by name: numbers by size, others as they come.

    A cell without an axis has None there; `...` is no value, but stands beside all.
    """
    found = {}
    for name in dict.fromkeys(name for cell in cells for name in cell["axes"]):
        values = list(dict.fromkeys(cell["axes"].get(name) for cell in cells))
        values = [value for value in values if value is not ...]
        if all(isinstance(value, int | float | None) for value in values):
            values.sort(key=lambda value: (value is not None, value or 0))
        kinds = {text(value): isinstance(value, str) for value in values}
        if len(kinds) > 1:
            heads = briefs(list(kinds))
            labels = [head if word else f"{name} {head}" for head, word in zip(heads, kinds.values(), strict=True)]
            found[name] = PageAxis(list(kinds), heads, labels)
    return found


def rows_and_columns(cells: list[dict], axes: dict[str, PageAxis]) -> tuple[str | None, str | None]:
    """Samplers against the first axis of which a sampler has several values; if there is none, a plain gallery."""
    rows = "sampler" if "sampler" in axes else next(iter(axes), "")
    for name in axes:
        pairs = {(cell["axes"].get(rows), cell["axes"].get(name)) for cell in cells}
        if len({pair for pair in pairs if ... not in pair}) > len(axes[rows].values):
            return rows, name
    return None, None


def briefs(texts: Sequence[str]) -> list[str]:
    """Each text in LABEL letters at most, and so that those that differ still do."""
    alike = defaultdict(list)
    for one in texts:
        alike[shortened(one)].append(one)
    found = [_apart(one, others) if len(others := alike[shortened(one)]) > 1 else shortened(one) for one in texts]
    count, seen = Counter(found), Counter()
    for place, brief in enumerate(found):
        seen[brief] += 1
        if count[brief] > 1:  # those that differ in more than one place
            found[place] = f"{seen[brief]}: {shortened(brief, LABEL - 6)}"
    return found


def _apart(text: str, others: list[str]) -> str:
    """How a text begins, and where it begins to differ from others."""
    same = len(os.path.commonprefix(others))
    start = text.rfind(" ", same - BEGINNING, same) + 1 or same
    return f"{text[:BEGINNING]}…{shortened(text[start:], LABEL - BEGINNING - 1)}"


def shortened(text: str, longest: int = LABEL) -> str:
    """A text, or as much of it as there is room for."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def text(value, digits: int = 10) -> str:
    """A value as a reader would write it."""
    match value:
        case None:
            return "(none)"
        case "":
            return "(empty)"
        case bool():
            return "yes" if value else "no"
        case float() if 10**digits <= abs(value) < 10**15:
            return str(round(value))
        case float():
            return f"{value:.{digits}g}"
        case dict():
            return ", ".join(f"{name}: {text(inner, digits)}" for name, inner in value.items())
        case list() | tuple():
            return ", ".join(text(inner, digits) for inner in value)
        case _ if value is ...:
            return "(all)"
    return str(value)
