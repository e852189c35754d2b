"""What a trace costs: time of a traced call over that of a plain one, on the demo models.

    python benchmarks/trace_cost.py

28 steps of euler at 128 x 128, one thread; plain and traced calls take turns, and the medians are compared.
"""

import statistics
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from k_diffusing.models import DEMOS, hide_loading_bars, load  # noqa: E402
from k_diffusing.trace.record import Trace  # noqa: E402

TURNS = 15
KINDS = {"plain": lambda: None, "statistics": lambda: Trace(), "tensors": lambda: Trace(tensors=True)}


def seconds(pipe, call: dict, trace: Trace | None) -> float:
    start = time.perf_counter()
    pipe(**call, num_inference_steps=28, generator=torch.Generator().manual_seed(0), trace=trace)
    return time.perf_counter() - start


def main() -> None:
    torch.set_num_threads(1)
    hide_loading_bars()
    for model, demo in DEMOS.items():
        pipe, call = load(model), demo.keywords
        seconds(pipe, call, None)
        times = {kind: [] for kind in KINDS}
        for _ in range(TURNS):
            for kind, make in KINDS.items():
                times[kind].append(seconds(pipe, call, make()))
        medians = {kind: statistics.median(values) for kind, values in times.items()}
        ratios = ", ".join(f"{kind} {medians[kind] / medians['plain']:.3f}" for kind in KINDS)
        print(f"{model}: plain call {medians['plain']:.2f} s; over it: {ratios}")


if __name__ == "__main__":
    main()
