"""The formulas of the samplers' cards, evaluated as they stand there, without noise, are the samplers."""

import math
import re
import sys
from pathlib import Path

import pytest
import torch

from k_diffusing import ALL_SAMPLERS

sys.path.append(str(Path(__file__).resolve().parents[2] / "docs" / "hooks"))

from formulas import FORMULAS  # noqa: E402

SIGMAS = (10.0, 6.0, 3.5, 2.0, 1.2)  # the last step is not to 0, which is D in all of them
STAGES = {  # where a card's D', e' and D'', e'' are taken, as its words say; none: it has one stage
    "euler": (), "euler_ancestral": (), "ddim": (), "dpmpp_2m": (), "dpmpp_2m_sde": (), "res_multistep": (),
    "dpmpp_2m_sde_heun": (), "gradient_estimation": (),
    "heun": ("t",), "exp_heun_2_x0": ("t",), "dpm_2": ("m",), "dpm_2_ancestral": ("m",), "midpoint": ("m",),
    "dpmpp_2s_ancestral": ("s e^(−h/2)",), "dpmpp_sde": ("√(s t)",), "dpmpp_2s": ("s e^(−h/2)",),
    "res_2s": ("s e^(−h/2)",), "ralston": ("s + 2/3 (t − s)",),
    "ralston_3": ("s + 1/2 (t − s)", "s + 3/4 (t − s)"), "rk4": ("(s + t) / 2", "(s + t) / 2", "t"),
}  # fmt: skip
TOKEN = re.compile(r"\d+|down|up|log|sqrt|exp|[A-Za-zηψγ][₀₁₂₃]?'*|\*\*|\S")
VALUE = re.compile(r"\w|[ηψγ]")
SPELLED = str.maketrans({"₀": "0", "₁": "1", "₂": "2", "₃": "3", "'": "p"})


def denoised(x: torch.Tensor, sigma: float) -> torch.Tensor:
    return torch.tanh(x / (1 + sigma)) * 0.7 + 0.1 * x / (1 + sigma)


def python_of(formula: str) -> str:
    """Python of a formula whose products are written side by side."""
    spelled = formula.replace("−", "-").replace("√", "sqrt").replace("e^(", "exp(").replace("²", "**2")
    tokens, text = TOKEN.findall(spelled), ""
    for before, token in zip(["", *tokens], tokens, strict=False):
        product = (VALUE.match(before) or before == ")") and (VALUE.match(token) or token == "(")
        called = before in ("log", "sqrt", "exp")
        text += ("*" if product and not called else "") + token.translate(SPELLED)
    return text


def step(name: str, known: dict) -> torch.Tensor:
    """A step by the lines of a card."""
    known = {**known, "log": math.log, "sqrt": math.sqrt, "exp": math.exp}
    lines = FORMULAS[name].replace("\n    +", " +").split("\n")
    for line in (line for line in lines if ": " not in line):
        for part in line.split(", "):
            left, sign, right = re.match(r"([^=←]+?) *(=|←) *(.+)", part).groups()
            value = eval(python_of(right), {}, known)  # our own formulas, so nothing foreign is run
            if sign == "←":
                return value
            known[left.translate(SPELLED)] = value
            if re.fullmatch("x'+", left):
                sigma = eval(python_of(STAGES[name][len(left) - 2]), {}, known)
                marks = "p" * (len(left) - 1)
                known["D" + marks] = denoised(value, sigma)
                known["e" + marks] = (value - known["D" + marks]) / sigma
    raise AssertionError(f"the card of {name} has no step")


@pytest.mark.parametrize("name", STAGES)
def test_a_formula_is_its_sampler(name):
    """To 1e-13, on the way down from the step before; numbers are up to 10, in float64."""
    start = torch.linspace(-9, 9, 7, dtype=torch.float64)[None]
    record, sigmas = ALL_SAMPLERS[name], torch.tensor(SIGMAS, dtype=torch.float64)
    states: list[torch.Tensor] = []

    def model(x, sigma, **_):
        return denoised(x, float(sigma[0]))

    options = dict(record.noiseless) if record.stochastic else {}
    end = record.function(
        model, start, sigmas, callback=lambda c: states.append(c["x"].clone()), disable=True, **options
    )
    states.append(end)
    for i in range(1, len(SIGMAS) - 1):
        x, s, t = states[i], SIGMAS[i], SIGMAS[i + 1]
        known = {"x": x, "s": s, "t": t, "h": math.log(s / t), "h1": math.log(SIGMAS[i - 1] / s), "z": 0.0, "zp": 0.0}
        known |= {"D": denoised(x, s), "D1": denoised(states[i - 1], SIGMAS[i - 1]), "down": t, "up": 0.0, "η": 0.0}
        known |= {"d": math.sqrt(s * t), "u": 0.0}  # dpmpp_sde's
        known |= {"e": (x - known["D"]) / s, "e1": (states[i - 1] - known["D1"]) / SIGMAS[i - 1], "γ": 2.0}
        assert (step(name, known) - states[i + 1]).abs().max() < 1e-13


def test_a_wrong_formula_is_noticed(monkeypatch):
    monkeypatch.setitem(FORMULAS, "heun", FORMULAS["heun"].replace("/ 2", "/ 3"))
    with pytest.raises(AssertionError):
        test_a_formula_is_its_sampler("heun")
