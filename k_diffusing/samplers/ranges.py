"""What the samplers take for their options: kinds, ranges and choices."""

from collections.abc import Callable, Sequence
from math import inf
from numbers import Integral, Real
from typing import Any, NamedTuple


class Rule(NamedTuple):
    """What a value must be: of a kind, and such that `holds` (which nan never is). text: the same in words."""

    kind: Any
    holds: Callable[[Any], bool]
    text: str


NOT_NEGATIVE = Rule(Real, lambda value: 0 <= value < inf, "a finite number of at least 0")
FRACTION = Rule(Real, lambda value: 0 < value <= 1, "a number above 0, of at most 1")
PHI = Rule(str, lambda value: value in ("phi_1", "phi_2"), "'phi_1' or 'phi_2'")
ONE_TO_FOUR = Rule(Integral, lambda value: 1 <= value <= 4, "a whole number from 1 to 4")
TRUTH = Rule(bool, lambda value: True, "True or False")
RULES = {
    "eta": NOT_NEGATIVE,
    "s_noise": NOT_NEGATIVE,
    "s_churn": NOT_NEGATIVE,
    "s_tmin": NOT_NEGATIVE,
    "s_tmax": Rule(Real, lambda value: value >= 0, "a number of at least 0"),
    "order": Rule(Integral, lambda value: value >= 1, "a whole number of at least 1"),
    "r": FRACTION,
    "r_1": FRACTION,
    "r_2": FRACTION,
    "c2": FRACTION,
    "c3": FRACTION,
    "rtol": NOT_NEGATIVE,
    "atol": NOT_NEGATIVE,
    # A step of log sigma; dpm_adaptive's end is reached within this.
    "h_init": Rule(Real, lambda value: 1e-5 <= value < inf, "a finite number of at least 1e-5"),
    "pcoeff": NOT_NEGATIVE,
    "icoeff": NOT_NEGATIVE,
    "dcoeff": NOT_NEGATIVE,
    "accept_safety": Rule(Real, lambda value: 0 <= value <= 1, "a number from 0 to 1"),
    "solver_type": Rule(str, lambda value: value in ("midpoint", "heun"), "'midpoint' or 'heun'"),
    "variant": Rule((str, type(None)), lambda value: value in (None, "published"), "None or 'published'"),
    "max_stage": Rule(Integral, lambda value: value in (1, 2, 3), "1, 2 or 3"),
    "noise_scaler": Rule((Callable, type(None)), lambda value: True, "a function of a tensor of sigmas"),
    "s_noise_end": Rule((Real, type(None)), lambda value: value is None or 0 <= value < inf, "None or at least 0"),
    "noise_clip_std": NOT_NEGATIVE,
    "schedule": Rule(str, lambda value: value in ("scaled_linear", "flow"), "'scaled_linear' or 'flow'"),
    "segments": Rule(
        Sequence,
        lambda value: all(len(one) == 4 and one[0] >= 1 and one[1] >= 0 and 0 < one[2] < one[3] for one in value),
        "a list of (steps, times, low, high), with low and high the sigmas of a stretch",
    ),
    "lower_order_final": TRUTH,
    "tau_func": Rule((Callable, type(None)), lambda value: True, "a function sigma -> tau, or None"),
    "predictor_order": ONE_TO_FOUR,
    "corrector_order": Rule(Integral, lambda value: 0 <= value <= 4, "a whole number from 0 to 4"),
    "simple_order_2": TRUTH,
    "max_order": ONE_TO_FOUR,
    "deis_mode": Rule(str, lambda value: value in ("tab", "rhoab", "logrho"), "'tab', 'rhoab' or 'logrho'"),
    "ge_gamma": Rule(Real, lambda value: 0 <= value <= 100, "a number from 0 to 100"),
    "first_time": Rule(Real, lambda value: 0 < value < 1, "a time above 0 and below 1"),
    "noise_sampler": Rule((Callable, type(None)), lambda value: True, "a function (sigma, sigma_next) -> unit noise"),
}
# Where an option means another thing to one sampler.
RULES_OF = {
    **dict.fromkeys(("seeds_2", "exp_heun_2_x0", "exp_heun_2_x0_sde"), {"solver_type": PHI}),
    "tcd": {"eta": Rule(Real, lambda value: 0 <= value <= 1, "a number from 0 to 1")},
    "dpm_adaptive": {"order": Rule(Integral, lambda value: value in (2, 3), "2 or 3")},
    "uni_pc": {"order": ONE_TO_FOUR},
    "uni_pc_bh2": {"order": ONE_TO_FOUR},
}


def check_value(sampler: str, name: str, value: Any) -> None:
    """Check the value of an option of a known sampler.

    Raises:
        TypeError: It is of the wrong kind.
        ValueError: It is out of range.
    """
    rule = RULES_OF.get(sampler, {}).get(name) or RULES[name]
    wrong = f"{sampler} cannot run with {name}={value!r}: give {rule.text}"
    if not isinstance(value, rule.kind) or (isinstance(value, bool) and rule.kind is not bool):
        raise TypeError(wrong)
    if not rule.holds(value):
        raise ValueError(wrong)
