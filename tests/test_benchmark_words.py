"""What pages say of figures in words stays true and English, whatever is measured."""

import pytest

from benchmarks import adherence, convergence_words, tune_grids
from benchmarks.convergence_figures import OWN_GRID, TABLE_BUDGETS
from benchmarks.demos import ALL
from benchmarks.pages import listed
from k_diffusing.samplers.facts import FACTS


def test_a_list_in_a_sentence():
    assert listed([]) == "none" and listed([6]) == "6" and listed([6, 8]) == "6 and 8"
    assert listed(name for name in "abc") == "a, b and c"


def kept(model: str, counts: dict[str, int], budget: int = 6) -> dict:
    """Data of adherence: captions that samplers keep with so many evaluations, 0 of those that are not named."""
    rows = [
        {"model": model, "sampler": name, "setting": budget, "evaluations": budget, "right": {ALL: counts.get(name, 0)}}
        for name in FACTS
    ]
    return {"rows": rows}


def test_who_keeps_as_many_captions_as_the_best():
    """48 of 64 are in the interval of 54, 47 are not."""
    found = kept("flux", {"euler": 54, "heun": 48, "dpm_2": 47})
    good, others = adherence.as_good(found, "flux", 0)
    assert good == [48, 54] and "dpm_2" in others and len(good) + len(others) == len(FACTS)
    assert adherence.how_many_as_good(found, "flux", 0) == f"2 of {len(FACTS)}"
    assert adherence.between(good) == "48 to 54" and adherence.between([64, 64]) == "64"


def test_who_keeps_most_captions():
    assert adherence.first(kept("sdxl", {"euler": 54, "heun": 54}), "sdxl") == "euler and heun, with 54 of 64"
    misled = kept("flux, older", {"euler": 54, "dpmpp_2m": 3, "dpm_fast": 1})
    assert adherence.misled(misled) == "3"


def errors(model: str, by_sampler: dict[str, float], slope: float = 0.0, floor: float = 1e-3) -> list[dict]:
    """Rows of convergence: an error of each sampler, with 6 evaluations, that falls by a power; 1 of the others."""
    rows = [{"model": model, "sampler": "reference", "stochastic": noisy, "floor": floor} for noisy in (False, True)]
    for name in FACTS:
        for n in TABLE_BUDGETS:
            error = by_sampler.get(name, 1.0) * (6 / n) ** (slope if name in by_sampler else 0)
            rows.append({"model": model, "sampler": name, "setting": n, "evaluations": n, "error": error})
    return rows


def of_all_demos(**by_sampler: float) -> list[dict]:
    return [row for model in convergence_words.DEMOS for row in errors(model, by_sampler, slope=1.0)]


def test_the_nearest_most_often():
    found = {"rows": of_all_demos(euler=0.5, heun=0.4, dpm_2=0.6)}
    told = convergence_words.told_most_often(found, convergence_words.DEMOS, False)
    assert told == "euler and heun, in 12 of 12 cells"
    assert (
        convergence_words.firsts(found, "heun") == "12 of 12" and convergence_words.firsts(found, "euler") == "0 of 12"
    )


@pytest.mark.parametrize(
    "own, karras, told",
    [
        (0.1, 0.2, "on the scheduler's own grid with each number of evaluations"),
        (0.2, 0.1, "on Karras' grid with each number of evaluations"),
        (0.2, 0.3, "on the scheduler's own grid with 6 and 10 evaluations, on Karras' with 20 and 40"),
    ],
)
def test_on_which_grid_of_flux(own, karras, told):
    slope = 0.5 if karras == 0.3 else 0.0
    rows = [*errors("demo, SDXL", {"heun": 0.1}), *errors("demo, FLUX", {"heun": karras}, slope)]
    rows += errors(OWN_GRID, {"heun": own})
    assert convergence_words.flux_grid({"rows": rows}) == f"heun has less error {told}"


def test_from_where_two_stages_are_ahead():
    def told(heun: float) -> str:
        found = errors("demo, SDXL", {"heun": heun, "dpm_2": heun}, slope=2.0)
        return convergence_words.overtake({"rows": found}, "demo, SDXL")

    assert told(0.5) == "from 6 evaluations on" and told(5.0) == "from 20 evaluations on"
    assert told(500.0) == "with none of the numbers measured"


def test_who_is_at_the_floor():
    noisy = [name for name in FACTS if FACTS[name]["stochastic"]]

    def told(names: list[str]) -> str:
        found = errors("demo, FLUX", dict.fromkeys(names, 1e-3))
        return convergence_words.noisy_at_the_floor({"rows": found}, "demo, FLUX", 20)

    assert told(noisy) == "6 of 6" and told(noisy[:-2]) == f"4 of 6 (not {noisy[-2]} or {noisy[-1]})"
    assert told(noisy[:-1]) == f"5 of 6 (not {noisy[-1]})"


def test_what_tuning_changes():
    """In bold what is surely below or above."""
    row = {"model": "demo", "sampler": "dpmpp_2m", "named": "beta"}
    errors = {"tuned": [0.1, 0.11, 0.1], "named": [0.2] * 3, "karras": [0.1, 0.2, 0.05], "longer": [0.05] * 3}
    rows = [row | {"evaluations": 6, "errors": errors}]
    rows += [row | {"evaluations": 8, "errors": errors | {"longer": [1.0] * 3}}]
    assert tune_grids.changes(rows, "named") == "**-48** and **-48** %"
    assert tune_grids.changes(rows[:1], "karras") == "+3 %"
    assert tune_grids.longer({"rows": rows}, "dpmpp_2m") == "1 of 2"
