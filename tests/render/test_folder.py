"""Run folders: resuming after kills at any line, Ctrl-C, full disks; refusing another grid. On a trivial renderer."""

import contextlib
import importlib.metadata
import json
import random
import re
import resource
import signal
import sys
import threading

import pytest
import trivial_grid
from grid_folders import SEEDS, assert_whole, finished, interrupting, is_locked, lines_of, logged, pictures, start
from PIL import Image

from k_diffusing._files import png
from k_diffusing.render import engine as grid_run
from k_diffusing.render import manifest
from k_diffusing.render import options as grid_options
from k_diffusing.render import report as grid_report
from k_diffusing.render.claims import Claims
from k_diffusing.render.folder import RunFolder
from k_diffusing.render.manifest import PACKAGES, compared, differences, digest, versions
from k_diffusing.render.weights import fingerprint, model_identity
from k_diffusing.render.words import shown
from k_diffusing.render.work import Work

PICTURE = png(Image.new("RGB", (1, 1)), {})


def test_killed_at_random_lines(tmp_path):
    """More than 20 SIGKILLs, in the preparations, among the cells and in the report; whatever was finished when one
    fell is never rendered again."""
    folder, log, rng, progress = tmp_path / "grid", tmp_path / "log", random.Random(0), [0]
    for attempt in range(100):
        before, rendered = finished(folder), len(logged(log))
        moment = rng.randrange(1, 600) if attempt % 2 else f"loaded:{rng.randrange(1, 700)}"
        done = start("--output", str(folder), *SEEDS, LOG=log, KILL_AT=moment)
        assert not before & set(logged(log)[rendered:]), "a finished cell was rendered again"
        assert finished(folder) >= before, "a finished cell was lost"
        progress.append(len(finished(folder)))
        if done.returncode != -signal.SIGKILL:
            break
    assert done.returncode == 0, done.stderr
    assert attempt > 20 and len(set(progress)) > 8 and progress[-1] == 20, progress
    assert_whole(folder, 20)
    assert (folder / "index.html").exists() and not list(folder.glob(".sdxl-sample_*"))


def cell_moments():
    """After each write of a cell: what is on disk, and whether the cell is finished."""
    return {"picture": (False, "part"), "torn": (False, "part"), "line": (True, "part"), "all": (True, "file")}


@pytest.mark.parametrize("moment", cell_moments())
def test_each_moment_of_recording(tmp_path, moment):
    done, where = cell_moments()[moment]
    folder = RunFolder(tmp_path, "sdxl")
    folder.begin({})
    line = json.dumps({"file": "sdxl-a.png", "seed": 1})
    path = folder.part("sdxl-a.png") if where == "part" else tmp_path / "sdxl-a.png"
    path.write_bytes(PICTURE)
    results = {"picture": "", "torn": line[:-5], "line": line + "\n", "all": line + "\n"}
    folder.results_path.write_text(results[moment])
    assert ("sdxl-a.png" in folder.finished()) == done
    folder.begin({})
    assert (tmp_path / "sdxl-a.png").exists() == done and ("sdxl-a.png" in folder.finished()) == done
    folder.record("sdxl-b.png", PICTURE, {"seed": 2})
    assert set(folder.finished()) == {"sdxl-b.png"} | ({"sdxl-a.png"} if done else set())
    assert folder.results_path.read_bytes().count(b"\n") == len(folder.finished())


def test_line_torn_by_another_process_is_cut_off(tmp_path):
    folder = RunFolder(tmp_path, "sdxl")
    folder.begin({})
    folder.record("sdxl-a.png", PICTURE, {})
    with folder.results_path.open("a") as results:
        results.write('{"file": "sdxl-b')
    folder.record("sdxl-c.png", PICTURE, {})
    assert folder.finished().keys() == {"sdxl-a.png", "sdxl-c.png"}
    assert all(json.loads(line) for line in folder.results_path.read_text(encoding="utf-8").splitlines())


@contextlib.contextmanager
def largest_file(size):
    """No file of this process may grow beyond so many bytes, as on a full disk: of what is written, a part is."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_part_of_a_line_is_taken_back_at_once(tmp_path):
    """Another program may read the results before the next line is written."""
    folder = RunFolder(tmp_path, "sdxl")
    folder.begin({})
    for name in "abcdef":
        folder.record(f"sdxl-{name}.png", PICTURE, {"seed": 1})
    before = folder.results_path.read_bytes()
    assert len(before) > len(PICTURE)
    with largest_file(len(before) + 10), pytest.raises(OSError, match="only part of a line|too large"):
        folder.record("sdxl-g.png", PICTURE, {"seed": 2})
    assert folder.results_path.read_bytes() == before and "sdxl-g.png" not in folder.finished()
    folder.record("sdxl-g.png", PICTURE, {"seed": 2})
    assert len(folder.finished()) == 7


def test_a_line_torn_by_another_process_is_cut_off_and_whole_ones_are_not(tmp_path):
    folder = RunFolder(tmp_path, "sdxl")
    folder.begin({})
    for name in "abc":
        folder.record(f"sdxl-{name}.png", PICTURE, {})
    with folder.results_path.open("ab") as results:
        results.write(b'{"file": "sdxl-d')
    folder.record("sdxl-e.png", PICTURE, {})
    assert [line["file"] for line in lines_of(tmp_path)] == [f"sdxl-{name}.png" for name in "abce"]


def test_news_come_in_whole_lines(tmp_path):
    folder = RunFolder(tmp_path, "sdxl")
    folder.begin({})
    _, share = folder.join()
    for part, news in ((b'{"file": "sdxl-a.png"}\n{"fi', ["sdxl-a.png"]), (b'le": "sdxl-b.png"}\n', ["sdxl-b.png"])):
        with folder.results_path.open("ab") as results:
            results.write(part)
        assert share.news() == news
    share.leave()


def test_lines_and_pictures_that_are_none_do_not_count(tmp_path):
    folder = RunFolder(tmp_path, "sdxl")
    folder.begin({})
    folder.record("sdxl-a.png", PICTURE, {})
    folder.record("sdxl-b.png", b"PNG", {})
    with folder.results_path.open("a") as results:
        results.write('3\n"text"\n[]\n{"seed": 1}\n{"file": 3}\n{"file": "sdxl-c.png"}\n')
    assert set(folder.finished()) == {"sdxl-a.png"}
    folder.begin({})
    assert [line["file"] for line in lines_of(tmp_path)] == ["sdxl-a.png"]
    folder.results_path.unlink()
    folder.begin({})
    assert folder.results_path.read_bytes() == b""


def test_files_are_for_people_too(tmp_path):
    folder = RunFolder(tmp_path, "sdxl")
    assert folder.begin({"prompt": "é"}) == {"prompt": "é"} == folder.begin({"prompt": "e"})
    assert folder.manifest_path.read_text(encoding="utf-8") == '{\n "prompt": "é"\n}'
    folder.record("sdxl-a.png", PICTURE, {"prompt": "é"})
    assert folder.results_path.read_text(encoding="utf-8") == '{"file": "sdxl-a.png", "prompt": "é"}\n'


def test_a_new_manifest_has_no_lines_of_an_old_one(tmp_path):
    folder = RunFolder(tmp_path, "sdxl")
    folder.results_path.write_text('{"file": "sdxl-a.png"}\n')
    (tmp_path / "sdxl-a.png").write_bytes(PICTURE)
    folder.begin({})
    assert folder.results_path.read_bytes() == b"" and folder.finished() == {}


def test_nothing_is_put_right_while_a_process_is_at_work(tmp_path):
    folder = RunFolder(tmp_path, "sdxl")
    folder.begin({})
    _, share = folder.join()
    part = folder.part("sdxl-a.png")
    part.write_bytes(PICTURE[:10])
    with folder.claims.locked():
        assert not folder.settle() and part.exists() and folder.unsettled()
    share.leave()
    with folder.claims.locked():
        assert folder.settle() and not part.exists()


def test_a_picture_is_under_a_name_of_its_own_until_its_line_is_written(tmp_path, monkeypatch):
    folder, seen = RunFolder(tmp_path, "sdxl"), []
    folder.begin({})
    monkeypatch.setattr(RunFolder, "_append", lambda *_: seen.extend(path.name for path in tmp_path.glob(".*.part")))
    folder.record("sdxl-a.png", PICTURE, {})
    assert len(seen) == 1 and seen[0].startswith(".sdxl-a.png.") and (tmp_path / "sdxl-a.png").exists()


def test_what_is_read_and_then_written_is_locked(tmp_path, monkeypatch):
    seen = {}

    def watch(owner, name):
        method = getattr(owner, name)

        def watched(self, *args):
            seen[name] = is_locked(folder)
            return method(self, *args)

        monkeypatch.setattr(owner, name, watched)

    folder = RunFolder(tmp_path, "sdxl")
    watch(RunFolder, "_append")
    watch(RunFolder, "_repair")
    watch(RunFolder, "write_manifest")
    watch(Claims, "write")
    folder.begin({})
    finished, share = folder.join()
    assert finished == {} and seen.pop("write")

    def choose(taken):
        seen["choose"] = is_locked(folder)
        return ["sdxl-a.png"]

    assert share.claim(choose) == ["sdxl-a.png"] and seen.pop("write")
    folder.record("sdxl-a.png", PICTURE, {})
    share.leave()
    assert seen == dict.fromkeys(("write_manifest", "_repair", "choose", "_append", "write"), True)
    assert not is_locked(folder) and share.finished == {"sdxl-a.png"}


def test_a_lock_whose_file_was_removed_is_no_lock(tmp_path):
    """The last process removes it, maybe while another waits for it; a third must wait for that one."""
    folder, entered, leave, held = RunFolder(tmp_path, "sdxl"), threading.Event(), threading.Event(), []

    def second():
        with folder.claims.locked():
            entered.set()
            leave.wait(60)

    thread = threading.Thread(target=second)
    with folder.claims.locked():
        thread.start()
        held.append(is_locked(folder))
    assert entered.wait(60)
    held.append(is_locked(folder))
    leave.set()
    thread.join()
    assert held == [True, True] and not is_locked(folder)


def test_picture_gets_its_name_after_its_line(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path, "sdxl")
    folder.begin({})
    (tmp_path / "sdxl-a.png").write_bytes(b"older")
    monkeypatch.setattr(RunFolder, "_append", lambda *_: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(OSError, match="no space"):
        folder.record("sdxl-a.png", b"newer", {})
    assert (tmp_path / "sdxl-a.png").read_bytes() == b"older"


def test_lost_picture_is_rendered_again_and_its_line_dropped(tmp_path, capsys):
    argv = ["--output", str(tmp_path), "--seeds", "0", "1"]
    assert trivial_grid.main(argv) == 0
    pictures(tmp_path)[3].unlink()
    with (tmp_path / "sdxl-results.jsonl").open("a") as results:
        results.write('{"file": "sdxl-sample_eu')
    capsys.readouterr()
    assert trivial_grid.main(argv) == 0
    assert len([line for line in capsys.readouterr().out.splitlines() if "evaluations" in line]) == 1
    assert_whole(tmp_path, 8)


def test_nothing_left_to_do(tmp_path, capsys):
    argv = ["--output", str(tmp_path), "--seeds", "0", "1"]
    assert trivial_grid.main(argv) == 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    capsys.readouterr()
    refuse = lambda *_: pytest.fail("something was looked up or loaded")  # noqa: E731
    assert trivial_grid.main(argv, check=refuse, load=refuse) == 0
    assert capsys.readouterr().out.startswith(f"nothing left to do: 8 pictures in {tmp_path}, ")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    (tmp_path / "index.html").unlink()
    assert trivial_grid.main(argv, check=refuse, load=refuse) == 0 and (tmp_path / "index.html").exists()


CHANGED = {
    "steps": (["--steps", "5"], "steps: 4 there, 5 here"),
    "more seeds": (["--seeds", "0", "1", "2"], "seeds: 0, 1 there, 0, 1, 2 here"),
    "samplers": (["--samplers", "euler"], "samplers: all there, euler here"),
    "setting": (["--noise", "cpu"], "noise: torch there, cpu here"),
}


@pytest.mark.parametrize("change", CHANGED)
def test_another_grid_is_refused(tmp_path, capsys, change):
    argv, line = CHANGED[change]
    fixed = ["--output", str(tmp_path), "--seeds", "0", "1"]
    assert trivial_grid.main(fixed) == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    capsys.readouterr()
    assert trivial_grid.main([*fixed, *argv]) == 2
    error = capsys.readouterr().err.splitlines()
    assert error[0] == f"error: --output {tmp_path} holds another grid: give another folder"
    assert error[1:] == [f"  {line}"]
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_other_versions_or_weights_are_refused(tmp_path, capsys, monkeypatch):
    argv = ["--output", str(tmp_path)]
    assert trivial_grid.main(argv) == 0
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "9.9")
    assert trivial_grid.main(argv) == 2
    assert "torch: " in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setattr(
        "k_diffusing.render.manifest.model_identity", lambda model: model_identity(model) | {"fingerprint": "f00"}
    )
    assert trivial_grid.main(argv) == 2
    assert "here" in capsys.readouterr().err.splitlines()[1]


def test_without_output_another_grid_gets_its_own_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert trivial_grid.main([]) == 0
    for _ in range(2):  # the second time there is nothing left to do there
        capsys.readouterr()
        assert trivial_grid.main(["--steps", "5"]) == 0
        [other] = (path for path in (tmp_path / "output").iterdir() if path.is_dir())
        told = capsys.readouterr().out.splitlines()
        assert told[0] == f"output holds another grid (steps: 4 there, 5 here): this one goes to output/{other.name}"
    assert "nothing left to do: 4 pictures" in told[1]
    assert_whole(other, 4)
    assert_whole(tmp_path / "output", 4)


@pytest.mark.parametrize("limit", [950, 1200, 1300, 1600, 2000])
def test_full_disk(tmp_path, limit):
    """No file may grow beyond the limit, which falls in the middle of a line of the results."""
    log, tried = tmp_path / "log", tmp_path / "tried"
    done = start("--output", str(tmp_path / "grid"), *SEEDS, FILE_LIMIT=limit, LOG=tried)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert "cannot be written" in line and "intact" in line and "the same command goes on" in line
    assert len(lines_of(tmp_path / "grid")) < 8
    before = finished(tmp_path / "grid")
    assert len(logged(tried)) == len(before) + 1  # it stopped at once
    assert start("--output", str(tmp_path / "grid"), *SEEDS, LOG=log).returncode == 0
    assert not before & set(logged(log)) and len(logged(log)) == 20 - len(before)
    assert_whole(tmp_path / "grid", 20)


@pytest.fixture
def sigint():
    """Python's handler, also where this process was started with SIGINT ignored, as under nohup."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_finishes_the_picture_at_work(tmp_path, capsys, sigint):
    handler = signal.getsignal(signal.SIGINT)
    assert trivial_grid.main(["--output", str(tmp_path), *SEEDS], load=interrupting(1)) == 130
    assert signal.getsignal(signal.SIGINT) is handler
    assert len(lines_of(tmp_path)) == 3
    assert (tmp_path / "index.html").exists() and list(tmp_path.glob("sdxl-samplers*.png"))
    assert "the same command goes on" in capsys.readouterr().err
    assert trivial_grid.main(["--output", str(tmp_path), *SEEDS]) == 0
    assert_whole(tmp_path, 20)


def test_a_second_ctrl_c_stops_at_once(tmp_path, sigint):
    assert trivial_grid.main(["--output", str(tmp_path), *SEEDS], load=interrupting(2)) == 130
    assert len(lines_of(tmp_path)) == 2 and not (tmp_path / "index.html").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_in_another_thread_no_handler_is_set(tmp_path):
    codes = []
    thread = threading.Thread(target=lambda: codes.append(trivial_grid.main(["--output", str(tmp_path)])))
    thread.start()
    thread.join()
    assert codes == [0]


def test_one_of_a_batch_that_fails(tmp_path, capsys):
    def render(cell):
        if cell.seed == 3:
            raise FloatingPointError("nan")
        return trivial_grid.render(cell)

    argv = ["--output", str(tmp_path), *SEEDS, "--samplers", "euler", "--batch-size", "5"]
    assert trivial_grid.main(argv, load=lambda *_: render) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.split()[:3] == ["sample_euler-seed3", "failed:", "FloatingPointError:"]
    assert trivial_grid.main(argv) == 0
    assert_whole(tmp_path, 5)
    assert {line["seconds"] for line in lines_of(tmp_path)} == {0.5}


def test_prompts_from_a_file(tmp_path, capsys):
    (tmp_path / "prompts").write_text("a red circle\n\n -- ein Kreis \n")
    argv = ["--output", str(tmp_path / "o"), "--prompt-file", str(tmp_path / "prompts"), "--samplers", "euler"]
    assert trivial_grid.main(argv) == 0
    assert [line["prompt"] for line in lines_of(tmp_path / "o")] == ["a red circle", "-- ein Kreis"]
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(SystemExit, match="2"):
            trivial_grid.main(["--prompt-file", str(path)])
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("prompt", ["a 'quoted' $PATH", "-x starts with a dash", "two\nlines"])
def test_command_of_a_cell_renders_it_again(tmp_path, prompt, monkeypatch):
    import shlex

    told = []
    monkeypatch.setattr("k_diffusing.render.page.grid_page", lambda title, cells: told.append(list(cells)) or "page")
    argv = ["--output", str(tmp_path / "a"), f"--prompt={prompt}", "--eta", "0.5", "1", "--steps", "3", "4"]
    assert trivial_grid.main([*argv, "--noise", "cpu", "--guidance-scale", "2", "3.5"]) == 0
    cell = next(cell for cell in told[0] if cell["axes"]["eta"] == 0.5 and cell["axes"]["guidance"] == 3.5)
    assert {"file", "picture", "axes", "settings", "result", "command"} == cell.keys()
    assert len({tuple(one["axes"]) for one in told[0]}) == 1
    words = shlex.split(cell["command"])
    assert words[:2] == ["python", "trivial_grid.py"] and ["--noise", "cpu"] == words[2:4]
    assert trivial_grid.main([*words[2:], "--output", str(tmp_path / "b")]) == 0
    [again], axes = lines_of(tmp_path / "b"), cell["axes"]
    assert [again[name] for name in ("sampler", "steps", "prompt", "guidance_scale", "eta")] == [
        axes[name] for name in ("sampler", "steps", "prompt", "guidance", "eta")
    ]


def page_data(folder):
    text = (folder / "index.html").read_text(encoding="utf-8")
    return json.loads(re.search(r'id="data">(.*?)</script>', text)[1])


def test_page_has_the_evaluations_that_were_asked_for(tmp_path):
    """As the sheet has them: heun's 9 evaluations stand with euler's 10."""
    argv = ["--samplers", "euler", "heun", "--evaluations", "5", "10", "--seeds", "0", "1", "--output", str(tmp_path)]
    assert trivial_grid.main(argv) == 0
    page = page_data(tmp_path)
    assert {axis["name"]: axis["values"] for axis in page["axes"]} == {
        "sampler": ["euler", "heun"], "evaluations up to": ["5", "10"], "seed": ["0", "1"],
    }  # fmt: skip
    assert (page["rows"], page["columns"]) == ("sampler", "evaluations up to")
    steps = [(*cell["at"][:2], dict(cell["settings"])["steps"]) for cell in page["cells"]]
    assert sorted(set(steps)) == [(-1, -1, "200"), (0, 0, "5"), (0, 1, "10"), (1, 0, "3"), (1, 1, "5")]
    reference = next(cell for cell in page["cells"] if -1 in cell["at"])
    assert reference["label"] == "converged, seed 0" and dict(reference["settings"])["sampler"] == "dpmpp_2m"


def test_page_has_samplers_and_prompts_in_the_order_that_was_asked_for(tmp_path):
    """Whatever was finished first."""
    argv = ["--samplers", "heun", "dpmpp_2m", "euler", "--prompt", "b", "c", "a", "--output", str(tmp_path)]
    assert trivial_grid.main(argv) == 0
    results = tmp_path / "sdxl-results.jsonl"
    results.write_text(
        "".join(sorted(results.read_text(encoding="utf-8").splitlines(True), key=lambda line: line[::-1]))
    )
    (tmp_path / "index.html").unlink()
    assert trivial_grid.main(argv) == 0
    assert [axis["values"] for axis in page_data(tmp_path)["axes"]] == [["euler", "heun", "dpmpp_2m"], ["b", "c", "a"]]


def test_page_has_references_beside_steps(tmp_path):
    assert trivial_grid.main(["--samplers", "euler", "heun", "--steps", "3", "4", "--output", str(tmp_path)]) == 0
    page = page_data(tmp_path)
    assert {axis["name"]: axis["values"] for axis in page["axes"]} == {
        "sampler": ["euler", "heun"],
        "steps": ["3", "4"],
    }
    assert [cell["at"] for cell in page["cells"] if cell["label"] == "converged"] == [[-1, -1]]


def test_page_has_all_families(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr("k_diffusing.render.page.grid_page", lambda title, cells: told.append(list(cells)) or "page")
    assert trivial_grid.main(["--output", str(tmp_path)]) == 0
    work = Work("flux-dev", "trivial_grid.py", trivial_grid.check, trivial_grid.one_by_one)
    args = trivial_grid.arguments(["--output", str(tmp_path)])
    assert grid_run.run(work, args, lambda *_, **__: None) == 0
    (tmp_path / "other-manifest.json").write_text("{}")  # not one of ours
    args = trivial_grid.arguments(["--output", str(tmp_path)])
    (tmp_path / "index.html").unlink()
    assert grid_run.run(work, args, lambda *_, **__: None) == 0
    assert [len(cells) for cells in told] == [4, 8, 8]
    assert (tmp_path / "index.html").read_text(encoding="utf-8") == "page"


def test_fingerprint(tmp_path):
    big = tmp_path / "model" / "unet" / "big.safetensors"
    big.parent.mkdir(parents=True)
    big.write_bytes(b"\0" * (3 * 2**20))
    first = fingerprint(tmp_path / "model")
    assert first == fingerprint(tmp_path / "model") != fingerprint(big)
    content = bytearray(3 * 2**20)
    for place, seen in ((0, True), (2**20 - 1, True), (2**20, False), (2 * 2**20, True), (3 * 2**20 - 1, True)):
        changed = content.copy()
        changed[place] = 1
        big.write_bytes(changed)
        assert (fingerprint(tmp_path / "model") != first) == seen
    big.write_bytes(content)
    assert fingerprint(tmp_path / "model") == first
    (tmp_path / "model" / ".cache").mkdir()
    for hidden in (".hidden", ".cache/file"):  # sorted before the others
        (tmp_path / "model" / hidden).write_text("{}")
    assert fingerprint(tmp_path / "model") == first
    for name in (big, big.with_name("other.safetensors")):  # of a single file: its name, and what is in it
        name.write_bytes(content)
    assert fingerprint(big) != fingerprint(big.with_name("other.safetensors"))
    big.with_name("other.safetensors").unlink()
    alone = fingerprint(big)
    big.write_bytes(content[:-1])
    assert fingerprint(big) != alone
    big.write_bytes(content)
    (tmp_path / "model" / "more.json").write_text("{}")
    assert fingerprint(tmp_path / "model") != first


def test_hub_model_is_known_by_its_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert model_identity("owner/name") == {"name": "owner/name", "revision": None, "fingerprint": None}
    refs = tmp_path / "models--owner--name" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text("abc123")
    known = {"name": "owner/name", "revision": "abc123", "fingerprint": "abc123"}
    assert model_identity("owner/name") == known
    there = {"model": model_identity("./nowhere"), "axes": {}}
    assert compared(there | {"model": known | {"revision": None, "fingerprint": None}}, {"model": known}) == []
    assert compared({"model": known}, {"model": known | {"fingerprint": "def"}}) != []


CACHES = {  # huggingface_hub's rules: which variables are set to a folder, and where in it the hub's cache is
    "HF_HUB_CACHE": ".",
    "HF_HOME": "hub",
    "XDG_CACHE_HOME": "huggingface/hub",
    "HOME": ".cache/huggingface/hub",
}


@pytest.mark.parametrize("variable", CACHES)
def test_where_a_hub_model_is_cached(tmp_path, monkeypatch, variable):
    """Those that come first in the rules are before those that come later."""
    names = list(CACHES)
    for name in names[: names.index(variable)]:
        monkeypatch.delenv(name, raising=False)
    for name in names[names.index(variable) + 1 :]:
        monkeypatch.setenv(name, str(tmp_path / "elsewhere"))
    monkeypatch.setenv(variable, str(tmp_path))
    refs = tmp_path / CACHES[variable] / "models--owner--name" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text("abc123\n")
    assert model_identity("owner/name")["revision"] == "abc123"


def test_versions_of_what_is_there(monkeypatch):
    found = versions()
    assert list(found) == [*PACKAGES, "python"] and found["torch"] == importlib.metadata.version("torch")
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    monkeypatch.setattr(manifest, "PACKAGES", ("no-such-package",))
    assert versions()["no-such-package"] is None


def test_digest_tells_grids_apart_and_not_orders():
    one = digest({"steps": 4, "seeds": [0, 1]})
    assert re.fullmatch("[0-9a-f]{8}", one) and one == digest({"seeds": [0, 1], "steps": 4})
    assert one not in (digest({"steps": 5, "seeds": [0, 1]}), digest({"steps": 4, "seeds": [1, 0]}))


SHOWN = [
    (None, "none"),
    (["a", 1, None], "a, 1, None"),
    ((1, 2), "1, 2"),
    (" two\n  lines ", "two lines"),
    ("a" * 60, "a" * 60),
    ("a" * 61, "a" * 57 + "..."),
]


@pytest.mark.parametrize("value, text", SHOWN)
def test_a_setting_in_one_short_line(value, text):
    assert shown(value) == text


def test_differences():
    there = {"a": {"x": 1, "y": [1, 2]}, "b": None}
    assert differences(there, there) == []
    assert differences(there, {"a": {"x": 2, "z": "new"}, "b": None}) == [
        "x: 1 there, 2 here",
        "y: 1, 2 there, none here",
        "z: none there, new here",
    ]
    assert differences({"sigma_grid": {"x": 1}}, {"sigma_grid": None}) == ["sigma grid: {'x': 1} there, none here"]


def test_a_report_leaves_out_a_picture_that_has_no_name_yet(tmp_path):
    """Another process writes a cell's line before it gives the picture its name."""
    assert trivial_grid.main(["--seeds", "0", "1", "--output", str(tmp_path)]) == 0
    folder = RunFolder(tmp_path, "sdxl")
    file = next(iter(folder.finished()))
    (tmp_path / file).rename(folder.part(file))
    assert file in folder.finished() and file not in folder.pictures()
    cells = list(grid_report.page_cells(folder))
    assert file not in {cell["file"] for cell in cells} and len(cells) == len(folder.finished()) - 1
    args = trivial_grid.arguments(["--seeds", "0", "1", "--output", str(tmp_path)])
    assert grid_report.write_sheets(folder, args, grid_options.axes(args, trivial_grid.SOLVERS))
