"""A trace tells what a sampler did, changes nothing, and survives being saved."""

import json
import threading

import pytest
import torch
from safetensors.torch import save_file
from tiny_models import flux_prompt, sdxl_prompt, seeded, tiny_flux, tiny_sdxl

from flux_comfy_pipeline import FluxPipeline
from k_diffusing.model.scheduler_config import noise_schedule
from k_diffusing.trace.record import Trace, active_trace
from samplers_patch import SAMPLERS
from sdxl_comfy_pipeline import StableDiffusionXLPipeline

STEPS = 5


@pytest.fixture(scope="module")
def pipes():
    return {
        "sdxl": (tiny_sdxl(StableDiffusionXLPipeline), sdxl_prompt()),
        "flux": (tiny_flux(FluxPipeline), flux_prompt()),
    }


def run(pipes, family="sdxl", comfy_sampler="euler", **settings):
    pipe, prompt = pipes[family]
    call = {"height": 16, "width": 16, "num_inference_steps": STEPS, "output_type": "latent"} | settings
    return pipe(**prompt, comfy_sampler=comfy_sampler, generator=seeded(), **call).images


def euler(model, x, sigmas, extra_args=None, callback=None, disable=None):
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i] * x.new_ones(len(x)))
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": denoised})
        x = x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
    return x


def silent_euler(model, x, sigmas):
    return euler(model, x, sigmas)


@pytest.mark.parametrize("family", ["sdxl", "flux"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_tracing_changes_nothing(pipes, family, sampler):
    plain = run(pipes, family, sampler)
    for tensors in (False, True):
        trace = Trace(tensors=tensors)
        assert torch.equal(run(pipes, family, sampler, trace=trace), plain)
        assert len(trace.calls) >= STEPS and trace.sampler == sampler
        assert (trace.calls[0].x.values is not None) == tensors


def test_every_call_of_the_network_is_there(pipes):
    """Against what the UNet itself was given, step by step of heun's two stages."""
    seen, trace = [], Trace(tensors=True)
    pipe = pipes["sdxl"][0]
    hook = pipe.unet.register_forward_pre_hook(lambda module, args: seen.append((args[0], args[1])))
    run(pipes, comfy_sampler="heun", trace=trace)
    hook.remove()
    assert [(call.step, call.stage) for call in trace.calls] == [(i // 2, i % 2) for i in range(2 * STEPS - 1)]
    for call, (net_input, timestep) in zip(trace.calls, seen, strict=True):
        assert torch.equal(call.net_input.values, net_input[:1])
        assert call.timestep == timestep[0]
        # 1e-6: the square root of sums of squares in float32
        assert call.input_scale == pytest.approx(float(1 / (call.sigma**2 + 1) ** 0.5), rel=1e-6)


@pytest.mark.parametrize("sampler", ["euler", "heun", "lms", "dpmpp_2m", euler, silent_euler])
def test_states_and_denoised_follow_euler(pipes, sampler):
    """The states are those between the steps: an Euler step leads from each to the next, where it is Euler's method."""
    trace = Trace(tensors=True)
    latents = run(pipes, comfy_sampler=sampler, trace=trace)
    assert trace.step_count == STEPS
    assert torch.equal(trace.states[-1].x.values, latents)
    assert torch.equal(torch.stack([state.sigma for state in trace.states]), trace.sigmas)
    for i, call in enumerate(call for call in trace.calls if call.stage == 0):
        assert torch.equal(call.x.values, trace.states[i].x.values)
        if "euler" in trace.sampler:
            d = (call.x.values - call.denoised.values) / call.sigma
            following = call.x.values + d * (trace.states[i + 1].sigma - call.sigma)
            assert (following - trace.states[i + 1].x.values).abs().max() < 1e-5  # float32, another order of operations


def test_statistics_are_those_of_the_tensors(pipes):
    trace = Trace(tensors=True)
    run(pipes, "flux", "dpmpp_sde", trace=trace)
    for call in trace.calls:
        for reading in (call.x, call.net_input, call.denoised):
            values = reading.values.double()
            assert reading.rms == pytest.approx(float(values.square().mean().sqrt()), rel=1e-5)
            assert reading.mean == pytest.approx(float(values.mean()), abs=1e-5)
            assert reading.largest == float(reading.values.abs().max())
    assert trace.coordinates == "ve" and trace.size == (16, 16)


def test_half_precision_does_not_overflow_the_statistics():
    trace = Trace()
    x = torch.full((1, 4), 300.0, dtype=torch.float16)
    trace.record_call(x, torch.ones(1), torch.ones(1), x, x)
    assert trace.calls[0].x.rms == pytest.approx(300)


@pytest.mark.parametrize(
    "sampler, options, draws",
    [("euler", {}, 0), ("euler", {"s_churn": 3.0}, STEPS), ("euler_ancestral", {}, STEPS - 1), ("dpmpp_sde", {}, 8)],
)
def test_draws_of_noise(pipes, sampler, options, draws):
    trace = Trace(tensors=True)
    run(pipes, comfy_sampler=sampler, sampler_options=options, trace=trace)
    assert len(trace.draws) == draws
    assert all(0.5 < draw.noise.rms < 1.5 for draw in trace.draws)  # unit noise, 256 values
    assert all(draw.churn == ("s_churn" in options) for draw in trace.draws)
    assert [draw.step for draw in trace.draws] == sorted(draw.step for draw in trace.draws)


CHURN = ["euler", "heun", "dpm_2"]


@pytest.mark.parametrize("family", ["sdxl", "flux"])
@pytest.mark.parametrize("sampler", CHURN)
def test_churn_raises_the_level_that_the_network_is_told(pipes, family, sampler):
    """A step begins at sigma_hat = (1 + gamma) sigma, gamma = s_churn / steps (Karras et al. 2022, algorithm 2)."""
    trace = Trace(tensors=True)
    run(pipes, family, sampler, sampler_options={"s_churn": 0.25 * STEPS}, trace=trace)
    first = [call for call in trace.calls if call.stage == 0]
    raised = 1.25 * trace.sigmas[:-1]
    assert torch.stack([call.sigma for call in first]).allclose(raised, rtol=1e-6)
    told = torch.stack([call.timestep for call in first])
    if family == "sdxl":
        expected, scale = noise_schedule(pipes["sdxl"][0].scheduler).timestep(raised), 1 / (raised**2 + 1) ** 0.5
    else:
        expected, scale = 1000 * raised / (1 + raised), 1 / (1 + raised)
    assert told.allclose(expected, rtol=1e-5)
    assert torch.tensor([call.input_scale for call in first]).allclose(scale, rtol=1e-5)


@pytest.mark.parametrize("sampler", CHURN)
def test_the_level_of_churn_noise_is_that_of_its_step(pipes, sampler):
    trace = Trace()
    run(pipes, comfy_sampler=sampler, sampler_options={"s_churn": 3.0}, trace=trace)
    assert [float(draw.sigma) for draw in trace.draws] == trace.sigmas[:-1].tolist()
    assert [draw.step for draw in trace.draws] == list(range(STEPS))


def test_a_replay_stands_in_for_the_noise(pipes):
    zeros = Trace(replay=lambda trace, draw, interval: 0 * draw(interval))
    noiseless = run(pipes, comfy_sampler="euler_ancestral", trace=zeros)
    assert torch.equal(noiseless, run(pipes, comfy_sampler="euler_ancestral", sampler_options={"s_noise": 0.0}))


def test_with_a_block_around_the_call(pipes):
    with Trace() as trace:
        run(pipes)
        assert active_trace() is trace
    assert active_trace() is None and len(trace.calls) == STEPS
    calls = trace.calls
    run(pipes)
    assert trace.calls is calls
    with pytest.raises(KeyError), Trace():
        raise KeyError
    assert active_trace() is None


def test_two_threads_have_two_traces(pipes):
    traces = {name: Trace() for name in ("euler", "heun")}

    def work(name):
        with traces[name]:
            run(pipes, "sdxl" if name == "euler" else "flux", name)

    threads = [threading.Thread(target=work, args=(name,)) for name in traces]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: len(trace.calls) for name, trace in traces.items()} == {"euler": STEPS, "heun": 2 * STEPS - 1}


def test_the_latest_run_is_kept(pipes):
    trace = Trace()
    run(pipes, comfy_sampler="heun", trace=trace)
    run(pipes, comfy_sampler="euler", trace=trace)
    assert trace.sampler == "euler" and len(trace.calls) == STEPS and trace.step_count == STEPS


def test_a_run_that_is_left_early_is_kept(pipes):
    def stop(pipe, i, t, kwargs):
        pipe._interrupt = i == 1
        return kwargs

    trace = Trace()
    run(pipes, trace=trace, callback_on_step_end=stop)
    assert trace.step_count == 2 and len(trace.calls) == 2


def test_a_callback_that_changes_latents_shows(pipes):
    def scale(pipe, i, t, kwargs):
        return {"latents": kwargs["latents"] * 2 if i == 1 else kwargs["latents"]}

    plain, changed = Trace(tensors=True), Trace(tensors=True)
    run(pipes, trace=plain)
    run(pipes, trace=changed, callback_on_step_end=scale)
    assert torch.equal(changed.states[1].x.values, plain.states[1].x.values)
    assert torch.equal(changed.states[2].x.values, 2 * plain.states[2].x.values)


@pytest.mark.parametrize("tensors", [False, True])
def test_saved_and_loaded(pipes, tmp_path, tensors):
    trace = Trace(tensors=tensors)
    run(pipes, "flux", "dpmpp_2s_ancestral", trace=trace)
    trace.save(tmp_path / "run.json")
    assert {path.name for path in tmp_path.iterdir()} == {"run.json"} | ({"run.safetensors"} if tensors else set())
    loaded = Trace.load(tmp_path / "run.json")
    assert repr(loaded.rows()) == repr(trace.rows())
    assert loaded._repr_html_() == trace._repr_html_()
    assert len(loaded.draws) == len(trace.draws) and loaded.size == trace.size
    if tensors:
        assert all(torch.equal(a.x.values, b.x.values) for a, b in zip(loaded.states, trace.states, strict=True))


@pytest.fixture
def saved(pipes, tmp_path):
    """The path of a trace with tensors, and the trace."""
    trace = Trace(tensors=True)
    run(pipes, comfy_sampler="euler_ancestral", trace=trace)
    trace.save(tmp_path / "run.json")
    return tmp_path / "run.json", trace


def test_no_tensors_of_an_earlier_run_are_loaded(pipes, saved):
    path, _ = saved
    statistics = Trace()
    run(pipes, comfy_sampler="heun", trace=statistics)
    statistics.save(path)
    loaded = Trace.load(path)
    assert not loaded.tensors and all(call.x.values is None for call in loaded.calls)
    assert not path.with_suffix(".safetensors").exists()


def test_tensors_of_others_are_left_alone(pipes, tmp_path):
    model = tmp_path / "run.safetensors"
    save_file({"weight": torch.ones(2)}, model)
    trace = Trace()
    run(pipes, trace=trace)
    trace.save(tmp_path / "run.json")
    assert model.exists() and Trace.load(tmp_path / "run.json").calls[0].x.values is None


def test_a_silent_sampler_is_saved(pipes, tmp_path):
    trace = Trace(tensors=True)
    run(pipes, comfy_sampler=silent_euler, trace=trace)
    trace.save(tmp_path / "run.json")
    loaded = Trace.load(tmp_path / "run.json")
    assert torch.equal(loaded.states[1].x.values, trace.states[1].x.values) and loaded.steps_from == "calls"


def changed(*keys, to):
    """A change of one value in the JSON text; to=None: it is left out."""

    def change(text):
        texts = at = json.loads(text)
        for key in keys[:-1]:
            at = at[key]
        if to is None:
            del at[keys[-1]]
        else:
            at[keys[-1]] = to
        return json.dumps(texts)

    return change


BAD_TEXTS = {
    "empty": lambda text: "",
    "cut": lambda text: text[: len(text) // 2],
    "no JSON": lambda text: "Trace",
    "binary": lambda text: b"\x80\x02\xff\x00",
    "nested": lambda text: "[" * 100_000,
    "a long number": lambda text: "9" * 5000,
    **{f"the JSON {text}": lambda _, text=text: text for text in ("{}", "[]", "[1]", "1", "null", '"calls"')},
    **{
        f"without {keys[-1]}": changed(*keys, to=None)
        for keys in [
            *[(name,) for name in ("calls", "draws", "states", "sampler", "model", "coordinates", "size", "sigmas")],
            ("tensors",), ("steps_from",), ("calls", 0, "x"), ("calls", 0, "sigma"), ("calls", 0, "x", "stats"),
            ("calls", 0, "x", "dtype"), ("draws", 0, "noise"), ("states", 0, "x"),
        ]
    },
    **{
        f"{keys[-1]} {str(value)[:9]}": changed(*keys, to=value)
        for keys, value in [
            (("calls",), 5), (("calls",), {"0": 1}), (("calls",), [5]), (("states",), "none"), (("draws",), [[]]),
            (("size",), 16), (("size",), [16]), (("size",), ["a", "b"]), (("sigmas",), "14"), (("sigmas",), [[1.0]]),
            (("sigmas",), ["a"]), (("sigmas",), [10**400]), (("sampler",), 5), (("coordinates",), "vp"),
            (("coordinates",), []), (("steps_from",), 5), (("tensors",), 5), (("tensors",), "0" * 64),
            (("calls", 0, "step"), "0"), (("calls", 0, "step"), -1), (("calls", 0, "step"), 10**400),
            (("calls", 0, "sigma"), "14"), (("calls", 0, "sigma"), 10**400), (("calls", 0, "sigma"), {}),
            (("calls", 0, "x"), 5), (("calls", 0, "x", "stats"), [1.0]), (("calls", 0, "x", "stats"), "abc"),
            (("calls", 0, "x", "dtype"), "float17"), (("calls", 0, "x", "dtype"), "nn"),
            (("calls", 0, "x", "dtype"), 5), (("draws", 0, "sigma"), True), (("states", 0), 0),
        ]
    },
}  # fmt: skip


@pytest.mark.parametrize("change", BAD_TEXTS.values(), ids=BAD_TEXTS)
def test_files_that_are_no_trace(saved, change):
    path, _ = saved
    content = change(path.read_text())
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=r"run\.json is not a trace: .+; give the \.json file"):
        Trace.load(path)


@pytest.mark.parametrize("content", [None, b"", b"\x00" * 100, "cut", "folder", "other"])
def test_tensors_that_are_not_those_of_the_trace(saved, content, tmp_path):
    path, trace = saved
    beside = path.with_suffix(".safetensors")
    whole = beside.read_bytes()
    beside.unlink()
    if content == "folder":
        beside.mkdir()
    elif content == "other":
        save_file({"calls.0.x": torch.ones(2)}, beside)
    elif content is not None:
        beside.write_bytes(whole[:-10] if content == "cut" else content)
    with pytest.raises(ValueError, match=r"run\.json is not a trace: .*run\.safetensors"):
        Trace.load(path)


def test_a_path_without_a_trace(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere.json"):
        with pytest.raises(ValueError, match="is not a trace: "):
            Trace.load(path)


def test_a_failed_save_leaves_the_earlier_one(pipes, saved, monkeypatch):
    path, trace = saved
    other = Trace()
    run(pipes, trace=other)
    monkeypatch.setattr(json, "dumps", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        other.save(path)
    assert repr(Trace.load(path).rows()) == repr(trace.rows()) and Trace.load(path).tensors


def test_a_trace_is_printed_as_a_table(pipes):
    trace = Trace(tensors=True)
    assert str(trace) == "Trace: no run yet"
    run(pipes, comfy_sampler="heun", trace=trace)
    caption, head, *lines = repr(trace).splitlines()
    assert caption == f"heun: {STEPS} steps, {2 * STEPS - 1} network calls, ve"
    assert head.split()[:4] == ["call", "step", "stage", "sigma"]
    assert len(lines) == 2 * STEPS - 1 and lines[1].split()[:3] == ["1", "0", "1"]
    assert "tensor" not in repr(trace)
    assert len(repr(trace.calls[0])) < 1000 and len(repr(trace.states)) < 3000


def test_a_long_trace_is_printed_in_part(pipes):
    trace = Trace()
    run(pipes, trace=trace, num_inference_steps=200)
    lines = str(trace).splitlines()
    assert len(lines) <= 45 and lines[2].split()[0] == "0" and lines[-1].split()[0] == "199"
    assert sum(int(line.split("(")[1].split()[0]) for line in lines if "more)" in line) + len(lines) - 3 == 200


def test_the_table_in_a_notebook(pipes):
    trace = Trace()
    assert "no run yet" in trace._repr_html_()
    run(pipes, comfy_sampler="heun", trace=trace)
    assert trace._repr_html_().count("<tr>") == 1 + len(trace.calls)


def test_plot(pipes):
    trace = Trace()
    run(pipes, comfy_sampler="heun", trace=trace)
    sigma, sizes, steps = trace.plot().axes
    assert len(sigma.lines[0].get_xdata()) == 2 * STEPS - 1
    assert [line.get_label() for line in sizes.lines] == ["x", "denoised"]
    assert len(steps.lines[0].get_xdata()) == STEPS - 1


@pytest.mark.parametrize("family", ["sdxl", "flux"])
def test_film_strip(pipes, family):
    trace = Trace(tensors=True)
    pictures = run(pipes, family, trace=trace, output_type="pil")
    strip = trace.strip(pipes[family][0], frames=3)
    assert strip.size == (3 * 16, 16)
    # Euler's last estimate is the result.
    assert strip.crop((32, 0, 48, 16)).tobytes() == pictures[0].tobytes()
    with pytest.raises(ValueError, match=r"Trace\(tensors=True\)"):
        Trace().strip(pipes[family][0])


def test_diffusers_own_loop_is_not_traced(pipes):
    for settings in ({"trace": Trace()}, {}):
        with Trace(), pytest.raises(ValueError, match="trace"):
            run(pipes, comfy_sampler=None, **settings)


def test_a_film_strip_has_no_frame_twice(pipes):
    trace = Trace(tensors=True)
    run(pipes, trace=trace)
    assert trace.strip(pipes["sdxl"][0], frames=8).width == STEPS * 16
