"""A trace as a table, a plot and a film strip."""

import pytest
from traced_runs import STEPS, run

from k_diffusing.trace.record import Trace


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


def test_a_film_strip_has_no_frame_twice(pipes):
    trace = Trace(tensors=True)
    run(pipes, trace=trace)
    assert trace.strip(pipes["sdxl"][0], frames=8).width == STEPS * 16
