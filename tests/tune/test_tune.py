"""Tuning on closed-form models: what is chosen, what it was chosen from, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from k_diffusing import SamplerScheduler, load_grid, load_sampler, tune_grid
from k_diffusing.cli import main
from k_diffusing.noise.interval import Interval
from k_diffusing.oracle.closed_form import draw, oracle_flux, oracle_sdxl
from k_diffusing.trace.record import Trace
from k_diffusing.tune.candidates import Trial, proposed_trials
from k_diffusing.tune.descend import best_moves, moved, tried, ways
from k_diffusing.tune.fine import Fine, Levels
from k_diffusing.tune.fitting import least_squares
from k_diffusing.tune.judge import choose, interval
from k_diffusing.tune.shared_noise import SharedPath
from k_diffusing.tune.table import choices_json
from k_diffusing.tune.tune import most_evaluations
from k_diffusing.tune.workers import Encoded

PROMPT = {"prompt_embeds": torch.zeros(1, 5, 16), "pooled_prompt_embeds": torch.zeros(1, 16)}
CALL = {**PROMPT, "guidance_scale": 1.0, "height": 32, "width": 32}


@pytest.fixture(scope="module")
def tuned():
    return {kind: tune_grid(make(), "dpmpp_2m", (6,), call=CALL, pictures=4) for kind, make in PIPES.items()}


PIPES = {"sdxl": oracle_sdxl, "flux": oracle_flux}


@pytest.mark.parametrize("kind", PIPES)
def test_a_grid_for_a_mixture(tuned, kind):
    """On pictures that the choice did not see it is no worse than the best with a name, and far better than Karras'."""
    [budget] = tuned[kind].budgets
    assert budget.steps == 6 and budget.gain.mean <= 1
    assert budget.error.mean < 0.6 * min(interval(budget.held_out[name]).mean for name in ("karras", "scheduler"))
    assert budget.chosen.score <= min(trial.score for trial in budget.trials if trial.named)


@pytest.mark.parametrize("kind", PIPES)
def test_the_grid_is_used_as_any_other(tuned, kind, tmp_path):
    """The run on the file's grid has the error that was told: its latents are those that were judged."""
    path = tmp_path / "tuned.json"
    tuned[kind].save(path)
    pipe, [budget] = PIPES[kind](), tuned[kind].budgets
    plan = pipe.plan("dpmpp_2m", None, str(path), 6)
    assert torch.allclose(plan.space.time(plan.sigmas)[1:], torch.tensor(budget.chosen.grid)[1:], rtol=1e-6)
    by_file, by_grid = (
        draw(pipe, "dpmpp_2m", 6, side=4, sigma_grid=grid) for grid in (str(path), tuned[kind].sigma_grid)
    )
    assert torch.equal(by_file, by_grid)


def test_what_the_file_says(tuned):
    said = json.loads(tuned["sdxl"].to_json())
    assert list(said["sigmas"]) == ["6"] and len(said["sigmas"]["6"]) == 7
    assert said["sampler"] == "dpmpp_2m" and said["call"]["guidance_scale"] == 1.0 and said["versions"]["torch"]
    [row] = said["budgets"]
    assert {"evaluations", "chosen", "best_named", "error", "trials", "held_out"} <= set(row)


def test_a_grid_that_wins_by_chance_is_not_chosen():
    """The best is 1 % better in the mean, and the pictures' ratios spread by far more; in doubt others count too."""
    named = Trial("karras", [2.0, 1.0, 0.0], named=True, errors=[0.10, 0.10, 0.10, 0.10])
    lucky = Trial("lucky", [2.0, 0.9, 0.0], errors=[0.05, 0.19, 0.06, 0.17])
    likely = Trial("likely", [2.0, 0.7, 0.0], errors=[0.08, 0.104, 0.085, 0.104])  # by 1.1 standard errors
    sure = Trial("sure", [2.0, 0.8, 0.0], errors=[0.09, 0.095, 0.09, 0.095])
    asked = []

    def in_doubt(trials):
        asked.append([trial.name for trial in trials])
        return [trial.errors for trial in trials]  # as many others, which say the same

    assert lucky.score < named.score and choose([lucky, named], in_doubt) is named
    assert asked == [["lucky", "karras"]]
    assert likely.score < named.score and choose([likely, named], in_doubt) is likely
    assert choose([likely, named], lambda trials: [[0.1, 0.1], [0.09, 0.1]]) is named
    assert len(asked) == 2 and choose([sure, named], in_doubt) is sure and choose([named], in_doubt) is named
    assert len(asked) == 2


def test_a_sampler_of_ones_own_in_two_stages():
    """Budgets are evaluations: 7 of them are four steps, of which the last takes one."""

    def midpoint(model, x, sigmas, extra_args=None, callback=None, disable=None):
        for i in range(len(sigmas) - 1):
            d = (x - model(x, sigmas[i] * x.new_ones([len(x)]))) / sigmas[i]
            if sigmas[i + 1] > 0:
                middle = (sigmas[i] + sigmas[i + 1]) / 2
                x_2 = x + d * (middle - sigmas[i])
                d = (x_2 - model(x_2, middle * x.new_ones([len(x)]))) / middle
            x = x + d * (sigmas[i + 1] - sigmas[i])
        return x

    found = tune_grid(oracle_sdxl(), midpoint, (7,), call=CALL, pictures=4)
    assert [(budget.evaluations, budget.steps) for budget in found.budgets] == [(7, 4)]
    assert found.budgets[0].gain.mean < 1


def test_one_path_for_every_grid():
    """The increments of a step are those of the steps that it is made of, in whichever run they are asked for."""
    trace, none = Trace(), lambda interval: torch.zeros(2, 4, 8, 8)

    def noise(start, end, seeds=(3, 4)):
        return SharedPath(seeds, 14.6)(trace, none, Interval(start, end)) * (start - end) ** 0.5

    whole = noise(10.0, 1.0)
    assert torch.allclose(noise(10.0, 4.0) + noise(4.0, 1.0), whole, atol=1e-4)  # of 3: the tree's float32
    assert abs(float(whole.std()) / 3 - 1) < 0.2  # of 512 numbers: six times their standard error
    assert torch.equal(noise(10.0, 1.0, (4, 3)), whole.flip(0))


def test_a_sampler_with_noise():
    """Its errors are against its own fine run on the same path: with other noise they would be above 1."""
    call = {**CALL, "height": 16, "width": 16}
    [budget] = tune_grid(oracle_sdxl(), "euler_ancestral", (4,), call=call, pictures=4).budgets
    assert budget.error.mean < 0.9


class EndedError(Exception):
    pass


def test_a_run_that_was_ended_goes_on(tmp_path):
    """What was measured is not measured again, and the result is that of a run in one piece."""

    def tune(tick=lambda evaluations: None, **more):
        asked = {"call": CALL, "pictures": 4, "folder": tmp_path / "work", "tick": tick} | more
        return tune_grid(oracle_sdxl(), "euler", (4,), **asked)

    spent = []

    def end(evaluations):
        spent.append(evaluations)
        if len(spent) == 20:
            raise EndedError

    with pytest.raises(EndedError):
        tune(end)
    rest = []
    whole = tune(rest.append)
    again = []
    assert tune(again.append).to_json() == whole.to_json() and not again
    in_one = []
    assert tune(in_one.append, folder=None).to_json() == whole.to_json()
    assert sum(spent) + sum(rest) == sum(in_one) <= most_evaluations((4,), 4)


def test_how_many_pictures():
    """The choice is made on as many as are asked for, and told on half as many others."""
    found = tune_grid(oracle_sdxl(), "euler", (2,), call=CALL, pictures=10)
    [budget] = found.budgets
    assert {len(trial.errors) for trial in budget.trials} == {10}
    assert {len(errors) for errors in budget.held_out.values()} == {5}
    assert found.pictures.seeds == tuple(range(10, 15))


def test_another_model(tuned, tmp_path):
    path = tmp_path / "tuned.json"
    said = json.loads(tuned["flux"].to_json())
    with pytest.raises(ValueError, match="flow models"):
        oracle_sdxl().plan("euler", None, load_grid(_written(path, said), force=True), 6)
    said["model"]["fingerprint"]["weights"][0][0] += 1.0
    with pytest.raises(ValueError, match="tuned for another model .* its weights: tune for this one, or force"):
        oracle_flux().plan("euler", None, _written(path, said), 6)
    assert len(oracle_flux().plan("euler", None, load_grid(path, force=True), 6).sigmas) == 7
    with pytest.raises(ValueError, match="has grids of 6 steps, not 7"):
        oracle_sdxl().plan("euler", None, _written(path, json.loads(tuned["sdxl"].to_json())), 7)


def test_wherever_a_grid_is_taken(tuned, tmp_path):
    """A scheduler takes the file; a list of sigmas in a file of the same kind is none of ours."""
    path = tmp_path / "tuned.json"
    tuned["sdxl"].save(path)
    scheduler = SamplerScheduler.from_config(oracle_sdxl().scheduler.config, sampler="dpmpp_2m", sigma_grid=str(path))
    scheduler.set_timesteps(6)
    expected = torch.tensor(tuned["sdxl"].budgets[0].chosen.grid)
    assert torch.allclose(scheduler.sigmas.cpu(), expected, rtol=1e-6)
    plain = _written(tmp_path / "plain.json", {"sigmas": [14.0, 1.0, 0.0]})
    assert oracle_sdxl().plan("dpmpp_2m", None, plain, 2).sigmas.tolist() == [14.0, 1.0, 0.0]


def _written(path, facts):
    path.write_text(json.dumps(facts), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"sigmas": {"6": [1, 0]}}', '{"sigmas": [2, 1, 0]}'])
def test_what_is_no_file_of_tuned_grids(text, tmp_path):
    path = tmp_path / "other.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="tune"):
        load_grid(path)


@pytest.mark.parametrize(
    "asked, said",
    [
        ({"evaluations": ()}, "give one number"),
        ({"evaluations": (1,)}, "integers from 2 to"),
        ({"evaluations": (6.0,)}, "integers from 2 to"),
        ({"evaluations": (200,)}, "integers from 2 to"),
        ({"pictures": 2}, "at least 4"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"sampler": "fitted", "batch_size": 2}, "to 4 pictures at least"),
        ({"sampler": "dpm_adaptive"}, "chooses its own sigmas"),
        ({"sampler": "eulr"}, "did you mean"),
        ({"call": {"height": 64, "width": 64}}, "two at least"),
        ({"call": {**CALL, "guidance": [5.0, 4.0, 3.0, 1.0]}}, "depends on the number of steps"),
        ({"call": {**CALL, "guidance": {"cfg++": 0.6}}}, "depends on the number of steps"),
    ],
)
def test_bad_input(asked, said):
    given = {"sampler": "euler", "evaluations": (4,), "call": CALL, "pictures": 4} | asked
    with pytest.raises(ValueError, match=said):
        tune_grid(oracle_sdxl(), **given)


def test_what_runs_side_by_side_is_the_same():
    """Two runs at a time and one: equal to the last bit, and torch has its threads again."""
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(tune_grid(oracle_sdxl(), "euler", (4,), call=CALL, pictures=4).to_json())
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]


def test_a_prompt_is_encoded_once():
    encoded = []
    encode = Encoded(lambda *args, **kwargs: encoded.append((args, kwargs)) or len(encoded))
    assert [encode(["a"], device="cpu"), encode(["a"], device="cpu"), encode(["b"], device="cpu")] == [1, 1, 2]
    assert encode(PROMPT["prompt_embeds"]) == 3 and encode(PROMPT["prompt_embeds"]) == 4, "tensors are not kept"


@pytest.fixture(scope="module")
def fitted():
    return {kind: tune_grid(make(), "fitted", (6,), call=CALL, pictures=4) for kind, make in PIPES.items()}


@pytest.mark.parametrize("kind", PIPES)
def test_fitted_weights_win_on_other_pictures(tuned, fitted, kind, tmp_path):
    """On pictures that neither saw they beat dpmpp_2m on its own grid; from their file they do what was measured."""
    [mine], [theirs] = fitted[kind].budgets, tuned[kind].budgets
    assert mine.error.mean < 0.7 * theirs.error.mean
    path = tmp_path / "fitted.json"
    fitted[kind].save(path)
    held_out = fitted[kind].pictures
    ends = held_out.run(load_sampler(path), None, str(path), 6)
    errors = (ends - fitted[kind].ends).norm(dim=1) / fitted[kind].ends.norm(dim=1)
    assert errors.tolist() == pytest.approx(mine.held_out[mine.chosen.name], rel=1e-3)  # of the file's digits: float32


def test_fitted_weights_are_for_their_grid(fitted, tuned, tmp_path):
    path = tmp_path / "fitted.json"
    fitted["sdxl"].save(path)
    pipe, sampler = oracle_sdxl(), load_sampler(path)
    with pytest.raises(ValueError, match="fitted on other sigmas"):
        draw(pipe, sampler, 6, side=4, sigma_grid="karras")
    with pytest.raises(ValueError, match="fitted for 6 steps, not 7"):
        draw(pipe, sampler, 7, side=4, sigma_grid="karras")
    tuned["sdxl"].save(path)
    with pytest.raises(ValueError, match="holds no weights"):
        load_sampler(path)
    with pytest.raises(ValueError, match="cannot be read"):
        load_sampler(tmp_path / "none.json")


def test_weights_are_least_squares():
    """Of three estimates whose combination is known, with its total given."""
    estimates = [torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    wanted = 0.2 * estimates[0] - 0.7 * estimates[1] + 1.1 * estimates[2]
    found = least_squares(wanted, estimates, 0.6, torch.ones(2))
    assert found == pytest.approx([0.2, -0.7, 1.1], abs=3e-3)  # the ridge is 1e-3
    assert least_squares(wanted, estimates[:1], 0.6, torch.ones(2)) == [0.6]


def test_gauss_newton_finds_the_grid():
    """Of ends that are linear in log sigma those of the levels that are wanted."""
    levels, wanted = Levels(False, 14.6, 0.03), np.array([13.4, 6.0, 2.0, 0.7, 0.2])
    base = Trial("base", [14.6, 5.5, 2.1, 0.75, 0.18, 0.0])

    def run(grid):
        logs = torch.tensor(np.log(grid[:-1]))
        return torch.stack([logs, 2 * logs])

    moves = best_moves([run(trial.grid) for trial in tried(base, levels)], run([*wanted, 0.0]))
    found = moved(base, levels, np.array(moves[0]) @ ways(5, levels.flow)).grid
    assert found[:-1] == pytest.approx(wanted.tolist(), rel=0.01)  # the damping's part
    assert moved(base, levels, np.ones(5)).grid[0] == pytest.approx(14.6), "nothing lies above the largest sigma"
    assert ways(20, flow=False).shape == (8, 20)
    assert (ways(20, flow=True)[:, 0] == 0).all(), "a flow model's start stays at 1"


def test_grids_that_begin_lower():
    """Of SDXL's some are proposed that begin below its largest sigma, of FLUX's all begin at time 1."""
    sigmas = np.geomspace(14.6, 0.03, 20)
    change = (np.log(sigmas)[:, None] - np.log(sigmas)[None]) ** 2
    fine = Fine(sigmas, change, np.ones(19), torch.zeros(1, 4), (4,))
    starts = [trial.grid[0] for trial in proposed_trials(fine, Levels(False, 14.6, 0.03), 6)]
    assert len(starts) == 12 and starts[:6] == pytest.approx([14.6] * 6)
    assert starts[6:] == pytest.approx([max(sigma for sigma in sigmas if sigma <= 0.6 * 14.6)] * 6)
    assert {trial.grid[0] for trial in proposed_trials(fine, Levels(True, 14.6, 0.03), 6)} == {1.0}


def test_which_sampler_to_take(tuned, fitted):
    rows = json.loads(choices_json([(Path("a/m-2m.json"), tuned["sdxl"]), (Path("a/m-f.json"), fitted["sdxl"])]))
    assert [(row["evaluations"], row["sampler"], row["sigma_grid"]) for row in rows] == [(6, "fitted", "m-f.json")]


def test_guidance_that_is_a_function_of_sigma():
    """It is told to every run, and is in the file."""
    seen = []

    def weight(sigma):
        seen.append(float(sigma))
        return 1.0

    found = tune_grid(oracle_sdxl(), "euler", (4,), call={**CALL, "guidance": weight}, pictures=4)
    assert seen and len(json.loads(found.to_json())["call"]["guidance"]) == 12


def test_the_command_knows_fitted(capsys):
    """It is refused for its evaluations alone, as dpmpp_2m is."""
    said = []
    for name in ("fitted", "dpmpp_2m", "fited"):
        assert main(["tune", "--sampler", name, "--evaluations", "1"]) == 2
        said.append(capsys.readouterr().err)
    assert said[0] == said[1] and "2 at least" in said[0] and "unknown sampler 'fited'" in said[2]
