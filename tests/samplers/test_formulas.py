"""The formulas of the samplers' cards, evaluated as they stand there, without noise and with it, are the samplers."""

import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from k_diffusing import ALL_SAMPLERS

sys.path.append(str(Path(__file__).resolve().parents[2] / "docs" / "hooks"))

from formulas import FORMULAS  # noqa: E402

SIGMAS = (10.0, 6.0, 3.5, 2.0, 1.2, 0.8, 0.5)  # the last step is not to 0, which is D in all of them
STAGES = {  # where a card's D', e' and D'', e'' are taken, as its words say; none: it has one stage
    "euler": (), "euler_ancestral": (), "ddim": (), "dpmpp_2m": (), "dpmpp_2m_sde": (), "res_multistep": (),
    "dpmpp_2m_sde_heun": (), "gradient_estimation": (), "dpmpp_3m_sde": (), "lms": (), "ipndm": (), "ipndm_v": (),
    "tcd": (), "heunpp2": ("t", "t₂"), "seeds_2": ("s e^(−h/2)",),
    "heun": ("t",), "exp_heun_2_x0": ("t",), "dpm_2": ("m",), "dpm_2_ancestral": ("m",), "midpoint": ("m",),
    "dpmpp_2s_ancestral": ("s e^(−h/2)",), "dpmpp_sde": ("√(s t)",), "dpmpp_2s": ("s e^(−h/2)",),
    "res_2s": ("s e^(−h/2)",), "ralston": ("s + 2/3 (t − s)",),
    "ralston_3": ("s + 1/2 (t − s)", "s + 3/4 (t − s)"), "lcm": (), "rk4": ("(s + t) / 2", "(s + t) / 2", "t"),
}  # fmt: skip
WORDS = {  # a stage that a card has in words, as a formula
    "heunpp2": "x' = x + (t − s) e\nx'' = x' + (t₂ − t) e'\n",
    "seeds_2": "x' = e^(−h/2) x + (1 − e^(−h/2)) D\n",
}
SETTLED = {"lms": 3, "ipndm": 3, "ipndm_v": 3, "dpmpp_3m_sde": 2}  # the first step with all that it looks back at
AHEAD = {"heunpp2": 2}  # levels after the step's that it uses
NOISY = (  # not seeds_2, whose z is made of two draws
    "euler_ancestral", "ddim", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde", "dpmpp_2m_sde",
    "dpmpp_2m_sde_heun", "dpmpp_3m_sde", "lcm",
)  # fmt: skip
TOKEN = re.compile(r"\d+|down|up|log|sqrt|exp|[A-Za-zηψφγ][₀₁₂₃]?'*|\*\*|\S")
VALUE = re.compile(r"\w|[ηψφγ]")
SPELLED = str.maketrans({"₀": "0", "₁": "1", "₂": "2", "₃": "3", "'": "p"})
Z = torch.tensor([[0.5, -1.0, 2.0, 0.1, -0.7, 1.3, -0.2]], dtype=torch.float64)  # noise


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
    lines = (WORDS.get(name, "") + FORMULAS[name]).replace("\n    +", " +").split("\n")
    for line in (line for line in lines if ": " not in line and "∫" not in line):
        for part in (part for part in line.split(", ") if re.search("[=←]", part)):
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


def known_at(i: int, states: list[torch.Tensor], eta: float, z: torch.Tensor) -> dict:
    """What the letters of a card stand for in step i, but for those that it defines."""
    past = range(min(i, 3) + 1)
    s, t = SIGMAS[i], SIGMAS[i + 1]
    known = {"x": states[i], "s": s, "t": t, "t2": SIGMAS[min(i + 2, len(SIGMAS) - 1)], "s0": SIGMAS[0]}
    known |= {"h": math.log(s / t), "h1": math.log(SIGMAS[i - 1] / s), "z": z, "zp": z, "η": eta, "γ": 2.0, "r": t}
    down, up = split(s, t, eta)
    known |= {"down": down, "up": up} | dict(
        zip("du", split(s, math.sqrt(s * t), eta), strict=True)
    )  # d, u: dpmpp_sde's
    for j in past:
        mark = str(j) if j else ""
        known["D" + mark] = denoised(states[i - j], SIGMAS[i - j])
        known["e" + mark] = (states[i - j] - known["D" + mark]) / SIGMAS[i - j]
        others = [SIGMAS[i - k] for k in past if k != j]
        line = np.poly(others) / np.prod([SIGMAS[i - j] - other for other in others])
        known[f"C{j}"] = float(np.diff(np.polyval(np.polyint(line), (s, t)))[0])
    if i > 1:
        r, r1 = known["h1"] / known["h"], math.log(SIGMAS[i - 2] / SIGMAS[i - 1]) / known["h"]
        first, before = (known["D"] - known["D1"]) / r, (known["D1"] - known["D2"]) / r1
        known |= {"d1": first + (first - before) * r / (r + r1), "d2": (first - before) / (r + r1)}
    return known


def split(s: float, t: float, eta: float) -> tuple[float, float]:
    """down and up, as the page of cards has them."""
    up = min(t, eta * t * math.sqrt(1 - t**2 / s**2))
    return math.sqrt(t**2 - up**2), up


def check(name: str, eta: float, options: dict) -> None:
    """Every step of a run by the card. To 1e-13: numbers are up to 10, in float64."""
    start = torch.linspace(-9, 9, 7, dtype=torch.float64)[None]
    sigmas = torch.tensor(SIGMAS, dtype=torch.float64)
    states: list[torch.Tensor] = []

    def model(x, sigma, **_):
        return denoised(x, float(sigma[0]))

    end = ALL_SAMPLERS[name].function(
        model, start, sigmas, callback=lambda c: states.append(c["x"].clone()), disable=True, **options
    )
    states.append(end)
    for i in range(SETTLED.get(name, 1), len(SIGMAS) - 1 - AHEAD.get(name, 0)):
        found = step(name, known_at(i, states, eta, Z))
        assert (found - states[i + 1]).abs().max() < 1e-13, i


@pytest.mark.parametrize("name", [name for name in STAGES if name != "lcm"])  # which always adds noise
def test_a_formula_is_its_sampler(name):
    record = ALL_SAMPLERS[name]
    check(name, 0.0, dict(record.noiseless) if record.stochastic else {})


@pytest.mark.parametrize("name", NOISY)
def test_a_formula_adds_its_samplers_noise(name):
    """The same noise in each draw, half as much as by default where that can be chosen."""
    options = {"noise_sampler": lambda sigma, sigma_next: Z} | ({} if name == "lcm" else {"eta": 0.5})
    check(name, 0.5, options)


def test_a_wrong_formula_is_noticed(monkeypatch):
    monkeypatch.setitem(FORMULAS, "heun", FORMULAS["heun"].replace("/ 2", "/ 3"))
    with pytest.raises(AssertionError):
        test_a_formula_is_its_sampler("heun")
