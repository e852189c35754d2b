"""The table of scheduler classes against the classes of the installed diffusers."""

import inspect

import diffusers
import pytest
import torch
from diffusers import ConfigMixin, SchedulerMixin

from k_diffusing.model.scheduler_classes import RUNNABLE, SCHEDULER_CLASSES
from k_diffusing.model.scheduler_config import noise_schedule

KNOWN = {name: row for name, row in SCHEDULER_CLASSES.items() if hasattr(diffusers, name)}
WITH_SCHEDULE = {name: row for name, row in KNOWN.items() if row.has_schedule}


def after_set_timesteps(name: str, **config):
    scheduler = getattr(diffusers, name)(**config)
    scheduler.set_timesteps(6)
    return scheduler


@pytest.mark.parametrize("name", WITH_SCHEDULE)
def test_how_noise_levels_are_told(name):
    scheduler, row = after_set_timesteps(name), WITH_SCHEDULE[name]
    assert hasattr(scheduler, "sigmas") == row.lists_sigmas
    assert hasattr(scheduler, "set_shift") == row.set_shift
    if not row.lists_sigmas:
        assert float(row.last_alpha(scheduler)) == float(getattr(scheduler, "final_alpha_cumprod", 1.0))
    if not row.flow:
        one = torch.ones(1)
        assert torch.equal(scheduler.scale_model_input(one, scheduler.timesteps[0]), one) == row.scaled


@pytest.mark.parametrize("name", RUNNABLE)
def test_how_a_class_is_stepped(name):
    scheduler, row = after_set_timesteps(name), KNOWN[name]
    assert scheduler.order == row.order
    assert hasattr(scheduler, "set_begin_index") == row.counts
    assert hasattr(scheduler, "prk_timesteps") == row.warm_up
    assert hasattr(scheduler, "noise_sampler") == row.one_path
    knows_flow = "use_flow_sigmas" in scheduler.config
    assert (knows_flow and hasattr(scheduler, "_sigma_to_alpha_sigma_t")) == (knows_flow and row.log_alpha)


def test_no_class_with_a_noise_schedule_is_missing():
    named = (getattr(diffusers, name) for name in dir(diffusers) if name.endswith("Scheduler"))
    classes = {cls for cls in named if isinstance(cls, type) and issubclass(cls, SchedulerMixin)}
    with_betas = {cls.__name__ for cls in classes if "beta_schedule" in inspect.signature(cls.__init__).parameters}
    assert with_betas and with_betas <= set(WITH_SCHEDULE)


def test_a_class_that_is_not_known_is_refused():
    class Unknown(SchedulerMixin, ConfigMixin):
        def __init__(self):
            self.register_to_config()

    with pytest.raises(ValueError, match="Unknown has no noise schedule we know: use EulerDiscreteScheduler"):
        noise_schedule(Unknown())
