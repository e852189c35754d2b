"""The time and the memory that work on a device takes.

torch is imported in the functions that need it.
"""

import sys
import time
from typing import Any


class Meter:
    """Moments of a device, the seconds between two of them, and the memory it took.

    On a GPU the device takes the time as it gets there, and nothing waits before the seconds are asked for.
    """

    def __init__(self, device):
        """A meter for a torch.device."""
        import torch

        self.device, self.cuda = device, torch.cuda if device.type == "cuda" else None
        if self.cuda:
            self.cuda.reset_peak_memory_stats(device)

    def mark(self) -> Any:
        """This moment."""
        if not self.cuda:
            return time.perf_counter()
        event = self.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, start, end) -> float:
        """From one moment to a later one."""
        if not self.cuda:
            return end - start
        end.synchronize()
        return start.elapsed_time(end) / 1000

    def peak(self) -> float | None:
        """MiB at most: of a GPU since this was last asked, else of this process since its start (None on Windows)."""
        if self.cuda:
            most = self.cuda.max_memory_allocated(self.device) / 2**20
            self.cuda.reset_peak_memory_stats(self.device)
            return most
        try:
            import resource
        except ImportError:
            return None
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
