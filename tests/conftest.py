"""One thread: the networks are so small that sharing the work costs more than doing it."""

import torch

torch.set_num_threads(1)
