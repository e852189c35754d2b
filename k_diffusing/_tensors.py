"""Small facts about tensors."""

import torch


class Stamp:
    """A tensor as it was at one moment, to be told later whether it was changed in place.

    torch counts the changes of a tensor, but not of one made under inference_mode: of that a copy is kept and its
    values are compared.
    """

    def __init__(self, tensor: torch.Tensor):
        self.tensor = tensor
        self.before = tensor.clone() if tensor.is_inference() else tensor._version

    def holds(self, tensor: torch.Tensor) -> bool:
        """Whether this is the same tensor, and nothing was written into it since."""
        if tensor is not self.tensor:
            return False
        return torch.equal(tensor, self.before) if tensor.is_inference() else tensor._version == self.before
