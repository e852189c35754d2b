"""A grid on disk: a manifest of what was asked, a line for each picture, the pictures. Resumable after any end.

A cell is recorded so: its PNG under a temporary name, a line in FAMILY-results.jsonl, then the PNG's own name. A line
with a PNG under either name is a finished cell; anything else is rendered again. Standard library only.
"""

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from whole_file import write_whole

try:
    import fcntl
except ImportError:  # Windows: one process for one folder
    fcntl = None

ENDS = 2**20  # bytes at both ends of a file that its fingerprint covers
PACKAGES = ("torch", "diffusers", "transformers", "k-diffusion")


class RunFolder(NamedTuple):
    """The grid of a family ("sdxl", "flux-dev") in a folder. Methods raise OSError where the disk does."""

    path: Path
    family: str

    @property
    def manifest_path(self) -> Path:
        return self.path / f"{self.family}-manifest.json"

    @property
    def results_path(self) -> Path:
        return self.path / f"{self.family}-results.jsonl"

    def part(self, file: str) -> Path:
        """Where a picture is until its line is written."""
        return self.path / f".{file}.part"

    def manifest(self) -> dict[str, Any] | None:
        """What was asked of the grid here; None if there is none. Raises ValueError if it cannot be read."""
        try:
            return json.loads(self.manifest_path.read_text())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError as error:
            raise ValueError(f"{self.manifest_path} is not JSON ({error}): delete it to begin anew") from error

    def begin(self, manifest: dict[str, Any]) -> None:
        """Write the manifest unless there is one, and put right what a killed run has left.

        Every process of a run calls this before any of them records.
        """
        with self._locked_results() as results:
            if self.manifest() is None:
                os.ftruncate(results, 0)  # lines of an unknown grid
                self.write_manifest(manifest)
        self.repair()

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        write_whole(self.manifest_path, json.dumps(manifest, indent=1, ensure_ascii=False).encode())

    def finished(self) -> dict[str, dict[str, Any]]:
        """The line of each finished cell by its file. Changes nothing."""
        try:
            content = self.results_path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return {}
        lines = filter(None, map(_parsed, content.split(b"\n")[:-1]))  # a torn last line has no newline
        there = set(os.listdir(self.path))
        return {line["file"]: line for line in lines if {line["file"], self.part(line["file"]).name} & there}

    def pictures(self) -> dict[str, dict[str, Any]]:
        """As finished(), of those whose picture has its own name: another process may be about to give it that."""
        there = set(os.listdir(self.path))
        return {file: line for file, line in self.finished().items() if file in there}

    @contextlib.contextmanager
    def reporting(self) -> Iterator[None]:
        """While one process reports on the folder no other does, so that the last report has seen the most."""
        with self.manifest_path.open("r+b") as manifest:
            if fcntl is not None:
                fcntl.flock(manifest, fcntl.LOCK_EX)
            yield

    def repair(self) -> None:
        """Finish renames, drop what is torn or double, and lines without a picture."""
        with self._locked_results() as results:
            lines = self.finished()
            for file in lines:
                if self.part(file).exists():
                    os.replace(self.part(file), self.path / file)
            content = b"".join(map(_line, lines.values()))
            if _read(results, 0) != content:
                write_whole(self.results_path, content)

    def record(self, file: str, picture: bytes, line: dict[str, Any]) -> None:
        """A finished cell: its picture and its line, so that a kill at any moment leaves both or neither counted."""
        part = self.part(file)
        with part.open("wb") as stream:
            stream.write(picture)
            stream.flush()
            os.fsync(stream.fileno())
        self._append(_line({"file": file, **line}))
        os.replace(part, self.path / file)

    def _append(self, line: bytes) -> None:
        with self._locked_results() as results:
            content_end = _end_of_last_line(results)
            os.ftruncate(results, content_end)
            try:
                if os.write(results, line) < len(line):
                    raise OSError("only part of a line found room")
                os.fsync(results)
            except OSError:
                os.ftruncate(results, content_end)
                raise

    @contextlib.contextmanager
    def _locked_results(self) -> Iterator[int]:
        """The results' file descriptor, for appending, while no other process has it."""
        while True:
            results = os.open(self.results_path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                if fcntl is not None:
                    fcntl.flock(results, fcntl.LOCK_EX)
                if os.path.samestat(os.fstat(results), os.stat(self.results_path)):
                    yield results
                    return
            finally:  # or another process has just put a new file in its place
                os.close(results)


def _line(result: dict[str, Any]) -> bytes:
    return json.dumps(result, ensure_ascii=False).encode() + b"\n"


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        result = json.loads(line)
    except ValueError:
        return None
    return result if isinstance(result, dict) and isinstance(result.get("file"), str) else None


def _end_of_last_line(results: int) -> int:
    """The size of a file up to its last newline."""
    size = os.fstat(results).st_size
    if size == 0 or _read(results, size - 1) == b"\n":
        return size
    return _read(results, 0).rfind(b"\n") + 1


def _read(file: int, start: int) -> bytes:
    """From `start` to the end."""
    os.lseek(file, start, os.SEEK_SET)
    return os.read(file, os.fstat(file).st_size - start)


def differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """One line for each entry, at any depth, that two manifests do not share: "steps: 28 there, 5 here"."""
    lines = []
    for name in dict.fromkeys([*there, *here]):
        old, new = there.get(name), here.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += differences(old, new)
        elif old != new:
            lines.append(f"{name.replace('_', ' ')}: {shown(old)} there, {shown(new)} here")
    return lines


def shown(value, longest: int = 60) -> str:
    """A setting or a list of them in one short line."""
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    text = "none" if value is None else " ".join(text.split())
    return text if len(text) <= longest else text[: longest - 3] + "..."


def digest(manifest: dict[str, Any]) -> str:
    """8 hexadecimal digits of the sha256 of what was asked."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:8]


def versions() -> dict[str, str | None]:
    """Of the packages that pictures depend on, and of Python; nothing is imported."""
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found | {"python": sys.version.split()[0]}


def model_identity(model: str) -> dict[str, str | None]:
    """The name, the revision (of a hub model, as the local cache has it) and the fingerprint of weights.

    The fingerprint of a file or folder is the sha256 of names, sizes and the first and last MiB of every file: 24 GB
    take a second, and a change in the middle of a file that keeps its size goes unseen. That of a hub model is its
    commit; None as long as it is not in the cache.
    """
    path = Path(model)
    if path.exists():
        return {"name": path.resolve().name, "revision": None, "fingerprint": fingerprint(path)}
    commit = _cached_commit(model)
    return {"name": model, "revision": commit, "fingerprint": commit}


def fingerprint(path: Path) -> str:
    """sha256 over the names, sizes and both ends of a file, or of all files of a folder that are not hidden."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    total = hashlib.sha256()
    for file in files:
        name = file.name if file == path else file.relative_to(path).as_posix()
        if any(part.startswith(".") for part in name.split("/")):
            continue
        size = file.stat().st_size
        total.update(f"{name}\0{size}\0".encode())
        with file.open("rb") as stream:
            total.update(stream.read(ENDS))
            stream.seek(max(size - ENDS, 0))
            total.update(stream.read(ENDS))
    return total.hexdigest()


def _cached_commit(name: str) -> str | None:
    """The commit of "main" in huggingface_hub's cache; its rules for where that is, without importing it."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    cache = Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()
    try:
        return (cache / f"models--{name.replace('/', '--')}" / "refs" / "main").read_text().strip()
    except OSError:
        return None
