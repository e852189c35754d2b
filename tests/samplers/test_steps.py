"""How many steps and network evaluations a sampler takes, known beforehand, and what an observer is told of them."""

import math

import pytest
import torch

from k_diffusing.samplers.steps import evaluation_count
from samplers_patch import SAMPLERS, find_sampler, run_sampler, step_count

GRIDS = {
    f"{n} levels to {last}": torch.tensor([*torch.linspace(10, 1, n).tolist(), last])
    for n in (1, 2, 3, 4, 8)
    for last in (0.0, 0.3)
}


def watched(name: str, sigmas: torch.Tensor, **options) -> tuple[list, int]:
    """The steps that an observer is told of, each with its level and state, and how often the model was called."""
    steps, calls = [], []

    class Observer:
        def begin_step(self, index, x, sigma):
            steps.append((index, float(sigma), x.clone()))

    def model(x, sigma):
        calls.append((float(sigma[0]), x.clone()))
        return x / (1 + sigma[0] ** 2)

    x = torch.full((1, 4), float(sigmas[0]))
    run_sampler(SAMPLERS[name], model, x, sigmas, options=options, observer=Observer())
    return steps, calls


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "dpm_adaptive"])
def test_counts_are_known_beforehand(name, grid):
    sigmas = GRIDS[grid]
    steps, calls = watched(name, sigmas)
    assert [index for index, *_ in steps] == list(range(step_count(SAMPLERS[name], sigmas)))
    assert len(calls) == evaluation_count(SAMPLERS[name], sigmas)
    if name == "dpm_fast":
        assert len(calls) == len(sigmas) - 1


@pytest.mark.parametrize("name", ["euler", "heun", "dpm_2", "dpmpp_2m", "euler_ancestral"])
def test_a_step_is_told_of_with_its_level_and_state(name):
    """Those of its first call of the model."""
    sigmas = GRIDS["8 levels to 0.3"]
    steps, calls = watched(name, sigmas)
    first_calls = calls[:: len(calls) // len(steps)]
    assert [sigma for _, sigma, _ in steps] == [sigma for sigma, _ in first_calls] == sigmas[:-1].tolist()
    assert all(torch.equal(x, seen) for (*_, x), (_, seen) in zip(steps, first_calls, strict=True))


@pytest.mark.parametrize("name", ["euler", "heun", "dpm_2"])
def test_a_step_is_told_of_before_churn_raises_its_level(name):
    sigmas = GRIDS["8 levels to 0.3"]
    steps, calls = watched(name, sigmas, s_churn=3.0)
    assert [sigma for _, sigma, _ in steps] == sigmas[:-1].tolist()
    for (_, sigma, x), (raised, seen) in zip(steps, calls[:: len(calls) // len(steps)], strict=True):
        assert raised > sigma and not torch.equal(x, seen)


def silent(model, x, sigmas):
    return model(x, sigmas[0])


def ranged(model, x, sigma_min, sigma_max):
    return model(x, sigma_max)


def test_counts_that_the_model_or_the_user_decides():
    sigmas = GRIDS["8 levels to 0.0"]
    assert step_count(SAMPLERS["dpm_adaptive"], sigmas) is None
    assert evaluation_count(SAMPLERS["dpm_adaptive"], sigmas) is None
    assert step_count(find_sampler(ranged), sigmas) is None
    assert step_count(find_sampler(silent), sigmas) == 8
    assert evaluation_count(find_sampler(silent), sigmas) is None
    for function in (silent, ranged):  # also of a single step to 0: it may call the model as often as it likes
        assert evaluation_count(find_sampler(function), GRIDS["1 levels to 0.0"]) is None
    assert step_count(find_sampler(ranged), GRIDS["1 levels to 0.0"]) is None


def test_the_levels_of_dpm_fast_and_dpm_adaptive_fall_evenly_in_log_sigma():
    """As DPM-Solver's do; the last step of ours begins at the smallest sigma above 0."""
    sigmas = GRIDS["8 levels to 0.0"]
    levels = [math.log(sigma) for _, sigma, _ in watched("dpm_fast", sigmas)[0]]
    assert levels[0] == pytest.approx(math.log(10), abs=1e-6) and levels[-1] == pytest.approx(0, abs=1e-6)
    lengths = [a - b for a, b in zip(levels, levels[1:], strict=False)]
    assert lengths == pytest.approx([math.log(10) / 3] * 3, rel=1e-5)  # float32
    adaptive = [sigma for _, sigma, _ in watched("dpm_adaptive", sigmas)[0]]
    assert adaptive[0] == 10 and adaptive[-1] == 1 and adaptive == sorted(adaptive, reverse=True)
