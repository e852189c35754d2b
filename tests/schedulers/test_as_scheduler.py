"""Samplers as schedulers, stepped by hand: the sampler's own results, whatever happens between the steps.

Tolerance 1e-6 on latents of size 2 to 35, where the same float32 operations are done in the same order (measured: 0.0).
"""

import threading

import pytest
import torch
from diffusers import DDIMScheduler
from stepped_schedulers import GRID, X, called, fresh, fresh_from, half_at_3, network, stepped
from their_pipelines import EULER, NOT_ADAPTIVE, SAME, STEPS, TWO_STAGES
from tiny_models import SDXL_SCHEDULE, largest_difference, seeded

from k_diffusing.model.scheduler_config import preconditioning
from k_diffusing.schedulers.as_scheduler import SamplerScheduler
from samplers_patch import k_sampling


@pytest.mark.parametrize("sampler", NOT_ADAPTIVE)
def test_a_timestep_for_each_network_call(sampler):
    scheduler = fresh(sampler)
    x, levels = called(scheduler, sampler)
    assert torch.equal(scheduler.sigmas, torch.stack([*levels, torch.tensor(0.0)]))
    assert len(scheduler.timesteps) == len(levels) == (2 * STEPS - 1 if sampler in TWO_STAGES else STEPS)
    assert scheduler.order == (2 if sampler in TWO_STAGES else 1)
    assert largest_difference(stepped(scheduler), x) <= SAME


def test_churn():
    """Network calls are at levels above the grid's; the latents begin at the first of these, whose noise is in them."""
    scheduler = fresh("heun", sampler_options={"s_churn": 3.0})
    x, levels = called(scheduler, "heun", change=lambda call, x: X if call == 0 else x, s_churn=3.0)
    assert torch.equal(scheduler.sigmas[:-1], torch.stack(levels)) and levels[0] > 1.3 * GRID[0]
    without = fresh("heun")
    assert abs(scheduler.init_noise_sigma / levels[0] - without.init_noise_sigma / without.sigmas[0]) <= SAME
    assert largest_difference(stepped(scheduler), x) <= SAME


def test_the_null_run_draws_nothing():
    def noise_sampler(sigma, sigma_next):
        raise AssertionError("drawn from")

    before = torch.get_rng_state()
    for sampler in (*NOT_ADAPTIVE, draws_for_itself):
        fresh(sampler)
    fresh("dpmpp_sde", sampler_options={"noise_sampler": noise_sampler})
    assert torch.equal(torch.get_rng_state(), before)


DRAWS = {
    "randn_like": torch.randn_like,
    "randn": lambda x: torch.randn(x.shape),
    "rand": lambda x: torch.rand(x.shape, dtype=torch.float64),
    "rand_like": torch.rand_like,
    "randint": lambda x: torch.randint(2, 9, x.shape),
    "randint_like": lambda x: torch.randint_like(x, 2, 9),
    "randperm": lambda x: torch.randperm(3)[0],
    "normal_": lambda x: torch.empty(x.shape).normal_(),
    "normal": lambda x: torch.normal(x, 1.0),
    "bernoulli": lambda x: torch.bernoulli(x.clamp(0, 1)),
    "multinomial": lambda x: torch.multinomial(torch.ones(4), 1),
    "dropout": torch.nn.functional.dropout,
    "distribution": lambda x: torch.distributions.Normal(0.0, 1.0).sample(x.shape),
    "tree": lambda x: k_sampling.BrownianTreeNoiseSampler(x, 1.0, 9.0)(torch.tensor(8.0), torch.tensor(2.0)),
}


@pytest.mark.parametrize("name", DRAWS)
def test_the_null_run_leaves_the_generators_to_other_threads(name):
    """The global generator's values, drawn by another thread while timesteps are set, are those of its sequence: it is
    neither advanced nor put back. Nor is a user's generator advanced."""
    own, drawn = seeded(), []

    def sampler(model, x, sigmas, extra_args=None, callback=None, disable=None):
        for sigma in sigmas[:-1]:
            x = x + 0 * DRAWS[name](x) * torch.randn(x.shape, generator=own)
            thread = threading.Thread(target=lambda: drawn.append(torch.rand(1)))
            thread.start(), thread.join()
            x = model(x, sigma * x.new_ones(len(x)))
        return x

    torch.manual_seed(5)
    scheduler = fresh(sampler)
    scheduler.set_begin_index(1)
    drawn.append(torch.rand(1))
    torch.manual_seed(5)
    assert torch.equal(torch.cat(drawn), torch.cat([torch.rand(1) for _ in drawn])) and len(drawn) > 2 * STEPS
    assert torch.equal(own.get_state(), seeded().get_state())


def draws_for_itself(model, x, sigmas, extra_args=None, callback=None, disable=None):
    for sigma in sigmas[:-1]:
        x = x + 0 * torch.randn_like(x) * model(x, sigma * x.new_ones(len(x)))
    return x


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "dpmpp_2m_sde", "lms", "heun", "dpmpp_sde"])
def test_changed_latents_are_gone_on_from(sampler):
    """Call 3 begins a step, or is an inner stage of one, where the change serves that call alone: in both cases what
    happens to the tensor that the sampler gave to the model."""
    scheduler = fresh(sampler)
    changed = stepped(scheduler, change=half_at_3)
    assert largest_difference(changed, called(scheduler, sampler, change=half_at_3)[0]) <= SAME
    assert largest_difference(changed, stepped(fresh(sampler))) > 0.01


def euler_in_place(model, x, sigmas, extra_args=None, callback=None, disable=None):
    for i in range(len(sigmas) - 1):
        d = (x - model(x, sigmas[i] * x.new_ones(len(x)))) / sigmas[i]
        x.add_(d * (sigmas[i + 1] - sigmas[i]))
    return x


@pytest.mark.parametrize("change", [lambda call, x: x, half_at_3], ids=["as it is", "changed"])
def test_the_pipelines_first_latents_are_not_written_to(change):
    """Neither by a sampler that writes to its state nor by the change of one."""
    given = X.clone()
    results = [stepped(fresh(sampler), given, change) for sampler in ("euler", euler_in_place)]
    assert torch.equal(given, X)
    # float32 rounding in another order of operations, on latents of size 40
    assert largest_difference(*results) < 1e-4


def test_options_of_a_former_sampler_are_dropped():
    """Of the same name too, whatever they were."""
    former = SamplerScheduler.from_config(EULER.config, sampler="heun", sampler_options={"s_churn": 3.0})
    assert fresh_from(former.config, "dpmpp_2m").config.sampler_options is None
    former = SamplerScheduler.from_config(EULER.config, sampler="euler_ancestral", sampler_options={"eta": 0.5})
    assert torch.equal(stepped(fresh_from(former.config, "dpmpp_sde")), stepped(fresh("dpmpp_sde")))
    kept = SamplerScheduler.from_config(former.config, sigma_grid="karras")
    assert kept.config.sampler_options == {"eta": 0.5}
    other = fresh_from(former.config, "dpmpp_sde", sampler_options={"eta": 0.2})
    assert other.config.sampler_options == {"eta": 0.2}


def test_the_generator_given_to_step_comes_first():
    """Before that of the scheduler, which is taken where a pipeline gives none."""
    expected = stepped(fresh("euler_ancestral"))  # gives seeded() to every step
    scheduler = fresh("euler_ancestral")
    scheduler.generator = seeded(8)
    assert torch.equal(stepped(scheduler), expected)
    assert torch.equal(scheduler.generator.get_state(), seeded(8).get_state())


def in_place(call, x):
    return x.mul_(0.5) if call == 3 else x


@pytest.mark.parametrize("config", [EULER.config, DDIMScheduler(**SDXL_SCHEDULE).config], ids=["the state", "scaled"])
def test_latents_changed_in_place_and_copied(config):
    """Latents may be the sampler's state itself, or computed from it."""
    changes = (lambda call, x: x, in_place, half_at_3, lambda call, x: x.clone())
    same, written, replaced, cloned = (stepped(fresh_from(config), X / 14, change) for change in changes)
    assert torch.equal(written, replaced) and not torch.equal(written, same)
    assert largest_difference(cloned, same) <= SAME * 10  # scaled latents were rounded


def test_the_state_keeps_its_digits():
    """A pipeline in bfloat16 sees rounded latents, and the sampler goes on from those that were not."""
    scheduler, x = fresh(), X.bfloat16()
    theirs, expected = stepped(scheduler, x), called(scheduler, "dpmpp_2m", x, dtype=torch.bfloat16)[0]
    assert theirs.dtype == torch.bfloat16
    assert largest_difference(theirs, expected.bfloat16()) == 0


@pytest.mark.parametrize("sampler, begin, start", [("heun", 4, 4), ("heun", 5, 6), ("dpm_2", 5, 6), ("dpm_fast", 4, 5)])
def test_a_run_that_begins_later(sampler, begin, start):
    """With a step of the sampler; inside of one, by Euler steps to the next."""
    scheduler = fresh(sampler)
    sigmas, x = scheduler.sigmas, X / 14
    for call in range(begin, start):
        sigma, t = sigmas[call], scheduler.timesteps[call]
        x = x + network(preconditioning(EULER).network_input(x, sigma), t) * (sigmas[call + 1] - sigma)
    expected = fresh(sampler)
    expected.set_begin_index(start)
    scheduler.set_begin_index(begin)
    tolerance = SAME if start == begin else 1e-5  # Euler's step is rounded otherwise here
    assert largest_difference(stepped(scheduler, X / 14, begin=begin), stepped(expected, x, begin=start)) <= tolerance


def test_nothing_waits_for_the_device():
    """Tensors on the meta device have no values: to read one raises."""
    x = torch.zeros(1, 4, 8, 8, device="meta")
    for sampler in ("euler", "heun", "dpmpp_2m", "euler_ancestral", "dpmpp_2m_sde"):
        scheduler = SamplerScheduler.from_config(EULER.config, sampler=sampler)
        scheduler.set_timesteps(STEPS, device="meta")
        scheduler.set_begin_index(0)
        assert scheduler.timesteps.device.type == "meta"
        for t in scheduler.timesteps:
            x = scheduler.step(scheduler.scale_model_input(x, t), t, x).prev_sample
        assert x.device.type == "meta"
