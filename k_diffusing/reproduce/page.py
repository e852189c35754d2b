"""A picture of another program and ours of the same settings, as one HTML page."""

import base64

from PIL import Image

from k_diffusing._files import png
from k_diffusing.reproduce.difference import Apart
from k_diffusing.reproduce.recipe import Recipe
from k_diffusing.reproduce.show import Row, printable, recipe_rows, stage_rows
from k_diffusing.web.pages import render

OTHER = "All of it was understood: other weights, another precision or another device make another picture."
SHOWN = 512  # CSS pixels: smaller pictures are enlarged to this


def page(recipe: Recipe, name: str, theirs: Image.Image, ours: Image.Image, difference: Apart, python_text: str) -> str:
    """Make one HTML page, whole in itself.

    Args:
        recipe: How both were made.
        name: The file of theirs.
        theirs: The picture in the file.
        ours: The one rendered here, of the same size.
        difference: How far they are from each other.
        python_text: What renders ours.
    """
    pairs = ((f"{name}, {recipe.source}", theirs), ("rendered here", ours))
    values = {
        "title": f"{name}, rendered again: {difference}",
        "name": printable(name),
        "difference": str(difference),
        "same": difference.rounding,
        "other": OTHER if recipe.complete and not difference.rounding else "",
        "gaps": [(printable(gap.where), printable(gap.effect)) for gap in recipe.gaps],
        "notes": list(map(printable, recipe.notes)),
        "tables": [(heading, [list(map(printable, row)) for row in rows]) for heading, rows in _tables(recipe)],
        "python": printable(python_text),
        "size": theirs.size,
        "shown": round(theirs.width * max(1, SHOWN / max(theirs.size))),
        "pictures": [{"label": printable(label), "uri": _data(picture)} for label, picture in pairs],
    }
    return render("reproduce.html", values)


def _tables(recipe: Recipe) -> list[tuple[str, list[Row]]]:
    """One table, or one for each of several stages and one for all."""
    stages = [stage_rows(recipe, stage) for stage in recipe.stages]
    if len(stages) == 1:
        return [("", stages[0] + recipe_rows(recipe))]
    return [*((f"Stage {i + 1}", rows) for i, rows in enumerate(stages)), ("All stages", recipe_rows(recipe))]


def _data(picture: Image.Image) -> str:
    """A data URI."""
    return f"data:image/png;base64,{base64.b64encode(png(picture, {})).decode()}"
