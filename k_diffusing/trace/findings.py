"""The quantities that differ between two runs, in the order in which the runs made them."""

from collections.abc import Iterator
from dataclasses import dataclass

from k_diffusing.trace.causes import (
    denoised_cause,
    grid_cause,
    noise_cause,
    scale_cause,
    sigma_cause,
    timestep_cause,
    update_cause,
)
from k_diffusing.trace.comparable import ComparableRun, close, distance
from k_diffusing.trace.entries import NetworkCall

GROWTH = 10  # what a step may make of a distance that is there already
TIMESTEP_TOLERANCE = 0.02  # of the 1000; interpolation in float32 differs by 0.002


@dataclass(frozen=True)
class Finding:
    """A quantity that differs.

    Attributes:
        step: in which step it does (or network call).
        quantity: its name.
        text: its values in a and b.
        cause: what would make just this difference; None if that is not known.
    """

    step: int
    quantity: str
    text: str
    cause: str | None = None

    def __str__(self) -> str:
        return f"{self.quantity}: {self.text}" + (f": {self.cause}" if self.cause else "")


def find_all(a: ComparableRun, b: ComparableRun, tolerance: float, same_calls: int | None = None) -> Iterator[Finding]:
    """Find what differs, in the order in which the runs made it; nothing after a step that parts the states.

    Args:
        a: a run.
        b: the other, in the same coordinates.
        tolerance: of a quantity whose inputs are equal; where they differ already, GROWTH times as much is allowed.
        same_calls: of runs told call by call, how many are made at the same sigmas, if not all are.

    Yields:
        Each quantity, in each step.
    """
    if distance(a.x(0), b.x(0)) > tolerance and close(a.level(0), b.level(0)):
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


def _other_calls_finding(a: ComparableRun, b: ComparableRun, call: int) -> Finding:
    """Runs told call by call, the first calls of which are made at the same sigmas."""
    if call == min(a.steps, b.steps):
        return Finding(call, "network calls", f"a makes {a.steps}, b {b.steps}")
    return Finding(call, "sigma of the call", f"{a.level(call):.6g} in a, {b.level(call):.6g} in b")


def _denoised_distance(a: ComparableRun, b: ComparableRun, step: int) -> float:
    pairs = zip(a.calls(step), b.calls(step), strict=False)
    return max((distance(call_a.denoised.tensor, call_b.denoised.tensor) for call_a, call_b in pairs), default=0.0)


def _initial_finding(a: ComparableRun, b: ComparableRun) -> Finding:
    x_a, x_b, sigma = a.x(0), b.x(0), a.level(0)
    ratio = float((x_a * x_b).sum() / (x_a * x_a).sum())
    if distance(ratio * x_a, x_b) > 1e-3:
        return Finding(0, "initial noise", f"not proportional, at sigma {sigma:.4g}", "another seed or generator")
    text = f"b's is {ratio:.6f} times a's at sigma {sigma:.4g}"
    return Finding(0, "initial noise scale", text, scale_cause(ratio, sigma))


def _grid_finding(a: ComparableRun, b: ComparableRun, step: int) -> Iterator[Finding]:
    for here in (step, step + 1):
        if not close(a.level(here), b.level(here)):
            text = f"sigma[{here}] is {a.level(here):.6g} in a, {b.level(here):.6g} in b"
            yield Finding(step, "sigma grid", text, grid_cause(a, b))
            return


def _call_findings(a: ComparableRun, b: ComparableRun, step: int, tolerance: float) -> Iterator[Finding]:
    """In the order of the draws of noise and the network calls of one step."""
    yield from _noise_finding(a, b, step, True, tolerance)
    calls_a, calls_b = a.calls(step), b.calls(step)
    for call_a, call_b in zip(calls_a, calls_b, strict=False):
        yield from _one_call(a, b, call_a, call_b, tolerance)
    yield from _noise_finding(a, b, step, False, tolerance)
    if len(calls_a) != len(calls_b):
        text = f"a calls the network {len(calls_a)} times, b {len(calls_b)} times"
        yield Finding(step, "update rule", text, "methods of different stages")


def _one_call(
    a: ComparableRun, b: ComparableRun, call_a: NetworkCall, call_b: NetworkCall, tolerance: float
) -> Iterator[Finding]:
    step, at = call_a.step, f"same x, same sigma {a.sigma(call_a.sigma):.4g}, "
    same_x = distance(a.scaled(call_a.x.tensor, call_a.sigma), b.scaled(call_b.x.tensor, call_b.sigma)) <= tolerance
    sigmas = a.sigma(call_a.sigma), b.sigma(call_b.sigma)
    if not close(*sigmas):
        yield _sigma_finding(a, call_a, sigmas)
        return
    if not same_x:
        yield Finding(step, "update rule", f"x of network call {call_a.stage} in the step differs")
        return
    times = float(call_a.timestep), float(call_b.timestep)
    if abs(times[0] - times[1]) > TIMESTEP_TOLERANCE:
        yield Finding(step, "timestep", f"{at}timestep {times[0]:g} against {times[1]:g}", timestep_cause(a, b))
    inputs = call_a.net_input.tensor.double(), call_b.net_input.tensor.double()
    if distance(*inputs) > tolerance:
        scales = f"{call_a.input_scale:.4g} against {call_b.input_scale:.4g}"
        yield Finding(step, "network input", f"{at}differs by {distance(*inputs):.1e}, scale {scales}")
        return
    found = distance(call_a.denoised.tensor, call_b.denoised.tensor)
    if found > tolerance:
        cause = denoised_cause(a, b, call_a, call_b)
        yield Finding(step, "denoised", f"{at}same network input, differs by {found:.1e}", cause)


def _sigma_finding(a: ComparableRun, call: NetworkCall, sigmas: tuple[float, float]) -> Finding:
    """The network was called at other sigmas, with the states alike so far."""
    text = f"network call {call.stage} of the step is made at sigma {sigmas[0]:.6g} in a, {sigmas[1]:.6g} in b"
    return Finding(call.step, "sigma of the call", text, sigma_cause(a, call, sigmas))


def _noise_finding(a: ComparableRun, b: ComparableRun, step: int, churn: bool, tolerance: float) -> Iterator[Finding]:
    """Draws for the same interval are compared; draws for others may still be increments of the same path."""
    draws_a, draws_b = a.draws(step, churn), b.draws(step, churn)
    if bool(draws_a) != bool(draws_b):
        yield Finding(step, "noise", f"a draws {len(draws_a)} times in the step, b {len(draws_b)} times")
    pairs = [(one, other) for one in draws_a for other in draws_b if a.interval(one) == b.interval(other)]
    if draws_a and draws_b and not pairs:
        pairs = [(draws_a[0], draws_b[0])]
    for draw_a, draw_b in pairs:
        found = distance(draw_a.noise.tensor, draw_b.noise.tensor)
        if found > tolerance:
            yield Finding(step, "noise", f"differs by {found:.1e}", noise_cause(a, b, draw_b, tolerance))
            return


def _update_finding(a: ComparableRun, b: ComparableRun, step: int) -> Finding:
    last = step + 1 in (a.steps, b.steps)
    found = distance(a.x(step + 1), b.x(step + 1))
    text = f"same x, sigma and denoised, but the step's result differs by {found:.1e}"
    return Finding(step, "last step" if last else "update rule", text, update_cause(a, b, step, last))
