"""One thread: the networks are so small that sharing the work costs more than doing it. And what tests share."""

import logging

import hypothesis
import pytest
import torch

torch.set_num_threads(1)

# The same examples on each machine, whatever its speed; to look for others: pytest --hypothesis-seed=0 and so on with
# --hypothesis-profile=default.
hypothesis.settings.register_profile("suite", derandomize=True, deadline=None, database=None, max_examples=40)
hypothesis.settings.load_profile("suite")


@pytest.fixture
def warnings_of_bounds():
    """The messages about bounds that a sampler leaves out, whatever else listens to diffusers' logging."""
    messages, handler = [], logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger("diffusers.k_diffusing")  # of whichever module
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)
