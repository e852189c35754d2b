"""What is known of our samplers that live by noise, as `facts` has it of all."""

from typing import Any

ER_SDE: dict[str, dict[str, Any]] = {
    "er_sde": {
        "order": 3, "nfe_per_step": 1, "stochastic": True, "noise": "gaussian", "noiseless": None, "family": "ER-SDE",
        "module": "er_sde", "sources": ("ER-SDE-Solver, arXiv 2309.06169",),
    },
}  # fmt: skip
ANCESTRAL: dict[str, dict[str, Any]] = {
    "ddim": {
        "order": 1, "nfe_per_step": 1, "stochastic": False, "noise": "gaussian", "family": "ancestral",
        "module": "ancestral", "sources": ("DDIM, arXiv 2010.02502",),
    },
    "euler_ancestral_rf": {
        "order": 1, "nfe_per_step": 1, "stochastic": True, "noise": "gaussian", "twin": "euler",
        "family": "ancestral", "module": "ancestral", "sources": ("DDIM, arXiv 2010.02502",),
    },
}  # fmt: skip
FEW_STEP: dict[str, dict[str, Any]] = {
    "lcm": {
        "order": 1, "nfe_per_step": 1, "stochastic": True, "noise": "gaussian", "noiseless": None,
        "distilled": True, "family": "few steps", "module": "few_step",
        "sources": ("latent consistency models, arXiv 2310.04378",),
    },
    "tcd": {
        "order": 1, "nfe_per_step": 1, "stochastic": True, "noise": "gaussian", "twin": "euler",
        "distilled": True, "family": "few steps", "module": "few_step",
        "sources": ("trajectory consistency distillation, arXiv 2402.19159",),
    },
}  # fmt: skip
