"""How many small changes to six parts of the package its tests notice.

mutmut works on a copy of the tree in mutants/PART, and a second run tries what has changed since. Whatever is left is
explained in docs/mutants.md; `python -m benchmarks.mutants PART` shows it, as diffs.
"""

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks.data import ROOT
from benchmarks.intervals import wilson
from benchmarks.pages import markdown_table
from benchmarks.record import Benchmark, Data, Row

COPIES = ROOT / "mutants"
LEAST = 0.9  # of its mutants a part should have killed
PROCESSES = 2
PACKAGE = "k_diffusing"
SAMPLES = {"samplers_patch": 240, "sampling_run": 220}  # so many of these parts, drawn at random
# What is changed of the package, and the tests that say the most of it in the least time: each mutant is tried on those
# of them that call it.
PARTS = {
    "run_folder": (["render/folder.py", "render/weights.py"], ["render/test_folder.py"]),
    "sigma_grids": (
        ["grids/*.py"],
        [
            "grids",
            "test_properties_of_values.py",
            "pipelines/test_bad_input.py",
            "pipelines/test_noise_in_pipelines.py",
            "pipelines/test_sdxl_pipeline.py",
            "pipelines/test_flux_pipeline.py",
        ],
    ),
    "denoisers": (["model/*.py"], ["model", "pipelines/test_guidance.py"]),
    "noise": (
        ["noise/check.py", "noise/choose.py", "noise/sources.py", "noise/streams.py"],
        ["noise", "programs", "pipelines/test_noise_in_pipelines.py"],
    ),
    "samplers_patch": (
        ["samplers/call.py", "samplers/find.py", "samplers/options.py", "samplers/patch.py", "samplers/steps.py"],
        [
            *[f"samplers/test_{name}.py" for name in ("find", "options", "patch", "steps", "call", "records")],
            "pipelines/test_custom_samplers.py",
            "samplers/test_user_draws.py",
            "pipelines/test_single_step.py",
            "pipelines/test_callbacks.py",
        ],
    ),
    "sampling_run": (
        ["arguments.py", "plan.py", "run.py"],
        [
            "test_arguments.py",
            "test_plan.py",
            *[f"pipelines/test_{name}.py" for name in ("run", "bad_input", "callbacks")],
            "trace/test_record.py",
        ],
    ),
}
SLOW = "killed or full_disk or distribution or covariance or is_normal"  # and they kill nothing that the others leave

CONFIG = """
[tool.mutmut]
source_paths = ["{package}"]
only_mutate = {sources}
pytest_add_cli_args_test_selection = {tests}
pytest_add_cli_args = ["-p", "no:cacheprovider", "-W", "ignore", "-k", "not ({slow})"]
timeout_constant = 30
"""
# mutmut names its tests in no order. The first of a part's files are the fastest.
ORDER = """

def pytest_collection_modifyitems(items):
    files = {files}
    items.sort(key=lambda item: [item.nodeid.startswith(file) for file in files].index(True))
"""


def copy_of(part: str) -> Path:
    """The tree as git has it, with mutmut's settings for this part. mutmut itself copies from there to mutants/ in
    it, where the tests run, and by the files' times knows what has changed."""
    folder = COPIES / part
    files = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")[:-1]
    for place in (folder, folder / "mutants"):
        shutil.rmtree(place / "tests", ignore_errors=True)  # which may have other files now
        for file in filter(lambda file: (ROOT / file).is_file(), files):
            (place / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, place / file)
    sources, tests = PARTS[part]
    for place in (folder, folder / "mutants"):
        with (place / "tests" / "conftest.py").open("a", encoding="utf-8") as conftest:
            conftest.write(ORDER.format(files=[f"tests/{name}" for name in tests]))
    with (folder / "pyproject.toml").open("a", encoding="utf-8") as settings:
        settings.write(
            CONFIG.format(
                package=PACKAGE,
                sources=json.dumps([f"{PACKAGE}/{name}" for name in sources]),
                tests=json.dumps([f"tests/{name}" for name in tests]),
                slow=SLOW,
            )
        )
    return folder


def mutmut(folder: Path, *argv: str, check: bool = True) -> str:
    """What it says, which is in mutmut.log meanwhile. Raises CalledProcessError if it fails, unless not to check."""
    with (folder / "mutmut.log").open("w+") as log:
        command = [Path(sys.executable).with_name("mutmut"), *argv]
        subprocess.run(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, text=True, check=check)
        log.seek(0)
        return log.read()


def statuses(folder: Path) -> dict[str, str]:
    """What became of each mutant."""
    lines = [line.split(": ") for line in mutmut(folder, "results", "--all", "True").splitlines() if ": " in line]
    return {name.strip(): status for name, status in lines}


def try_mutants(folder: Path, sample: int | None) -> None:
    """Try all that were not tried yet, or so many of all, drawn at random but the same ones each time."""
    run = ("run", "--max-children", str(PROCESSES))
    if sample is None:
        mutmut(folder, *run)
        return
    mutmut(folder, *run, "none", check=False)  # makes the mutants, and fails for there is none of this name
    names = sorted(statuses(folder))
    mutmut(folder, *run, *random.Random(0).sample(names, min(sample, len(names))))


def cells() -> list[Row]:
    return [{"part": part, "sample": SAMPLES.get(part)} for part in PARTS]


def measure(cells: list[Row]) -> Iterable[Row]:
    for cell in cells:
        try_mutants(copy_of(cell["part"]), cell["sample"])
        made, tried, left = outcome(cell["part"])
        yield cell | {"killed": len(tried) - len(left), "tried": len(tried), "made": len(made)}


def outcome(part: str) -> tuple[dict[str, str], list[str], list[str]]:
    """All mutants of a part with what became of them, those tried, and those that live.

    One that runs out of time does not live.
    """
    made = statuses(COPIES / part)
    tried = [name for name, status in made.items() if status != "not checked"]
    return made, tried, [name for name in tried if made[name] in ("survived", "no tests", "suspicious")]


def table(data: Data) -> str:
    """A part a line; of a sample the interval that all are in."""
    rows = []
    for row in data["rows"]:
        low, high = wilson(row["killed"], row["tried"])
        sample = f"{row['tried']} of {row['made']}, drawn at random: {100 * low:.1f} to {100 * high:.1f} % of all"
        share = f"{100 * row['killed'] / row['tried']:.1f} %"
        tried = sample if row["tried"] < row["made"] else "all"
        rows.append([row["part"], str(row["killed"]), str(row["tried"]), share, tried])
    return markdown_table(["part", "killed", "of", "share", "tried"], rows)


BENCHMARK = Benchmark(
    name="mutants",
    about="How many small changes to six parts of the package the tests notice.",
    takes="hours",
    cells=cells,
    measure=measure,
    alone=True,
    tables={"table": table},
)


if __name__ == "__main__":
    for part in sys.argv[1:]:
        for name in outcome(part)[2]:
            print(mutmut(COPIES / part, "show", name))
