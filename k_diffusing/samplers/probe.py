"""What a grid must know of a sampler that no table tells: measured on a state of a few numbers, without a network."""

from collections.abc import Callable
from typing import NamedTuple

import torch

from k_diffusing.model.schedules import FlowSchedule
from k_diffusing.samplers.call import run_sampler
from k_diffusing.samplers.comfyui import ComfyModel, Levels, after_guidance, model_sampling
from k_diffusing.samplers.private_draws import PrivateDraws
from k_diffusing.samplers.records import Sampler

CALLS = 100  # of the model in a step; more is a sampler that finds no end
# Unlike answers on unlike grids (linspace to this power): what a sampler does on all of them it does on any.
MODELS = ((torch.tanh, 3), (torch.zeros_like, 1), (lambda x: 5 + torch.cos(x), 7))


class Probe(NamedTuple):
    """A sampler with its options, in flow coordinates (sigma is a time from 1 to 0) or on x0 + sigma * noise."""

    sampler: Sampler
    options: dict
    flow: bool = False

    def evaluations(self, steps: int) -> int:
        """How often it calls the model on a grid of so many steps.

        Raises ValueError if there is more to it than their number; otherwise whatever the sampler raises.
        """
        counts = {self._run(torch.ones(1, 4, 8, 8), steps, *model)[1] for model in MODELS}
        if len(counts) > 1:
            raise ValueError("it depends on sigmas or on the model's answers")
        return counts.pop()

    def steps_within(self, evaluations: int) -> int:
        """The most steps that take at most that many evaluations, 0 if one takes more; raises as evaluations() does.

        More steps take no fewer evaluations, and a step takes one at least.
        """
        few, many = 0, evaluations + 1
        while many - few > 1:
            middle = (few + many) // 2
            few, many = (middle, many) if self.evaluations(middle) <= evaluations else (few, middle)
        return few

    def mixes_images(self) -> bool:
        """Whether an image depends on the others in its batch; also if the sampler cannot run."""
        x = torch.linspace(-2, 3, 2 * 4 * 8 * 8).reshape(2, 4, 8, 8)
        try:
            together = self._run(x, 4, *MODELS[-1])[0]
            alone = torch.cat([self._run(one[None], 4, *MODELS[-1])[0] for one in x])
        except Exception:  # the user's code: the render will tell of it
            return True
        return not torch.allclose(together, alone, rtol=0, atol=1e-4)  # of numbers up to 6 in float32

    def _run(self, x: torch.Tensor, steps: int, network: Callable, power: int) -> tuple[torch.Tensor, int]:
        """The result, and the calls of the model, which answers `network(x)`."""
        sigmas = (1.0 if self.flow else 14.6) * torch.linspace(1, 0, steps + 1) ** power
        calls = 0

        def denoiser(x, sigma, model_options=None, **_):
            nonlocal calls
            calls += 1
            if calls > CALLS * steps:
                raise ValueError("it finds no end")
            denoised = network(x)
            return after_guidance(model_options or {}, x, sigma, denoised, denoised, denoised)

        schedule = FlowSchedule(sigmas.flip(0), shift=lambda t: t, train_steps=len(sigmas))
        model = ComfyModel(denoiser, model_sampling(Levels(schedule), self.flow)) if self.sampler.custom else denoiser
        with PrivateDraws(), torch.no_grad():
            x = run_sampler(self.sampler, model, x.clone(), sigmas, options=self.options, noise=_same_for_all)
        return x, calls


def _same_for_all(x: torch.Tensor, *_, **__) -> Callable:
    """Noise that is the same for each image of a batch."""
    return lambda *_: torch.cos(torch.arange(x[0].numel())).reshape(x[:1].shape).expand_as(x)
