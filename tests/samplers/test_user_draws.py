"""A user's sampler that draws by itself: its noise is the run's, or its user is warned."""

import threading

import pytest
import torch
from diffusers import StableDiffusionXLPipeline as TheirSDXL
from tiny_models import flux_prompt, largest_difference, sdxl_prompt, seeded, tiny_flux, tiny_sdxl
from torch import randn_like as imported_randn_like

from flux_comfy_pipeline import FluxPipeline
from k_diffusing.compare.compare import compare_samplers
from k_diffusing.samplers import user_draws
from k_diffusing.schedulers.as_scheduler import SamplerScheduler
from k_diffusing.trace.record import Trace
from samplers_patch import find_sampler, run_sampler
from sdxl_comfy_pipeline import StableDiffusionXLPipeline

SIZE = {"height": 16, "width": 16}


def ancestral(model, x, sigmas, draw, callback=None):
    """Euler ancestral, as k_diffusion has it, with noise by draw(x)."""
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i] * x.new_ones(len(x)))
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": denoised})
        up = min(sigmas[i + 1], (sigmas[i + 1] ** 2 * (sigmas[i] ** 2 - sigmas[i + 1] ** 2) / sigmas[i] ** 2) ** 0.5)
        down = (sigmas[i + 1] ** 2 - up**2) ** 0.5
        x = x + (x - denoised) / sigmas[i] * (down - sigmas[i])
        if sigmas[i + 1] > 0:
            x = x + draw(x) * up
    return x


def randn_like(model, x, sigmas, extra_args=None, callback=None, disable=None):
    return ancestral(model, x, sigmas, torch.randn_like, callback)


def randn(model, x, sigmas, extra_args=None, callback=None, disable=None):
    return ancestral(model, x, sigmas, lambda x: torch.randn(x.shape, dtype=x.dtype, device=x.device), callback)


def of_sizes(model, x, sigmas, extra_args=None, callback=None, disable=None):
    return ancestral(model, x, sigmas, lambda x: torch.randn(*x.shape, generator=None), callback)


def in_place(model, x, sigmas, extra_args=None, callback=None, disable=None):
    return ancestral(model, x, sigmas, lambda x: (torch.empty_like(x).normal_(1.0, std=2.0) - 1) / 2, callback)


def by_name(model, x, sigmas, extra_args=None, callback=None, disable=None):
    return ancestral(model, x, sigmas, imported_randn_like, callback)


class Method:
    """A sampler that is a method, and writes what it did."""

    def __call__(self, model, x, sigmas, extra_args=None, callback=None, disable=None):
        self.seen = len(x)
        return ancestral(model, x, sigmas, self.draw, callback)

    def draw(self, x):
        return torch.randn_like(x)


COUNTED = 0


def writes_globals(model, x, sigmas, extra_args=None, callback=None, disable=None):
    global COUNTED
    COUNTED += 1
    return ancestral(model, x, sigmas, torch.randn_like, callback)


OWN = [randn_like, randn, of_sizes, in_place, by_name, Method(), writes_globals]
IDS = [getattr(function, "__name__", "method") for function in OWN]


@pytest.fixture(scope="module")
def pipes():
    return {
        "sdxl": (tiny_sdxl(StableDiffusionXLPipeline), sdxl_prompt),
        "flux": (tiny_flux(FluxPipeline), flux_prompt),
    }


@pytest.fixture
def warnings(monkeypatch):
    """What users were warned of, from the first time on."""
    told = []
    monkeypatch.setattr(user_draws.logger, "warning", told.append)
    monkeypatch.setattr(user_draws, "_told", type(user_draws._told)())
    return told


def call(pipe, prompt, sampler, images=1, **arguments):
    arguments = {"num_inference_steps": 5, "output_type": "latent", "sigma_grid": "karras", **SIZE, **arguments}
    return pipe(**prompt(images), comfy_sampler=sampler, **arguments).images


@pytest.mark.parametrize("model", ["sdxl", "flux"])
@pytest.mark.parametrize("own", OWN, ids=IDS)
def test_the_noise_is_that_of_generator_and_seeds(pipes, warnings, model, own):
    """The draws that k_diffusion's sampler is given, image by image; the global generator is left alone."""
    pipe, prompt = pipes[model]
    before = torch.random.get_rng_state()
    generators = lambda: {"generator": [seeded(4), seeded(5)]}  # noqa: E731
    for noise in (generators, lambda: {"seeds": 0}, lambda: {"seeds": [3, 9], "noise": "philox"}):
        latents, again = (call(pipe, prompt, own, 2, **noise()) for _ in range(2))
        expected = call(pipe, prompt, "euler_ancestral", 2, **noise())
        assert largest_difference(latents, again) == 0.0
        # float32, states of up to 60; one draws (1 + 2 n - 1) / 2
        assert largest_difference(latents, expected) < 1e-4
    assert torch.equal(torch.random.get_rng_state(), before) and not warnings
    second = {name: embeds[1:] for name, embeds in prompt(2).items()}
    both, alone = call(pipe, prompt, own, 2, seeds=[1, 2]), call(pipe, lambda _: second, own, seeds=[2])
    assert largest_difference(both[1:], alone) < 1e-4


def test_globals_of_a_function_are_its_own(pipes):
    pipe, prompt = pipes["sdxl"]
    before = COUNTED
    call(pipe, prompt, writes_globals, seeds=0)
    assert COUNTED == before + 1


def test_a_generator_of_the_users_own_is_left_to_it(pipes, warnings):
    pipe, prompt = pipes["sdxl"]

    mine, same = seeded(8), seeded(8)

    def own(model, x, sigmas):
        return ancestral(model, x, sigmas, lambda x: torch.randn(x.shape, generator=mine))

    def given(sigma, sigma_next):
        return torch.randn(1, 4, 8, 8, generator=same)

    expected = call(pipe, prompt, "euler_ancestral", seeds=0, sampler_options={"noise_sampler": given})
    assert largest_difference(call(pipe, prompt, own, seeds=0), expected) < 1e-4
    assert not warnings


def test_no_draw_waits_for_the_device():
    """On the meta device, as on a GPU, to read a value raises."""
    x, sigmas = torch.empty(2, 4, 6, 6, device="meta"), torch.tensor([9.0, 4.0, 1.0, 0.0])
    intervals = []

    def watch(noise):
        def watched(interval):
            intervals.append((interval.sigma.device.type, interval.sigma_next.device.type))
            return noise(interval)

        return watched

    def own(model, x, sigmas):
        for sigma in sigmas.unbind()[:-1]:
            x = model(x, sigma * x.new_ones(len(x))) + torch.randn_like(x)
        return x

    assert run_sampler(find_sampler(own), lambda x, sigma: x, x, sigmas, watch_noise=watch).device.type == "meta"
    assert intervals == 3 * [("meta", "meta")]


def rand(x):
    return (torch.rand_like(x) - 0.5) * 12**0.5


def one_for_all(x):
    return torch.randn(x.shape[1:])


@pytest.mark.parametrize(
    "draw, told", [(rand, "rand_like"), (one_for_all, "randn"), (lambda x: torch.normal(x, 1.0), "normal")]
)
def test_what_cannot_be_taken_over_is_warned_of(pipes, warnings, draw, told):
    pipe, prompt = pipes["sdxl"]

    def mine(model, x, sigmas):
        return ancestral(model, x, sigmas, draw)

    for _ in range(2):
        call(pipe, prompt, mine, seeds=0)
    [text] = warnings
    assert text.startswith(f"mine draws with {told} from torch's global generator") and "noise_sampler=None" in text


def test_draws_of_the_network_and_of_callbacks_are_their_own(pipes, warnings):
    """The network draws before and after, as dropout does, in the latents' shape and in others."""
    pipe, prompt = tiny_sdxl(StableDiffusionXLPipeline), sdxl_prompt
    drawn = []

    def draws(module, args, output):
        drawn.append((torch.randn(args[0].shape), torch.nn.functional.dropout(output[0], 0.5, training=True)))

    def callback(pipe, i, t, kwargs):
        drawn.append((torch.randn_like(kwargs["latents"]),))
        return {}

    pipe.unet.register_forward_hook(draws)
    torch.manual_seed(0)
    latents = call(pipe, prompt, randn_like, seeds=0, callback_on_step_end=callback)
    assert torch.equal(latents, call(pipes["sdxl"][0], prompt, randn_like, seeds=0)) and not warnings
    torch.manual_seed(0)
    shape = (2, *latents.shape[1:])
    first = torch.randn(shape)  # the global generator's
    assert torch.equal(drawn[0][0], first)


def test_threads_do_not_see_each_others_noise(warnings):
    """Two runs take turns, one network call each; a third draws from the global generator meanwhile."""
    barrier, results = threading.Barrier(2, timeout=60), {}
    sigmas, start = torch.tensor([9.0, 4.0, 1.0, 0.0]), torch.ones(1, 4, 6, 6)

    def run(seed, by_turns):
        def denoiser(x, sigma):
            if by_turns:
                barrier.wait()
            return x / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)

        sampler = find_sampler(randn_like)
        results[seed, by_turns] = run_sampler(sampler, denoiser, start, sigmas, generator=seeded(seed))

    threads = [threading.Thread(target=run, args=(seed, True)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    torch.manual_seed(3)
    here = torch.randn_like(start)
    for thread in threads:
        thread.join()
    for seed in (1, 2):
        run(seed, False)
        assert torch.equal(results[seed, True], results[seed, False])
    assert torch.equal(here, torch.randn(start.shape, generator=seeded(3)))
    assert not torch.equal(results[1, True], results[2, True])


def test_an_error_leaves_nothing_behind(pipes):
    pipe, prompt = pipes["sdxl"]

    def fails(model, x, sigmas):
        model(x, sigmas[0] * x.new_ones(len(x)))
        raise RuntimeError("my own")

    def no_network(module, args):
        raise RuntimeError("the network's")

    with pytest.raises(RuntimeError, match="my own"):
        call(pipe, prompt, fails, seeds=0)
    hook = pipe.unet.register_forward_pre_hook(no_network)
    with pytest.raises(RuntimeError, match="the network's"):
        call(pipe, prompt, randn_like, seeds=0)
    hook.remove()
    check_randn_like(seeded(5))


def test_compiled_parts_of_a_sampler(pipes, warnings):
    """torch.compile traces a helper with its draw: the noise is the run's all the same."""
    pipe, prompt = pipes["sdxl"]
    compiled = torch.compile(lambda x: torch.randn_like(x), backend="eager")

    def own(model, x, sigmas):
        return ancestral(model, x, sigmas, compiled)

    assert torch.equal(call(pipe, prompt, own, seeds=0), call(pipe, prompt, randn_like, seeds=0))


@pytest.mark.parametrize("own", [randn_like, of_sizes])
def test_schedulers(pipes, warnings, own):
    """One stage after the other, suspended in between: with the generator of the pipeline, and nothing left behind."""
    pipe = tiny_sdxl(TheirSDXL)
    arguments = {**sdxl_prompt(), **SIZE, "num_inference_steps": 5, "output_type": "latent"}
    results = {}
    for name, sampler in (("own", own), ("k", "euler_ancestral")):
        pipe.scheduler = SamplerScheduler.from_config(pipe.scheduler.config, sampler=sampler, sigma_grid="karras")
        before = torch.random.get_rng_state()
        results[name] = pipe(**arguments, generator=seeded()).images
        assert torch.equal(torch.random.get_rng_state(), before)
    assert largest_difference(results["own"], results["k"]) < 1e-4 and not warnings  # float32, another order


def test_a_run_that_is_dropped_leaves_nothing_behind(warnings):
    scheduler = SamplerScheduler(randn_like, sigma_grid="karras")
    scheduler.set_timesteps(5)
    x = torch.ones(1, 4, 8, 8)
    scheduler.step(x, scheduler.timesteps[0], x, generator=seeded())
    check_randn_like(seeded(6))  # while the run is suspended
    scheduler.set_timesteps(5)
    check_randn_like(seeded(7))


def check_randn_like(same: torch.Generator) -> None:
    """That it draws from the global generator."""
    torch.manual_seed(same.initial_seed())
    assert torch.equal(torch.randn_like(torch.ones(1, 4, 8, 8)), torch.randn(1, 4, 8, 8, generator=same))


def test_traces_and_comparisons_count_the_draws(pipes):
    pipe, prompt = pipes["sdxl"]
    trace, own = Trace(), Trace()
    call(pipe, prompt, "euler_ancestral", seeds=0, trace=trace)
    call(pipe, prompt, randn_like, seeds=0, trace=own)
    assert len(trace.draws) == len(own.draws) == 4
    for ours, theirs in zip(own.draws, trace.draws, strict=True):
        assert (ours.step, float(ours.sigma), float(ours.sigma_next)) == (
            theirs.step, float(theirs.sigma), float(theirs.sigma_next)
        )  # fmt: skip
    for pair in (("k:euler_ancestral", randn_like), (randn_like, "k:euler_ancestral"), (randn_like, randn)):
        comparison = compare_samplers(pipe, *pair, {**prompt(), **SIZE}, steps=5, grid="karras")
        assert comparison.difference.agree and not comparison.notes, (comparison.verdict, comparison.notes)


def churning(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """Euler with s_churn=2, as k_diffusion has it."""
    n = len(sigmas) - 1
    for i in range(n):
        sigma_hat = sigmas[i] * (1 + min(2 / n, 2**0.5 - 1))
        x = x + torch.randn_like(x) * (sigma_hat**2 - sigmas[i] ** 2) ** 0.5
        denoised = model(x, sigma_hat * x.new_ones(len(x)))
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigma_hat, "denoised": denoised})
        x = x + (x - denoised) / sigma_hat * (sigmas[i + 1] - sigma_hat)
    return x


def test_churn_of_ones_own(pipes):
    """It comes before the network's first call, and so the draws are of no interval of the grid."""
    pipe, prompt = pipes["sdxl"]
    call_of = {**prompt(), **SIZE}
    comparison = compare_samplers(pipe, "k:euler,s_churn=2", churning, call_of, steps=5, grid="karras")
    assert comparison.difference.agree and not comparison.notes, comparison.verdict
    comparison = compare_samplers(pipe, "k:euler", churning, call_of, steps=5, grid="karras")
    assert not comparison.difference.agree and "could not be shared in 5 draws" in comparison.notes[0]
