"""A sampler at work on pictures: its fine runs, and the errors of grids."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from k_diffusing.compare.sources import Source
from k_diffusing.samplers.find import find_sampler
from k_diffusing.samplers.options import adds_noise
from k_diffusing.samplers.records import Sampler
from k_diffusing.tune.book import Book, digest
from k_diffusing.tune.candidates import Trial
from k_diffusing.tune.descend import DAMPED, LARGEST, best_moves, moved, tried, ways
from k_diffusing.tune.fine import FINE, Fine, Levels, fine_run
from k_diffusing.tune.fitting import Fitter
from k_diffusing.tune.pictures import Pictures, as_function
from k_diffusing.tune.shared_noise import SharedPath
from k_diffusing.tune.workers import Map

NEAR = 0.1  # the relative distance up to which two fine runs end alike: a method of order 1 is 0.02 off


@dataclass(frozen=True)
class Work:
    """A sampler on a model, and what is known of it.

    Attributes:
        source: The sampler.
        levels: Of the model.
        book: Where what is measured is noted.
        tick: Told of evaluations.
        map: As `side_by_side` yields it: what runs pictures.
        fitter: What runs in the sampler's place where weights are fitted.
    """

    source: Source
    levels: Levels
    book: Book
    tick: Callable[[int], None]
    map: Map = map
    fitter: Fitter | None = None

    @property
    def sampler(self) -> Sampler:
        """Its record."""
        return find_sampler(self.source.sampler)

    def replay(self) -> Callable | None:
        """The shared noise of a sampler that may add some."""
        if not adds_noise(self.sampler, self.source.options):
            return None
        return lambda seeds: SharedPath(seeds, self.levels.largest)

    def fine(self, pictures: Pictures, name: str) -> Fine:
        """The fine run, whose end is the sampler's own where that leads elsewhere: with noise, or by CFG++."""
        found = self.book.fine(name, lambda: fine_run(pictures, self.levels, FINE, self.tick, self.map))
        if self.replay() is None and not self.sampler.uses_uncond:
            return found

        grid = self.levels.grid(found.sigmas)

        def own() -> Fine:
            ends = torch.cat(list(self.map(lambda part: self.run(part, grid), pictures.batches())))
            self.tick(FINE * len(pictures))
            return replace(found, ends=ends)

        other = self.book.fine(name, own, own=True)
        near = (other.ends - found.ends).norm(dim=1) / found.ends.norm(dim=1)
        same = self.sampler.custom and float(near.max()) < NEAR  # the same equation, and the fine run is nearer to it
        return found if same else other

    def errors(self, pictures: Pictures, ends: torch.Tensor, trials: Sequence[Trial]) -> list[list[float]]:
        """Of each trial's grid those of each picture."""
        keys = [digest([pictures.seeds, trial.grid]) for trial in trials]
        missing = {key: trial for key, trial in zip(keys, trials, strict=True) if key not in self.book.errors}
        runs = self.map(lambda trial: self.run(pictures, trial.grid), missing.values())
        for (key, trial), found in zip(missing.items(), runs, strict=True):
            self.book.note(key, ((found - ends).norm(dim=1) / ends.norm(dim=1)).tolist())
            self.tick((len(trial.grid) - 1) * len(pictures))
        return [self.book.errors[key] for key in keys]

    def moved(self, pictures: Pictures, ends: torch.Tensor, base: Trial) -> list[Trial]:
        """Grids that Gauss-Newton promises to be better than one that was judged."""
        shapes = ways(len(base.grid) - 1, self.levels.flow)
        key = digest(["moves", DAMPED, LARGEST, shapes.tolist(), pictures.seeds, base.grid])
        if key not in self.book.errors:
            grids = [trial.grid for trial in tried(base, self.levels)]
            runs = list(self.map(lambda grid: self.run(pictures, grid), grids))
            self.book.note(key, sum(best_moves(runs, ends), []))
            self.tick(len(grids) * (len(base.grid) - 1) * len(pictures))
        moves = np.array(self.book.errors[key]).reshape(-1, len(shapes))
        return [moved(base, self.levels, move @ shapes) for move in moves]

    def run(self, pictures: Pictures, grid: Sequence[float]) -> torch.Tensor:
        """The pictures' final latents [P, elements] on a grid."""
        if self.fitter is not None:
            return self.fitter.run(pictures, grid)
        options, steps = self.source.options, len(grid) - 1
        return pictures.run(self.source.sampler, options, as_function(grid), steps, self.replay())


def content(sampler: str | Callable) -> str | None:
    """What tells a user's function from its later versions."""
    try:
        return None if isinstance(sampler, str) else digest(inspect.getsource(inspect.unwrap(sampler)))
    except (OSError, TypeError):  # an object, or from a notebook that is gone
        return None
