"""Mutation testing: how many small changes to a module its tests notice.

python benchmarks/mutants.py                     # all modules of TESTS, one after the other: hours
python benchmarks/mutants.py run_folder noise    # these
python benchmarks/mutants.py --left noise        # the mutants of the last run that no test has killed, as diffs

mutmut works on a copy of the tree in mutants/MODULE, and a second run tries what has changed since. Whatever is left
is explained in docs/mutants.md. Exit code 1 if a module has less than LEAST of its mutants killed.
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
# The tests of a module that say the most in the least time: each mutant is tried on those of them that call it.
TESTS = {
    "run_folder": ["test_run_folder.py"],
    "sigma_grids": [
        "test_sigma_grids.py",
        "test_properties_of_values.py",
        "test_bad_input.py",
        "test_noise_in_pipelines.py",
        "test_sdxl_pipeline.py",
        "test_flux_pipeline.py",
    ],
    "denoisers": ["test_denoisers.py", "test_guidance.py"],
    "noise": ["test_noise.py", "test_noise_in_pipelines.py"],
    "samplers_patch": ["test_samplers_patch.py", "test_single_step.py", "test_callbacks.py"],
    "sampling_run": ["test_callbacks.py", "test_bad_input.py", "test_sampler_trace.py"],
}
SLOW = "killed or full_disk or distribution or covariance or normal"  # and they kill nothing that the others leave

CONFIG = """
[tool.mutmut]
source_paths = [{source}]
pytest_add_cli_args_test_selection = {tests}
pytest_add_cli_args = ["-p", "no:cacheprovider", "-W", "ignore", "-k", "not ({slow})"]
timeout_constant = 30
"""


def copy_of(module: str) -> Path:
    """The tree as git has it, with mutmut's settings for this module. mutmut itself copies from there to mutants/ in
    it, where the tests run, and by the files' times knows what has changed."""
    folder = COPIES / module
    files = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")[:-1]
    for place in (folder, folder / "mutants"):
        for file in filter(lambda file: (ROOT / file).is_file(), files):
            (place / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, place / file)
    tests = json.dumps([f"tests/{name}" for name in TESTS[module]])
    with (folder / "pyproject.toml").open("a", encoding="utf-8") as settings:
        settings.write(CONFIG.format(source=json.dumps(f"{module}.py"), tests=tests, slow=SLOW))
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
    show, modules = "--left" in argv, [name for name in argv if name != "--left"] or list(TESTS)
    failed = 0
    for module in modules:
        if not show:
            mutmut(copy_of(module), "run", "--max-children", str(PROCESSES))
        live, count = left(COPIES / module)
        share = 1 - len(live) / count
        failed += share < LEAST
        print(f"{module:16} {count - len(live):4} of {count:4} killed, {share:.1%}", flush=True)
        for name in live if show else []:
            print(mutmut(COPIES / module, "show", name))
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
