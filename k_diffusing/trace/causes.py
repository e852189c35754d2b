"""What a difference between two runs is due to, where that is known."""

import torch

from k_diffusing.trace.comparable import ComparableRun, close, distance
from k_diffusing.trace.entries import Draw, NetworkCall


def scale_cause(ratio: float, sigma: float) -> str | None:
    """What makes b's initial noise `ratio` times a's at the noise level sigma."""
    more = (1 + sigma**2) ** 0.5 / sigma
    for with_sigma, with_root, known in (("a", "b", more), ("b", "a", 1 / more)):
        if abs(ratio - known) < 1e-2 * abs(known - 1):
            return f"{with_sigma} scales unit noise by sigma, {with_root} by sqrt(sigma^2 + 1)"
    return None


def grid_cause(a: ComparableRun, b: ComparableRun) -> str | None:
    """What makes other sigma grids."""
    spacings = [_spacing(run) for run in (a, b)]
    if all(spacings) and spacings[0] != spacings[1]:
        return f"{spacings[0]} against {spacings[1]} spacing of the timesteps"
    return None


def _spacing(run: ComparableRun, total: int = 1000) -> str | None:
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


def sigma_cause(a: ComparableRun, call: NetworkCall, sigmas: tuple[float, float]) -> str | None:
    """What makes a network call at other sigmas (of a and b), with the states alike so far; call: a's."""
    cause = None
    for name, sigma, other in (("a", *sigmas), ("b", *reversed(sigmas))):
        if call.stage == 0 and close(sigma, a.level(call.step)) and other > sigma:
            cause = f"{name} uses sigma where, noise having been added, it is at sigma_hat"
    return cause


def timestep_cause(a: ComparableRun, b: ComparableRun) -> str | None:
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


def denoised_cause(a: ComparableRun, b: ComparableRun, call_a: NetworkCall, call_b: NetworkCall) -> str | None:
    """What makes another answer of the network to the same input."""
    pairs = (("a", a, call_a, call_b), ("b", b, call_b, call_a))
    for name, run, suspect, other in pairs:
        x, sigma = suspect.x.tensor.double(), float(suspect.sigma)
        if run.convert:
            x, sigma = run.scaled(x, suspect.sigma), run.sigma(suspect.sigma)
        derivative = (x - other.denoised.tensor.double()) / sigma
        if distance(derivative, suspect.denoised.tensor) < 1e-3:
            return f"{name} has the derivative (the velocity, or the noise) in place of the denoised latents"
    return None


def noise_cause(a: ComparableRun, b: ComparableRun, draw_b: Draw, tolerance: float) -> str:
    """What makes other noise than a's in this draw of b's."""
    number = next(i for i, draw in enumerate(b.trace.draws) if draw is draw_b)
    for i, draw in enumerate(a.trace.draws):
        if distance(draw.noise.tensor, draw_b.noise.tensor) <= tolerance:
            return f"drawn in another order, b's draw {number} is a's draw {i}"
    return "another stream of random numbers"


def update_cause(a: ComparableRun, b: ComparableRun, step: int, last: bool) -> str | None:
    """What makes another result of a step from the same states; last: it is the last one of a run."""
    names = [name for name, run in (("a", a), ("b", b)) if _is_half(run, step + 1)]
    cause = f"the state is half precision in {names[0]}" if len(names) == 1 else None
    if cause is None and last:
        cause = _last_step_cause(a, b, step)
    if cause is None:
        names = [name for name, run in (("a", a), ("b", b)) if _is_euler_step(run, step)]
        cause = f"{names[0]} takes an Euler step, the other does not" if len(names) == 1 else None
    return cause


def _is_half(run: ComparableRun, step: int) -> bool:
    """Whether the state has no more digits than float16 or bfloat16 hold."""
    x = run.trace.states[step].x.tensor
    return any(torch.equal(x.to(half).to(x.dtype), x) for half in (torch.float16, torch.bfloat16))


def _last_step_cause(a: ComparableRun, b: ComparableRun, step: int) -> str | None:
    names = [name for name, run in (("a", a), ("b", b)) if _ends_at_denoised(run, step)]
    return f"{names[0]} ends at its denoised latents, the other does not" if len(names) == 1 else None


def _ends_at_denoised(run: ComparableRun, step: int) -> bool:
    calls = run.calls(step)
    return bool(calls) and distance(calls[-1].denoised.tensor, run.x(step + 1)) < 1e-5


def _is_euler_step(run: ComparableRun, step: int) -> bool:
    """Whether the state after the step is x + (sigma_next - sigma) d, in the run's own coordinates."""
    after, calls = run.trace.states[step + 1], run.calls(step)
    if not calls:
        return False
    x, sigma = calls[0].x.tensor.double(), float(calls[0].sigma)
    d = (x - calls[0].denoised.tensor.double()) / sigma
    return distance(after.x.tensor, x + (float(after.sigma) - sigma) * d) < 1e-5
