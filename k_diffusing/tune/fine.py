"""The fine run: what a model's denoised estimates do along the trajectories that all grids approximate.

Of a picture only inner products are kept: N^2 numbers, whatever its size.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch

from k_diffusing.grids.bounds import with_zero
from k_diffusing.model.coordinates import LARGEST_FLOW_TIME, flow_time, noise_level
from k_diffusing.samplers.exponential_multistep import sample_res_3m
from k_diffusing.tune.pictures import Pictures, as_function
from k_diffusing.tune.workers import Map

FINE = 80  # evaluations of the fine run
SECOND_FLOW_TIME = 0.99  # next after t = 1, for which LARGEST_FLOW_TIME stands


@dataclass(frozen=True)
class Levels:
    """The noise levels of a model, in the two ways in which they are counted here.

    Attributes:
        flow: Whether its grids are in flow time, of which the first is 1.
        largest: The largest sigma of x0 + sigma eps.
        smallest: The smallest one.
    """

    flow: bool
    largest: float
    smallest: float

    @classmethod
    def of(cls, pictures: Pictures) -> "Levels":
        """Those of the pipeline's model."""
        seen = []

        def grid(schedule, n: int):
            seen.append(schedule)
            return with_zero(schedule.sigmas[[-1 - i for i in range(n)]])

        flow = pictures.plan("euler", None, grid).space.flow
        low, high = (float(seen[0].sigmas[i]) for i in (0, -1))
        return cls(flow, noise_level(min(high, LARGEST_FLOW_TIME)) if flow else high, noise_level(low) if flow else low)

    def grid(self, sigmas) -> list[float]:
        """n sigmas above 0, of x0 + sigma eps, as a grid of the pipeline's [n + 1]."""
        values = np.asarray(sigmas, dtype=float)
        if self.flow:
            values = np.where(values >= self.largest * (1 - 1e-6), 1.0, flow_time(values))
        return [*values.tolist(), 0.0]

    def sigmas(self, grid) -> np.ndarray:
        """The inverse: the n sigmas above 0 of x0 + sigma eps of a grid [n + 1]."""
        values = np.asarray(grid, dtype=float)[:-1]
        return noise_level(np.minimum(values, LARGEST_FLOW_TIME)) if self.flow else values

    def fine(self, n: int) -> np.ndarray:
        """n sigmas from the largest to the smallest, half of them even in log sigma and half in arctan sigma."""
        first = noise_level(SECOND_FLOW_TIME) if self.flow else self.largest
        count = n - 1 if self.flow else n
        logs = np.linspace(math.log(first), math.log(self.smallest), 4096)
        angles = np.arctan(np.exp(logs))
        share = (logs[0] - logs) / (logs[0] - logs[-1]) + (angles[0] - angles) / (angles[0] - angles[-1])
        sigmas = np.exp(np.interp(np.linspace(0, 2, count), share, logs))
        return np.concatenate([[self.largest], sigmas]) if self.flow else sigmas


@dataclass(frozen=True)
class Fine:
    """What is kept of a fine run of P pictures over N noise levels.

    Attributes:
        sigmas: [N], those of x0 + sigma eps, the largest first; a step to 0 follows the last.
        change: [N, N], the mean over pictures of |D_k - D_i|^2 / |x_N|^2, with D_i the denoised estimate at sigmas[i]
            and x_N the end.
        turn: [N - 1], the mean angle between the directions x - D at neighbouring levels.
        ends: [P, elements], the pictures' final latents.
        shape: Of one picture's latents.
    """

    sigmas: np.ndarray
    change: np.ndarray
    turn: np.ndarray
    ends: torch.Tensor
    shape: tuple[int, ...]

    def below(self, sigma: float) -> "Fine":
        """The run from its first level at or below a sigma on."""
        k = int((self.sigmas > sigma * (1 + 1e-6)).sum())
        return replace(self, sigmas=self.sigmas[k:], change=self.change[k:, k:], turn=self.turn[k:])


class Recorder:
    """The fine run's sampler, exponential Adams of order 3, which keeps what the model is given and answers.

    Attributes:
        states: [B, elements] at each level, float32 on the CPU.
        estimates: The denoised ones, likewise.
        shape: Of one picture's latents.
    """

    def __init__(self):
        self.states: list[torch.Tensor] = []
        self.estimates: list[torch.Tensor] = []
        self.shape: tuple[int, ...] = ()

    def sampler(self, model, x, sigmas, extra_args=None, callback=None, disable=None):
        """As a pipeline takes it."""
        self.shape = tuple(x.shape[1:])

        def watched(x, sigma, **more):
            denoised = model(x, sigma, **more)
            self.states.append(x.flatten(1).float().cpu())
            self.estimates.append(denoised.flatten(1).float().cpu())
            return denoised

        return sample_res_3m(watched, x, sigmas, extra_args, callback, disable)

    def picture(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """States and estimates of one picture, [N, elements] each."""
        states, estimates = (torch.stack([one[index] for one in kept]) for kept in (self.states, self.estimates))
        return states, estimates


def fine_run(pictures: Pictures, levels: Levels, n: int, tick: Callable[[int], None], map: Map = map) -> Fine:
    """Sample pictures by the exponential Adams method of order 3 in n evaluations.

    tick: told of the evaluations after each batch. map: what runs the batches.
    """
    sigmas, batches = levels.fine(n), pictures.batches()
    grid = as_function(levels.grid(sigmas))

    def part(batch: Pictures) -> tuple:
        recorder = Recorder()
        end = batch.run(recorder.sampler, None, grid, n)
        pairs = [recorder.picture(picture) for picture in range(len(batch))]
        sizes = (end.double() ** 2).sum(1).tolist()
        changes = [_distances(own @ own.T) / size for (_, own), size in zip(pairs, sizes, strict=True)]
        return changes, [_angles(states - estimates) for states, estimates in pairs], end, recorder.shape

    parts = []
    for batch, found in zip(batches, map(part, batches), strict=True):
        parts.append(found)
        tick(n * len(batch))
    changes, turns, ends, shapes = zip(*parts, strict=True)
    change, turn = (np.mean(list(chain(*each)), axis=0) for each in (changes, turns))
    return Fine(sigmas, change, turn, torch.cat(ends), shapes[0])


def _distances(gram: torch.Tensor) -> np.ndarray:
    """|a_k - a_i|^2 from inner products [N, N]."""
    gram = gram.double()
    squares = gram.diagonal()
    return (squares[:, None] + squares[None] - 2 * gram).clamp(min=0).numpy()


def _angles(directions: torch.Tensor) -> np.ndarray:
    """Between neighbouring rows [N, elements]."""
    unit = torch.nn.functional.normalize(directions, dim=1)
    chord = (unit[1:] - unit[:-1]).norm(dim=1).double()
    return (2 * torch.asin((chord / 2).clamp(max=1))).numpy()
