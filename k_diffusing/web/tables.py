"""A table as a notebook shows it."""

import html
from collections.abc import Iterable


def html_table(caption: str, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in HTML.

    Args:
        caption: Stands above it.
        columns: Their names.
        rows: The cells of each row, as many as there are columns.

    Returns:
        The table. All texts are escaped.
    """
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    above = html.escape(caption)
    return f"<table><caption>{above}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
