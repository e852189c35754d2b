"""Weights of a multistep sampler by least squares: each step is to end where the fine run is.

No derivative of the network is needed. A run fits as it goes, so that a step sees the estimates that it will see, and
makes good what the steps before have missed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from k_diffusing.samplers.evaluate import Evaluator, levels_of
from k_diffusing.samplers.fitted import MEMORY, FittedSampler, Table, stepped
from k_diffusing.tune.fine import FINE, Levels, Recorder
from k_diffusing.tune.pictures import Pictures, as_function

RIDGE = 1e-3  # of the mean diagonal: estimates are much alike


class Path:
    """The fine run's states between its levels.

    Attributes:
        sigmas: [N].
        states: [P, N, elements].
        slopes: Likewise, the states' derivatives by sigma.
        ends: [P, elements].
    """

    def __init__(self, sigmas: np.ndarray, recorder: Recorder, ends: torch.Tensor):
        levels = torch.from_numpy(sigmas).float()[:, None]
        self.sigmas, self.states, self.ends = sigmas, torch.stack(recorder.states, 1), ends
        self.slopes = (self.states - torch.stack(recorder.estimates, 1)) / levels

    def at(self, sigma: float, rows: slice) -> torch.Tensor:
        """The states [rows, elements] at a sigma, by cubic interpolation."""
        last = float(self.sigmas[-1])
        if sigma <= last:
            return self.ends[rows] + sigma / last * (self.states[rows, -1] - self.ends[rows])
        k = int(np.clip(np.searchsorted(-self.sigmas, -sigma), 1, len(self.sigmas) - 1))
        high, low = (float(self.sigmas[i]) for i in (k - 1, k))
        width = low - high
        t = (sigma - high) / width
        value = (1 + 2 * t) * (1 - t) ** 2 * self.states[rows, k - 1] + t**2 * (3 - 2 * t) * self.states[rows, k]
        slope = t * (1 - t) ** 2 * self.slopes[rows, k - 1] - t**2 * (1 - t) * self.slopes[rows, k]
        return value + width * slope


@dataclass
class Fitting:
    """A sampler that fits its weights to the pictures that it samples.

    Attributes:
        target: (sigma) -> the states [B, elements] that the fine run has there.
        weights: Of each step, once it has run.
    """

    target: Callable[[float], torch.Tensor]
    weights: list[list[float]] = field(default_factory=list)

    __name__ = "fitting"

    def __call__(self, model, x, sigmas, extra_args=None, callback=None, disable=None):
        """As a pipeline takes it."""
        levels, model = levels_of(sigmas), Evaluator(model, x, extra_args, callback)
        sizes = self.target(0.0).double().norm(dim=1)
        estimates: list[torch.Tensor] = []
        self.weights = []
        for i in range(len(levels) - 1):
            estimates = [*estimates, model.begin(i, x, levels[i])][-MEMORY:]
            ratio, wanted = levels[i + 1] / levels[i], self.target(levels[i + 1]).to(x).reshape(x.shape)
            self.weights.append(least_squares(wanted - ratio * x, estimates, 1 - ratio, sizes))
            x = stepped(x, ratio, estimates, self.weights[-1])
        return x


def least_squares(
    wanted: torch.Tensor, estimates: Sequence[torch.Tensor], total: float, sizes: torch.Tensor
) -> list[float]:
    """Weights of the estimates [B, ...], with that total, whose sum is nearest to what is wanted [B, ...].

    sizes: [B], by which each picture's distance is divided.
    """
    newest = estimates[-1]
    if len(estimates) == 1:
        return [total]
    scale = 1 / sizes.to(wanted.device).reshape(-1, 1)
    columns = torch.stack([((one - newest).flatten(1).double() * scale).flatten() for one in estimates[:-1]])
    rest = ((wanted - total * newest).flatten(1).double() * scale).flatten()
    gram, right = (columns @ columns.T).cpu().numpy(), (columns @ rest).cpu().numpy()
    size = np.trace(gram) / len(gram)
    found = np.linalg.solve(gram + (RIDGE * size or 1.0) * np.eye(len(gram)), right)
    return [*found.tolist(), total - float(found.sum())]


class Fitter:
    """Runs that fit, and runs with what was fitted.

    Attributes:
        pictures: To fit on, one call of the network.
        levels: Of the model.
        path: Their fine run.
        tick: Told of evaluations besides those of runs.
    """

    def __init__(self, pictures: Pictures, levels: Levels, tick: Callable[[int], None]):
        self.pictures, self.levels = pictures[: pictures.batch_size], levels
        recorder, sigmas = Recorder(), levels.fine(FINE)
        ends = self.pictures.run(recorder.sampler, None, as_function(levels.grid(sigmas)), FINE)
        tick(FINE * len(self.pictures))
        self.path, self.known, self.tick = Path(sigmas, recorder, ends), {}, tick

    def run(self, pictures: Pictures, grid: Sequence[float]) -> torch.Tensor:
        """Final latents [P, elements]: of those to fit on by weights of their own, of others by theirs."""
        first, count = pictures.seeds[0] - self.pictures.seeds[0], len(self.pictures)
        if 0 <= first and first + len(pictures) <= count:
            return self._fit(slice(first, first + len(pictures)), grid)[0]
        sampler = FittedSampler({len(grid) - 1: self.table(grid)})
        return pictures.run(sampler, None, as_function(grid), len(grid) - 1)

    def table(self, grid: Sequence[float]) -> Table:
        """The weights for a grid, fitted on all pictures."""
        key = tuple(grid)
        if key not in self.known:
            weights = self._fit(slice(0, len(self.pictures)), grid)[1]
            self.tick((len(grid) - 1) * len(self.pictures))
            self.known[key] = Table([*self.levels.sigmas(grid).tolist(), 0.0], weights)
        return self.known[key]

    def _fit(self, rows: slice, grid: Sequence[float]) -> tuple[torch.Tensor, list[list[float]]]:
        fitting = Fitting(lambda sigma: self.path.at(sigma, rows))
        ends = self.pictures[rows].run(fitting, None, as_function(grid), len(grid) - 1)
        return ends, fitting.weights
