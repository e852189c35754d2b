"""What a run folder of the trivial script should hold, and the script in a process of its own."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import trivial_grid
from filelock import FileLock, Timeout
from PIL import Image

SCRIPT = Path(trivial_grid.__file__)
SEEDS = ["--seeds", "0", "1", "2", "3", "4"]  # with four samplers: 20 cells


def start(*argv, **environment):
    """The trivial script in a process of its own."""
    environment = {name: str(value) for name, value in environment.items()}
    return subprocess.run(
        [sys.executable, str(SCRIPT), *argv], env=os.environ | environment, capture_output=True, text=True, timeout=60
    )


def lines_of(folder):
    """The results, as another reader would read them: whole lines of JSON."""
    path = folder / "sdxl-results.jsonl"
    content = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in content.split("\n")[:-1]]


def finished(folder):
    """What counts as finished: a line and a picture, under its own or its temporary name."""
    there = {
        path.name.removeprefix(".").partition(".png")[0] + ".png" for path in folder.glob("*") if ".png" in path.name
    }
    return {(one["sampler"], one["steps"], one["seed"]) for one in lines_of(folder) if one["file"] in there}


def logged(log):
    content = log.read_text(encoding="utf-8") if log.exists() else ""
    return [(name, int(steps), int(seed)) for name, steps, seed in map(str.split, content.splitlines())]


def pictures(folder):
    return sorted(path for path in folder.glob("sdxl-sample_*.png"))


def assert_whole(folder, cells):
    """Each cell has one line and one readable picture, which is its own."""
    files = [line["file"] for line in lines_of(folder)]
    assert len(files) == len(set(files)) == cells
    assert [path.name for path in pictures(folder)] == sorted(files)
    for line in lines_of(folder):
        with Image.open(folder / line["file"]) as picture:
            picture.load()
            assert picture.getpixel((0, 0))[0] == line["seed"] and picture.text["seed"] == str(line["seed"])


def interrupting(times, at=3):
    """load() of a renderer that sends SIGINT to this process in its at-th picture."""
    calls = []

    def render(cell):
        calls.append(cell)
        for _ in range(times if len(calls) == at else 0):
            os.kill(os.getpid(), signal.SIGINT)
        return trivial_grid.render(cell)

    return lambda *_: render


def is_locked(folder):
    """Whether another process would have to wait."""
    lock = FileLock(folder.path / f".{folder.family}-folder.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    lock.release()
    return False
