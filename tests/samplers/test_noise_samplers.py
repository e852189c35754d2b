"""Ancestral, few-step and ER-SDE samplers: identities, orders, and diffusers' schedulers of the same method.

test_ours.py has what every sampler keeps.
"""

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    FlowMatchLCMScheduler,
    LCMScheduler,
    LTXEulerAncestralRFScheduler,
    TCDScheduler,
)
from operations import Operations
from tiny_models import SDXL_SCHEDULE, largest_difference, seeded
from wavy_model import SAME, SIGMAS, denoiser, run, start

from k_diffusing.oracle.closed_form import training_sigmas
from k_diffusing.oracle.mixture import MIXTURE, wasserstein
from k_diffusing.oracle.order import ode_error, slope
from k_diffusing.samplers.er_sde import default_noise_scaler
from k_diffusing.schedulers.as_sampler import as_sampler
from samplers_patch import check_options, find_sampler

ROUNDING = 2e-5  # of latents up to 15 in float32, which diffusers' schedulers scale to unit size and back


# The same by another name.


@pytest.mark.parametrize("name, options, other, others", [
    ("ddim", {}, "euler", {}),
    ("ddim", {"eta": 0.6, "s_noise": 0.9}, "euler_ancestral", {"eta": 0.6, "s_noise": 0.9}),
    ("ddim", {"eta": 1.0}, "ddpm", {}),
    ("er_sde", {"max_stage": 1, "noise_scaler": lambda sigma: sigma}, "euler", {}),
    ("er_sde", {"max_stage": 1, "noise_scaler": lambda sigma: sigma**2}, "euler_ancestral", {}),
    ("er_sde", {"max_stage": 1, "noise_scaler": lambda sigma: sigma**2, "s_noise": 0.8}, "ddim",
     {"eta": 1.0, "s_noise": 0.8}),
    ("tcd", {"eta": 1.0, "schedule": "flow"}, "lcm", {}),
    ("lcm", {"s_noise_end": 1.0}, "lcm", {}),
])  # fmt: skip
def test_identities(name, options, other, others):
    assert largest_difference(run(name, **options), run(other, **others)) < SAME


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_ancestral_steps_in_flow_time(eta):
    """By the formula in t, on latents (1 - t) x0 + t eps: down to u straight on, then noise up to t'."""
    noise, generator = {}, seeded(5)
    latents, t = start() / 15.6, 14.6 / 15.6
    for sigma, sigma_next in zip(SIGMAS.tolist(), SIGMAS.tolist()[1:], strict=False):
        t_next = sigma_next / (1 + sigma_next)
        denoised = denoiser(latents * (1 + sigma), torch.tensor(sigma, dtype=torch.float64))
        u = t_next * (1 + eta * (t_next / t - 1))
        latents = (u / t) * latents + (1 - u / t) * denoised
        if t_next > 0:
            kept = (1 - t_next) / (1 - u)
            noise[sigma] = torch.randn(latents.shape, generator=generator, dtype=torch.float64)
            latents = kept * latents + (t_next**2 - (u * kept) ** 2) ** 0.5 * noise[sigma]
        t = t_next

    def the_same(sigma, sigma_next):
        return noise[float(sigma)]

    ours = run("euler_ancestral_rf", eta=eta, noise_sampler=the_same)
    assert largest_difference(ours, latents) < SAME


# ER-SDE.


@pytest.mark.parametrize("stage, variant, order, margin", [
    (1, None, 1, 0.07), (2, None, 2, 0.07), (3, None, 3, 0.15), (1, "published", 1, 0.07), (3, "published", 2, 0.35),
])  # fmt: skip
def test_orders_of_er_sde(stage, variant, order, margin):
    """As the ODE, from a sigma so large that the first steps, of lower order, do no harm."""
    options = {"noise_scaler": lambda sigma: sigma, "max_stage": stage, "variant": variant}
    errors = tuple(ode_error("er_sde", n, options, sigma_max=1000.0) for n in (160, 320))
    assert slope(errors, (160, 320)) == pytest.approx(order, abs=margin)


def test_the_third_stage_of_er_sde_is_worth_something():
    options = {"noise_scaler": lambda sigma: sigma}
    ours, published = (ode_error("er_sde", 320, options | {"variant": variant}) for variant in (None, "published"))
    assert ours < published / 5  # measured: 9 times smaller


@pytest.mark.parametrize("scaler", [lambda v: v**1.5, default_noise_scaler])
def test_a_denoiser_linear_in_sigma_is_followed_exactly_by_er_sde(scaler):
    """From the second step on, against the SDE's own integral in 20000 rectangles by their middles."""
    grid = torch.tensor([5.0, 3.0, 1.0], dtype=torch.float64)
    x = start()
    options = {"s_noise": 0.0, "noise_scaler": scaler}
    moved = run("er_sde", grid, x, lambda x, sigma: sigma.reshape(-1, 1, 1, 1).expand_as(x), **options)
    still = run("er_sde", grid, x, lambda x, sigma: torch.zeros_like(x), **options)
    width = 2.0 / 20000
    v = 1 + width * (torch.arange(20000, dtype=torch.float64) + 0.5)
    # d(x / phi) = -D(v) d(1 / phi): by parts, D(1) - q D(3) + phi(1) * integral of D' / phi, and D' = 1
    phi_1, phi_3, phi_5 = scaler(torch.tensor([1.0, 3.0, 5.0], dtype=torch.float64))
    first = (1 - phi_3 / phi_5) * 5.0  # D is held at its value in the first step
    second = 1 - phi_1 / phi_3 * 3.0 + phi_1 * (width / scaler(v)).sum()
    expected = phi_1 / phi_3 * first + second
    assert largest_difference(moved - still, torch.full_like(x, float(expected))) < 1e-7  # of the rectangles


def test_er_sde_adds_no_noise_where_its_scale_leaves_none():
    draws = []
    run("er_sde", noise_scaler=lambda sigma: sigma, noise_sampler=lambda *_: draws.append(1) or torch.zeros(1))
    assert draws == []


# Restart.


@pytest.mark.parametrize("segments", [[], [(3, 2, 0.5, 20.0)], [(3, 0, 0.5, 2.0)]])
def test_without_a_segment_restart_is_heun(segments):
    """None, one that begins above the grid, one that is never gone again."""
    assert largest_difference(run("restart", segments=segments), run("heun")) < SAME


@pytest.mark.parametrize("low", [0.5, 0.45])
def test_a_segment_is_gone_again_from_where_noise_leads(low):
    """By Heun's method from 2.0 to the level of the grid that is nearest, twice, and on from there."""
    noise, calls = drawn(), []

    def counted(x, sigma):
        calls.append(1)
        return denoiser(x, sigma)

    ours = run("restart", model=counted, segments=[(3, 2, low, 2.0)], noise_sampler=drawn(), s_noise=0.9)
    at = SIGMAS.tolist().index(0.5)
    stretch = ((2.0 ** (1 / 7) + (0.5 ** (1 / 7) - 2.0 ** (1 / 7)) * torch.arange(4).double() / 3) ** 7).clamp(0.5, 2.0)
    x = run("heun", SIGMAS[: at + 1])
    for _ in range(2):
        x = run("heun", stretch, x + 0.9 * (4.0 - 0.25) ** 0.5 * noise(0.5, 2.0))
    assert largest_difference(ours, run("heun", SIGMAS[at:], x)) < 1e-11  # of levels rounded otherwise
    assert len(calls) == 13 + 2 * 2 * 3


def test_a_segment_below_the_grid_ends_at_its_last_level():
    x = run("restart", torch.tensor([5.0, 1.0]), segments=[(1, 1, 0.1, 2.0)], noise_sampler=lambda *_: torch.zeros(1))
    grid = torch.tensor([2.0, 1.0])
    assert largest_difference(x, run("heun", grid, run("heun", torch.tensor([5.0, 1.0])))) < SAME


def test_an_evaluation_of_restart_takes_no_more_operations_than_of_heun():
    def operations(name, **options) -> float:
        calls = []
        with Operations() as counted:
            find_sampler(name).function(
                lambda x, sigma: calls.append(1) or x, start(), SIGMAS, disable=True, **options
            )  # fmt: skip
        return counted.count / len(calls)

    assert operations("restart", segments=[(3, 2, 0.5, 2.0)], noise_sampler=drawn()) <= operations("heun")


@pytest.mark.parametrize("segments", [[(3, 2, 0.5)], [(0, 2, 0.5, 2.0)], [(3, 2, 2.0, 0.5)]])
def test_segments_that_cannot_be_are_refused(segments):
    with pytest.raises(ValueError, match="restart cannot run with segments="):
        check_options(find_sampler("restart"), {"segments": segments})


# Few steps.


def consistency(x, sigma):
    """The mixture's flow all the way to sigma 0, which is what a consistency model has learnt."""
    return MIXTURE.quantile(MIXTURE.cdf(x, float(sigma.flatten()[0])))


@pytest.mark.parametrize("steps", [1, 4])
def test_lcm_is_right_in_distribution_on_a_consistency_model(steps):
    grid = torch.cat([torch.linspace(14.6, 0.5, steps, dtype=torch.float64), torch.zeros(1)])
    x = MIXTURE.quantile(torch.rand(1, 4, 50, 50, generator=seeded(), dtype=torch.float64), 14.6)
    assert wasserstein(run("lcm", grid, x, consistency)) <= 0.03


def test_noise_of_lcm_falls_and_is_clipped():
    noise = torch.randn(2, 4, 3, 3, generator=seeded(), dtype=torch.float64)
    seen = []

    def model(x, sigma):
        seen.append(x.clone())
        return torch.zeros_like(x)

    grid = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.0])
    run("lcm", grid, start(), model, noise_sampler=lambda *_: noise, s_noise=0.9, s_noise_end=0.3, noise_clip_std=1.5)
    bound = 1.5 * noise.flatten(1).std(1).reshape(2, 1, 1, 1)
    clipped = noise.clamp(-bound, bound)
    assert largest_difference(clipped, noise) > 0.1
    for x, sigma, factor in zip(seen[1:], (4, 2, 1), (0.9, 0.7, 0.5), strict=True):
        assert largest_difference(x, sigma * factor * clipped) < SAME


def test_an_unknown_schedule_of_tcd_is_told():
    with pytest.raises(ValueError, match="unknown schedule 'linear': choose one of scaled_linear, flow"):
        find_sampler("tcd").function(denoiser, start(), SIGMAS, schedule="linear")


# diffusers' schedulers: theirs alone are in float32 tables.

SCHEDULE = {key: SDXL_SCHEDULE[key] for key in ("beta_start", "beta_end", "beta_schedule")}
TIMESTEPS = [999, 800, 600, 400, 200]


def drawn():
    """Unit noise from one seed, as diffusers' `generator=seeded(5)` has it."""
    generator = seeded(5)
    return lambda sigma, sigma_next: torch.randn(2, 4, 3, 3, generator=generator, dtype=torch.float64)


def in_their_loop(scheduler, sigmas, **step):
    """The states' own latents from diffusers' loop on an epsilon model, of unit size."""
    scheduler.set_timesteps(timesteps=TIMESTEPS)
    latents = start(sigmas[0]) / (1 + sigmas[0] ** 2).sqrt()
    generator = seeded(5)
    for t, sigma in zip(TIMESTEPS, sigmas, strict=False):
        state = latents * (1 + sigma**2).sqrt()
        eps = (state - denoiser(state, sigma.expand(2))) / sigma
        latents = scheduler.step(eps, t, latents, generator=generator, return_dict=False, **step)[0]
    return latents


def test_lcm_is_diffusers():
    """Without the scaling by which theirs leaves the boundary at timestep 0 alone."""
    scheduler = LCMScheduler(**SCHEDULE, timestep_scaling=1e9)
    sigmas = torch.cat([training_sigmas()[TIMESTEPS], torch.zeros(1)])
    ours = run("lcm", sigmas, noise_sampler=drawn())
    assert largest_difference(ours, in_their_loop(scheduler, sigmas)) < ROUNDING


@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_tcd_is_diffusers(eta):
    """At an eta for which (1 - eta) t is whole, as theirs rounds it down, and to timestep 0, where theirs ends."""
    sigmas = training_sigmas()[[*TIMESTEPS, 0]]
    ours = run("tcd", sigmas, noise_sampler=drawn(), eta=eta) / (1 + sigmas[-1] ** 2).sqrt()
    assert largest_difference(ours, in_their_loop(TCDScheduler(**SCHEDULE), sigmas, eta=eta)) < ROUNDING


@pytest.mark.parametrize("name, scheduler", [
    ("ddim", DDIMScheduler(**SCHEDULE, clip_sample=False)), ("ddpm", DDPMScheduler(**SCHEDULE, clip_sample=False)),
])  # fmt: skip
def test_ddim_and_ddpm_are_diffusers(name, scheduler):
    sigmas = torch.cat([training_sigmas()[TIMESTEPS], torch.zeros(1)]).float()
    theirs = run(as_sampler(scheduler), sigmas, start(sigmas[0]).float(), noise_sampler=drawn())
    ours = run(name, sigmas, start(sigmas[0]).float(), **({"noise_sampler": drawn()} if name == "ddpm" else {}))
    assert largest_difference(ours, theirs) < ROUNDING


def test_euler_ancestral_rf_is_diffusers():
    """LTX's scheduler, on latents (1 - t) x0 + t eps; its model's output is the velocity."""
    scheduler = LTXEulerAncestralRFScheduler(eta=0.7)
    t = torch.tensor([0.9, 0.7, 0.4, 0.1, 0.0])
    scheduler.set_timesteps(sigmas=t)
    latents, generator = start(1.0).float(), seeded(5)
    for time, timestep in zip(t, scheduler.timesteps, strict=False):
        denoised = denoiser(latents / (1 - time), time / (1 - time))
        velocity = (latents - denoised) / time
        latents = scheduler.step(velocity, timestep, latents, generator=generator, return_dict=False)[0]
    generator = seeded(5)

    def noise_sampler(sigma, sigma_next):
        return torch.randn(latents.shape, generator=generator)

    ours = run("euler_ancestral_rf", t / (1 - t), start(1.0).float() / (1 - t[0]), noise_sampler=noise_sampler, eta=0.7)
    assert largest_difference(ours, latents) < ROUNDING


def test_lcm_is_diffusers_on_flow_models():
    """Theirs on latents (1 - t) x0 + t eps, ours on x0 + sigma eps."""
    t = torch.tensor([0.9, 0.7, 0.4, 0.1, 0.0])
    x = start(1.0).float()

    def at_time(latents, time):
        time = time.reshape(-1, 1, 1, 1)
        return denoiser(latents / (1 - time), (time / (1 - time)))

    theirs = run(as_sampler(FlowMatchLCMScheduler()), t, x, at_time, noise_sampler=drawn())
    ours = run("lcm", t / (1 - t), x / (1 - t[0]), noise_sampler=drawn())
    assert largest_difference(ours, theirs) < ROUNDING
