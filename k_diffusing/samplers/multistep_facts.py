"""What is known of our multistep samplers, as `facts` has it of all."""

from typing import Any

_RES = "RES, arXiv 2308.02157"

MULTISTEP: dict[str, dict[str, Any]] = {
    "res_multistep": {
        "order": 2, "nfe_per_step": 1, "stochastic": False, "noise": None, "family": "multistep",
        "module": "exponential_multistep", "sources": (_RES, "DPM-Solver++, arXiv 2211.01095"), "aliases": ("res_2m",),
    },
    "res_3m": {
        "order": 3, "measured": 2.2, "nfe_per_step": 1, "stochastic": False, "noise": None, "family": "multistep",
        "module": "exponential_multistep", "sources": (_RES, "DPM-Solver++, arXiv 2211.01095"),
        "aliases": ("dpmpp_3m",),
    },
}  # fmt: skip
