"""Whether a choice of sigmas can be."""

from collections.abc import Callable, Collection

import torch

from k_diffusing.grids.named import SIGMA_GRIDS
from k_diffusing.names.grids import check_grid_name

LARGEST_SIGMA = 1e18  # its square is finite in float32


def check_grid_choice(sigma_grid: str | Callable | None, more: Collection[str] = (), **explicit) -> None:
    """Raise ValueError for an unknown grid name, or for a name beside explicit `sigmas` or `timesteps`.

    more: the names that a program has besides ours.
    """
    given = [name for name, value in explicit.items() if value is not None]
    if len(given) + (sigma_grid is not None) > 1:
        named = [f"sigma_grid={sigma_grid!r}"] if sigma_grid is not None else []
        raise ValueError(f"{' and '.join(given + named)} each set the sigmas: choose one")
    if sigma_grid is not None and not callable(sigma_grid) and sigma_grid not in (*SIGMA_GRIDS, *more):
        check_grid_name(sigma_grid)


def check_steps(num_inference_steps: int) -> None:
    """Raise ValueError unless there is at least one step to take."""
    if not isinstance(num_inference_steps, int) or num_inference_steps < 1:
        raise ValueError(f"num_inference_steps={num_inference_steps!r}: give an integer of at least 1")


def check_sigmas(sigmas, name: str = "sigmas", least: int = 1) -> None:
    """Raise ValueError unless `sigmas` are from 0 to LARGEST_SIGMA, strictly decreasing, and at least so many."""
    try:
        values = torch.as_tensor(sigmas, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):  # of words, None, a generator, ...
        values = torch.zeros(())
    if values.ndim != 1 or len(values) < least:
        raise ValueError(f"{name} must be a list of numbers, {least} at least, got {sigmas!r}")
    fits = (values >= 0) & (values <= LARGEST_SIGMA)  # nan does not
    if not fits.all():
        bad = fits.tolist().index(False)
        raise ValueError(
            f"{name}[{bad}] is {float(values[bad])}: every value must be finite, not negative, and at most "
            f"{LARGEST_SIGMA:g}"
        )
    rises = (values.diff() >= 0).nonzero().flatten().tolist()
    if rises:
        i = rises[0]
        raise ValueError(
            f"{name} must decrease strictly, but {name}[{i}] = {float(values[i]):g} is followed by "
            f"{float(values[i + 1]):g}: sort them from the largest to the smallest and drop doubles"
        )
