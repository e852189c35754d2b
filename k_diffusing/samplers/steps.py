"""When a sampler begins a step, and how many steps it takes."""

import torch

from k_diffusing._k_diffusion import k_sampling
from k_diffusing.noise.interval import Draw, Interval
from k_diffusing.protocols import Denoiser, Observer
from k_diffusing.samplers.records import Sampler

REJECTED = 100  # attempts in a row at one step of dpm_adaptive: each makes it smaller, by a fifth with its defaults


def step_count(sampler: Sampler, sigmas: torch.Tensor) -> int | None:
    """The number of steps a sampler takes on `sigmas` (n + 1 values); None where it depends on the model."""
    steps = len(sigmas) - 1
    if is_single_step(sampler, sigmas):
        return 1
    if sampler.adaptive or (sampler.custom and sampler.takes == "sigma_range"):
        return None
    if sampler.takes == "sigma_range":
        return fast_evaluations(sampler, sigmas) // 3 + 1 + int(leads_to_zero(sampler, sigmas))
    return steps


def is_single_step(sampler: Sampler, sigmas: torch.Tensor) -> bool:
    """Whether all there is to do is one step to 0 that k_diffusion's function cannot take.

    It is left no range, or lacks a variable of an earlier step. One that no step follows stays where it is.
    """
    cannot = sampler.last_step if sampler.takes == "sigma_range" else not sampler.single_step
    return cannot and not sampler.custom and len(sigmas) == 2 and float(sigmas[-1]) == 0


def evaluation_count(sampler: Sampler, sigmas: torch.Tensor) -> int | None:
    """The network evaluations of a run on `sigmas`; None where they depend on the model, or on a user's function.

    The last step, to 0, takes one evaluation in most samplers.
    """
    steps, ends_at_zero = len(sigmas) - 1, int(sigmas[-1] == 0)
    if is_single_step(sampler, sigmas):
        return 1
    if sampler.adaptive or sampler.nfe_per_step is None:
        return None
    if sampler.takes == "sigma_range":
        return fast_evaluations(sampler, sigmas) + int(leads_to_zero(sampler, sigmas))
    first = sampler.nfe_first[:steps]
    ends = (ends_at_zero or sampler.ends_alike) and steps > len(first)
    last = sampler.nfe_last[-(steps - len(first)) :] if ends else ()
    return sum(first) + sampler.nfe_per_step * (steps - len(first) - len(last)) + sum(last)


def leads_to_zero(sampler: Sampler, sigmas: torch.Tensor) -> bool:
    """Whether a sampler that takes a range is followed by a step from its end to 0."""
    return sampler.last_step and float(sigmas[-1]) == 0


def fast_evaluations(sampler: Sampler, sigmas: torch.Tensor) -> int:
    """The n of dpm_fast: with the step to 0, as many evaluations as the grid has steps (one at least)."""
    return max(len(sigmas) - 1 - int(leads_to_zero(sampler, sigmas)), 1)


class StepWatch:
    """Tells an observer when a sampler begins a step, with its state at that moment.

    A loop over `trange` begins a step, and the state is what the sampler next shows us: to `randn_like` (the
    churn samplers draw before they do anything else) or to the model. DPMSolver's steps begin with a new "eps",
    unless the attempt before was rejected.
    """

    def __init__(self, observer: Observer | None, denoiser: Denoiser, sigmas: torch.Tensor, noise: Draw):
        self.observer, self.denoiser, self.sigmas, self.noise = observer, denoiser, sigmas.unbind(), noise
        self.index, self.pending = -1, False

    def begin(self, x, sigma) -> None:
        """The next step begins at the state x."""
        self.index, self.pending = self.index + 1, False
        if self.observer is not None:
            self.observer.begin_step(self.index, x, sigma)

    def see(self, x) -> None:
        """The sampler shows x, the state of a step if one is about to begin."""
        if self.pending:
            self.begin(x, self.sigmas[self.index + 1])

    def trange(self, steps, **_):
        """Stands for the loop over steps, and its progress bar."""
        for i in range(steps):
            self.pending = True
            yield i

    def randn_like(self, x):
        """Stands for the draw of churn."""
        self.see(x)
        return self.noise(Interval.of_churn(self.sigmas[self.index]))

    def model(self, x, sigma, **extra_args):
        """Stands for the model."""
        self.see(x)
        return self.denoiser(x, sigma, **extra_args)

    def DPMSolver(self, *args, **kwargs):  # noqa: N802 - the name it stands in for
        """Stands for the solver of dpm_fast and dpm_adaptive."""
        solver = k_sampling.DPMSolver(*args, **kwargs)
        evaluate, accepted, rejected = solver.eps, 0, 0

        def attempted(info):
            """dpm_adaptive made an attempt at a step; dpm_fast, whose steps stand, counts none."""
            nonlocal accepted, rejected
            if "n_accept" in info:
                rejected = 0 if info["n_accept"] > accepted else rejected + 1
                accepted = info["n_accept"]

        def eps(cache, key, x, t):
            if key == "eps" and not cache:
                if rejected == 0:
                    self.begin(x, solver.sigma(t))
                elif rejected == REJECTED:
                    raise RuntimeError(
                        f"dpm_adaptive rejected {REJECTED} attempts in a row at its step from sigma "
                        f"{float(solver.sigma(t)):.4g}, and would go on: raise its options rtol or atol, lower "
                        "accept_safety, or take a sampler with fixed steps"
                    )
            return evaluate(cache, key, x, t)

        solver.eps, solver.info_callback = eps, attempted
        return solver
