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

import torch

from k_diffusing.trace.record import Draw, NetworkCall, Trace

TOLERANCE = 5e-4  # of |a - b| / |a|: on the demo models rounding in float32 grows to 1e-4 over 20 steps at most
SENSITIVITY = 1e-4  # a quantity differs if it does so by more than this, and by more than GROWTH times what went in
GROWTH = 10
SIGMA_TOLERANCE = 1e-4  # relative; a grid computed in another order of operations differs by 1e-6
TIMESTEP_TOLERANCE = 0.02  # of the 1000; interpolation in float32 differs by 0.002


@dataclass(frozen=True)
class Finding:
    """A quantity that differs in `step` (or network call); text: its values in a and b; cause: what would make just
    this, if known."""

    step: int
    quantity: str
    text: str
    cause: str | None = None

    def __str__(self) -> str:
        return f"{self.quantity}: {self.text}" + (f": {self.cause}" if self.cause else "")


@dataclass(frozen=True)
class Row:
    """One step (or network call). sigma, timestep: (a, b); x, denoised: |a - b| / |a| of the state and the first
    estimate in it; parted: the quantity that parts first in it, if one does."""

    step: int
    sigma: tuple[float, float]
    timestep: tuple[float, float]
    x: float
    denoised: float
    parted: str | None


@dataclass(frozen=True)
class Difference:
    """What came of comparing two traces. largest: the largest |a - b| / |a| of any state; result: the last one's.

    unit: what the rows are, "step" or "network call". whole: whether they are all of both runs; if not, they are the
    calls up to the first at other sigmas, and agreement is that of the results.
    """

    rows: list[Row]
    findings: list[Finding]
    largest: float
    result: float
    tolerance: float
    notes: list[str] = field(default_factory=list)
    unit: str = "step"
    whole: bool = True

    @property
    def agree(self) -> bool:
        return self.largest <= self.tolerance

    @property
    def first(self) -> Finding | None:
        """Where they part; None if they agree."""
        return None if self.agree else self.findings[0]

    @property
    def verdict(self) -> str:
        """One line, without the notes."""
        if self.agree:
            return f"agree to {self.largest:.1e} " + (f"over {self.count}" if self.whole else "in the result")
        return f"part at {self.unit} {self.first.step}: {self.first}"

    @property
    def count(self) -> str:
        return f"{len(self.rows)} {self.unit}{'s' * (len(self.rows) != 1)}"


def trace_difference(a: Trace, b: Trace, tolerance: float = TOLERANCE) -> Difference:
    """Compare two runs. Raises ValueError if they cannot be: no tensors, other shapes, no network calls."""
    check_comparable(a, b)
    in_flow = a.coordinates != b.coordinates
    runs = _with_the_same_steps(_Run(a, in_flow), _Run(b, in_flow))
    traces = [run.trace for run in runs]
    if all(trace.steps_from for trace in traces):
        found = _by_steps(*runs, tolerance)
        told = all(trace.steps_from == "sampler" for trace in traces)
        if found.agree or told or found.result > tolerance:
            return found
    return _by_calls(*(_Run(_each_call_a_step(trace), in_flow) for trace in traces), tolerance, traces)


def _with_the_same_steps(a: "_Run", b: "_Run") -> tuple["_Run", "_Run"]:
    """Where both make the same network calls, the steps that one of them tells hold for the other too."""
    if _same_calls(a, b) < max(len(a.trace.calls), len(b.trace.calls)):
        return a, b
    if a.trace.steps_from != "sampler" and b.trace.steps_from == "sampler":
        return _in_steps_of(b, a), b
    return a, (_in_steps_of(a, b) if a.trace.steps_from else b)


def _same_calls(a: "_Run", b: "_Run") -> int:
    """How many network calls the two make at the same noise levels, from the first."""
    levels = [[run.sigma(call.sigma) for call in run.trace.calls] for run in (a, b)]
    differ = (call for call, pair in enumerate(zip(*levels, strict=False)) if not _close(*pair))
    return next(differ, min(map(len, levels)))


def _in_steps_of(known: "_Run", other: "_Run") -> "_Run":
    """The other run, which makes the same calls, in the steps of the known one."""
    steps = [call.step for call in known.trace.calls]
    if sorted(set(steps)) != list(range(known.steps)) or steps == [call.step for call in other.trace.calls]:
        return other
    starts = [steps.index(step) for step in range(known.steps)]
    levels = [other.own_sigma(known.level(step)) for step in range(known.steps)]
    return _Run(replace(other.trace.with_steps(starts, levels), steps_from="sampler"), other.in_flow)


def _each_call_a_step(trace: Trace) -> Trace:
    return trace.with_steps(list(range(len(trace.calls))), [call.sigma for call in trace.calls])


def _by_steps(a: "_Run", b: "_Run", tolerance: float) -> Difference:
    findings = list(_findings(a, b, min(tolerance, SENSITIVITY)))
    rows = [_row(a, b, step, findings) for step in range(min(a.steps, b.steps))]
    result = distance(a.x(-1), b.x(-1))
    largest = max([row.x for row in rows] + [result])
    return _difference(rows, findings, largest if a.steps == b.steps else math.inf, result, tolerance)


def _by_calls(a: "_Run", b: "_Run", tolerance: float, traces: list[Trace]) -> Difference:
    """Of runs of which each call was made a step. traces: as they were told."""
    same, result = _same_calls(a, b), distance(a.x(-1), b.x(-1))
    whole = same == a.steps == b.steps
    findings = list(_findings(a, b, min(tolerance, SENSITIVITY), None if whole else same))
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
    """Raise ValueError, with the reason and the cure, for two traces that cannot be compared."""
    for name, trace in (("a", a), ("b", b)):
        if not trace.calls or not trace.states:
            raise ValueError(f"trace {name} ({trace.sampler}) has no network call: run a sampler with it first")
        if trace.calls[0].x.values is None:
            raise ValueError(f"trace {name} ({trace.sampler}) has no tensors: make it with Trace(tensors=True)")
    if a.model != b.model:
        raise ValueError(f"the runs are of two models, {a.model!r} and {b.model!r}: compare samplers on one")
    shapes = [tuple(trace.calls[0].x.values.shape) for trace in (a, b)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"the runs differ in shape, {shapes[0]} and {shapes[1]}: use one model, size and batch")


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """|a - b| / |a|, in float64; nan counts as infinitely far."""
    a, b = a.double(), b.double()
    found = float((a - b).norm() / a.norm().clamp(min=1e-30))
    return math.inf if math.isnan(found) else found


class _Run:
    """A trace, read in coordinates that two runs share: its own, or flow coordinates."""

    def __init__(self, trace: Trace, in_flow: bool):
        self.trace, self.steps, self.in_flow = trace, trace.step_count, in_flow
        self.convert = in_flow and trace.coordinates == "ve"

    def sigma(self, sigma: torch.Tensor) -> float:
        sigma = float(sigma)
        return sigma / (1 + sigma) if self.convert else sigma

    def own_sigma(self, sigma: float) -> float:
        """The way back from `sigma`."""
        return sigma / max(1 - sigma, 1e-12) if self.convert else sigma

    def scaled(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return x.double() / (1 + float(sigma)) if self.convert else x.double()

    def x(self, step: int) -> torch.Tensor:
        """What the first network call of the step sees (after churn, if there is any); at the end, the result."""
        calls = self.calls(step) if 0 <= step < self.steps else []
        if calls:
            return self.scaled(calls[0].x.values, calls[0].sigma)
        state = self.trace.states[step]
        return self.scaled(state.x.values, state.sigma)

    def level(self, step: int) -> float:
        return self.sigma(self.trace.states[step].sigma)

    def calls(self, step: int) -> list[NetworkCall]:
        return [call for call in self.trace.calls if call.step == step]

    def interval(self, draw: Draw) -> tuple:
        """Its levels, to four digits; of churn nothing but that it is churn."""
        return () if draw.churn else tuple(f"{self.sigma(level):.3e}" for level in (draw.sigma, draw.sigma_next))

    def draws(self, step: int, churn: bool) -> list[Draw]:
        """Those before the step's first network call (churn), or those after it."""
        return [draw for draw in self.trace.draws if draw.step == step and churn == draw.churn]


def _row(a: _Run, b: _Run, step: int, findings: list[Finding]) -> Row:
    calls = [run.calls(step)[:1] for run in (a, b)]
    timesteps = tuple(float(first[0].timestep) if first else math.nan for first in calls)
    denoised = math.nan
    if all(calls):
        denoised = distance(*(first[0].denoised.values for first in calls))
    parted = next((one.quantity for one in findings if one.step == step), None)
    return Row(step, (a.level(step), b.level(step)), timesteps, distance(a.x(step), b.x(step)), denoised, parted)


def _one_of_each(findings: list[Finding]) -> list[Finding]:
    return list({one.quantity: one for one in reversed(findings)}.values())[::-1]


def _findings(a: _Run, b: _Run, tolerance: float, same_calls: int | None = None) -> Iterator[Finding]:
    """All quantities that differ, in the order in which the runs made them; none after a step that parts the states.

    tolerance: of a quantity whose inputs are equal; where they differ already, GROWTH times as much is allowed.
    same_calls: of runs told call by call, how many are made at the same sigmas, if not all are.
    """
    if distance(a.x(0), b.x(0)) > tolerance and _close(a.level(0), b.level(0)):
        yield _initial_finding(a, b)
    for step in range(min(a.steps, b.steps) if same_calls is None else same_calls):
        if same_calls is None:
            yield from _grid_finding(a, b, step)
        before = distance(a.x(step), b.x(step))
        yield from _call_findings(a, b, step, max(tolerance, GROWTH * before))
        if step + 1 == same_calls:
            break
        allowed = max(tolerance, GROWTH * max(before, _denoised_distance(a, b, step)))
        if distance(a.x(step + 1), b.x(step + 1)) > allowed:
            yield _update_finding(a, b, step)
            return
    if same_calls is not None:
        yield _other_calls_finding(a, b, same_calls)
    elif a.steps != b.steps:
        yield Finding(min(a.steps, b.steps), "sigma grid", f"a takes {a.steps} steps, b {b.steps}")


def _other_calls_finding(a: _Run, b: _Run, call: int) -> Finding:
    """Runs told call by call, the first calls of which are made at the same sigmas."""
    if call == min(a.steps, b.steps):
        return Finding(call, "network calls", f"a makes {a.steps}, b {b.steps}")
    return Finding(call, "sigma of the call", f"{a.level(call):.6g} in a, {b.level(call):.6g} in b")


def _denoised_distance(a: _Run, b: _Run, step: int) -> float:
    pairs = zip(a.calls(step), b.calls(step), strict=False)
    return max((distance(call_a.denoised.values, call_b.denoised.values) for call_a, call_b in pairs), default=0.0)


def _close(a: float, b: float) -> bool:
    return abs(a - b) <= SIGMA_TOLERANCE * max(abs(a), abs(b))


def _initial_finding(a: _Run, b: _Run) -> Finding:
    x_a, x_b, sigma = a.x(0), b.x(0), a.level(0)
    ratio = float((x_a * x_b).sum() / (x_a * x_a).sum())
    if distance(ratio * x_a, x_b) > 1e-3:
        return Finding(0, "initial noise", f"not proportional, at sigma {sigma:.4g}", "another seed or generator")
    more = (1 + sigma**2) ** 0.5 / sigma
    cause = None
    for with_sigma, with_root, known in (("a", "b", more), ("b", "a", 1 / more)):
        if abs(ratio - known) < 1e-2 * abs(known - 1):
            cause = f"{with_sigma} scales unit noise by sigma, {with_root} by sqrt(sigma^2 + 1)"
    return Finding(0, "initial noise scale", f"b's is {ratio:.6f} times a's at sigma {sigma:.4g}", cause)


def _grid_finding(a: _Run, b: _Run, step: int) -> Iterator[Finding]:
    for here in (step, step + 1):
        if not _close(a.level(here), b.level(here)):
            kinds = [_spacing(run) for run in (a, b)]
            known = all(kinds) and kinds[0] != kinds[1]
            cause = f"{kinds[0]} against {kinds[1]} spacing of the timesteps" if known else None
            text = f"sigma[{here}] is {a.level(here):.6g} in a, {b.level(here):.6g} in b"
            yield Finding(step, "sigma grid", text, cause)
            return


def _spacing(run: _Run, total: int = 1000) -> str | None:
    """Which of diffusers' timestep_spacing the timesteps of a run have, if any."""
    firsts = [float(call.timestep) for call in run.trace.calls if call.stage == 0]
    n = len(firsts)
    known = {
        "leading": [i * (total // n) for i in reversed(range(n))],
        "trailing": [total * (1 - i / n) - 1 for i in range(n)],
        "linspace": [(total - 1) * (1 - i / max(n - 1, 1)) for i in range(n)],
    }
    for name, timesteps in known.items():
        offsets = [found - expected for found, expected in zip(firsts, timesteps, strict=True)]
        if max(offsets) - min(offsets) <= 1 and -1 <= min(offsets) and max(offsets) <= 2:
            return name
    return None


def _call_findings(a: _Run, b: _Run, step: int, tolerance: float) -> Iterator[Finding]:
    """In the order of the draws of noise and the network calls of one step."""
    yield from _noise_finding(a, b, step, True, tolerance)
    calls_a, calls_b = a.calls(step), b.calls(step)
    for call_a, call_b in zip(calls_a, calls_b, strict=False):
        yield from _one_call(a, b, call_a, call_b, tolerance)
    yield from _noise_finding(a, b, step, False, tolerance)
    if len(calls_a) != len(calls_b):
        text = f"a calls the network {len(calls_a)} times, b {len(calls_b)} times"
        yield Finding(step, "update rule", text, "methods of different stages")


def _one_call(a: _Run, b: _Run, call_a: NetworkCall, call_b: NetworkCall, tolerance: float) -> Iterator[Finding]:
    step, at = call_a.step, f"same x, same sigma {a.sigma(call_a.sigma):.4g}, "
    same_x = distance(a.scaled(call_a.x.values, call_a.sigma), b.scaled(call_b.x.values, call_b.sigma)) <= tolerance
    sigmas = a.sigma(call_a.sigma), b.sigma(call_b.sigma)
    if not _close(*sigmas):
        yield _sigma_finding(a, b, call_a, sigmas)
        return
    if not same_x:
        yield Finding(step, "update rule", f"x of network call {call_a.stage} in the step differs")
        return
    times = float(call_a.timestep), float(call_b.timestep)
    if abs(times[0] - times[1]) > TIMESTEP_TOLERANCE:
        yield Finding(step, "timestep", f"{at}timestep {times[0]:g} against {times[1]:g}", _timestep_cause(a, b))
    inputs = call_a.net_input.values.double(), call_b.net_input.values.double()
    if distance(*inputs) > tolerance:
        scales = f"{call_a.input_scale:.4g} against {call_b.input_scale:.4g}"
        yield Finding(step, "network input", f"{at}differs by {distance(*inputs):.1e}, scale {scales}")
        return
    found = distance(call_a.denoised.values, call_b.denoised.values)
    if found > tolerance:
        cause = _denoised_cause(a, b, call_a, call_b)
        yield Finding(step, "denoised", f"{at}same network input, differs by {found:.1e}", cause)


def _sigma_finding(a: _Run, b: _Run, call: NetworkCall, sigmas: tuple[float, float]) -> Finding:
    """The network was called at other sigmas, with the states alike so far."""
    step, cause = call.step, None
    text = f"network call {call.stage} of the step is made at sigma {sigmas[0]:.6g} in a, {sigmas[1]:.6g} in b"
    for name, sigma, other in (("a", *sigmas), ("b", *reversed(sigmas))):
        if call.stage == 0 and _close(sigma, a.level(step)) and other > sigma:
            cause = f"{name} uses sigma where, noise having been added, it is at sigma_hat"
    return Finding(step, "sigma of the call", text, cause)


def _timestep_cause(a: _Run, b: _Run) -> str | None:
    """Of timesteps that are integers in one run only: how they became so, from all calls that both runs made."""
    times = [[float(call.timestep) for call in run.trace.calls] for run in (a, b)]
    for name, whole, other in (("a", *times), ("b", *times[::-1])):
        off = [exact - integer for integer, exact in zip(whole, other, strict=False)]
        if any(value != round(value) for value in whole) or all(value == round(value) for value in other):
            continue
        if max(abs(value) for value in off) <= 0.5 + 1e-3:
            return f"rounding of sigma to timestep in {name}"
        if min(off) > -1e-2 and max(off) < 1 + 1e-2:
            return f"{name} cuts timesteps to integers"
    return None


def _denoised_cause(a: _Run, b: _Run, call_a: NetworkCall, call_b: NetworkCall) -> str | None:
    pairs = (("a", a, call_a, call_b), ("b", b, call_b, call_a))
    for name, run, suspect, other in pairs:
        x, sigma = suspect.x.values.double(), float(suspect.sigma)
        if run.convert:
            x, sigma = run.scaled(x, suspect.sigma), run.sigma(suspect.sigma)
        derivative = (x - other.denoised.values.double()) / sigma
        if distance(derivative, suspect.denoised.values) < 1e-3:
            return f"{name} has the derivative (the velocity, or the noise) in place of the denoised latents"
    return None


def _noise_finding(a: _Run, b: _Run, step: int, churn: bool, tolerance: float) -> Iterator[Finding]:
    """Draws for the same interval are compared; draws for others may still be increments of the same path."""
    draws_a, draws_b = a.draws(step, churn), b.draws(step, churn)
    if bool(draws_a) != bool(draws_b):
        yield Finding(step, "noise", f"a draws {len(draws_a)} times in the step, b {len(draws_b)} times")
    pairs = [(one, other) for one in draws_a for other in draws_b if a.interval(one) == b.interval(other)]
    if draws_a and draws_b and not pairs:
        pairs = [(draws_a[0], draws_b[0])]
    for draw_a, draw_b in pairs:
        found = distance(draw_a.noise.values, draw_b.noise.values)
        if found > tolerance:
            yield Finding(step, "noise", f"differs by {found:.1e}", _noise_cause(a, b, draw_b, tolerance))
            return


def _noise_cause(a: _Run, b: _Run, draw_b: Draw, tolerance: float) -> str:
    number = next(i for i, draw in enumerate(b.trace.draws) if draw is draw_b)
    for i, draw in enumerate(a.trace.draws):
        if distance(draw.noise.values, draw_b.noise.values) <= tolerance:
            return f"drawn in another order, b's draw {number} is a's draw {i}"
    return "another stream of random numbers"


def _update_finding(a: _Run, b: _Run, step: int) -> Finding:
    last = step + 1 in (a.steps, b.steps)
    found = distance(a.x(step + 1), b.x(step + 1))
    names = [name for name, run in (("a", a), ("b", b)) if _is_half(run, step + 1)]
    cause = f"the state is half precision in {names[0]}" if len(names) == 1 else None
    if cause is None and last:
        cause = _last_step_cause(a, b, step)
    if cause is None:
        names = [name for name, run in (("a", a), ("b", b)) if _is_euler_step(run, step)]
        cause = f"{names[0]} takes an Euler step, the other does not" if len(names) == 1 else None
    text = f"same x, sigma and denoised, but the step's result differs by {found:.1e}"
    return Finding(step, "last step" if last else "update rule", text, cause)


def _is_half(run: _Run, step: int) -> bool:
    """Whether the state has no more digits than float16 or bfloat16 hold."""
    x = run.trace.states[step].x.values
    return any(torch.equal(x.to(half).to(x.dtype), x) for half in (torch.float16, torch.bfloat16))


def _last_step_cause(a: _Run, b: _Run, step: int) -> str | None:
    names = [name for name, run in (("a", a), ("b", b)) if _ends_at_denoised(run, step)]
    return f"{names[0]} ends at its denoised latents, the other does not" if len(names) == 1 else None


def _ends_at_denoised(run: _Run, step: int) -> bool:
    calls = run.calls(step)
    return bool(calls) and distance(calls[-1].denoised.values, run.x(step + 1)) < 1e-5


def _is_euler_step(run: _Run, step: int) -> bool:
    """Whether the state after the step is x + (sigma_next - sigma) d, in the run's own coordinates."""
    after, calls = run.trace.states[step + 1], run.calls(step)
    if not calls:
        return False
    x, sigma = calls[0].x.values.double(), float(calls[0].sigma)
    d = (x - calls[0].denoised.values.double()) / sigma
    return distance(after.x.values, x + (float(after.sigma) - sigma) * d) < 1e-5
