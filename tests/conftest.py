"""One thread: the networks are so small that sharing the work costs more than doing it. And what tests share."""

import logging

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture
def warnings_of_bounds():
    """The messages about bounds that a sampler leaves out, whatever else listens to diffusers' logging."""
    messages, handler = [], logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger("diffusers.scheduler_bridge")
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)
