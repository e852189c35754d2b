"""The grid for a model, a sampler and a number of evaluations.

tuned = tune_grid(pipe, "dpmpp_2m", (6, 8, 10), call={"guidance_scale": 5.0}, prompts=prompts)
tuned.save("tuned.json")
pipe(prompt, comfy_sampler="dpmpp_2m", sigma_grid="tuned.json", num_inference_steps=8)
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from k_diffusing._versions import PROGRAMS, package_versions
from k_diffusing.compare.sources import Source, find_source
from k_diffusing.model.fingerprint import fingerprint
from k_diffusing.model.guidance_asked import asked
from k_diffusing.samplers.find import find_sampler
from k_diffusing.samplers.probe import Probe
from k_diffusing.tune.book import Book, digest
from k_diffusing.tune.candidates import OWN, TRIED, Trial, first_trials
from k_diffusing.tune.descend import DAMPED, WAYS
from k_diffusing.tune.fine import FINE, Fine, Levels
from k_diffusing.tune.fitting import Fitter
from k_diffusing.tune.found import Budget, Tuned
from k_diffusing.tune.judge import KEPT, choose, race, rounds
from k_diffusing.tune.pictures import Pictures
from k_diffusing.tune.work import Work, content
from k_diffusing.tune.workers import prepared, side_by_side

FITTED = "fitted"  # the sampler whose weights are found, too
LIKE_FITTED = "res_multistep"  # whose evaluations and options it has
FEWEST = 4  # pictures to choose on
ON_PICTURES = ("model", "call", "prompts", "pictures", "seed", "fine", "versions")  # the facts of a fine run


def tune_grid(
    pipe,
    sampler: str | Callable = "dpmpp_2m",
    evaluations: Sequence[int] = (6, 8, 10, 20),
    *,
    call: dict[str, Any] | None = None,
    prompts: Sequence[str] = (),
    pictures: int = 32,
    seed: int = 0,
    batch_size: int = 16,
    folder: str | Path | None = None,
    tick: Callable[[int], None] = lambda evaluations: None,
) -> Tuned:
    """Find sigma grids for a model and a sampler.

    Args:
        pipe: One of our pipelines.
        sampler: As `compare.sources.find_source` takes it, or a function; or "fitted", whose weights are found too.
        evaluations: Of the network in a run, each a grid of its own; a guided pair counts as one.
        call: Keywords of every run: guidance, height, width, ...; or with prompt_embeds, in place of prompts.
        prompts: The first half of them for the choice, the others held out; with fewer than twice `pictures` they are
            taken again, with other seeds.
        pictures: On how many the choice is made, and on as many more where these leave a doubt. Its result is told on
            half as many others.
        seed: Of the first picture's noise; the others' follow.
        batch_size: The most pictures in one call.
        folder: Where measurements are kept, so that a run that was ended goes on; None: nowhere.
        tick: Told of the evaluations of each run after it.

    Returns:
        The grids. A grid's error is |x - y| / |y|, with x the run's latents and y those of a fine run.

    Raises:
        ValueError: bad input; no network has run.
        TypeError: likewise.
    """
    source = Source(FITTED, LIKE_FITTED) if sampler == FITTED else find_source(sampler, pipe.scheduler)
    call = {**(call or {}), **source.keywords}
    _check_guidance(call.get("guidance"))
    if sampler == FITTED and isinstance(batch_size, int) and 1 <= batch_size < FEWEST:
        raise ValueError(f"batch_size={batch_size}: weights are fitted in one call, to {FEWEST} pictures at least")
    groups = _pictures(prepared(pipe), call, prompts, pictures, seed, batch_size)
    chosen_on, held_out = groups["choice"], groups["held_out"]
    levels = Levels.of(chosen_on)
    steps = _steps(chosen_on, source, evaluations, levels)
    facts = _facts(pipe, source, call, chosen_on, held_out, levels)
    folder, of_pictures = None if folder is None else Path(folder), {name: facts[name] for name in ON_PICTURES}
    book = Book(folder, of_pictures, [source.label, facts["sampler_file"]])
    at_a_time = _at_a_time(pipe, source)
    with side_by_side(at_a_time) as run_all:
        fitter = Fitter(chosen_on, levels, tick) if sampler == FITTED else None
        work = Work(source, levels, book, tick, run_all, fitter)
        judged = functools.cache(lambda name: Judged(groups[name], work.fine(groups[name], name)))
        budgets = [_tuned(work, judged, budget, n) for budget, n in steps.items()]
        fine = judged("held_out").fine
    tables = {one.steps: fitter.table(one.chosen.grid) for one in budgets} if fitter else {}
    return Tuned(source.label, budgets, facts, held_out, work.run, tables, fine.ends, fine.shape, at_a_time)


def _pictures(pipe, call, prompts, count: int, seed: int, batch_size: int) -> dict[str, Pictures]:
    """Those to choose on, those held out, and more to choose on where those leave a doubt. Raises ValueError."""
    if not isinstance(count, int) or count < FEWEST:
        raise ValueError(f"pictures={count!r}: give at least {FEWEST}, 16 to 32 to choose well")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size={batch_size!r}: give at least 1")
    embedded = "prompt_embeds" in call
    if not embedded and len(prompts) < 2:
        raise ValueError(f"{len(prompts)} prompts: give two at least, one to choose with and one that is held out")
    half = max(len(prompts) // 2, 1)
    sides = ([""], [""]) if embedded else (prompts[:half], prompts[half:])

    def part(side: Sequence[str], first: int, many: int) -> Pictures:
        texts, seeds = tuple(side[i % len(side)] for i in range(many)), tuple(range(first, first + many))
        return Pictures(pipe, call, texts, seeds, batch_size)

    told = told_on(count)
    return {
        "choice": part(sides[0], seed, count),
        "held_out": part(sides[1], seed + count, told),
        "in_doubt": part(sides[0], seed + count + told, count),
    }


def told_on(count: int) -> int:
    """How many pictures a result is told on where the choice is made on so many others."""
    return max(count // 2, FEWEST)


def _check_guidance(guidance: Any) -> None:
    """Raise ValueError for weights that depend on the number of steps: fine runs and grids would not be of one."""
    asked_for = asked(guidance)
    if asked_for.cfg_pp is not None or isinstance(asked_for.weight, tuple):
        raise ValueError(
            f"guidance={guidance!r} depends on the number of steps, and grids are tuned against a run of {FINE}: give "
            "a number, or a function of sigma"
        )


def _at_a_time(pipe, source: Source) -> int:
    """How many runs: on a CPU one for each of torch's threads; a user's function may not bear two at a time."""
    alone = pipe._execution_device.type != "cpu" or find_sampler(source.sampler).custom
    return 1 if alone else torch.get_num_threads()


def _steps(pictures: Pictures, source: Source, evaluations: Sequence[int], levels: Levels) -> dict[int, int]:
    """The steps of a sampler within each number of evaluations. Raises ValueError."""
    plan = pictures.plan(source.sampler, source.options)
    if plan.sampler.takes != "sigmas":
        raise ValueError(
            f"{source.label} chooses its own sigmas: a grid cannot be tuned for it; take one that is given"
        )
    probe, found = Probe(plan.sampler, source.options, levels.flow), {}
    if not evaluations:
        raise ValueError("evaluations=(): give one number of them at least")
    for budget in evaluations:
        if not isinstance(budget, int) or not 2 <= budget <= FINE // 2:
            raise ValueError(f"evaluations={budget!r}: give integers from 2 to {FINE // 2}, the fine run has {FINE}")
        try:
            steps = probe.steps_within(budget)
        except Exception as error:  # the user's code: whatever it raises
            raise ValueError(f"the evaluations of {source.label} cannot be counted: {error}") from error
        if steps < 2:
            raise ValueError(f"evaluations={budget}: {source.label} takes {probe.evaluations(2)} in two steps")
        found[budget] = steps
    return found


def _facts(pipe, source: Source, call: dict, chosen_on: Pictures, held_out: Pictures, levels: Levels) -> dict[str, Any]:
    network = getattr(pipe, "transformer", None) or pipe.unet
    name = Path(pipe.name_or_path or type(pipe).__name__).name
    return {
        "flow": levels.flow,
        "model": {"name": name, "fingerprint": fingerprint(network)},
        "sampler": source.label,
        "sampler_file": content(source.sampler),
        "options": {key: repr(value) for key, value in source.options.items()},
        "call": {key: _plain(value) for key, value in call.items()},
        "prompts": digest([chosen_on.prompts, held_out.prompts]),
        "pictures": len(chosen_on),
        "seed": chosen_on.seeds[0],
        "fine": FINE,
        "versions": package_versions("k-diffusing", *PROGRAMS),
    }


def _plain(value: Any) -> Any:
    """What JSON can hold of a keyword: tensors, functions and dicts of them as what tells them apart."""
    if callable(value):
        return content(value) or repr(value)
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return digest(value) if isinstance(value, torch.Tensor) else value


def most_evaluations(evaluations: Sequence[int], pictures: int, fitted: bool = False) -> int:
    """Of the network, that tuning may take for a sampler that adds no noise; a guided pair counts as one."""
    if fitted:  # a fine run for its states, and the weights of grids that are held out
        return most_evaluations(evaluations, pictures) + (FINE + 4 * sum(evaluations)) * pictures
    eighth, quarter, half, every = rounds(pictures)
    first, second, third = (sum(kept) for kept in KEPT)
    judged = TRIED * eighth + first * (quarter - eighth) + 3 * quarter + second * (half - quarter)
    judged += third * (every - half) + (2 + WAYS) * half + len(DAMPED) * every + 4 * told_on(pictures)
    judged += 2 * pictures  # in doubt
    return FINE * (2 * pictures + told_on(pictures)) + sum(evaluations) * judged


class Judged(NamedTuple):
    """Pictures, and the fine run that errors are measured against."""

    pictures: Pictures
    fine: Fine

    def errors(self, work: Work, trials: Sequence[Trial], part: slice = slice(None)) -> list[list[float]]:
        """Of each grid those of some of the pictures."""
        return work.errors(self.pictures[part], self.fine.ends[part], trials)


def _tuned(work: Work, judged: Callable[[str], Judged], budget: int, n: int) -> Budget:
    """The grid of n steps."""
    choice = judged("choice")

    def measure(trials: list[Trial], count: int) -> None:
        for seen in {len(trial.errors) for trial in trials if len(trial.errors) < count}:
            alike = [trial for trial in trials if len(trial.errors) == seen]
            for trial, errors in zip(alike, choice.errors(work, alike, slice(seen, count)), strict=True):
                trial.errors += errors

    def move(trial: Trial, count: int) -> list[Trial]:
        return work.moved(choice.pictures[:count], choice.fine.ends[:count], trial)

    first = first_trials(choice.pictures, work.levels, choice.fine, n)
    ranked = race(first, measure, move, len(choice.pictures), work.levels)
    chosen = choose(ranked, lambda trials: judged("in_doubt").errors(work, trials))
    named = next(trial for trial in ranked if trial.named)
    others = [trial for trial in first if trial.name in (OWN, "karras")]
    told = {trial.name: trial for trial in (chosen, named, *others)}
    errors = dict(zip(told, judged("held_out").errors(work, list(told.values())), strict=True))
    return Budget(budget, n, chosen, named, ranked, errors)
