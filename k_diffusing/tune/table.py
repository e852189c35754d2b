"""What was found, as lines of text: for each sampler, and which sampler to take."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from k_diffusing.tune.found import Budget, Tuned
from k_diffusing.tune.judge import Interval

SAME_END = 0.01  # relative: samplers whose fine runs end as near each other solve one equation


def told(value: Interval) -> str:
    """An error or a ratio with its interval."""
    return f"{value.mean:.3f} [{value.low:.3f}, {value.high:.3f}]"


def budget_lines(tuned: Tuned) -> list[str]:
    """A line for each number of evaluations."""
    lines = [f"{tuned.label}, errors on {len(tuned.pictures)} pictures that the choice did not see:"]
    for one in tuned.budgets:
        named = one.best_named.name
        best = f"it is {named}, which nothing tried beats" if one.chosen is one.best_named else (
            f"{told(one.gain)} of {named}'s"
        )  # fmt: skip
        lines.append(f"{one.evaluations:4d} evaluations, {one.steps} steps: error {told(one.error)}, {best}")
    return lines


class Choice(NamedTuple):
    """The sampler to take for a number of evaluations."""

    evaluations: int
    tuned: Tuned
    budget: Budget


def choices(found: Sequence[Tuned]) -> list[Choice]:
    """For each number of evaluations the sampler with the least error on the pictures of the choice.

    Samplers are compared whose fine runs end alike: noise and CFG++ lead elsewhere, and stand for themselves.
    """
    alike = [one for one in found if _same_end(found[0], one)]
    rows = []
    for evaluations in dict.fromkeys(budget.evaluations for one in alike for budget in one.budgets):
        pairs = [(one, budget) for one in alike for budget in one.budgets if budget.evaluations == evaluations]
        rows.append(Choice(evaluations, *min(pairs, key=lambda pair: pair[1].chosen.score)))
    return rows


def choice_lines(found: Sequence[Tuned]) -> list[str]:
    """A line for each number of evaluations, where there is a choice."""
    if sum(_same_end(found[0], one) for one in found) < 2:
        return []
    return [
        f"for {row.evaluations} evaluations take {row.tuned.label} on its grid of {row.budget.steps} steps: "
        f"error {told(row.budget.error)}"
        for row in choices(found)
    ]


def choices_json(found: Sequence[tuple[Path, Tuned]]) -> str:
    """A row for each number of evaluations: the sampler to take, its file, its steps and its error.

    found: samplers with the files that they were written to.
    """
    files = {tuned.label: path.name for path, tuned in found}
    rows = [
        {
            "evaluations": row.evaluations, "sampler": row.tuned.label, "sigma_grid": files[row.tuned.label],
            "steps": row.budget.steps, "error": row.budget.error,
        }
        for row in choices([tuned for _, tuned in found])
    ]  # fmt: skip
    return json.dumps(rows, indent=1)


def _same_end(a: Tuned, b: Tuned) -> bool:
    distance = (a.ends - b.ends).norm(dim=1) / torch.linalg.vector_norm(a.ends, dim=1)
    return float(distance.max()) < SAME_END
