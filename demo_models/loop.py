"""The training loop the demo models share: optimizers, learning rate, weight average, checkpoints."""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from muon import Muon
from safetensors.torch import load_file, save_file
from torch import nn


def optimizers_for(model: nn.Module, lr: float, muon: bool) -> list[torch.optim.Optimizer]:
    """AdamW; with `muon`, Muon (Jordan et al. 2024) for every weight matrix but the embeddings."""
    matrices = []
    if muon:
        linear = [m.weight for m in model.modules() if isinstance(m, nn.Linear)]
        matrices = [w for w in linear if w.requires_grad]
    taken = {id(w) for w in matrices}
    rest = [p for p in model.parameters() if id(p) not in taken]
    optimizers = [torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.99), weight_decay=1e-3)]
    if matrices:
        optimizers.append(Muon(matrices, lr=lr))
    return optimizers


def save_run(path: Path, step: int, model: nn.Module, average: nn.Module, optimizers: list) -> None:
    """Writes weights, average and optimizer moments to one safetensors file, replacing the last one whole."""
    tensors = {"step": torch.tensor(step)}
    for prefix, module in (("model", model), ("average", average)):
        for name, value in module.state_dict().items():
            tensors[f"{prefix}.{name}"] = value.clone(memory_format=torch.contiguous_format)
    for n, optimizer in enumerate(optimizers):
        for i, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{n}.{i}.{key}": value.contiguous() for key, value in moments.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def load_run(path: Path, model: nn.Module, average: nn.Module, optimizers: list) -> int:
    """Restores what `save_run` wrote and returns the step to go on from; 0 where there is no file."""
    if not path.exists():
        return 0
    tensors = load_file(path)
    for prefix, module in (("model.", model), ("average.", average)):
        weights = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        module.load_state_dict(weights)
    states = [optimizer.state_dict() for optimizer in optimizers]
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, n, i, moment = key.split(".")
            states[int(n)]["state"].setdefault(int(i), {})[moment] = value
    for optimizer, state in zip(optimizers, states, strict=True):
        optimizer.load_state_dict(state)
    return int(tensors["step"])


def rate_at(step: int, steps: int, warmup: int, decay: int) -> float:
    """Fraction of the peak learning rate: linear warm-up, a plateau, and a line to zero over the last `decay` steps.

    The plateau may be stopped and resumed with another end at any time: only the decay has to know it.
    """
    return min(1.0, (step + 1) / warmup, (steps - step) / max(1, decay))


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, step: int, decay: float) -> None:
    """Exponential moving average of the weights; young averages forget faster."""
    weight = 1 - min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), weight)


def train(
    model: nn.Module,
    average: nn.Module,
    loss_at: Callable[[int, torch.Generator], torch.Tensor],
    path: Path,
    *,
    steps: int,
    decay: int,
    lr: float,
    seed: int,
    memory: float = 0.999,
    warmup: int = 100,
    muon: bool = False,
) -> None:
    """Takes `model` and its weight average through `steps` steps on loss_at(step, generator).

    The learning rate falls to zero over the last `decay` steps; `memory` is the average's share of itself a step.

    The generator is seeded by (seed, step), so a run that was stopped and resumed from `path` sees the same
    draws. A checkpoint is written every two minutes and at the end; a line is printed every 50 steps.
    """
    optimizers = optimizers_for(model, lr, muon)
    start, device = load_run(path, model, average, optimizers), next(model.parameters()).device
    saved, recent, cpu = time.monotonic(), [], time.process_time()
    for step in range(start, steps):
        for group in [group for optimizer in optimizers for group in optimizer.param_groups]:
            group["lr"] = lr * rate_at(step, steps, warmup, decay)
        loss = loss_at(step, torch.Generator(device).manual_seed(seed * 1_000_003 + step))
        model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        update_average(average, model, step, memory)
        recent.append(loss.detach())
        if (step + 1) % 50 == 0:
            minutes = (time.process_time() - cpu) / 60
            print(
                f"step {step + 1:5d}  loss {torch.stack(recent).mean():.5f}  {minutes:6.2f} CPU-min",
                flush=True,
            )
            recent = []
        if time.monotonic() - saved > 120 or step + 1 == steps:
            save_run(path, step + 1, model, average, optimizers)
            saved = time.monotonic()


def load_average(path: Path, average: nn.Module) -> None:
    """Only the weight average of a run that `save_run` wrote."""
    tensors = load_file(path)
    average.load_state_dict({k[8:]: v for k, v in tensors.items() if k.startswith("average.")})
