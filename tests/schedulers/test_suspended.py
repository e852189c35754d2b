"""A sampler suspended inside its call of the model: what an abandoned run leaves, grad modes, threads, copies."""

import copy
import gc
import inspect
import pickle
import threading

import pytest
import torch
from stepped_schedulers import X, fresh, half_at_3, living, network, one_step, stepped, witnessed
from their_pipelines import STEPS

from k_diffusing.schedulers.suspended import SuspendedRun
from samplers_patch import k_sampling


def test_abandoned_runs_leave_nothing():
    """Without the garbage collector."""
    alive, threads, sigmas = [], threading.active_count(), torch.tensor([2.0, 1.0, 0.0])
    sampler = witnessed(alive)
    gc.disable()
    try:
        for _ in range(1000):
            run = SuspendedRun(lambda model: sampler(model, X, sigmas))
            run.answer(X)
        assert len(alive) == 1000 and living(alive) == 1
        del run
        assert living(alive) == 0
    finally:
        gc.enable()
    assert threading.active_count() == threads


def test_a_scheduler_drops_its_run():
    """With the next set_timesteps, and with itself."""
    alive = []
    scheduler = fresh(witnessed(alive))
    gc.disable()
    try:
        one_step(scheduler)
        assert living(alive) == 1
        scheduler.set_timesteps(STEPS)
        assert living(alive) == 0
        one_step(scheduler)
        del scheduler
        assert living(alive) == 0
    finally:
        gc.enable()


@pytest.mark.parametrize("ended", [True, False], ids=["after its thread", "before its thread"])
def test_runs_abandoned_in_another_thread_leave_nothing(ended):
    alive, box = [], []
    begun, dropped = threading.Event(), threading.Event()

    def work():
        box.append(fresh(witnessed(alive)))
        one_step(box[0])
        begun.set()
        if not ended:
            dropped.wait(10)

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait(10)
    if ended:
        thread.join()
    box.clear()
    dropped.set()
    thread.join()
    assert len(alive) == 3 and living(alive) == 0  # two null runs, one run


def sampler_in(mode):
    @mode
    def sampler(model, x, sigmas, extra_args=None, callback=None, disable=None):
        def watched(x, sigma):
            before, denoised = modes(), model(x, sigma)
            assert modes() == before
            return denoised

        return inspect.unwrap(k_sampling.sample_euler)(watched, x, sigmas, disable=True)

    return sampler


def modes() -> tuple[bool, bool]:
    return torch.is_grad_enabled(), torch.is_inference_mode_enabled()


MODES = {"no_grad": torch.no_grad(), "enable_grad": torch.enable_grad(), "inference_mode": torch.inference_mode()}


@pytest.mark.parametrize("outer", MODES)
@pytest.mark.parametrize("inner", ["no_grad", "enable_grad"])
def test_grad_mode_is_the_callers(inner, outer):
    """While the run is suspended, when it is over, and when it is dropped in another mode than it began in; the sampler
    has its own again when it goes on."""
    plain = modes()
    scheduler = fresh(sampler_in(MODES[inner]))
    for t in scheduler.timesteps[:2]:
        scheduler.step(network(X, t), t, X)
        assert modes() == plain
    with copy.deepcopy(MODES[outer]):
        before = modes()
        scheduler.set_timesteps(STEPS)
        assert modes() == before
        stepped(scheduler)
        assert modes() == before
    assert modes() == plain


def test_a_sampler_in_inference_mode():
    """Its own is not the pipeline's, while it is suspended and when it is over."""
    scheduler, plain = fresh(sampler_in(MODES["inference_mode"])), modes()
    one_step(scheduler)
    assert modes() == plain
    scheduler.set_timesteps(STEPS)
    assert torch.equal(stepped(scheduler, change=half_at_3), stepped(fresh("euler"), change=half_at_3))
    assert modes() == plain


def test_inference_mode():
    with torch.inference_mode():
        theirs = stepped(fresh("dpmpp_2m_sde"))
    assert torch.equal(theirs.clone(), stepped(fresh("dpmpp_2m_sde")))


# Pickled, since multiprocessing does so with what it hands over; no file is read or written.
@pytest.mark.parametrize("through", [copy.deepcopy, lambda scheduler: pickle.loads(pickle.dumps(scheduler))])
def test_copies_begin_anew(through):
    scheduler = fresh()
    one_step(scheduler)
    twin = through(scheduler)
    with pytest.raises(RuntimeError, match="set_timesteps"):
        one_step(twin)
    twin.set_timesteps(STEPS)
    assert torch.equal(stepped(twin), stepped(fresh()))
    t = scheduler.timesteps[1]
    scheduler.step(network(X, t), t, X)  # the first one's run is still its own


def test_another_thread_cannot_step_the_run():
    scheduler, errors = fresh(), []
    one_step(scheduler)

    def work():
        try:
            scheduler.step(X, scheduler.timesteps[1], X)
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(errors) == 1 and "another thread" in errors[0]
