"""Pictures made side by side on a CPU: several runs at a time, each on one thread.

Small networks gain little from a second thread of their own, and results do not depend on how many runs there are.
"""

import contextlib
import copy
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]


@contextlib.contextmanager
def side_by_side(count: int) -> Iterator[Map]:
    """Yields what map() does, with `count` items at a time; the results are in the order of the items.

    Meanwhile torch has one thread for each. When it is left early, what has not begun is dropped.
    """
    if count < 2:
        yield map
        return
    threads, pool = torch.get_num_threads(), ThreadPoolExecutor(count)
    torch.set_num_threads(1)  # new threads begin with as many as were set last
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


class Encoded:
    """A pipeline's encode_prompt, which encodes each text once; by one thread at a time, as tokenizers need it."""

    def __init__(self, encode: Callable):
        self.encode, self.known, self.lock = encode, {}, threading.Lock()

    def __call__(self, *args, **kwargs) -> Any:
        """As the pipeline's own; what is given as tensors is not kept."""
        if any(isinstance(value, torch.Tensor) for value in (*args, *kwargs.values())):
            return self.encode(*args, **kwargs)
        key = repr((args, sorted(kwargs.items())))
        with self.lock:
            if key not in self.known:
                self.known[key] = self.encode(*args, **kwargs)
        return self.known[key]


def prepared(pipe):
    """A copy of a pipeline that encodes each prompt once; its parts are the same."""
    own = copy.copy(pipe)
    vars(own)["encode_prompt"] = Encoded(pipe.encode_prompt)
    return own
