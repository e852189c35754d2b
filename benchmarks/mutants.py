"""Mutation testing: how many small changes to a part of the package its tests notice.

python benchmarks/mutants.py                     # all SUBJECTS, one after the other: hours
python benchmarks/mutants.py run_folder noise    # these
python benchmarks/mutants.py --sample 200 noise  # 200 of its mutants, drawn at random
python benchmarks/mutants.py --left noise        # the mutants of the last run that no test has killed, as diffs

mutmut works on a copy of the tree in mutants/SUBJECT, and a second run tries what has changed since. Whatever is left
is explained in docs/mutants.md. Exit code 1 if a subject has less than LEAST of its mutants killed.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPIES = ROOT / "mutants"
LEAST = 0.9
PROCESSES = 2
PACKAGE = "k_diffusing"
# What is changed of the package, and the tests that say the most of it in the least time: each mutant is tried on those
# of them that call it.
SUBJECTS = {
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
# mutmut names its tests in no order. The first of a subject's files are the fastest.
ORDER = """

def pytest_collection_modifyitems(items):
    files = {files}
    items.sort(key=lambda item: [item.nodeid.startswith(file) for file in files].index(True))
"""


def copy_of(subject: str) -> Path:
    """The tree as git has it, with mutmut's settings for this subject. mutmut itself copies from there to mutants/ in
    it, where the tests run, and by the files' times knows what has changed."""
    folder = COPIES / subject
    files = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")[:-1]
    for place in (folder, folder / "mutants"):
        shutil.rmtree(place / "tests", ignore_errors=True)  # which may have other files now
        for file in filter(lambda file: (ROOT / file).is_file(), files):
            (place / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, place / file)
    sources, tests = SUBJECTS[subject]
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


def interval(killed: int, tried: int) -> tuple[float, float]:
    """Wilson's: of 95 % for the share of all, from a sample."""
    z, share = 1.96, killed / tried
    middle, half = share + z**2 / 2 / tried, z * (share * (1 - share) / tried + z**2 / 4 / tried**2) ** 0.5
    return (middle - half) / (1 + z**2 / tried), (middle + half) / (1 + z**2 / tried)


def report(subject: str, show: bool) -> bool:
    """Print what became of a subject's mutants; whether enough are killed. One that runs out of time is killed."""
    made = statuses(COPIES / subject)
    tried = {name: status for name, status in made.items() if status != "not checked"}
    live = [name for name, status in tried.items() if status in ("survived", "no tests", "suspicious")]
    killed, count = len(tried) - len(live), len(tried)
    text = f"{subject:16} {killed:4} of {count:4} killed, {killed / count:.1%}"
    if count < len(made):
        low, high = interval(killed, count)
        text += f" ({low:.1%} to {high:.1%} of all {len(made)})"
    print(text, flush=True)
    for name in live if show else []:
        print(mutmut(COPIES / subject, "show", name))
    return killed >= LEAST * count


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subjects", nargs="*", metavar="subject", help=f"of {', '.join(SUBJECTS)}; all of them")
    parser.add_argument("--sample", type=int, metavar="N", help="try N mutants of each, drawn at random")
    parser.add_argument("--left", action="store_true", help="show those of the last run that live, and try none")
    asked = parser.parse_args(argv)
    enough = []
    for subject in asked.subjects or SUBJECTS:
        if not asked.left:
            try_mutants(copy_of(subject), asked.sample)
        enough.append(report(subject, asked.left))
    return int(not all(enough))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
