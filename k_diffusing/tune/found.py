"""What was found: a grid for each number of evaluations, and the file that it is written to."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from k_diffusing._files import write_whole
from k_diffusing.grids.tuned import FORMAT, TunedGrid
from k_diffusing.samplers.fitted import Table
from k_diffusing.tune.candidates import Trial
from k_diffusing.tune.judge import Interval, interval, ratio
from k_diffusing.tune.pictures import Pictures


@dataclass(frozen=True)
class Budget:
    """What was found for a number of evaluations.

    Attributes:
        evaluations: At most.
        steps: Of the grid.
        chosen: The grid.
        best_named: The best of those with a name, on the pictures that the choice was made on.
        trials: All that were judged to the end, the best first.
        held_out: By name the errors on pictures that the choice did not see: chosen, best named, and others.
    """

    evaluations: int
    steps: int
    chosen: Trial
    best_named: Trial
    trials: list[Trial]
    held_out: dict[str, list[float]]

    @property
    def error(self) -> Interval:
        """Of the chosen grid, held out."""
        return interval(self.held_out[self.chosen.name])

    @property
    def gain(self) -> Interval:
        """The ratio of its errors to those of the best named grid, held out."""
        mine, theirs = (Trial(t.name, t.grid, errors=self.held_out[t.name]) for t in (self.chosen, self.best_named))
        return ratio(mine, theirs)


@dataclass(frozen=True)
class Tuned:
    """The grids that were found for a model and a sampler.

    Attributes:
        label: The sampler's.
        budgets: One for each number of evaluations.
        facts: What they were found with, as the file has it.
        pictures: That they were judged on last, held out from the choice.
        run: (pictures, grid) -> their final latents [P, elements], by the sampler.
        tables: Of "fitted" its weights, by the number of steps.
        ends: [P, elements], the final latents of the fine run of these pictures.
        shape: Of one picture's latents.
        at_a_time: How many runs are made side by side.
    """

    label: str
    budgets: list[Budget]
    facts: dict[str, Any] = field(repr=False)
    pictures: Pictures = field(repr=False)
    run: Callable[[Pictures, Sequence[float]], torch.Tensor] = field(repr=False)
    tables: dict[int, Table] = field(repr=False)
    ends: torch.Tensor = field(repr=False)
    shape: tuple[int, ...] = field(repr=False)
    at_a_time: int = field(repr=False)

    @property
    def sigma_grid(self) -> TunedGrid:
        """What a pipeline takes as sigma_grid=."""
        return TunedGrid(f"the grid tuned for {self.label}", json.loads(self.to_json()))

    def to_json(self) -> str:
        """The grids by their number of steps, errors, and all that they were found with."""
        sigmas = {str(one.steps): one.chosen.grid for one in self.budgets}
        rows = [
            {
                "evaluations": one.evaluations, "steps": one.steps, "chosen": one.chosen.name,
                "best_named": one.best_named.name, "error": one.error, "ratio_to_best_named": one.gain,
                "trials": [asdict(trial) for trial in one.trials], "held_out": one.held_out,
            }
            for one in self.budgets
        ]  # fmt: skip
        weights = {"weights": {str(n): asdict(table) for n, table in self.tables.items()}} if self.tables else {}
        return json.dumps({"format": FORMAT, "sigmas": sigmas, **weights, **self.facts, "budgets": rows}, indent=1)

    def save(self, path: str | Path) -> None:
        """Write the file, whole or not at all."""
        write_whole(Path(path), f"{self.to_json()}\n".encode())
