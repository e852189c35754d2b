"""What a benchmark is."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]
Data = dict[str, Any]


@dataclass(frozen=True)
class Benchmark:
    """Something that is measured, and what is shown of it.

    name: of its data file, docs/data/NAME.json, and before the dot in a page's comments. about: what it is, one
    sentence. takes: how long it takes, about, on one core.

    cells: what is to be measured, JSON: a dict for each row. measure: the rows of some cells, in any order, one after
    the other as they are done; a row is its cell and what was found. settings: what else the rows depend on, models:
    the demo models that they were measured on, as they are called by default; rows of other settings, weights or calls
    are measured anew. needs: variables of the environment without which it cannot be measured. alone: nothing may run
    beside it, as its rows are times, or it takes all cores; of the weights their shapes alone count then.

    tables: Markdown of the data, by the part's name after the dot; one of a benchmark that measures nothing is given
    data without rows. pictures: a matplotlib figure of the data, by the file's name in docs/images.
    """

    name: str
    about: str
    takes: str = "a moment"
    cells: Callable[[], list[Row]] = list
    measure: Callable[[list[Row]], Iterable[Row]] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    alone: bool = False
    tables: dict[str, Callable[[Data], str]] = field(default_factory=dict)
    pictures: dict[str, Callable[[Data], Any]] = field(default_factory=dict)
