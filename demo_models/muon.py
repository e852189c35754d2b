"""Muon (Jordan et al. 2024) in float32: torch.optim.Muon works in bfloat16, slow on most CPUs."""

from collections.abc import Iterable

import torch


def orthogonalised(matrix: torch.Tensor, iterations: int = 5) -> torch.Tensor:
    """The matrix with its singular values pushed towards 1 by a quintic Newton-Schulz iteration."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.mT if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.775 * gram + 2.0315 * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum whose matrix updates are orthogonalised and scaled to AdamW's usual size."""

    def __init__(self, params: Iterable[torch.Tensor], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for weight in [w for w in group["params"] if w.grad is not None]:
                state = self.state[weight]
                average = state.setdefault("momentum", torch.zeros_like(weight))
                average.lerp_(weight.grad, 1 - group["momentum"])
                update = orthogonalised(weight.grad.lerp(average, group["momentum"]))
                weight.sub_(update, alpha=0.2 * group["lr"] * max(weight.shape) ** 0.5)
