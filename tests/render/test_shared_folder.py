"""Launches that share a folder: each cell once, whoever dies, of whom nothing stays. On a trivial renderer."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trivial_grid
from grid_folders import SCRIPT, SEEDS, assert_whole, finished, is_locked, lines_of, logged, start

from k_diffusing.render.engine import run
from k_diffusing.render.folder import RunFolder
from k_diffusing.render.work import Work

# The trivial script; in its third picture, when half of that is on the disk, it says so and waits.
STUCK = """
import sys
sys.path.insert(0, {tests!r})
import trivial_grid
from k_diffusing.render.folder import RunFolder
record, recorded = RunFolder.record, []
def waiting(folder, file, picture, line):
    recorded.append(file)
    if len(recorded) == 3:
        folder.part(file).write_bytes(picture[: len(picture) // 2])
        print("waiting", flush=True)
        sys.stdin.read()
    record(folder, file, picture, line)
RunFolder.record = waiting
sys.exit(trivial_grid.main(sys.argv[1:]))
"""


def spawn(*argv, **environment):
    """The trivial script, not waited for."""
    environment = os.environ | {name: str(value) for name, value in environment.items()}
    command = [sys.executable, str(SCRIPT), *argv]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def stuck(tmp_path):
    """A launch of 20 cells, 2 of them finished, that holds a third."""
    command = [
        sys.executable,
        "-c",
        STUCK.format(tests=str(Path(trivial_grid.__file__).parent)),
        "--output",
        str(tmp_path),
        *SEEDS,
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert any(line == "waiting\n" for line in process.stdout)
        yield process
        process.kill()


def hidden(folder):
    return [path.name for path in folder.glob(".*")]


def meanwhile(what, at=2):
    """load() of a renderer that does something else first, at its at-th picture."""
    calls = []

    def render(cell):
        calls.append(cell)
        if len(calls) == at:
            what(cell)
        return trivial_grid.render(cell)

    return lambda *_: render


def test_four_launches_render_each_cell_once(tmp_path):
    folder, logs = tmp_path / "grid", [tmp_path / str(i) for i in range(4)]
    sizes = ["1", "2", "3", "1"]
    argv = ["--output", str(folder), *SEEDS]
    launches = [spawn(*argv, "--batch-size", size, LOG=log) for size, log in zip(sizes, logs, strict=True)]
    told = [launch.communicate() for launch in launches]
    assert [launch.returncode for launch in launches] == [0] * 4, told
    cells = [cell for log in logs for cell in logged(log)]
    assert len(cells) == len(set(cells)) == 20
    assert any("all of them" in out for out, _ in told) and not any(err for _, err in told)
    assert_whole(folder, 20)
    assert not hidden(folder)


def test_launches_killed_at_random_lines(tmp_path):
    """Of three at a time, until one round ends well. Nobody renders what is finished, or what a living one holds."""
    folder, rng, kills = tmp_path / "grid", random.Random(1), 0
    for attempt in range(40):
        before, logs = finished(folder), [tmp_path / f"{attempt}-{i}" for i in range(3)]
        moments = [rng.randrange(1, 600) if rng.random() < 0.3 else f"loaded:{rng.randrange(1, 700)}" for _ in logs]
        argv = ["--output", str(folder), *SEEDS]
        launches = [spawn(*argv, LOG=log, KILL_AT=at) for log, at in zip(logs, moments, strict=True)]
        told = [launch.communicate() for launch in launches]
        killed = [launch.returncode == -signal.SIGKILL for launch in launches]
        kills += sum(killed)
        assert all(died or launch.returncode == 0 for died, launch in zip(killed, launches, strict=True)), told
        rendered = [logged(log) for log in logs]
        assert not before & {cell for cells in rendered for cell in cells}, "a finished cell was rendered again"
        assert finished(folder) >= before, "a finished cell was lost"
        living = [cell for cells, died in zip(rendered, killed, strict=True) if not died for cell in cells]
        assert len(living) == len(set(living)), "two living processes rendered one cell"
        if len(finished(folder)) == 20 and not any(killed):
            break
    assert kills > 10 and attempt < 39, (kills, attempt)
    assert_whole(folder, 20)
    assert start("--output", str(folder), *SEEDS).returncode == 0
    assert not hidden(folder)


def test_what_a_kill_leaves_of_the_claims_is_cleaned_up(tmp_path, monkeypatch):
    """Of a process that is killed while it writes them."""
    folder = RunFolder(tmp_path, "sdxl")
    with monkeypatch.context() as killed:
        killed.setattr(os, "replace", lambda *_: sys.exit())
        killed.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(SystemExit):
            folder.claims.write({"0123abcd": []})
    assert len(hidden(tmp_path)) == 1
    assert folder.settle() and not hidden(tmp_path)


def test_claims_of_a_living_process_are_left_to_it(tmp_path, capsys, stuck):
    assert trivial_grid.main(["--output", str(tmp_path), *SEEDS]) == 0
    out = capsys.readouterr().out
    assert out.count(" evaluations ") == 17 and len(lines_of(tmp_path)) == 19
    assert "still at work" in out and "(1), on pictures (1)" in out and "all of them" not in out
    assert not (tmp_path / "index.html").exists()
    rest, _ = stuck.communicate("")
    assert stuck.returncode == 0 and "all of them" in rest and " evaluations " in rest
    assert_whole(tmp_path, 20)
    assert (tmp_path / "index.html").exists() and not hidden(tmp_path)


def test_claims_of_a_killed_process_are_free_for_those_at_work(tmp_path, capsys, stuck):
    def kill(_):
        stuck.kill()
        stuck.wait()

    assert trivial_grid.main(["--output", str(tmp_path), *SEEDS], load=meanwhile(kill)) == 0
    out = capsys.readouterr().out
    assert out.count(" evaluations ") == 18 and "all of them" in out
    assert_whole(tmp_path, 20)
    assert not hidden(tmp_path)


def test_a_dead_process_leaves_no_file(tmp_path, stuck):
    stuck.kill()
    stuck.wait()
    assert any(".part" in name for name in hidden(tmp_path)) and any(".lock" in name for name in hidden(tmp_path))
    assert trivial_grid.main(["--output", str(tmp_path), *SEEDS]) == 0
    assert_whole(tmp_path, 20)
    assert not hidden(tmp_path)


def test_no_two_pictures_are_written_under_one_name(tmp_path):
    folder = RunFolder(tmp_path, "sdxl")
    assert len({folder.part("sdxl-a.png") for _ in range(100)}) == 100


@pytest.mark.parametrize("steps, code", [("4", 0), ("5", 2)])
def test_another_launch_begins_first(tmp_path, capsys, steps, code):
    """Between the look at the folder and its manifest, that is."""

    def check(args):
        argv = ["--output", str(tmp_path), "--seeds", "0", "1", "--steps", steps]
        assert start(*argv).returncode == 0
        return trivial_grid.check(args)

    assert trivial_grid.main(["--output", str(tmp_path), "--seeds", "0", "1"], check=check) == code
    told = capsys.readouterr()
    assert "nothing left to do: 8" in told.out if code == 0 else f"steps: {steps} there, 4 here" in told.err
    assert_whole(tmp_path, 8)
    assert {line["steps"] for line in lines_of(tmp_path)} == {int(steps)} and not hidden(tmp_path)


def test_who_joins_too_late_does_not_report_again(tmp_path, capsys, monkeypatch):
    """Another launch does all of the work, and ends, after the look at the folder and before this one joins."""
    argv, join, told = ["--output", str(tmp_path), *SEEDS], RunFolder.join, []

    def late(folder):
        told.append(start(*argv).stdout)
        return join(folder)

    monkeypatch.setattr(RunFolder, "join", late)
    refuse = lambda *_: pytest.fail("something was loaded")  # noqa: E731
    assert trivial_grid.main(argv, load=refuse) == 0
    told.append(capsys.readouterr().out)
    assert ["all of them" in out for out in told] == [True, False] and told[1].startswith("nothing left to do: 20")
    assert_whole(tmp_path, 20)
    assert not hidden(tmp_path)


def test_who_joins_too_late_reports_what_a_killed_one_did_not(tmp_path, capsys, monkeypatch):
    argv, join = ["--output", str(tmp_path), *SEEDS], RunFolder.join

    def late(folder):
        assert start(*argv).returncode == 0
        (tmp_path / "index.html").unlink()
        return join(folder)

    monkeypatch.setattr(RunFolder, "join", late)
    assert trivial_grid.main(argv) == 0
    assert "all of them" in capsys.readouterr().out and (tmp_path / "index.html").exists()


def test_nobody_joins_while_the_last_one_reports(tmp_path):
    """Or the one that joins is the last, too."""
    folder, locked = RunFolder(tmp_path, "sdxl"), []
    folder.begin({})
    first, second = folder.join()[1], folder.join()[1]
    first.leave(last=lambda: pytest.fail("another one is at work"))
    second.leave(last=lambda: locked.append(is_locked(folder)))
    assert locked == [True] and not is_locked(folder)


# The trivial script, killed as the page is to get its name.
KILLED_AT_THE_PAGE = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import trivial_grid
replace = os.replace
def killing(part, path):
    if os.path.basename(path) == "index.html":
        os.kill(os.getpid(), signal.SIGKILL)
    replace(part, path)
os.replace = killing
trivial_grid.main(sys.argv[1:])
"""


def test_half_a_page_is_cleaned_away(tmp_path):
    script = KILLED_AT_THE_PAGE.format(tests=str(Path(trivial_grid.__file__).parent))
    argv = ["--output", str(tmp_path), *SEEDS]
    done = subprocess.run([sys.executable, "-c", script, *argv], capture_output=True, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert any("index.html" in name for name in hidden(tmp_path)) and not (tmp_path / "index.html").exists()
    assert trivial_grid.main(argv) == 0
    assert not hidden(tmp_path) and (tmp_path / "index.html").exists()


def test_what_failed_is_not_tried_by_the_others(tmp_path, capsys):
    """As long as one is at work; the next run tries it."""
    argv, log = ["--output", str(tmp_path / "grid"), "--samplers", "euler", *SEEDS], tmp_path / "log"

    def others(_):
        assert start(*argv, LOG=log).returncode == 0

    def render(cell):
        if cell.seed == 0:
            raise FloatingPointError("nan")
        return beside(cell)

    beside = meanwhile(others, at=1)()
    assert trivial_grid.main(argv, load=lambda *_: render) == 1
    assert [seed for _, _, seed in logged(log)] == [2, 3, 4]
    assert len(lines_of(tmp_path / "grid")) == 4 and not hidden(tmp_path / "grid")
    assert start(*argv, LOG=log).returncode == 0
    assert [seed for _, _, seed in logged(log)] == [2, 3, 4, 0]
    assert_whole(tmp_path / "grid", 5)


def test_a_process_of_a_launch_leaves_cells_to_the_others(tmp_path, monkeypatch):
    """However many fit into a call of the network: they begin together, and who is first would have all."""
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "0")
    most = []

    def load(args):
        return lambda cells, at_once: most.append(at_once) or trivial_grid.one_by_one(args)(cells, at_once)

    work = Work("sdxl", "trivial_grid.py", trivial_grid.check, load)
    assert run(work, trivial_grid.arguments(["--output", str(tmp_path)]), lambda *_, **__: None) == 0
    assert most == [2]  # of 4
    assert_whole(tmp_path, 4)


def test_two_families_share_a_folder(tmp_path):
    """Each has its own claims: the last of one family writes its sheets beside the other at work."""

    def other(_):
        work = Work("flux-dev", "trivial_grid.py", trivial_grid.check, trivial_grid.one_by_one)
        args = trivial_grid.arguments(["--output", str(tmp_path)])
        assert run(work, args, lambda *_, **__: None) == 0
        assert (tmp_path / "flux-dev-samplers.png").exists()

    assert trivial_grid.main(["--output", str(tmp_path)], load=meanwhile(other)) == 0
    assert_whole(tmp_path, 4)
    assert not hidden(tmp_path)
