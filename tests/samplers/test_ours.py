"""What every sampler of ours keeps, whichever its family: it says what it does, does it everywhere, and is right.

`model` is a plain function here, as a script of a user's has one, unless a pipeline or a scheduler runs the sampler.
"""

import functools
import inspect

import pytest
import torch
from operations import Operations
from stepped_schedulers import called, fresh, stepped
from tiny_models import flux_prompt, largest_difference, sdxl_prompt, seeded, tiny_flux, tiny_sdxl

from flux_comfy_pipeline import FluxPipeline
from k_diffusing.oracle.closed_form import draw, oracle_flux, oracle_sdxl
from k_diffusing.oracle.judge import RIGHT
from k_diffusing.oracle.mixture import MIXTURE, wasserstein
from k_diffusing.oracle.order import ode_error, slope
from k_diffusing.samplers.facts import ALIASES, ALL_FACTS, FIRST
from k_diffusing.samplers.probe import Probe
from k_diffusing.samplers.steps import evaluation_count, step_count
from samplers_patch import (
    ALL_SAMPLERS,
    OUR_SAMPLERS,
    SAMPLERS,
    adds_noise,
    check_options,
    find_sampler,
    run_sampler,
    sampler_options,
)
from sdxl_comfy_pipeline import StableDiffusionXLPipeline

SIGMAS = torch.tensor([14.6, 6.0, 2.4, 1.1, 0.5, 0.2, 0.05, 0.0], dtype=torch.float64)
STOCHASTIC = [name for name, record in OUR_SAMPLERS.items() if record.stochastic]
QUIET = [name for name, record in OUR_SAMPLERS.items() if not record.stochastic or record.noiseless is not None]
FOR_ANY_MODEL = [name for name, record in OUR_SAMPLERS.items() if not record.distilled]
SAME = 1e-12  # of states up to 30 in float64: the same numbers added up in another order

every = pytest.mark.parametrize("name", OUR_SAMPLERS)


def quiet(name: str) -> dict:
    """The options with which a sampler adds no noise."""
    return dict(OUR_SAMPLERS[name].noiseless or {}) if OUR_SAMPLERS[name].stochastic else {}


def denoiser(x, sigma, gain=1.0):
    """Exact for the two-Gaussian mixture."""
    sigma = sigma.reshape(-1, *[1] * (x.ndim - 1))
    return gain * MIXTURE.posterior_mean(x, torch.ones_like(sigma), sigma).to(x.dtype)


def start(images: int = 2) -> torch.Tensor:
    return 14.6 * torch.randn(images, 4, 3, 3, generator=seeded(), dtype=torch.float64)


def noise_of(x):
    """Noise that depends on the step and on the image's own values alone, and is the same for a sigma in float32."""
    return lambda sigma, sigma_next: torch.cos(40 * x + 9 * round(float(sigma), 4)) * 2**0.5


def run(name: str, x=None, sigmas=SIGMAS, model=denoiser, **options) -> torch.Tensor:
    """The bare function, called as a script calls k_diffusion's."""
    x = start() if x is None else x
    if "noise_sampler" in sampler_options(OUR_SAMPLERS[name]):
        options.setdefault("noise_sampler", noise_of(x.clone()))
    return OUR_SAMPLERS[name].function(model, x, sigmas, disable=True, **options)


# Registry and records.


def test_theirs_and_ours_are_apart():
    assert not set(OUR_SAMPLERS) & set(SAMPLERS) and set(ALL_SAMPLERS) == set(OUR_SAMPLERS) | set(SAMPLERS)
    assert list(ALL_SAMPLERS)[: len(SAMPLERS)] == list(SAMPLERS)
    assert not set(ALIASES) & set(ALL_SAMPLERS) and len(ALIASES) == sum(
        len(facts.get("aliases", ())) for facts in ALL_FACTS.values()
    )
    assert len(FIRST) == 10


@pytest.mark.parametrize("alias", ALIASES)
def test_aliases_find_their_sampler(alias):
    assert find_sampler(alias) is find_sampler(f"sample_{alias}") is ALL_SAMPLERS[ALIASES[alias]]


@every
def test_functions_and_names_find_the_record(name):
    record = OUR_SAMPLERS[name]
    assert find_sampler(name) is find_sampler(f"sample_{name}") is find_sampler(record.function) is record
    assert not record.custom and record.function.__name__ == f"sample_{name}" and record.function.__doc__
    assert record.sources and record.family != "k_diffusion"
    assert all(one in ALL_SAMPLERS for one in [record.twin] if one)


def test_a_misspelt_name_gets_the_nearest_of_ours():
    with pytest.raises(ValueError, match="unknown sampler 'res_multstep': did you mean 'res_multistep'"):
        find_sampler("res_multstep")


@every
def test_signatures_are_k_diffusions_with_options_by_name(name):
    parameters = list(inspect.signature(OUR_SAMPLERS[name].function).parameters.values())
    assert [one.name for one in parameters[:6]] == ["model", "x", "sigmas", "extra_args", "callback", "disable"]
    assert all(one.kind is one.POSITIONAL_OR_KEYWORD for one in parameters)
    assert "trange" in inspect.unwrap(OUR_SAMPLERS[name].function).__code__.co_names  # a run sees its steps begin


@every
def test_every_option_has_a_rule_which_its_default_keeps(name):
    record = OUR_SAMPLERS[name]
    check_options(record, sampler_options(record) | quiet(name))
    assert adds_noise(record, None) == record.stochastic
    assert record.noiseless is None or not adds_noise(record, quiet(name))
    with pytest.raises(TypeError, match=f"{name} has no option 'etta'"):
        check_options(record, {"etta": 1})


@every
@pytest.mark.parametrize("grid", [SIGMAS, SIGMAS[:-1], SIGMAS[-2:], SIGMAS[-3:], SIGMAS[:2], SIGMAS[:3]], ids=len)
def test_records_tell_the_evaluations(name, grid):
    calls = []

    def counted(x, sigma):
        calls.append(sigma)
        return denoiser(x, sigma)

    run_sampler(find_sampler(name), counted, start(), grid, generator=seeded())
    told = evaluation_count(find_sampler(name), grid)
    assert len(calls) == told or (told is None and OUR_SAMPLERS[name].nfe_per_step is None)


@every
def test_records_tell_whether_noise_is_added(name):
    runs = [run_sampler(find_sampler(name), denoiser, start(), SIGMAS, generator=seeded(seed)) for seed in (1, 2)]
    assert torch.equal(*runs) != OUR_SAMPLERS[name].stochastic


@every
def test_a_picture_does_not_depend_on_the_others_of_its_batch(name):
    assert not Probe(find_sampler(name), {}).mixes_images()
    both = run(name)
    each = torch.cat([run(name, one[None]) for one in start()])
    assert largest_difference(both, each) <= SAME


# Called bare.


@every
def test_called_bare_it_is_what_a_run_gives(name):
    record, given = find_sampler(name), {}
    if "noise_sampler" in sampler_options(record):
        given = {"noise_sampler": noise_of(start())}
    ours = run_sampler(record, denoiser, start(), SIGMAS, options=given)
    assert largest_difference(run(name), ours) <= SAME


@every
def test_without_anything_but_model_state_and_sigmas(name):
    torch.manual_seed(0)
    x = start()
    before = x.clone()
    result = OUR_SAMPLERS[name].function(denoiser, x, SIGMAS)
    assert result.shape == x.shape and result.dtype == torch.float64 and result.isfinite().all()
    assert torch.equal(x, before)


@every
def test_sigmas_in_other_forms(name):
    expected = run(name)
    assert largest_difference(run(name, sigmas=SIGMAS.tolist()), expected) <= SAME
    # 1e-4: sigmas in float32, and noise that depends on them
    assert largest_difference(run(name, sigmas=SIGMAS.float()), expected) <= 1e-4
    assert run(name, start().float(), SIGMAS.float()).dtype == torch.float32


@every
def test_extra_args_reach_the_model(name):
    halved = run(name, model=functools.partial(denoiser, gain=0.5))
    assert largest_difference(run(name, extra_args={"gain": 0.5}), halved) == 0.0


@every
@pytest.mark.parametrize("grid", [SIGMAS, SIGMAS[:-1], SIGMAS[-2:]], ids=len)
def test_the_callback_comes_once_a_step(name, grid):
    seen = []
    run(name, sigmas=grid, callback=seen.append)
    assert len(seen) == step_count(find_sampler(name), grid)
    for i, info in enumerate(seen):
        assert info["i"] == i and float(info["sigma"]) == float(grid[i]) == float(info["sigma_hat"])
        assert info["x"].shape == info["denoised"].shape == start().shape


@every
def test_one_step_returns_the_denoised(name):
    x = start()
    # 1e-12: see SAME
    assert largest_difference(run(name, x, SIGMAS[-2:]), denoiser(x, SIGMAS[-2].expand(2))) <= SAME


@every
def test_nothing_waits_for_the_device(name):
    """On the meta device, where to read a value raises, with sigmas on the CPU."""
    x = start().to("meta")
    assert OUR_SAMPLERS[name].function(lambda x, sigma: x / 2, x, SIGMAS).device.type == "meta"


def operations(function) -> int:
    """Tensor operations of a run, on a model that takes none."""
    x = start()
    with Operations() as counted:
        function(lambda x, sigma: x, x, SIGMAS, disable=True)
    return counted.count


@pytest.mark.parametrize("name", [name for name, record in OUR_SAMPLERS.items() if record.nfe_per_step])
def test_a_step_takes_no_more_operations_than_k_diffusions(name):
    """Than of the sampler there with as many evaluations; of three and four, than as many Euler steps."""
    record = OUR_SAMPLERS[name]
    theirs = {1: "dpmpp_2m_sde" if record.stochastic else "dpmpp_2m", 2: "dpmpp_sde" if record.stochastic else "heun"}
    theirs = theirs.get(record.nfe_per_step, "euler")
    factor = 1 if record.nfe_per_step < 3 else record.nfe_per_step
    noise = {"noise_sampler": noise_of(start())} if "noise_sampler" in sampler_options(SAMPLERS[theirs]) else {}
    assert operations(record.function) <= factor * operations(functools.partial(SAMPLERS[theirs].function, **noise))


# In pipelines and schedulers.


@pytest.fixture(scope="module")
def tiny():
    return {
        "sdxl": (tiny_sdxl(StableDiffusionXLPipeline), sdxl_prompt()),
        "flux": (tiny_flux(FluxPipeline), flux_prompt()),
    }


@every
@pytest.mark.parametrize("model", ["sdxl", "flux"])
def test_pipelines_run_it_and_see_its_steps(tiny, model, name):
    pipe, prompt = tiny[model]
    seen = []

    def callback(pipe, i, t, kwargs):
        seen.append(i)
        return {"latents": kwargs["latents"] * factor} if i == 1 else {}

    def images(steps):
        call = {"height": 16, "width": 16, "output_type": "latent", "num_inference_steps": steps}
        return pipe(**prompt, **call, generator=seeded(), comfy_sampler=name, callback_on_step_end=callback).images

    factor = 1.0
    plain = images(4)
    assert plain.isfinite().all() and seen == list(range(pipe.num_timesteps))
    factor = 0.5
    assert largest_difference(images(4), plain) > 1e-2  # what a callback puts in place counts
    assert images(1).isfinite().all()


@pytest.mark.parametrize("name", [name for name, record in OUR_SAMPLERS.items() if record.uses_uncond])
def test_a_scheduler_refuses_what_needs_both_answers_of_the_network(name):
    with pytest.raises(ValueError, match=f"{name} needs the network's answers with and without the prompt"):
        fresh(name)


@pytest.mark.parametrize("name", [name for name, record in OUR_SAMPLERS.items() if not record.uses_uncond])
def test_a_scheduler_steps_it(name):
    scheduler = fresh(name)
    told = evaluation_count(find_sampler(name), torch.tensor([*range(6, -1, -1)]))
    assert len(scheduler.timesteps) == told or (told is None and OUR_SAMPLERS[name].nfe_per_step is None)
    x, levels = called(scheduler, name)
    assert torch.equal(scheduler.sigmas, torch.stack([*levels, torch.tensor(0.0)]))
    # 1e-6: the same float32 operations in the same order
    assert largest_difference(stepped(scheduler), x) <= 1e-6


# Right in distribution, and of the order that the record says.


@pytest.fixture(scope="module")
def oracles():
    discrete = {kind: oracle_sdxl(kind) for kind in ("epsilon", "v_prediction")}
    return discrete | {"flow": oracle_flux()}


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "flow"])
@pytest.mark.parametrize("name", FOR_ANY_MODEL)
def test_right_in_distribution(oracles, kind, name):
    grid = None if kind == "flow" else "karras"
    assert wasserstein(draw(oracles[kind], name, steps=100, sigma_grid=grid)) <= RIGHT


@pytest.mark.parametrize("name", [name for name in QUIET if name in FOR_ANY_MODEL])
def test_without_noise_it_is_right_on_latents_of_flow_matching(oracles, name):
    """dx/dt = (x - D) / t there too, as it stands in ComfyUI, where functions get these."""
    call = {"steps": 100, "flow_coordinates": "flow", "sampler_options": quiet(name)}
    assert wasserstein(draw(oracles["flow"], name, **call)) <= RIGHT


@pytest.mark.parametrize("name", QUIET)
def test_order_of_accuracy(name):
    record, steps = OUR_SAMPLERS[name], (80, 160)
    measured = slope(tuple(ode_error(name, n, quiet(name)) for n in steps), steps)
    assert measured == pytest.approx(record.measured or record.order, abs=0.15)


@pytest.mark.parametrize("name", [name for name in STOCHASTIC if name in QUIET])
def test_without_noise_it_is_its_twin(name):
    record = find_sampler(name)
    runs = [
        run_sampler(record, denoiser, start(), SIGMAS, generator=seeded(seed), options=quiet(name)) for seed in (1, 2)
    ]
    assert torch.equal(*runs)
    if record.twin is not None:
        assert largest_difference(runs[0], run_sampler(find_sampler(record.twin), denoiser, start(), SIGMAS)) <= SAME
