"""A grid on disk: a manifest of what was asked, a line for each picture, the pictures. Resumable after any end.

A cell is recorded so: its PNG under a temporary name, a line in FAMILY-results.jsonl, then the PNG's own name. A line
with a PNG under either name is a finished cell; anything else is rendered again. Several processes may share a folder:
see claims.py.
"""

import json
import os
import re
import secrets
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from k_diffusing._files import write_whole
from k_diffusing.render.claims import Claims, Share
from k_diffusing.render.words import shown

PART = re.compile(r"\.(.+\.png)(?:\.[0-9a-f]{8})?\.part")  # what part() gives
PNG_END = b"IEND\xaeB`\x82"  # the name and the checksum of a PNG's last chunk


class RunFolder(NamedTuple):
    """A grid in a folder. Methods raise OSError where the disk does.

    Attributes:
        path: The folder, which may hold grids of other families, too.
        family: Begins the files' names: "sdxl" or "flux-dev".
    """

    path: Path
    family: str

    @property
    def manifest_path(self) -> Path:
        """What was asked of the grid."""
        return self.path / f"{self.family}-manifest.json"

    @property
    def results_path(self) -> Path:
        """A line for each finished cell."""
        return self.path / f"{self.family}-results.jsonl"

    @property
    def claims(self) -> Claims:
        """Who renders what."""
        return Claims(self.path, self.family)

    def part(self, file: str) -> Path:
        """A new name for a picture until its line is written: no other process writes there."""
        return self.path / f".{file}.{secrets.token_hex(4)}.part"

    def manifest(self) -> dict[str, Any] | None:
        """What was asked of the grid here; None if there is none. Raises ValueError if it cannot be read."""
        try:
            manifest = json.loads(self.manifest_path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{self.manifest_path} is not JSON ({error}): delete it to begin anew") from error
        if not isinstance(manifest, dict):
            raise ValueError(f"{self.manifest_path} holds {shown(manifest)} and no settings: delete it to begin anew")
        return manifest

    def begin(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Write the manifest unless there is one, and put right what a killed run has left. The manifest there now."""
        with self.claims.locked():
            there = self.manifest()
            if there is None:
                self.results_path.write_bytes(b"")  # lines of an unknown grid
                self.write_manifest(manifest)
            self.settle()
        return manifest if there is None else there

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        """Write the manifest. Called under the lock."""
        content = json.dumps(manifest, indent=1, ensure_ascii=False)
        write_whole(self.manifest_path, content.encode("utf-8", "backslashreplace"))

    def finished(self) -> dict[str, dict[str, Any]]:
        """The line of each finished cell by its file. Changes nothing."""
        lines, _ = self._lines(0)
        names, parts = self._names(), self._parts()
        there = {line["file"] for line in lines} & (names | parts.keys())
        there = {file for file in there if file in parts or _is_whole(self.path / file)}
        return {line["file"]: line for line in lines if line["file"] in there}

    def pictures(self) -> dict[str, dict[str, Any]]:
        """As finished(), of those whose picture has its own name."""
        there = self._names()
        return {file: line for file, line in self.finished().items() if file in there}

    def join(self) -> tuple[dict[str, dict[str, Any]], Share]:
        """The lines of what is finished, as finished(), and this process's share in the rest, until it leaves."""
        with self.claims.locked():
            _, end = self._lines(0)

            def news() -> list[str]:
                nonlocal end
                lines, end = self._lines(end)
                return [line["file"] for line in lines]

            share = Share(self.claims, news)
            share.join()
            return self.finished(), share

    def settle(self) -> bool:
        """Whether no process is at work here; put right what is left of dead ones if so. Called under the lock."""
        if self.claims.living():
            return False
        self._repair()
        return True

    def unsettled(self) -> bool:
        """Whether processes are, or were, at work here."""
        return any(name.startswith(f".{self.family}-") for name in self._names())

    def _repair(self) -> None:
        """Finish renames, drop what is torn or double, lines without a picture, and files of dead processes."""
        lines = self.finished()
        for file, part in self._parts().items():
            if file in lines:
                os.replace(self.path / part, self.path / file)
        for name in self._names():
            if re.fullmatch(rf"\.{re.escape(self.family)}-(.*\.part|[0-9a-f]{{8}}\.lock)", name):
                (self.path / name).unlink()
        content = b"".join(map(_line, lines.values()))
        if not self.results_path.exists() or self.results_path.read_bytes() != content:
            write_whole(self.results_path, content)

    def record(self, file: str, picture: bytes, line: dict[str, Any]) -> None:
        """Write a finished cell so that a kill at any moment leaves both picture and line counted, or neither.

        Args:
            file: The picture's file in the folder.
            picture: Its content.
            line: What the results tell of it, besides its file.
        """
        part = self.part(file)
        with part.open("wb") as stream:
            stream.write(picture)
            stream.flush()
            os.fsync(stream.fileno())
        with self.claims.locked():
            self._append(_line({"file": file, **line}))
            os.replace(part, self.path / file)

    def _append(self, line: bytes) -> None:
        with self.results_path.open("a+b", buffering=0) as results:
            end = _end_of_last_line(results)
            results.truncate(end)
            try:
                if results.write(line) < len(line):
                    raise OSError("only part of a line found room")
                os.fsync(results.fileno())
            except OSError:
                results.truncate(end)
                raise

    def _lines(self, start: int) -> tuple[list[dict[str, Any]], int]:
        """The lines of the results from a byte on, and where the last one ends."""
        try:
            with self.results_path.open("rb") as results:
                results.seek(start)
                content = results.read()
        except (FileNotFoundError, NotADirectoryError):
            return [], start
        content = content[: content.rfind(b"\n") + 1]  # a torn last line has no newline
        return list(filter(None, map(_parsed, content.split(b"\n")))), start + len(content)

    def _names(self) -> set[str]:
        try:
            return set(os.listdir(self.path))
        except (FileNotFoundError, NotADirectoryError):
            return set()

    def _parts(self) -> dict[str, str]:
        """By a picture's name, the whole file that has not got it yet."""
        found = (match for name in self._names() if (match := PART.fullmatch(name)))
        return {match[1]: match[0] for match in found if _is_whole(self.path / match[0])}


def _is_whole(picture: Path) -> bool:
    """Whether a PNG has its last chunk: what a kill, a full disk or a loss of power leaves has not."""
    try:
        with picture.open("rb", buffering=0) as stream:
            stream.seek(-len(PNG_END), os.SEEK_END)
            return stream.read() == PNG_END
    except OSError:  # shorter than that
        return False


def _line(result: dict[str, Any]) -> bytes:
    return json.dumps(result, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        result = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return result if isinstance(result, dict) and isinstance(result.get("file"), str) else None


def _end_of_last_line(file: BinaryIO) -> int:
    """The size of a file up to its last newline."""
    size = file.seek(0, os.SEEK_END)
    if size == 0 or _read(file, size - 1) == b"\n":
        return size
    return _read(file, 0).rfind(b"\n") + 1


def _read(file: BinaryIO, start: int) -> bytes:
    """From `start` to the end."""
    file.seek(start)
    return file.read()
