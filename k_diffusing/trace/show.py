"""A trace to look at: rows of numbers, a table as text or HTML, a plot, a film strip."""

import math

from k_diffusing.web.tables import html_table as table_of

SHOWN = 40  # lines of a trace that is printed


def rows(trace) -> list[dict[str, float]]:
    """One row of plain numbers for each network call of a Trace.

    Returns:
        Dicts with the same keys: call, step, stage, sigma, timestep, input_scale, x_rms, denoised_rms, and in a step's
        first call noise_rms, next_x_rms (else nan).
    """
    found = []
    for number, call in enumerate(trace.calls):
        row = {"call": number, "step": call.step, "stage": call.stage, "sigma": float(call.sigma)}
        row |= {"timestep": float(call.timestep), "input_scale": call.input_scale}
        row |= {f"{name}_rms": getattr(call, name).rms for name in ("x", "denoised")}
        last = call.stage == 0 and call.step + 1 < len(trace.states)
        noise = [draw.noise.rms for draw in trace.draws if draw.step == call.step]
        row["noise_rms"] = noise[-1] if call.stage == 0 and noise else math.nan
        row["next_x_rms"] = trace.states[call.step + 1].x.rms if last else math.nan
        found.append(row)
    return found


def caption(trace) -> str:
    """One line about the run of a Trace."""
    if not trace.calls:
        return "Trace: no run yet"
    steps = "steps not told" if trace.steps_from is None else f"{trace.step_count} steps"
    return f"{trace.sampler}: {steps}, {len(trace.calls)} network calls, {trace.coordinates}"


def text_table(trace) -> str:
    """The caption and `rows` as a table, of a long one the beginning and the end."""
    found = rows(trace)
    lines = ["".join(f"{name:>14}" for name in row) for row in found[:1]]
    lines += ["".join(f"{_number(value):>14}" for value in row.values()) for row in found]
    if len(lines) > SHOWN:
        left_out = f"{'...':>14}   ({len(lines) - SHOWN + 1} more)"
        lines = [*lines[: SHOWN // 2], left_out, *lines[SHOWN // 2 + 1 - SHOWN :]]
    return "\n".join([caption(trace), *lines])


def html_table(trace) -> str:
    """The caption and all `rows` as an HTML table."""
    found = rows(trace)
    if not found:
        return f"<p>{caption(trace)}</p>"
    return table_of(caption(trace), found[0], (map(_number, row.values()) for row in found))


def _number(value: float) -> str:
    return "" if value != value else f"{value:.5g}"


def plot(trace):
    """Draw sigma by network call, rms of x and of denoised, and the step in log sigma.

    Returns:
        A matplotlib figure.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib.pyplot as plt  # optional: pip install matplotlib

    found = rows(trace)
    figure, (top, middle, bottom) = plt.subplots(3, 1, sharex=True, figsize=(7, 7), layout="constrained")
    calls = [row["call"] for row in found]
    top.semilogy(calls, [row["sigma"] for row in found], "o-", ms=3)
    top.set(ylabel="sigma", title=f"{trace.sampler}, {trace.step_count} steps")
    middle.plot(calls, [row["x_rms"] for row in found], "o-", ms=3, label="x")
    middle.plot(calls, [row["denoised_rms"] for row in found], "o-", ms=3, label="denoised")
    middle.set(ylabel="rms", yscale="log")
    middle.legend()
    starts = [row for row in found if row["stage"] == 0]
    steps = [math.log(a["sigma"] / b["sigma"]) for a, b in zip(starts, starts[1:], strict=False)]
    bottom.plot([row["call"] for row in starts[:-1]], steps, "o-", ms=3)
    bottom.set(ylabel="step in log sigma", xlabel="network call")
    return figure


def strip(trace, pipe, frames: int = 8):
    """Decode the denoised estimates of some steps, of the first image of the batch, side by side.

    Args:
        trace: a Trace with tensors.
        pipe: the pipeline that ran.
        frames: how many steps, evenly spread; all if there are fewer.

    Returns:
        A PIL image.

    Raises:
        ValueError: the tensors were not kept.
    """
    from PIL import Image

    starts = [call for call in trace.calls if call.stage == 0]
    if not starts or starts[0].denoised.values is None:
        raise ValueError("there is nothing to decode: run with Trace(tensors=True)")
    count = min(frames, len(starts))
    chosen = [starts[round(i * (len(starts) - 1) / max(count - 1, 1))] for i in range(count)]
    tiles = [pipe.decode(call.denoised.values[:1], *trace.size)[0] for call in chosen]
    film = Image.new("RGB", (sum(tile.width for tile in tiles), tiles[0].height))
    for i, tile in enumerate(tiles):
        film.paste(tile, (i * tile.width, 0))
    return film
