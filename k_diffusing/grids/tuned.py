"""Sigma grids that were found for a model, from the file that they were written to.

grid = load_grid("tuned.json")
pipe(prompt, comfy_sampler="dpmpp_2m", sigma_grid=grid, num_inference_steps=8)    # or sigma_grid="tuned.json"
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from k_diffusing.model.fingerprint import difference, fingerprint
from k_diffusing.model.schedules import FlowSchedule
from k_diffusing.protocols import NoiseSchedule

FORMAT = "k-diffusing tuned grid"


@dataclass(frozen=True)
class TunedGrid:
    """The sigmas of a file, a function (schedule, n) -> [n + 1] as sigma_grid= takes it.

    Attributes:
        name: The file's.
        facts: What is in it.
        force: Whether another model may have them.
    """

    name: str
    facts: dict[str, Any]
    force: bool = False

    def __call__(self, schedule: NoiseSchedule, n: int) -> torch.Tensor:
        """The grid of n steps. Raises ValueError for n that it was not found for, or a model of another kind."""
        known = self.facts["sigmas"]
        if isinstance(schedule, FlowSchedule) != self.facts["flow"]:
            raise ValueError(f"{self.name} is for {'' if self.facts['flow'] else 'no '}flow models, unlike this one")
        if str(n) not in known:
            raise ValueError(
                f"{self.name} has grids of {', '.join(known)} steps, not {n}: give num_inference_steps="
                f"{min(known, key=lambda steps: abs(int(steps) - n))}, or tune for {n}"
            )
        return torch.tensor(known[str(n)], dtype=torch.float32)

    @property
    def plain(self) -> str:
        """What JSON can hold of it; a user may give the same."""
        return self.name

    def check(self, network: torch.nn.Module) -> None:
        """Raise ValueError for another network than that which the grids were found for, unless forced."""
        there, here = self.facts.get("model", {}).get("fingerprint"), fingerprint(network)
        if self.force or there is None or here is None:
            return
        found = difference(there, here)
        if found:
            raise ValueError(
                f"{self.name} was tuned for another model ({self.facts['model'].get('name')}), which differs in "
                f"{found}: tune for this one, or force it with sigma_grid=load_grid({self.name!r}, force=True)"
            )


def load_grid(path: str | os.PathLike, force: bool = False) -> TunedGrid:
    """The grids of a file that `k-diffusing tune` has written.

    Args:
        path: The file.
        force: Whether to take them for another model than they were found for.

    Raises:
        ValueError: There is no such file, or it holds something else.
    """
    try:
        facts = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is no file of tuned grids ({error}): k-diffusing tune writes one") from error
    sigmas = facts.get("sigmas") if isinstance(facts, dict) else None
    if not (isinstance(sigmas, dict) and sigmas and facts.get("format") == FORMAT and "flow" in facts):
        raise ValueError(f"{path} holds no grids of k-diffusing tune: give one of its files, or sigmas= for a list")
    return TunedGrid(str(path), facts, force)


def is_tuned(path: str | os.PathLike) -> bool:
    """Whether a file says that it holds tuned grids; of what cannot be read, no."""
    try:
        facts = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(facts, dict) and facts.get("format") == FORMAT


def of_network(sigma_grid: Any, network: torch.nn.Module) -> Any:
    """What is asked for, with a file of tuned grids replaced by these; anything else as it is.

    Raises ValueError as `load_grid` and for another network than theirs.
    """
    named = isinstance(sigma_grid, os.PathLike) or (isinstance(sigma_grid, str) and sigma_grid.endswith(".json"))
    if named and is_tuned(sigma_grid):
        sigma_grid = load_grid(sigma_grid)
    if isinstance(sigma_grid, TunedGrid):
        sigma_grid.check(network)
    return sigma_grid
