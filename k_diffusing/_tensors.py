"""Small facts about tensors and noise levels."""

import math

import torch

# Two noise levels are one if they differ by no more than this, relative to the larger:
ROUNDED = 1e-5  # in one run, where a level went through float32 and back
COMPUTED = 1e-4  # in two runs: another order of operations makes 1e-6, a change of coordinates near t = 1 1e-5


def same_level(a: float, b: float, tolerance: float = ROUNDED) -> bool:
    """Whether a and b are one noise level, but for rounding."""
    return math.isclose(a, b, rel_tol=tolerance)


def cast(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The tensor in a dtype; itself if it has that, which torch's own `to` takes longer to find."""
    return tensor if tensor.dtype == dtype else tensor.to(dtype)


def twice(batch: torch.Tensor) -> torch.Tensor:
    """A batch [B, ...] after itself, [2 B, ...]; of one image nothing is copied, and nothing may be written into it."""
    return batch.expand(2, *batch.shape[1:]) if len(batch) == 1 else torch.cat([batch, batch])


class Stamp:
    """A tensor as it was at one moment, to be told later whether it was changed in place.

    torch counts the changes of a tensor, but not of one made under inference_mode: of that a copy is kept and its
    values are compared.
    """

    def __init__(self, tensor: torch.Tensor):
        self.tensor = tensor
        self.copy = tensor.clone() if tensor.is_inference() else None
        self.version = None if tensor.is_inference() else tensor._version

    def holds(self, tensor: torch.Tensor) -> bool:
        """Whether this is the same tensor, and nothing was written into it since."""
        if tensor is not self.tensor:
            return False
        return tensor._version == self.version if self.copy is None else torch.equal(tensor, self.copy)
