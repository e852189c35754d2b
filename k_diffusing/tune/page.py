"""What was found as one HTML page: the grids drawn, errors against evaluations, pictures side by side.

page([tuned])    # str: no file beside it, and no request leaves it
"""

import base64
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from k_diffusing.tune.candidates import Trial
from k_diffusing.tune.found import Budget, Tuned
from k_diffusing.tune.judge import interval
from k_diffusing.tune.table import budget_lines, choice_lines, told
from k_diffusing.tune.workers import side_by_side

SHOWN = 384  # CSS pixels: smaller pictures are enlarged to this
WIDTH, HEIGHT, ROW, MARGIN = 640.0, 300.0, 26.0, 70.0  # of the drawings


def page(found: Sequence[Tuned]) -> str:
    """Make one HTML page, whole in itself.

    Args:
        found: Of one model, a sampler each; the pictures are the first one's.

    Returns:
        The page's text.
    """
    from k_diffusing.web.pages import render

    first = found[0]
    model, call = first.facts["model"]["name"], first.facts["call"]
    pictures = f"{first.facts['pictures']} to choose with, {len(first.pictures)} held out"
    values = {
        "title": f"Sigma grids of {', '.join(one.label for one in found)} tuned for {model}",
        "choices": choice_lines(found),
        "samplers": [_sampler(one) for one in found],
        "facts": {"model": model, **call, "pictures": pictures},
        "versions": {name: version for name, version in first.facts["versions"].items() if version},
        **_pictures(first),
    }
    return render("tune.html", values)


def _sampler(tuned: Tuned) -> dict[str, Any]:
    rows = [
        {
            "evaluations": one.evaluations, "steps": one.steps, "chosen": one.chosen.name, "error": told(one.error),
            "named": one.best_named.name, "named_error": told(interval(one.held_out[one.best_named.name])),
            "ratio": told(one.gain), "sigmas": ", ".join(f"{sigma:.5g}" for sigma in one.chosen.grid),
        }
        for one in tuned.budgets
    ]  # fmt: skip
    return {"label": tuned.label, "lines": budget_lines(tuned)[:1], "rows": rows, "grids": _grids(tuned),
            "errors": _errors(tuned)}  # fmt: skip


def _grids(tuned: Tuned) -> dict[str, Any]:
    """The chosen grid and the best named one for each number of evaluations, along log sigma."""
    grids = [grid.grid for one in tuned.budgets for grid in (one.chosen, one.best_named)]
    logs = np.log([sigma for grid in grids for sigma in grid if sigma > 0])
    high, low = float(logs.max()), float(logs.min())

    def dots(trial: Trial) -> list[float]:
        span = (high - low) or 1.0
        return [MARGIN + (WIDTH - MARGIN - 10) * (high - math.log(s)) / span for s in trial.grid if s > 0]

    rows = [
        {
            "label": one.evaluations, "y": ROW * (place + 1), "chosen": dots(one.chosen), "named": dots(one.best_named),
            "name": one.best_named.name,
        }
        for place, one in enumerate(tuned.budgets)
    ]  # fmt: skip
    axis = "flow time" if tuned.facts["flow"] else "sigma"
    ends = (f"{axis} {math.exp(high):.3g}", f"{math.exp(low):.3g}")
    return {"width": WIDTH, "height": ROW * (len(rows) + 2), "rows": rows, "ends": ends}


def _errors(tuned: Tuned) -> dict[str, Any]:
    """Errors on the pictures of the choice, of all that were judged on all of them."""
    shown = [trial for one in tuned.budgets for trial in one.trials]
    scores = [trial.score for trial in shown]
    high, low = max(scores), min(scores)
    counts = [math.log(one.evaluations) for one in tuned.budgets]
    left, right = min(counts), max(counts)

    def x(evaluations: int) -> float:
        return MARGIN + (WIDTH - 2 * MARGIN) * (math.log(evaluations) - left) / ((right - left) or 1.0)

    def y(score: float) -> float:
        return 15 + (HEIGHT - 50) * (high - score) / ((high - low) or 1.0)

    columns = [
        {
            "x": x(one.evaluations), "label": one.evaluations, "chosen": y(one.chosen.score),
            "named": y(one.best_named.score),
            "trials": [{"y": y(t.score), "name": f"{t.name}: {math.exp(t.score):.3f}"} for t in one.trials],
        }
        for one in tuned.budgets
    ]  # fmt: skip
    ticks = [{"y": y(score), "label": f"{math.exp(score):.3f}"} for score in np.linspace(high, low, 4)]
    return {"width": WIDTH, "height": HEIGHT, "columns": columns, "ticks": ticks}


def _pictures(tuned: Tuned) -> dict[str, Any]:
    """Of the first held-out prompt: the best named grid, the chosen one and the fine run; none without a VAE."""
    pipe, one = tuned.pictures.pipe, tuned.pictures[:1]
    if getattr(pipe, "vae", None) is None:
        return {"pairs": [], "slid": [], "size": (1, 1), "shown": SHOWN, "prompt": ""}

    def drawn(budget: Budget) -> list[Image.Image]:
        return [_decoded(tuned, tuned.run(one, trial.grid)) for trial in (budget.best_named, budget.chosen)]

    with side_by_side(tuned.at_a_time) as run_all:
        pictures = [*run_all(drawn, tuned.budgets)]
    fine, size = _uri(_decoded(tuned, tuned.ends[:1])), pictures[0][0].size
    pairs = []
    for budget, both in zip(tuned.budgets, pictures, strict=True):
        cells = [*zip((budget.best_named.name, "tuned"), map(_uri, both), strict=True), ("fine run", fine)]
        pairs.append({"evaluations": budget.evaluations, "cells": cells})
    slid = [  # a the tuned one, as in the drawings
        {"label": f"{name}, {pairs[0]['evaluations']} evaluations", "uri": uri}
        for name, uri in pairs[0]["cells"][1::-1]
    ]
    shown = round(size[0] * max(1, SHOWN / max(size)))
    return {"pairs": pairs, "slid": slid, "size": size, "shown": shown, "prompt": one.prompts[0]}


def _decoded(tuned: Tuned, latents: torch.Tensor) -> Image.Image:
    """The picture of final latents [1, elements]."""
    pipe, call = tuned.pictures.pipe, tuned.pictures.call
    side = pipe.default_sample_size * pipe.vae_scale_factor
    height, width = call.get("height") or side, call.get("width") or side
    latents = latents.reshape(1, *tuned.shape).to(pipe.device)
    with torch.no_grad():
        return pipe.decode(latents, height, width, "pil")[0]


def _uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
