"""Mutation testing: how many small changes to a part of the package its tests notice.

python benchmarks/mutants.py                     # all SUBJECTS, one after the other: hours
python benchmarks/mutants.py run_folder noise    # these
python benchmarks/mutants.py --left noise        # the mutants of the last run that no test has killed, as diffs

mutmut works on a copy of the tree in mutants/SUBJECT, and a second run tries what has changed since. Whatever is left
is explained in docs/mutants.md. Exit code 1 if a subject has less than LEAST of its mutants killed.
"""

import json
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
    "run_folder": (["render/folder.py"], ["render/test_folder.py"]),
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
            *[f"samplers/test_{name}.py" for name in ("call", "find", "options", "patch", "records")],
            "pipelines/test_single_step.py",
            "pipelines/test_callbacks.py",
        ],
    ),
    "sampling_run": (
        ["run.py", "plan.py"],
        ["pipelines/test_callbacks.py", "pipelines/test_bad_input.py", "trace/test_sampler_trace.py"],
    ),
}
SLOW = "killed or full_disk or distribution or covariance or normal"  # and they kill nothing that the others leave

CONFIG = """
[tool.mutmut]
source_paths = ["{package}"]
only_mutate = {sources}
pytest_add_cli_args_test_selection = {tests}
pytest_add_cli_args = ["-p", "no:cacheprovider", "-W", "ignore", "-k", "not ({slow})"]
timeout_constant = 30
"""


def copy_of(subject: str) -> Path:
    """The tree as git has it, with mutmut's settings for this subject. mutmut itself copies from there to mutants/ in
    it, where the tests run, and by the files' times knows what has changed."""
    folder = COPIES / subject
    files = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")[:-1]
    for place in (folder, folder / "mutants"):
        for file in filter(lambda file: (ROOT / file).is_file(), files):
            (place / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, place / file)
    sources, tests = SUBJECTS[subject]
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


def mutmut(folder: Path, *argv: str) -> str:
    """What it says, which is in mutmut.log meanwhile. Raises CalledProcessError if it fails."""
    with (folder / "mutmut.log").open("w+") as log:
        command = [Path(sys.executable).with_name("mutmut"), *argv]
        subprocess.run(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, text=True, check=True)
        log.seek(0)
        return log.read()


def left(folder: Path) -> tuple[list[str], int]:
    """The mutants that live, and how many there are in all; one that runs out of time counts as killed."""
    lines = [line.split(": ") for line in mutmut(folder, "results", "--all", "True").splitlines() if ": " in line]
    live = [name.strip() for name, status in lines if status in ("survived", "no tests", "suspicious", "not checked")]
    return live, len(lines)


def main(argv: list[str]) -> int:
    show, subjects = "--left" in argv, [name for name in argv if name != "--left"] or list(SUBJECTS)
    failed = 0
    for subject in subjects:
        if not show:
            mutmut(copy_of(subject), "run", "--max-children", str(PROCESSES))
        live, count = left(COPIES / subject)
        share = 1 - len(live) / count
        failed += share < LEAST
        print(f"{subject:16} {count - len(live):4} of {count:4} killed, {share:.1%}", flush=True)
        for name in live if show else []:
            print(mutmut(COPIES / subject, "show", name))
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
