"""Where two runs of a sampler part: the first quantity that differs, at which step, by how much, and why.

    difference = trace_difference(trace_a, trace_b)     # both made with Trace(tensors=True)
    print(difference.verdict)

Quantities are looked at in the order in which a run makes them, so that the first one that differs is the cause
and not a consequence. Runs in VE and in flow coordinates are compared in flow coordinates. Runs are compared step by
step; where one does not tell its steps and its network calls leave them open, call by call.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import zip_longest

from k_diffusing.trace.comparable import ComparableRun, close, distance
from k_diffusing.trace.findings import Finding, find_all
from k_diffusing.trace.record import Trace

TOLERANCE = 5e-4  # of |a - b| / |a|: on the demo models rounding in float32 grows to 1e-4 over 20 steps at most
SENSITIVITY = 1e-4  # a quantity differs if it does so by more than this, and by more than GROWTH times what went in


@dataclass(frozen=True)
class Row:
    """One step (or network call).

    Attributes:
        step: its number, from 0.
        sigma: the noise levels of a and b.
        timestep: what their networks are told.
        x: |a - b| / |a| of the states at its start.
        denoised: that of the first estimates in it.
        parted: the quantity that parts first in it, if one does.
    """

    step: int
    sigma: tuple[float, float]
    timestep: tuple[float, float]
    x: float
    denoised: float
    parted: str | None


@dataclass(frozen=True)
class LaterCall:
    """A network call in a step after its first: a later stage. None stands for what a run does not have.

    Attributes:
        step: its step's number, from 0.
        stage: its own in the step, from 1.
        sigma: the noise levels of a and b.
        timestep: what their networks are told.
        x: |a - b| / |a| of the states that the networks see.
        denoised: that of the estimates.
    """

    step: int
    stage: int
    sigma: tuple[float | None, float | None]
    timestep: tuple[float | None, float | None]
    x: float | None
    denoised: float | None


@dataclass(frozen=True)
class Difference:
    """What came of comparing two traces.

    Attributes:
        rows: the steps (or network calls).
        findings: the quantities that differ, the first first.
        largest: the largest |a - b| / |a| of any state.
        result: that of the results.
        tolerance: up to which they agree.
        notes: what must be known beside the verdict.
        unit: what the rows are, "step" or "network call".
        whole: whether they are all of both runs; if not, they are the calls up to the first at other sigmas, and
            agreement is that of the results.
        later_calls: the network calls in steps after their first.
    """

    rows: list[Row]
    findings: list[Finding]
    largest: float
    result: float
    tolerance: float
    notes: list[str] = field(default_factory=list)
    unit: str = "step"
    whole: bool = True
    later_calls: list[LaterCall] = field(default_factory=list)

    @property
    def agree(self) -> bool:
        """Whether no difference is above the tolerance."""
        return self.largest <= self.tolerance

    @property
    def first(self) -> Finding | None:
        """Where they part; None if they agree."""
        return None if self.agree else self.findings[0]

    @property
    def verdict(self) -> str:
        """One line, without the notes."""
        first = self.first
        if first is None:
            return f"agree to {self.largest:.1e} " + (f"over {self.count}" if self.whole else "in the result")
        return f"part at {self.unit} {first.step}: {first}"

    @property
    def count(self) -> str:
        """How many rows there are, in words."""
        return f"{len(self.rows)} {self.unit}{'s' * (len(self.rows) != 1)}"


def trace_difference(a: Trace, b: Trace, tolerance: float = TOLERANCE) -> Difference:
    """Compare two runs.

    Args:
        a: made with Trace(tensors=True).
        b: likewise, on the same model, with latents of the same shape.
        tolerance: the |a - b| / |a| up to which they agree.

    Returns:
        Where they part and why, or that they agree.

    Raises:
        ValueError: they cannot be compared: no tensors, other shapes, no network calls.
    """
    check_comparable(a, b)
    in_flow = a.coordinates != b.coordinates
    runs = _with_the_same_steps(ComparableRun(a, in_flow), ComparableRun(b, in_flow))
    traces = [run.trace for run in runs]
    if all(trace.steps_from for trace in traces):
        found = _by_steps(*runs, tolerance)
        told = all(trace.steps_from == "sampler" for trace in traces)
        if found.agree or told or found.result > tolerance:
            return found
    by_call = [ComparableRun(_each_call_a_step(trace), in_flow) for trace in traces]
    return _by_calls(by_call[0], by_call[1], tolerance, traces)


def _with_the_same_steps(a: ComparableRun, b: ComparableRun) -> tuple[ComparableRun, ComparableRun]:
    """Where both make the same network calls, the steps that one of them tells hold for the other too."""
    if _same_calls(a, b) < max(len(a.trace.calls), len(b.trace.calls)):
        return a, b
    if a.trace.steps_from != "sampler" and b.trace.steps_from == "sampler":
        return _in_steps_of(b, a), b
    return a, (_in_steps_of(a, b) if a.trace.steps_from else b)


def _same_calls(a: ComparableRun, b: ComparableRun) -> int:
    """How many network calls the two make at the same noise levels, from the first."""
    levels = [[run.sigma(call.sigma) for call in run.trace.calls] for run in (a, b)]
    differ = (call for call, pair in enumerate(zip(*levels, strict=False)) if not close(*pair))
    return next(differ, min(map(len, levels)))


def _in_steps_of(known: ComparableRun, other: ComparableRun) -> ComparableRun:
    """The other run, which makes the same calls, in the steps of the known one."""
    steps = [call.step for call in known.trace.calls]
    if sorted(set(steps)) != list(range(known.steps)) or steps == [call.step for call in other.trace.calls]:
        return other
    starts = [steps.index(step) for step in range(known.steps)]
    levels = [other.own_sigma(known.level(step)) for step in range(known.steps)]
    return ComparableRun(replace(other.trace.with_steps(starts, levels), steps_from="sampler"), other.in_flow)


def _each_call_a_step(trace: Trace) -> Trace:
    return trace.with_steps(list(range(len(trace.calls))), [call.sigma for call in trace.calls])


def _by_steps(a: ComparableRun, b: ComparableRun, tolerance: float) -> Difference:
    findings = list(find_all(a, b, min(tolerance, SENSITIVITY)))
    rows = [_row(a, b, step, findings) for step in range(min(a.steps, b.steps))]
    result = distance(a.x(-1), b.x(-1))
    largest = max([row.x for row in rows] + [result])
    found = _difference(rows, findings, largest if a.steps == b.steps else math.inf, result, tolerance)
    return replace(found, later_calls=[call for row in rows for call in _later_calls(a, b, row.step)])


def _by_calls(a: ComparableRun, b: ComparableRun, tolerance: float, traces: list[Trace]) -> Difference:
    """Of runs of which each call was made a step. traces: as they were told."""
    same, result = _same_calls(a, b), distance(a.x(-1), b.x(-1))
    whole = same == a.steps == b.steps
    findings = list(find_all(a, b, min(tolerance, SENSITIVITY), None if whole else same))
    rows = [_row(a, b, call, findings) for call in range(same)]
    largest = max([row.x for row in rows] + [result]) if whole else result
    silent = [name for name, trace in zip("ab", traces, strict=True) if trace.steps_from != "sampler"]
    note = f"{' and '.join(silent)} called no callback, and network calls alone leave open where steps begin"
    found = _difference(rows, findings, largest, result, tolerance, "network call", whole)
    return replace(found, notes=[f"{note}: compared call by call", *found.notes])


def _difference(rows, findings, largest, result, tolerance, unit: str = "step", whole: bool = True) -> Difference:
    notes = []
    if largest <= tolerance:
        ones = _one_of_each(findings)
        notes = [f"without effect above {tolerance:g}: {unit} {one.step}, {one}" for one in ones]
    elif not findings:
        first = next(row.step for row in rows if row.x > tolerance or row is rows[-1])
        text = f"it grows from {rows[min(1, len(rows) - 1)].x:.1e} after the first {unit} to {largest:.1e}"
        findings = [Finding(first, "rounding", text, f"no {unit} stands out")]
    return Difference(rows, findings, largest, result, tolerance, notes, unit, whole)


def check_comparable(a: Trace, b: Trace) -> None:
    """Check that two traces can be compared.

    Raises:
        ValueError: they cannot; it says why, and the cure.
    """
    for name, trace in (("a", a), ("b", b)):
        if not trace.calls or not trace.states:
            raise ValueError(f"trace {name} ({trace.sampler}) has no network call: run a sampler with it first")
        if trace.calls[0].x.values is None:
            raise ValueError(f"trace {name} ({trace.sampler}) has no tensors: make it with Trace(tensors=True)")
    if a.model != b.model:
        raise ValueError(f"the runs are of two models, {a.model!r} and {b.model!r}: compare samplers on one")
    shapes = [tuple(trace.calls[0].x.tensor.shape) for trace in (a, b)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"the runs differ in shape, {shapes[0]} and {shapes[1]}: use one model, size and batch")


def _row(a: ComparableRun, b: ComparableRun, step: int, findings: list[Finding]) -> Row:
    calls = [run.calls(step)[:1] for run in (a, b)]
    timesteps = [float(first[0].timestep) if first else math.nan for first in calls]
    denoised = math.nan
    if all(calls):
        denoised = distance(*(first[0].denoised.tensor for first in calls))
    parted = next((one.quantity for one in findings if one.step == step), None)
    levels, times = (a.level(step), b.level(step)), (timesteps[0], timesteps[1])
    return Row(step, levels, times, distance(a.x(step), b.x(step)), denoised, parted)


def _later_calls(a: ComparableRun, b: ComparableRun, step: int) -> Iterator[LaterCall]:
    """Those of one step."""
    both = zip_longest(a.calls(step)[1:], b.calls(step)[1:])
    for stage, (one, other) in enumerate(both, 1):
        x = denoised = None
        if one and other:
            x = distance(a.scaled(one.x.tensor, one.sigma), b.scaled(other.x.tensor, other.sigma))
            denoised = distance(one.denoised.tensor, other.denoised.tensor)
        levels = one and a.sigma(one.sigma), other and b.sigma(other.sigma)
        times = one and float(one.timestep), other and float(other.timestep)
        yield LaterCall(step, stage, levels, times, x, denoised)


def _one_of_each(findings: list[Finding]) -> list[Finding]:
    return list({one.quantity: one for one in reversed(findings)}.values())[::-1]
