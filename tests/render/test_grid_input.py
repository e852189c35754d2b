"""What a grid is given: words in any locale, prompt files, numbers, files that somebody has edited or cut, closed
pipes, ignored signals. Never a traceback: a clear error, or the right thing. On a trivial renderer."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
import trivial_grid
from grid_folders import SCRIPT, assert_whole, interrupting, lines_of, pictures, start

from k_diffusing.render.launch import say_line

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
GRID = ["--seeds", "0", "1"]  # with four samplers: 8 cells


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    assert trivial_grid.main(["--output", str(folder := tmp_path_factory.mktemp("finished")), *GRID]) == 0
    return folder


@pytest.fixture
def grid(finished, tmp_path, capsys):
    """Runs the grid of 8 cells, finished in tmp_path, again: its exit code, lines of stdout and lines of stderr."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)

    def again():
        capsys.readouterr()
        code = trivial_grid.main(["--output", str(tmp_path), *GRID])
        told = capsys.readouterr()
        return code, told.out.splitlines(), told.err.splitlines()

    return again


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def rendered(lines):
    return sum(" evaluations " in line for line in lines)


def test_prompts_are_utf8_in_any_locale(tmp_path):
    """As the manifest, the results and the pictures' text are."""
    folder, prompts = tmp_path / "grid", [name.encode() for name in ("ein großer Kreis", "大きな円")]
    argv = ["--output", str(folder), "--samplers", "euler", "--negative-prompt", "weiß".encode(), "--prompt", *prompts]
    for told in (" evaluations ", "nothing left to do"):
        done = start(*argv, **ASCII)
        assert (done.returncode, done.stderr) == (0, "") and told in done.stdout
    assert [line["prompt"].encode() for line in lines_of(folder)] == prompts
    argv = [word if isinstance(word, str) else word.decode() for word in argv]
    refuse = lambda *_: pytest.fail("another grid in another locale")  # noqa: E731
    assert trivial_grid.main(argv, check=refuse, load=refuse) == 0


def test_a_prompt_that_is_not_utf8(tmp_path):
    done = start("--output", str(tmp_path), "--prompt", b"gr\xfc\xdf")
    assert done.returncode == 2 and "is not UTF-8: write it so" in done.stderr.splitlines()[-1]


def test_output_that_the_stream_cannot_show(tmp_path):
    done = start("--output", os.fsencode(tmp_path) + b"/gr\xc3\xb6\xc3\x9fe", PYTHONIOENCODING="ascii:strict")
    assert done.returncode == 0 and rendered(done.stdout.splitlines()) == 4, done.stderr


def test_byte_order_mark_of_a_prompt_file(tmp_path):
    (tmp_path / "prompts").write_bytes("\ufeffein großer Kreis\r\nrot\r\n".encode())
    argv = ["--output", str(tmp_path / "o"), "--prompt-file", str(tmp_path / "prompts"), "--samplers", "euler"]
    assert trivial_grid.main(argv) == 0
    assert [line["prompt"] for line in lines_of(tmp_path / "o")] == ["ein großer Kreis", "rot"]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_prompt_file_in_another_encoding(tmp_path, capsys, encoding):
    (tmp_path / "prompts").write_text("ein großer Kreis", encoding=encoding)
    with pytest.raises(SystemExit, match="2"):
        trivial_grid.main(["--output", str(tmp_path / "o"), "--prompt-file", str(tmp_path / "prompts")])
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"--prompt-file {tmp_path / 'prompts'} cannot be read" in line and "give a text file in UTF-8" in line
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("option", ["--guidance-scale", "--eta"])
@pytest.mark.parametrize("value", ["nan", "inf", "1e999", "x", ""])
def test_numbers_are_finite(tmp_path, capsys, option, value):
    with pytest.raises(SystemExit, match="2"):
        trivial_grid.main(["--output", str(tmp_path), option, "1", value])
    assert f"argument {option}: {value!r} is not a finite number: give one" in capsys.readouterr().err


def test_true_cfg_is_finite(capsys):
    import test_flux

    with pytest.raises(SystemExit, match="2"):
        test_flux.main(["--true-cfg-scale", "nan"])
    assert "'nan' is not a finite number" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["loop", "x" * 5000])
def test_model_that_is_no_path(tmp_path, capsys, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    os.symlink("loop", "loop")
    code = trivial_grid.main(["--model", name, "--output", str(tmp_path / "o"), "--samplers", "euler"])
    [*lines] = capsys.readouterr().err.splitlines()
    assert code == 0 or (code, len(lines)) == (2, 1) and lines[0].startswith(f"error: --model {name} cannot be read")


MISSING = object()
MANIFESTS = {
    "no object": ((), None),
    "a list": ((), [1, 2]),
    "empty": ((), {}),
    "no model": (("model",), MISSING),
    "model": (("model",), "sdxl"),
    "no name": (("model", "name"), MISSING),
    "name": (("model", "name"), 5),
    "fingerprint": (("model", "fingerprint"), ["f00"]),
    "no fingerprint": (("model", "fingerprint"), MISSING),
    "no revision": (("model", "revision"), MISSING),
    "axes": (("axes",), None),
    "an axis": (("axes", "seeds"), {"a": [1]}),
    "settings": (("settings",), []),
    "versions": (("versions",), 3),
    "solvers": (("solvers",), {}),
    "a solver": (("solvers", 1), "heun"),
    "a solver's facts": (("solvers", 1), ["heun"]),
    "a solver's counts": (("solvers", 1), ["heun", 2, False, None, False, [[6, "3"]]]),
    "sampler texts": (("sampler_texts",), {"euler": 1}),
    "sampler files": (("sampler_files",), ["mine.py"]),
    "a solver's evaluations": (("solvers", 1, 1), 0),
    "a solver's name": (("solvers", 1, 0), "euler\ud800"),
    "command": (("command",), "python"),
    "a word": (("command", 0), None),
}


def edited(value, place, new):
    """JSON with another value at a place."""
    if not place:
        return new
    name, *rest = place
    copy = value.copy()
    if new is MISSING and not rest:
        del copy[name]
    else:
        copy[name] = edited(value[name], rest, new) if rest else new
    return copy


@pytest.mark.parametrize("case", MANIFESTS)
def test_edited_manifest(tmp_path, grid, case):
    place, new = MANIFESTS[case]
    path = tmp_path / "sdxl-manifest.json"
    path.write_text(json.dumps(edited(json.loads(path.read_bytes()), place, new)))
    before = content(tmp_path)
    code, _, errors = grid()
    assert code == 2 and errors[0].startswith("error: ")
    assert str(path) in errors[0] and "delete" in errors[0] or "holds another grid" in errors[0]
    assert content(tmp_path) == before


@pytest.mark.parametrize("raw", [b"", b"\xff", b"[" * 100_000, b'{"model": '], ids=range(4))
def test_manifest_that_is_not_json(tmp_path, grid, raw):
    (tmp_path / "sdxl-manifest.json").write_bytes(raw)
    before = content(tmp_path)
    code, _, [line] = grid()
    assert code == 2 and "sdxl-manifest.json is not JSON" in line and "delete it to begin anew" in line
    assert content(tmp_path) == before


def test_manifest_that_an_editor_has_saved_again(tmp_path, grid):
    path = tmp_path / "sdxl-manifest.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert grid()[0] == 0


LINES = {
    "no object": ((), [1]),
    "no field": (("steps",), MISSING),
    "another value": (("steps",), 5),
    "another kind": (("prompt",), ["a prompt"]),
    "no text": (("sampler",), None),
    "no result": (("evaluations",), MISSING),
    "a result": (("evaluations",), "many"),
    "half a character": (("prompt",), "\ud800"),
    "no file": (("file",), MISSING),
    "a file elsewhere": (("file",), "../sdxl-sample_euler-seed0.png"),
}


@pytest.mark.parametrize("case", LINES)
def test_edited_line_is_rendered_again(tmp_path, grid, case):
    path = tmp_path / "sdxl-results.jsonl"
    first, second, *others = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([first, json.dumps(edited(json.loads(second), *LINES[case])), *others, ""]))
    code, out, errors = grid()
    assert (code, errors, rendered(out)) == (0, [], 1)
    assert_whole(tmp_path, 8)
    assert json.loads(second) in lines_of(tmp_path)


def test_line_of_deep_json(tmp_path, grid):
    path = tmp_path / "sdxl-results.jsonl"
    path.write_text(path.read_text(encoding="utf-8") + "[" * 100_000 + "\n")
    assert grid()[0] == 0 and len(grid()[1]) == 1


@pytest.mark.parametrize("case", LINES)
def test_page_leaves_out_an_edited_line_of_another_family(tmp_path, grid, case, monkeypatch):
    told = []
    monkeypatch.setattr("k_diffusing.render.page.grid_page", lambda title, cells: told.append(list(cells)) or "page")
    (tmp_path / "flux-dev-manifest.json").write_bytes((tmp_path / "sdxl-manifest.json").read_bytes())
    line = json.loads((tmp_path / "sdxl-results.jsonl").read_text(encoding="utf-8").splitlines()[0])
    (tmp_path / "flux-dev-results.jsonl").write_text(json.dumps(edited(line, *LINES[case])) + "\n")
    (tmp_path / "index.html").unlink()
    assert grid()[0] == 0
    assert len(told[0]) in (8, 9)


@pytest.mark.parametrize("left", [0, 7, 0.5, -1])
def test_cut_picture_is_rendered_again(tmp_path, grid, left):
    picture = pictures(tmp_path)[3]
    whole = picture.read_bytes()
    picture.write_bytes(whole[: int(left * len(whole)) if left == 0.5 else left])
    code, out, errors = grid()
    assert (code, errors, rendered(out)) == (0, [], 1) and picture.read_bytes() == whole
    assert_whole(tmp_path, 8)
    assert grid()[1][0].startswith("nothing left to do")


def test_nobody_reads_on(tmp_path):
    """As after `| head -1`: all is rendered, and nothing is said of it."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, str(SCRIPT), "--output", str(tmp_path), *GRID]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
    assert_whole(tmp_path, 8)


def test_closed_stdout(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert trivial_grid.main(["--output", str(tmp_path), *GRID]) == 0
    say_line("unheard")


def test_ignored_sigint_stays_ignored(tmp_path):
    """A run under nohup, or in the background of a script, is not to be interrupted."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert trivial_grid.main(["--output", str(tmp_path), *GRID], load=interrupting(2)) == 0
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert_whole(tmp_path, 8)
