"""How a name is read: by its letters and digits alone."""

import re
from collections.abc import Iterable
from typing import Any


def spelling(text: str) -> str:
    """A name without all that does not matter: case, spaces, hyphens, underscores. "++" is read as "pp"."""
    return re.sub(r"[^a-z0-9]", "", text.lower().replace("++", "pp"))


def by_spelling(rows: Iterable[Any]) -> dict[str, Any]:
    """The rows of a table of names by all their spellings."""
    return {spelling(text): row for row in rows for text in row.spellings}
