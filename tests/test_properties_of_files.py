"""What any prompt, and any content of the files that are read, does: the run goes on, or it ends with one clear line.

hypothesis looks for the input; its settings are in conftest.py.
"""

import contextlib
import copy
import functools
import io
import json
import tempfile
from pathlib import Path

import pytest
import torch
import trivial_grid
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from k_diffusing.noise.interval import Interval
from k_diffusing.render.folder import RunFolder
from k_diffusing.trace.record import Trace

ENDINGS = {0, 1, 2}  # the exit codes that are promised: done, a sampler or the disk failed, bad input
WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)  # as arguments can be
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@contextlib.contextmanager
def folder():
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


def main(*argv) -> tuple[int, str]:
    """The exit code of the trivial script and what it says on stderr; any other exception is passed on."""
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        try:
            code = trivial_grid.main([*map(str, argv), "--samplers", "euler"])
        except SystemExit as end:  # argparse's
            code = end.code
    assert code in ENDINGS and (code == 0) == (said.getvalue() == ""), said.getvalue()
    return code, said.getvalue()


def lines(path):
    return [json.loads(line) for line in (path / "sdxl-results.jsonl").read_bytes().splitlines()]


# Prompts.


@given(WORDS)
@example("-- a dash")
@example("two\nlines\r\nand \u2028 more")
@example("\ufeffa mark")
@example("a" * 4000)
def test_a_prompt_is_in_the_manifest_the_results_and_the_picture(prompt):
    with folder() as path:
        code, said = main("--output", path, f"--prompt={prompt}")
        if code:
            assert code == 2 and "prompt" in said
            return
        assert json.loads((path / "sdxl-manifest.json").read_bytes())["axes"]["prompt"] == [prompt]
        [line] = lines(path)
        assert line["prompt"] == prompt
        with Image.open(path / line["file"]) as picture:
            assert picture.text["prompt"] == prompt
        assert main("--output", path, f"--prompt={prompt}") == (0, "")
        assert len(lines(path)) == 1


@given(st.one_of(st.binary(max_size=40), WORDS.map(str.encode), st.lists(WORDS).map(lambda w: "\n".join(w).encode())))
@example("\ufeffa red circle\n".encode())
@example("a red circle\n".encode("utf-16"))
def test_a_prompt_file_is_read_or_refused(content):
    with folder() as path:
        (path / "prompts").write_bytes(content)
        code, said = main("--output", path / "grid", "--prompt-file", path / "prompts")
        if code == 0:
            prompts = [line["prompt"] for line in lines(path / "grid")]
            assert len(set(prompts)) == len(prompts) > 0 and all(prompt.strip() == prompt for prompt in prompts)
            assert not any(prompt.startswith("\ufeff") for prompt in prompts)
        else:
            assert code == 2 and "prompt" in said.splitlines()[-1]


# A folder's own files, edited or damaged.


@functools.cache
def made() -> dict[str, bytes]:
    """The files of a small grid."""
    with folder() as path:
        assert main("--output", path, "--seeds", "0", "1")[0] == 0
        return {file.name: file.read_bytes() for file in path.iterdir()}


def places(value, path=()):
    """The paths to all values in JSON."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def edited(value, path, new):
    """With another value at a path; without what is there if that is Ellipsis."""
    if not path:
        return new
    value = copy.deepcopy(value)
    *outer, last = path
    place = functools.reduce(lambda inner, key: inner[key], outer, value)
    if new is ...:
        del place[last]
    else:
        place[last] = new
    return value


def edits(value) -> st.SearchStrategy:
    """JSON in which one value is another, or is missing."""
    paths = list(places(value))
    return st.builds(lambda path, new: edited(value, path, new), st.sampled_from(paths[1:]), VALUES | st.just(...))


def damaged(content: bytes) -> st.SearchStrategy:
    """A file's bytes cut off, or with some of them replaced."""
    cut = st.integers(0, len(content)).map(lambda end: content[:end])
    spoilt = st.builds(
        lambda at, new: content[:at] + new + content[at + len(new) :],
        st.integers(0, len(content)), st.binary(min_size=1, max_size=8),
    )  # fmt: skip
    return st.one_of(cut, spoilt, st.binary(max_size=20))


def as_json(value) -> bytes:
    return json.dumps(value).encode()


def rerun(changed: dict[str, bytes]) -> None:
    """The same command in a folder of which some files were changed: a promised end, and one line of error at most
    before the details."""
    with folder() as path:
        for name, content in (made() | changed).items():
            (path / name).write_bytes(content)
        code, said = main("--output", path, "--seeds", "0", "1")
        if code == 0:
            finished = RunFolder(path, "sdxl").pictures()
            assert len(finished) == 2
            for file in finished:
                with Image.open(path / file) as picture:
                    picture.load()
        else:
            assert said.startswith("error: ")


@given(st.data())
def test_an_edited_manifest(data):
    content = made()["sdxl-manifest.json"]
    kind = st.one_of(edits(json.loads(content)).map(as_json), VALUES.map(as_json), damaged(content))
    rerun({"sdxl-manifest.json": data.draw(kind)})


@given(st.data())
def test_edited_results(data):
    first, second = made()["sdxl-results.jsonl"].splitlines(keepends=True)
    line = edits(json.loads(first)).map(lambda value: as_json(value) + b"\n" + second)
    kind = st.one_of(line, VALUES.map(lambda value: as_json(value) + b"\n"), damaged(first + second))
    rerun({"sdxl-results.jsonl": data.draw(kind)})


@given(st.data())
def test_cut_pictures(data):
    """A kill, a full disk or a loss of power cuts them; bytes changed inside are not looked for."""
    name = next(name for name in made() if name.startswith("sdxl-sample_euler"))
    rerun({name: made()[name][: data.draw(st.integers(0, len(made()[name])))]})


# Traces.


@functools.cache
def traces() -> dict[str, bytes]:
    """The files of a small trace with tensors."""
    trace, x = Trace(tensors=True, sampler="euler", sigmas=torch.tensor([1.0, 0.0])), torch.ones(1, 2)
    trace.begin_step(0, x, torch.tensor(1.0))
    trace.record_call(x, torch.ones(1), torch.ones(1), x, x)
    trace.watch_noise(lambda interval: x)(Interval(torch.tensor(1.0), torch.tensor(0.5)))
    trace.end(x, torch.tensor(0.0))
    with folder() as path:
        trace.save(path / "run.json")
        return {file.name: file.read_bytes() for file in path.iterdir()}


def load(changed: dict[str, bytes]) -> None:
    """A trace of which a file was changed: one that can be looked at, or a ValueError that names the file."""
    with folder() as path:
        for name, content in (traces() | changed).items():
            (path / name).write_bytes(content)
        try:
            trace = Trace.load(path / "run.json")
        except ValueError as error:
            assert "run." in str(error)
        else:
            assert isinstance(trace.rows(), list) and isinstance(str(trace), str)


@given(st.data())
def test_an_edited_trace(data):
    content = traces()["run.json"]
    load({"run.json": data.draw(st.one_of(edits(json.loads(content)).map(as_json), damaged(content)))})


@given(st.data())
def test_damaged_tensors_of_a_trace(data):
    load({"run.safetensors": data.draw(damaged(traces()["run.safetensors"]))})


def test_what_is_as_it_was_is_read():
    load({})
    rerun({})
    with folder() as path, pytest.raises(ValueError, match="run.json"):
        Trace.load(path / "run.json")
