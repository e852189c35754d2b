"""What is known of our samplers that live by noise, as `facts` has it of all."""

from typing import Any

_DDIM = "Song et al. 2020, arXiv 2010.02502"
_ALL = {"nfe_per_step": 1, "stochastic": True, "noise": "gaussian"}
_ANCESTRAL = _ALL | {"order": 1, "family": "ancestral", "module": "ancestral", "sources": (_DDIM,)}
_FEW = _ALL | {"order": 1, "distilled": True, "family": "few steps", "module": "few_step"}

ER_SDE: dict[str, dict[str, Any]] = {
    "er_sde": _ALL | {
        "order": 3, "noiseless": None, "family": "ER-SDE", "module": "er_sde",
        "sources": ("Cui et al. 2023, arXiv 2309.06169, algorithm 5",),
    },
}  # fmt: skip
ANCESTRAL: dict[str, dict[str, Any]] = {
    "ddim": _ANCESTRAL | {"stochastic": False},
    "euler_ancestral_rf": _ANCESTRAL | {"twin": "euler"},
}
FEW_STEP: dict[str, dict[str, Any]] = {
    "lcm": _FEW | {"noiseless": None, "sources": ("Luo et al. 2023, arXiv 2310.04378",)},
    "tcd": _FEW | {"twin": "euler", "sources": ("Zheng et al. 2024, arXiv 2402.19159",)},
}
RESTART: dict[str, dict[str, Any]] = {
    "restart": _ALL | {
        "order": 2, "nfe_per_step": None, "noiseless": None, "family": "restart", "module": "restart",
        "sources": ("Xu et al. 2023, arXiv 2306.14878",),
    },
}  # fmt: skip
