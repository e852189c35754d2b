"""One process of a launch: its rank, its lines, its progress bar and Ctrl-C."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

EVERY = 10.0  # seconds between two lines that count, where there is no terminal for a bar


class Ranks(NamedTuple):
    """Which of the processes of one launch this is: rank 0 speaks for all. They share a folder as any others do."""

    rank: int
    world: int

    @classmethod
    def of_environment(cls) -> "Ranks":
        """As torchrun and accelerate tell it."""
        world = int(os.environ.get("WORLD_SIZE", 1))
        return cls(int(os.environ.get("RANK", 0)) if world > 1 else 0, world)


@contextlib.contextmanager
def ctrl_c() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets; the second raises KeyboardInterrupt.

    In the main thread alone, and not where SIGINT is ignored, as under nohup, or has a handler that is not Python's.
    """
    stop = threading.Event()
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None):
        yield stop
        return

    def first(*_) -> None:
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.write(2, b"\ninterrupted: the pictures at work are finished first; Ctrl-C again stops at once\n")

    before = signal.signal(signal.SIGINT, first)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def progress(
    cells: int, main: bool, say: Callable, clock: Callable[[], float] = time.monotonic
) -> Iterator[tuple[Callable, Callable]]:
    """The count and the time left: a bar on a terminal's stderr; where that is none, a line now and then.

    Args:
        cells: How many are to be done.
        main: Whether this process speaks for its launch; the others are silent.
        say: Says a line, as print does.
        clock: Tells the time in seconds.

    Yields:
        What says a line above the bar, and what shows that so many of the cells are done, by whomever.
    """
    if not main:
        yield say, lambda _: None
        return
    if not sys.stderr.isatty():
        yield say, _count(cells, say, clock)
        return
    from tqdm import tqdm

    with tqdm(total=cells, unit="picture", dynamic_ncols=True) as bar:

        def say_above(line: str, file=None) -> None:
            with tqdm.external_write_mode(file=file or sys.stdout):
                say(line, file=file or sys.stdout)

        yield say_above, lambda done: bar.update(done - bar.n)


def _count(cells: int, say: Callable, clock: Callable[[], float]) -> Callable[[int], None]:
    """What says how many are done and what time is left, EVERY seconds at most."""
    began = last = clock()

    def show(done: int) -> None:
        nonlocal last
        if done and done < cells and clock() - last >= EVERY:
            last = clock()
            minutes, seconds = divmod(round((last - began) / done * (cells - done)), 60)
            say(f"{done} of {cells} pictures, {minutes}:{seconds:02d} left", file=sys.stderr)

    return show


def say_line(line: str, file=None) -> None:
    """Print a line in one write, so that the lines of several processes stay whole.

    What the stream's encoding lacks is escaped. Where nobody reads on, as after `| head -1`, the work goes on unheard.
    """
    stream = file or sys.stdout
    if stream is None:  # closed before Python began
        return
    try:
        stream.write(f"{shown_in(stream.encoding or 'utf-8', line)}\n")
        stream.flush()
    except OSError:
        with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())  # or Python fails to flush the line as it ends


def shown_in(encoding: str, line: str) -> str:
    """The line, with escapes for characters that the encoding lacks."""
    return line.encode(encoding, "backslashreplace").decode(encoding)
