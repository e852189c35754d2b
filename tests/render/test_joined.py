"""Runs side by side whose network calls are joined: each is what it is alone, whatever becomes of the others."""

import gc
import os
import signal
from collections import Counter

import pytest
import torch
from greenlet import getcurrent, greenlet
from tiny_checkpoints import SDXL, saved_sdxl
from tiny_models import flux_prompt, largest_difference, sdxl_prompt, tiny_flux, tiny_sdxl

from flux_comfy_pipeline import FluxPipeline
from k_diffusing.render.joined import JoinedRuns
from samplers_patch import SAMPLERS
from sdxl_comfy_pipeline import StableDiffusionXLPipeline

# Relative, in float32: the network sums a batch in another order. dpm_adaptive accepts a step or not by an error that
# it estimates from differences of nearly equal states: rounding moves its steps, within its own tolerance.
TOLERANCE, ADAPTIVE = 1e-5, 1e-3


@pytest.fixture(scope="module")
def pipes():
    return {"unet": tiny_sdxl(StableDiffusionXLPipeline), "transformer": tiny_flux(FluxPipeline)}


def keywords(network: str, sampler, seed: int = 0, steps: int = 4, guided: bool = True, dtype=torch.float32, **more):
    """Of a call for latents. Each seed has a prompt of its own."""
    if network == "unet":
        prompt, guidance = sdxl_prompt(4, dtype), {"guidance_scale": 5.0 if guided else 1.0}
    else:
        prompt, guidance = flux_prompt(4, dtype, negative=True), {"true_cfg_scale": 2.0 if guided else 1.0}
    prompt = {name: embeds[[seed % 4]] for name, embeds in prompt.items()}
    size = {"height": 16, "width": 16, "output_type": "latent"}
    call = {"comfy_sampler": sampler, "seeds": [seed], "num_inference_steps": steps}
    return prompt | guidance | size | call | more


def side_by_side(pipe, network: str, cells: dict, rows: int, **options) -> dict:
    """The runs by the names of their cells, once they are over."""
    todo, over = list(cells), {}
    with JoinedRuns(pipe, network, rows, **options) as runs:
        while todo or runs.open:
            while todo and runs.has_room:
                runs.begin(todo[0], cells[todo.pop(0)])
            over |= {run.cell: run for run in runs.advance()}
    assert over.keys() == cells.keys()
    return over


def assert_as_alone(pipe, cells: dict, over: dict, tolerance: float = TOLERANCE) -> None:
    for name, call in cells.items():
        found = over[name].outcome
        assert isinstance(found, torch.Tensor), found
        expected = pipe(**call).images[0]
        limit = ADAPTIVE if call["comfy_sampler"] == "dpm_adaptive" else tolerance
        assert largest_difference(found, expected) <= limit * float(expected.abs().max()), name


@pytest.fixture
def watched(pipes):
    """The rows, and the dtypes, of the calls of both networks."""
    seen, hooks = {"unet": [], "transformer": []}, []
    for name, pipe in pipes.items():
        hook = lambda _, args, kwargs, name=name: seen[name].append(args[0] if args else kwargs["hidden_states"])  # noqa: E731
        hooks.append(getattr(pipe, name).register_forward_pre_hook(hook, with_kwargs=True))
    yield seen
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("network", ["unet", "transformer"])
def test_every_sampler_is_what_it_is_alone(pipes, watched, network):
    """Of several seeds, prompts, numbers of steps and grids, guided and not."""
    cells = {}
    for i, name in enumerate(SAMPLERS):
        for seed in (0, 1):
            grid = {"sigma_grid": "karras"} if network == "unet" and i % 2 else {}
            cells[name, seed] = keywords(network, name, seed, steps=4 + i % 3, guided=(i + seed) % 3 > 0, **grid)
    over = side_by_side(pipes[network], network, cells, rows=12)
    joined = [len(rows) for rows in watched[network]]
    assert max(joined) == 12
    watched[network].clear()
    assert_as_alone(pipes[network], cells, over)
    alone = [len(rows) for rows in watched[network]]
    # Some steps more or less of dpm_adaptive; all others have as many calls as alone.
    assert abs(sum(joined) - sum(alone)) <= 0.1 * sum(alone) and len(joined) < len(alone) / 3
    assert sum(run.evaluations for run in over.values()) > len(joined)


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 100])
def test_rows_of_a_call_and_open_runs_are_bounded(pipes, watched, rows):
    cells = {i: keywords("unet", "euler", i, guided=i % 2 == 0) for i in range(9)}
    with JoinedRuns(pipes["unet"], "unet", rows) as runs:
        todo, opened = list(cells), []
        while todo or runs.open:
            while todo and runs.has_room:
                runs.begin(todo[0], cells[todo.pop(0)])
            opened.append(len(runs.open))
            runs.advance()
    assert max(len(call) for call in watched["unet"]) <= max(rows, 2)  # a pair stays one
    assert max(opened) <= rows and (rows > 1 or len(watched["unet"]) == 9 * 4)
    assert sum(len(call) for call in watched["unet"]) == 4 * (5 * 2 + 4)


def test_one_run_at_a_time_is_the_very_same(pipes):
    cells = {i: keywords("transformer", "dpmpp_sde", i) for i in range(2)}
    over = side_by_side(pipes["transformer"], "transformer", cells, rows=1)
    assert_as_alone(pipes["transformer"], cells, over, tolerance=0.0)


@pytest.mark.parametrize("network", ["unet", "transformer"])
def test_sizes_are_not_mixed(pipes, watched, network):
    """Nor those of FLUX that have as many tokens at other places."""
    sizes = [(16, 32), (32, 16), (16, 32), (32, 16), (48, 16)]
    cells = {i: keywords(network, "heun", i, height=h, width=w) for i, (h, w) in enumerate(sizes)}
    over = side_by_side(pipes[network], network, cells, rows=20)
    assert sorted(Counter(len(call) for call in watched[network])) == ([2, 4] if network == "unet" else [1, 2])
    assert_as_alone(pipes[network], cells, over)


@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 2.0**-5), (torch.float16, 2.0**-8)])
@pytest.mark.parametrize("network", ["unet", "transformer"])
def test_other_dtypes(network, dtype, tolerance):
    """Their rounding, some steps of it: 8 and 11 bits."""
    make, kind = {"unet": (tiny_sdxl, StableDiffusionXLPipeline), "transformer": (tiny_flux, FluxPipeline)}[network]
    pipe, seen = make(kind, dtype=dtype), set()
    hook = lambda _, args, kwargs: seen.add((args[0] if args else kwargs["hidden_states"]).dtype)  # noqa: E731
    getattr(pipe, network).register_forward_pre_hook(hook, with_kwargs=True)
    cells = {(name, i): keywords(network, name, i, dtype=dtype) for name in ("euler", "dpmpp_2m") for i in range(3)}
    over = side_by_side(pipe, network, cells, rows=6)
    assert seen == {dtype}
    assert_as_alone(pipe, cells, over, tolerance)


def boom(model, x, sigmas):
    model(x, sigmas[0] * x.new_ones([len(x)]))
    raise RuntimeError("boom")


def test_a_run_that_fails_fails_alone(pipes):
    bad = {"bad": keywords("unet", boom), "refused": keywords("unet", "heun", steps=0)}
    good = {i: keywords("unet", "heun", i) for i in range(4)}
    over = side_by_side(pipes["unet"], "unet", {**bad, **good}, rows=12)
    assert repr(over["bad"].outcome) == "RuntimeError('boom')" and isinstance(over["refused"].outcome, ValueError)
    assert_as_alone(pipes["unet"], good, over)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("too large"), ValueError("no")])
def test_a_joined_call_that_fails_is_made_one_by_one(pipes, error):
    calls = []

    def refuse(_, args):
        calls.append(len(args[0]))
        if len(args[0]) > 4:
            raise error

    cells = {i: keywords("unet", "euler", i) for i in range(6)}
    hook = pipes["unet"].unet.register_forward_pre_hook(refuse)
    try:
        over = side_by_side(pipes["unet"], "unet", cells, rows=12)
    finally:
        hook.remove()
    assert_as_alone(pipes["unet"], cells, over)
    memory = isinstance(error, torch.OutOfMemoryError)
    assert sum(rows > 4 for rows in calls) == (2 if memory else 4)  # 12 rows and then 6; or in each step


def test_a_network_that_fails_for_one_is_that_ones_error(pipes):
    def refuse(_, args):
        if (args[1] == args[1].max()).any() and args[0].isnan().any():
            raise ValueError("nan in the input")

    latents = torch.full((1, 4, 8, 8), float("nan"))
    cells = {0: keywords("unet", "euler"), 1: keywords("unet", "euler", latents=latents), 2: keywords("unet", "lms", 2)}
    hook = pipes["unet"].unet.register_forward_pre_hook(refuse)
    try:
        over = side_by_side(pipes["unet"], "unet", cells, rows=6)
    finally:
        hook.remove()
    assert repr(over[1].outcome) == "ValueError('nan in the input')"
    del cells[1]
    assert_as_alone(pipes["unet"], cells, over)


def suspended() -> int:
    gc.collect()
    return sum(type(each) is greenlet and bool(each) and each is not getcurrent() for each in gc.get_objects())


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_all_unwinds_all(pipes, error):
    unwound, before = [], suspended()

    def tidy(model, x, sigmas):
        try:
            for sigma in sigmas[:-1]:
                model(x, sigma * x.new_ones([len(x)]))
        finally:
            unwound.append(True)
        return x

    def stop(model, x, sigmas):
        tidy(model, x, sigmas[:3])
        raise error

    cells = {i: keywords("unet", stop if i == 2 else tidy, i, steps=9) for i in range(4)}
    with pytest.raises(error):
        side_by_side(pipes["unet"], "unet", cells, rows=8)
    assert len(unwound) == 4 and suspended() == before
    assert torch.is_grad_enabled() and type(pipes["unet"].unet).__name__ == "UNet2DConditionModel"
    assert "decode" not in vars(pipes["unet"])


def test_what_a_function_sets_for_itself_is_its_own(pipes):
    """Grad mode and inference mode are a thread's, and its draws are those of its seed."""
    modes = []

    def with_grad(model, x, sigmas):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            d = model(x, sigmas[0] * x.new_ones([len(x)]))
            assert d.requires_grad
        return d.detach()

    def with_inference(model, x, sigmas):
        with torch.inference_mode():
            return model(x, sigmas[0] * x.new_ones([len(x)])) + torch.randn_like(x)

    def looks(model, x, sigmas):
        for sigma in sigmas[:-1]:
            x = model(x, sigma * x.new_ones([len(x)])) + 0.1 * torch.randn_like(x)
            modes.append((torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
        return x

    samplers = [looks, with_grad, looks, with_inference, looks, "euler_ancestral"]
    cells = {i: keywords("unet", sampler, i) for i, sampler in enumerate(samplers)}
    over = side_by_side(pipes["unet"], "unet", cells, rows=12)
    assert set(modes) == {(False, False)} and over[1].evaluations == over[3].evaluations == 1
    assert_as_alone(pipes["unet"], cells, over)


def test_pictures_calls_and_times_of_each(pipes):
    cells = {i: keywords("unet", name, i, output_type="pil") for i, name in enumerate(("euler", "heun", "dpm_2"))}
    over = {}
    with JoinedRuns(pipes["unet"], "unet", 6) as runs:
        for i, call in cells.items():
            runs.begin(i, call)
        while runs.open:
            over |= {run.cell: (run, *runs.seconds(run)) for run in runs.advance()}
    assert [over[i][0].outcome.size for i in range(3)] == [(16, 16)] * 3
    assert [over[i][0].evaluations for i in range(3)] == [4, 7, 7]
    assert all(0 < network < seconds for _, seconds, network in over.values())
    assert all(run.peak > 50 for run, *_ in over.values())  # MiB, of the process


@pytest.mark.parametrize("offload", [False, True])
def test_one_part_of_the_model_at_a_time(pipes, monkeypatch, offload):
    """Where parts leave the device, pictures are decoded when no run waits for the network; else each at once.

    With the hooks of --offload, here from the CPU to the CPU.
    """
    pipe, events = tiny_sdxl(StableDiffusionXLPipeline), []
    if offload:
        pipe.enable_model_cpu_offload(device="cpu")
    free = pipe.maybe_free_model_hooks
    pipe.unet.register_forward_pre_hook(lambda *_: events.append("unet"))
    pipe.vae.decoder.register_forward_pre_hook(lambda *_: events.append("vae"))
    monkeypatch.setattr(pipe, "maybe_free_model_hooks", lambda: events.append("free") or free())
    steps = (3, 5, 3, 5, 3)
    cells = {i: keywords("unet", "euler", i, steps=n, output_type="pil") for i, n in enumerate(steps)}
    over = side_by_side(pipe, "unet", cells, rows=4, decode_last=offload)
    waves = [["unet"] * 5 + ["vae"] * 2 + ["free"]] * 2 + [["unet"] * 3 + ["vae", "free"]]
    assert (events == sum(waves, [])) == offload
    assert events.count("vae") == 5 and events[-1] == "free"
    assert hasattr(pipe.unet, "_hf_hook") == offload
    assert all(run.outcome.size == (16, 16) for run in over.values())


def test_the_users_pipeline_stays_as_it_is(pipes):
    pipe = pipes["transformer"]
    before = dict(vars(pipe))
    side_by_side(pipe, "transformer", {i: keywords("transformer", "lms", i) for i in range(3)}, rows=3)
    assert vars(pipe) == before


# Through the script.


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    saved_sdxl(folder := tmp_path_factory.mktemp("models") / "tiny-sdxl")
    return folder


@pytest.fixture
def main(model, tmp_path):
    fixed = ["--model", str(model), "--dtype", "float32", "--device", "cpu", "--prompt", "a red circle", "--steps", "3"]
    return lambda *argv: SDXL.main([*fixed, "--output", str(tmp_path / "out"), *argv])


def told(capsys):
    """The cells that were rendered, as the lines say."""
    return {line.split()[0] for line in capsys.readouterr().out.splitlines() if " evaluations " in line}


def test_ctrl_c_finishes_the_pictures_at_work(main, tmp_path, capsys):
    """And takes no more; the same command goes on with the rest, and renders nothing twice."""
    mine = tmp_path / "mine.py"
    mine.write_text(
        "import os, signal\ndef stop(model, x, sigmas):\n"
        "    if x.shape[-1] == 16:  # and no trial before the run\n        os.kill(os.getpid(), signal.SIGINT)\n"
        "    return model(x, sigmas[0] * x.new_ones([len(x)]))\n"
    )
    argv = [
        "--height",
        "32",
        "--width",
        "32",
        "--samplers",
        "heun",
        f"{mine}:stop",
        "euler",
        "lms",
        "dpm_2",
        "--batch-size",
        "6",
    ]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert main(*argv) == 130
        assert told(capsys) == {"sample_heun", "sample_mine.py_stop"}
        assert main(*argv) == 0
    finally:
        signal.signal(signal.SIGINT, before)
    assert told(capsys) == {"sample_euler", "sample_lms", "sample_dpm_2"}
    assert not [name for name in os.listdir(tmp_path / "out") if name.startswith(".")]
