"""What another program's names of samplers and sigma grids are here."""

import re
from typing import Any, NamedTuple

from k_diffusing.samplers.facts import FACTS


class Here(NamedTuple):
    """A name of another program, here.

    Attributes:
        sampler: Ours; None if there is none.
        grid: The sigma grid that the name asks for as well; None if it does not.
        options: Of the sampler, that the name stands for.
        automatic: The sigma grid that A1111 takes for it.
    """

    sampler: str | None
    grid: str | None = None
    options: dict[str, Any] = {}  # noqa: RUF012 - never changed
    automatic: str = "normal"


_SAMPLERS = {
    "euler a": "euler_ancestral",
    "dpm2": "dpm_2",
    "dpm2 a": "dpm_2_ancestral",
    "dpmpp2s a": "dpmpp_2s_ancestral",
}
_GRIDS = ("karras", "exponential", "polyexponential", "simple", "normal", "sgm_uniform", "ddim_uniform", "beta",
          "linear_quadratic", "kl_optimal", "vp")  # fmt: skip


def sampler_here(name: str) -> Here:
    """The sampler that a name of another program stands for."""
    key = re.sub(r"[^a-z0-9]", "", name.lower().replace("++", "pp"))
    grid = next((one for one in _GRIDS if key.endswith(one) and key != one), None)
    key = key.removesuffix(grid or "").removesuffix("gpu").removeprefix("sample")
    known = {re.sub(r"_", "", one): one for one in FACTS}
    known |= {re.sub(r" ", "", one): ours for one, ours in _SAMPLERS.items()} | {"ddim": "euler"}
    return Here(known.get(key), grid)


def grid_here(name: str) -> str | None:
    """The sigma grid that a name of another program stands for; None if there is none here."""
    key = name.lower().replace(" ", "_")
    return {"uniform": "normal", "ddim": "ddim_uniform"}.get(key, key if key in _GRIDS else None)
