"""At which noise levels a sampler will call the network on a grid, and its run from any of them."""

import contextlib
from collections.abc import Callable
from types import SimpleNamespace

import torch

from k_diffusing.plan import SamplingPlan
from k_diffusing.samplers.call import run_sampler
from k_diffusing.samplers.patch import to_d
from k_diffusing.samplers.private_draws import PrivateDraws

ADAPTIVE = (
    "chooses its steps by the network's answers, and a pipeline wants all timesteps before the first: take a sampler "
    "with fixed steps, or comfy_sampler= of our pipelines, which run this one"
)
NEEDS_BOTH = (
    "needs the network's answers with and without the prompt, and a scheduler is given one that guidance made of them: "
    "use comfy_sampler= of our pipelines"
)


class Calls:
    """The network calls of a planned run, known beforehand: a sampler's control flow depends on the sigmas alone.

    Attributes:
        plan: what the sampler is to do. A grid of one sigma leaves no step to take.
        levels: the sigma of each network call and then of the result, [calls + 1], on the CPU.
        starts: the calls that begin a step.
    """

    def __init__(self, plan: SamplingPlan):
        """Raise ValueError for a sampler whose calls depend on what the network answers."""
        self.plan, self.sampler, self.grid = plan, plan.sampler, plan.sigmas
        sampler, grid = self.sampler, self.grid
        if len(grid) == 1:
            self.levels, self.starts = grid, []
            return
        levels, starts = self._null_run(grid, torch.zeros_like)
        if not levels:
            raise ValueError(f"{sampler.name} never calls the model")
        if sampler.custom and self._null_run(grid, torch.cos)[0] != levels:
            raise ValueError(f"{sampler.name} {ADAPTIVE}")
        if not starts:  # a custom sampler without a callback tells of no steps
            starts = list(range(len(levels))) if len(levels) == len(grid) - 1 else [0]
        self.levels, self.starts = torch.cat([torch.tensor(levels), grid[-1:]]), starts

    @property
    def order(self) -> int:
        """Network calls in a step, as pipelines count them; 1 where not all steps but the last have as many."""
        calls = self.starts[1] if len(self.starts) > 1 else 1
        return calls if self.starts == list(range(0, calls * (len(self.grid) - 1), calls)) else 1

    def sample(self, model: Callable, x: torch.Tensor, sigmas: torch.Tensor, noise: Callable | None, **watch):
        """The sampler's result from x at sigmas[0]; model: (x, sigma) -> (denoised, the network's output).

        noise(x, sigmas, kind): makes the noise_sampler of the run.
        """
        output = None

        def denoiser(x, sigma, model_options=None, seed=None):
            nonlocal output
            if (model_options or {}).get("sampler_post_cfg_function"):
                raise ValueError(f"{self.sampler.name} {NEEDS_BOTH}")
            denoised, output = model(x, sigma)
            return denoised

        def derivative(x, sigma, denoised):
            """`to_d` in flow coordinates: the network's output is the derivative, and nothing is divided by t."""
            return output

        return run_sampler(
            self.sampler,
            self.plan.model(denoiser),
            x,
            sigmas,
            options=self.plan.options,
            noise=noise,
            derivative=derivative if self.plan.patches_to_d else None,
            **watch,
        )

    def _null_run(self, sigmas: torch.Tensor, network: Callable) -> tuple[list[float], list[int]]:
        """The sigma of each call, and the calls that begin a step, on a state of one element; it draws nothing."""
        levels, starts = [], []

        def model(x, sigma):
            levels.append(float(sigma.flatten()[0]))
            if len(levels) > 100 * len(sigmas):
                raise ValueError(f"{self.sampler.name} {ADAPTIVE}")
            return network(x), torch.zeros_like(x)

        def begin_step(index, x, sigma):
            starts.append(len(levels) - self.sampler.custom)  # a custom sampler tells after the first call

        x = torch.ones(1, 1, 1, 1)
        with PrivateDraws() if self.sampler.custom else contextlib.nullcontext(), torch.no_grad():
            self.sample(
                model, x, sigmas, None,
                observer=SimpleNamespace(begin_step=begin_step), watch_noise=lambda _: lambda *_: torch.zeros_like(x),
            )  # fmt: skip
        return levels, starts

    def rest(self, begin: int) -> tuple[int, torch.Tensor]:
        """Of a run that begins with network call `begin`: the next call that begins a step, and the grid from there.

        Raises ValueError if the sampler would call the network at other levels than planned.
        """
        if begin == 0:
            return 0, self.grid
        calls = len(self.levels) - 1
        start = min((call for call in self.starts if call >= begin), default=calls)
        if self.sampler.takes == "sigma_range" and start == calls - 1:
            start = calls  # no range is left, only the Euler step to 0
        if start == calls:
            return start, self.levels[-1:]
        sigmas = self.levels[start:] if self.sampler.takes == "sigma_range" else self.grid[self.starts.index(start) :]
        levels = torch.tensor(self._null_run(sigmas, torch.zeros_like)[0])
        if len(levels) != calls - start or not torch.allclose(levels, self.levels[start:-1], rtol=1e-4):
            raise ValueError(
                f"{self.sampler.name}, with these options, cannot begin with call {begin} of {calls}: its noise levels "
                "depend on the number of steps. Leave out s_churn, or take another sampler, or strength=1"
            )
        return start, sigmas

    def sample_from(self, begin: int, model: Callable, x: torch.Tensor, noise: Callable) -> torch.Tensor:
        """The sampler's result from x at network call `begin`; what is left of a step begun is done in Euler steps."""
        start, sigmas = self.rest(begin)
        for call in range(begin, start):
            sigma = self.levels[call]
            x = x + to_d(x, sigma, model(x, sigma)[0]) * (self.levels[call + 1] - sigma)
        return self.sample(model, x, sigmas, noise) if len(sigmas) > 1 else x
