"""One grid by several processes, on the CPU: each cell once, whatever becomes of a process."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from tiny_checkpoints import SDXL, saved_sdxl

ROOT = Path(__file__).resolve().parents[2]
LAUNCHERS = {
    2: ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port"],
    4: ["-m", "torch.distributed.run", "--nproc_per_node", "4", "--master_port"],
}

# test.py, with SIGKILL for process 1 in its second picture; process 0 waits in its own, so that both have some.
KILLED = """
import os, runpy, signal, sys
from k_diffusing.render.folder import RunFolder
record, recorded = RunFolder.record, []
def dying(*args):
    if recorded:
        os.kill(os.getpid(), signal.SIGKILL) if os.environ["RANK"] == "1" else signal.pause()
    recorded.append(args)
    record(*args)
RunFolder.record = dying
sys.argv[0] = "test.py"
runpy.run_path({path!r}, run_name="__main__")
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    saved_sdxl(folder := tmp_path_factory.mktemp("models") / "tiny-sdxl")
    return folder


def words(model, output, *argv):
    fixed = ["--model", str(model), "--dtype", "float32", "--device", "cpu", "--prompt", "a red circle", "--steps", "2"]
    return [*fixed, "--output", str(output), *argv]


def launch(processes, script, *argv):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, *LAUNCHERS[processes], str(port), str(script), *argv]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100)


def told(output):
    """The cells that were rendered, as the lines say."""
    return sorted(line.split()[0] for line in output.splitlines() if " evaluations " in line)


def assert_whole(folder, cells):
    lines = [json.loads(line) for line in (folder / "sdxl-results.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(lines) == len({line["file"] for line in lines}) == cells
    for line in lines:
        with Image.open(folder / line["file"]) as picture:
            picture.load()
    assert (folder / "index.html").exists() and list(folder.glob("sdxl-samplers*.png"))
    assert not list(folder.glob(".*"))


def test_four_processes_share_a_grid(tmp_path):
    """Without a model, so that they start sooner."""
    argv = ["--samplers", "euler", "dpmpp_2m", "--seeds", "0", "1", "2", "3", "--output", str(tmp_path)]
    done = launch(4, ROOT / "tests" / "support" / "trivial_grid.py", *argv)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(told(done.stdout)) == len(set(told(done.stdout))) == 8
    assert done.stdout.count("all of them") == 1
    assert_whole(tmp_path, 8)


def test_one_of_two_is_killed_and_the_next_run_finishes(model, tmp_path, capsys):
    """Each has two pictures at work, whose calls of the network are joined; those of the killed one are free again."""
    script = tmp_path / "killed.py"
    script.write_text(KILLED.format(path=str(ROOT / "test.py")))
    folder = tmp_path / "grid"
    argv = words(model, folder, "--samplers", "euler", "--seeds", "0", "1", "2", "3", "4", "5", "--batch-size", "4")
    first = launch(2, script, *argv)
    assert first.returncode != 0
    before = {
        json.loads(line)["file"] for line in (folder / "sdxl-results.jsonl").read_text(encoding="utf-8").splitlines()
    }
    assert 1 <= len(before) < 6
    capsys.readouterr()
    assert SDXL.main(argv) == 0
    now = {f"sdxl-{name}.png" for name in told(capsys.readouterr().out)}
    assert len(now) == 6 - len(before) and not now & before
    assert_whole(folder, 6)
