"""A sampler that is suspended in each of its calls of the model: what the ways to suspend it cost.

With greenlets, as it is done, and with threads, which is the other way to suspend a function.
"""

import contextlib
import queue
import threading
import time
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from diffusers import EulerDiscreteScheduler

from k_diffusing.grids.choose import discrete_grid
from k_diffusing.model.scheduler_config import noise_schedule, preconditioning
from k_diffusing.oracle.closed_form import SDXL_SCHEDULE
from k_diffusing.schedulers import stepping
from k_diffusing.schedulers.as_scheduler import SamplerScheduler
from k_diffusing.schedulers.suspended import SuspendedRun
from samplers_patch import find_sampler, run_sampler

EULER = EulerDiscreteScheduler(**SDXL_SCHEDULE)
CALLS, ROUNDS, SWITCHES, RUNS = 50, 60, 500, 1000


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


WAYS = {"greenlet": SuspendedRun, "thread": ThreadRun}


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


def there_and_back(way: str, with_busy_thread: bool) -> float:
    """Microseconds of a switch to the sampler's side and back: the median of nine rounds."""
    x = torch.zeros(1)

    def ask(model):
        for _ in range(SWITCHES):
            model(x, x)

    rounds = []
    with busy(with_busy_thread):
        for _ in range(9):
            run = WAYS[way](ask)
            begin = time.perf_counter()
            while not run.over:
                run.answer(x)
            rounds.append((time.perf_counter() - begin) / SWITCHES)
    return 1e6 * sorted(rounds)[4]


def overheads(sampler: str, side: int) -> list[float]:
    """Microseconds a call: the sampler's own, the overhead with greenlets, with threads, and diffusers' Euler loop."""
    x = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(0))
    scheduler: Any = SamplerScheduler.from_config(EULER.config, sampler=sampler)
    euler: Any = EULER
    own, stepped, native = own_loop(sampler, x), scheduler_loop(scheduler, x), scheduler_loop(euler, x)
    best = [float("inf")] * 4
    with torch.no_grad():
        for _ in range(ROUNDS):
            times = [timed(lambda: None, own)]
            for run in WAYS.values():
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


def leak(in_threads: bool) -> float:
    """MiB that abandoned runs leave, each with some 4 MiB of state."""
    scheduler, x = SamplerScheduler.from_config(EULER.config, sampler="dpmpp_2m"), torch.zeros(1, 4, 512, 512)
    begin_a_run(scheduler, x)
    before = resident()
    for _ in range(RUNS):
        if in_threads:
            thread = threading.Thread(target=begin_a_run, args=(scheduler, x))
            thread.start()
            thread.join()
        else:
            begin_a_run(scheduler, x)
    return resident() - before
