"""Traces saved and loaded, and what is no trace."""

import json

import pytest
import torch
from safetensors.torch import save_file
from traced_runs import run, silent_euler

from k_diffusing.trace.record import Trace


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
    content = change(path.read_text(encoding="utf-8"))
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
