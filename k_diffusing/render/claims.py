"""Who renders what, where several processes share a folder: each cell is claimed once, and the dead claim nothing.

A process at work holds the lock of a file of its own, which the system frees however the process ends. What all of
them claim stands in one file, read and written under the folder's lock. Its name is known: on a network's file system
a folder's listing may be seconds old, and a file that is opened under a lock is not.
"""

import contextlib
import json
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from k_diffusing._files import write_whole

WORKER = re.compile(r"[0-9a-f]{8}|failed")
FAILED = "failed"  # in place of a worker: the cells that failed in processes that have ended well


class Claims(NamedTuple):
    """The claims on the cells of a grid in a folder. All but locked() is called under the lock.

    Attributes:
        folder: Where the grid is. Methods raise OSError where the disk does.
        family: Begins the files' names.
    """

    folder: Path
    family: str

    @property
    def path(self) -> Path:
        """The file that has what all workers claim."""
        return self.folder / f".{self.family}-claims.json"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One process, and one thread, at a time. The lock's file is left only where processes are at work."""
        from filelock import FileLock  # takes a while, and a run with nothing left to do needs no lock

        lock = FileLock(self.folder / f".{self.family}-folder.lock")
        with lock:
            try:
                yield
            finally:
                if not self.path.exists():
                    _remove(lock.lock_file)

    def held(self) -> dict[str, list[str]]:
        """The files that each worker has claimed and not finished, be it alive or not."""
        try:
            held = json.loads(self.path.read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        held = held if isinstance(held, dict) else {}  # somebody's own file
        return {worker: list(map(str, files)) for worker, files in held.items() if WORKER.fullmatch(worker)}

    def write(self, held: dict[str, list[str]]) -> None:
        """Write what workers claim; no file is left if there are none."""
        if held.keys() - {FAILED}:
            # What a kill leaves of it, this family cleans up.
            write_whole(self.path, json.dumps(held).encode(), prefix=f"{self.family}-")
        else:
            self.path.unlink(missing_ok=True)

    def living(self) -> dict[str, list[str]]:
        """What living workers hold; the claims of the others are dropped."""
        held = self.held()
        living = {worker: files for worker, files in held.items() if worker == FAILED or not self._has_ended(worker)}
        if living != held:
            self.write(living)
        return living if living.keys() - {FAILED} else {}

    def lock_of(self, worker: str):
        """The lock that a worker holds as long as it lives."""
        from filelock import FileLock

        return FileLock(self.folder / f".{self.family}-{worker}.lock")

    def _has_ended(self, worker: str) -> bool:
        from filelock import Timeout

        lock = self.lock_of(worker)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return False
        _remove(lock.lock_file)
        lock.release()
        return True


class Share:
    """What one process has of a grid, from join(), which is called under the lock, to leave().

    Attributes:
        claims: Those of all processes.
        news: Returns the files finished by anyone since it was last called; called under the lock.
        worker: The name of this process among the others.
        mine: The files that are claimed here and not finished: at work, or failed.
        claimed: Whether anything ever was claimed here.
        finished: The files finished by anyone.
        others: The files that each other worker holds, as this one leaves.
    """

    def __init__(self, claims: Claims, news: Callable[[], Iterable[str]]):
        """A share in the cells of `claims`; see the attributes."""
        self.claims, self.news = claims, news
        self.worker = secrets.token_hex(4)
        self.lock = claims.lock_of(self.worker)
        self.mine: list[str] = []  # claimed and not finished: at work, or failed
        self.claimed = False  # whether it ever claimed anything
        self.finished: set[str] = set()
        self.others: dict[str, list[str]] = {}

    def join(self) -> None:
        """Begin to claim."""
        self.lock.acquire()
        self.claims.write(self.claims.living() | {self.worker: []})

    def claim(self, choose: Callable[[set[str]], list[str]]) -> list[str]:
        """Claim files.

        Args:
            choose: Is called with the files that are finished or claimed in a living process, and returns others.

        Returns:
            What was chosen, which is claimed now.
        """
        with self.claims.locked():
            self._hear()
            held = self.claims.held()
            files = choose(self._taken(held))
            if not files:  # what is left, the dead may hold
                held = self.claims.living()
                files = choose(self._taken(held))
            self.mine += files
            self.claimed = self.claimed or bool(files)
            self.claims.write(held | {self.worker: self.mine})
        return files

    def leave(self, last: Callable[[], None] = lambda: None) -> None:
        """Drop the claims; on what failed here the others do not try their luck.

        Args:
            last: Is called if no other process is at work. Nobody joins before it returns, so that one process alone
                is the last.
        """
        with self.claims.locked():
            self._hear()
            held = self.claims.living()
            held.pop(self.worker, None)
            self.claims.write(held | {FAILED: held.get(FAILED, []) + self.mine})
            self.others = {worker: files for worker, files in held.items() if worker != FAILED}
            _remove(self.lock.lock_file)
            self.lock.release()
            if not self.others:
                last()

    def _hear(self) -> None:
        self.finished.update(self.news())
        self.mine = [file for file in self.mine if file not in self.finished]

    def _taken(self, held: dict[str, list[str]]) -> set[str]:
        return self.finished.union(self.mine, *held.values())


def _remove(lock_file: str) -> None:
    """Remove the file of a lock that is held: a process that waits for it sees that, and makes a new one."""
    with contextlib.suppress(OSError):  # on Windows the release does it
        Path(lock_file).unlink()
