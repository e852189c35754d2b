"""Samplers as schedulers: what a step costs, what abandoned runs leave, and in which pipelines it was run.

    python benchmarks/sampler_scheduler.py

Prints README's tables. Overhead: microseconds for each network call that a loop over the scheduler takes longer than
the sampler itself, given a network that costs nothing; the smallest of many rounds, by turns, on one core. With
greenlets, as it is, and with threads, which is the other way to suspend a function. There and back: from the pipeline
to the sampler and to the pipeline again, nothing else; also while another thread of the program computes in Python.
"""

import contextlib
import queue
import sys
import threading
import time
from pathlib import Path
from unittest import mock

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from their_pipelines import PIPELINES, STEPS, difference_to_native  # noqa: E402

from k_diffusing.grids.choose import discrete_grid  # noqa: E402
from k_diffusing.model.scheduler_config import noise_schedule, preconditioning  # noqa: E402
from k_diffusing.oracle.closed_form import SDXL_SCHEDULE  # noqa: E402
from k_diffusing.schedulers import stepping  # noqa: E402
from k_diffusing.schedulers.as_scheduler import SamplerScheduler  # noqa: E402
from k_diffusing.schedulers.suspended import SuspendedRun  # noqa: E402
from samplers_patch import find_sampler, run_sampler  # noqa: E402

# isort: split
from diffusers import EulerDiscreteScheduler  # noqa: E402

EULER = EulerDiscreteScheduler(**SDXL_SCHEDULE)
SAMPLERS = ("euler", "dpmpp_2m", "heun")
CALLS, ROUNDS = 50, 60


class ThreadRun(SuspendedRun):
    """A SuspendedRun in a thread of its own, as little as that takes: it cannot be abandoned."""

    def __init__(self, function):
        self._questions, self._answers, self._over = queue.SimpleQueue(), queue.SimpleQueue(), False
        self._given = self._version = None

        def model(x, sigma):
            self._questions.put(x)
            changed, answer = self._answers.get()
            if changed is not None:
                x.copy_(changed)
            return answer

        def body():
            result = function(model)
            self._over = True
            self._questions.put(result)

        threading.Thread(target=body, daemon=True).start()
        self.x = self._questions.get()

    @property
    def over(self) -> bool:
        return self._over

    def answer(self, answer, changed=None) -> None:
        self._answers.put((changed, answer))
        self.x = self._questions.get()


def own_loop(sampler: str, x: torch.Tensor):
    row, grid = preconditioning(EULER), discrete_grid(EULER, noise_schedule(EULER), CALLS)

    def denoiser(x, sigma):
        level = sigma.reshape(-1, 1, 1, 1)
        return row.denoised(x, row.network_input(x, level), level)

    return lambda: run_sampler(find_sampler(sampler), denoiser, x, grid.sigmas)


def scheduler_loop(scheduler, x: torch.Tensor):
    def loop():
        latents = x
        for t in scheduler.timesteps:
            latents = scheduler.step(scheduler.scale_model_input(latents, t), t, latents, return_dict=False)[0]

    return loop


def timed(prepare, loop) -> float:
    """Seconds of the loop alone."""
    prepare()
    begin = time.perf_counter()
    loop()
    return time.perf_counter() - begin


@contextlib.contextmanager
def busy(wanted: bool):
    """Another thread that computes in Python, if wanted."""
    done = not wanted

    def work():
        while not done:
            sum(range(1000))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        done = True
        thread.join()


def there_and_back(run_class, with_busy_thread: bool, calls: int = 500) -> float:
    """Microseconds of a switch to the sampler's side and back: the median of nine rounds."""
    x = torch.zeros(1)

    def ask(model):
        for _ in range(calls):
            model(x, x)

    rounds = []
    with busy(with_busy_thread):
        for _ in range(9):
            run = run_class(ask)
            begin = time.perf_counter()
            while not run.over:
                run.answer(x)
            rounds.append((time.perf_counter() - begin) / calls)
    return 1e6 * sorted(rounds)[4]


def overheads(sampler: str, side: int) -> list[float]:
    """Microseconds a call: the sampler's own, the overhead with greenlets, with threads, and diffusers' Euler loop."""
    x = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(0))
    scheduler, euler = SamplerScheduler.from_config(EULER.config, sampler=sampler), EULER
    own, stepped, native = own_loop(sampler, x), scheduler_loop(scheduler, x), scheduler_loop(euler, x)
    best = [float("inf")] * 4
    with torch.no_grad():
        for _ in range(ROUNDS):
            times = [timed(lambda: None, own)]
            for run in (SuspendedRun, ThreadRun):
                with mock.patch.object(stepping, "SuspendedRun", run):
                    times.append(timed(lambda: scheduler.set_timesteps(CALLS), stepped))
            times.append(timed(lambda: euler.set_timesteps(CALLS), native))
            best = [min(pair) for pair in zip(best, times, strict=True)]
    calls = [len(scheduler.timesteps)] * 3 + [CALLS]
    own_time, greenlets, threads, loop = (1e6 * seconds / n for seconds, n in zip(best, calls, strict=True))
    return [own_time, greenlets - own_time, threads - own_time, loop]


def resident() -> float:
    """MiB of memory in use by the process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * 4096 / 2**20


def begin_a_run(scheduler, x) -> None:
    scheduler.set_timesteps(2)
    scheduler.step(x, scheduler.timesteps[0], x)


def leak(runs: int, in_threads: bool) -> float:
    """MiB that abandoned runs leave, each with some 4 MiB of state."""
    scheduler, x = SamplerScheduler.from_config(EULER.config, sampler="dpmpp_2m"), torch.zeros(1, 4, 512, 512)
    begin_a_run(scheduler, x)
    before = resident()
    for _ in range(runs):
        if in_threads:
            thread = threading.Thread(target=begin_a_run, args=(scheduler, x))
            thread.start()
            thread.join()
        else:
            begin_a_run(scheduler, x)
    return resident() - before


def main() -> None:
    torch.set_num_threads(1)
    print("Microseconds a call.\n")
    print("| sampler | latents | its own | overhead, greenlet | overhead, thread | diffusers' Euler loop |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for sampler in SAMPLERS:
        for side in (8, 128):
            values = " | ".join(f"{value:.0f}" for value in overheads(sampler, side))
            print(f"| {sampler} | 4 x {side} x {side} | {values} |", flush=True)
    print("\n| there and back | greenlet | thread |\n| --- | ---: | ---: |")
    for label, with_busy_thread in (("alone", False), ("another thread busy", True)):
        values = " | ".join(f"{there_and_back(run, with_busy_thread):.0f}" for run in (SuspendedRun, ThreadRun))
        print(f"| {label} | {values} |", flush=True)
    threads = threading.active_count()
    own, other = leak(1000, False), leak(1000, True)
    print(f"\n1000 abandoned runs leave {own:.0f} MiB, 1000 in threads that end {other:.0f} MiB", end=", ")
    print(f"{threading.active_count() - threads} threads.\n")
    print("| pipeline of diffusers | class | largest difference | largest latent |\n| --- | --- | ---: | ---: |")
    for name in PIPELINES:
        difference, size = difference_to_native(name)
        pipeline_class = type(PIPELINES[name]()[0]).__name__
        print(f"| {name} | {pipeline_class} | {difference:.1g} | {size:.1f} |", flush=True)
    print(f"\n`euler` against the pipeline's own scheduler, {STEPS} steps, float32, tiny random networks.")


if __name__ == "__main__":
    main()
