"""What is known of our samplers with CFG++, as `facts` has it of all."""

from typing import Any

_CFG_PP, _RES = "Chung et al. 2024, arXiv 2406.08070", "Zhang et al. 2023, arXiv 2308.02157"
_ALL = {
    "nfe_per_step": 1, "stochastic": False, "noise": None, "uses_uncond": True, "family": "CFG++", "module": "cfg_pp",
    "sources": (_CFG_PP,),
}  # fmt: skip
_NOISY = _ALL | {"stochastic": True, "noise": "gaussian"}

CFG_PP: dict[str, dict[str, Any]] = {
    "euler_cfg_pp": _ALL | {"order": 1},
    "euler_ancestral_cfg_pp": _NOISY | {"order": 1, "twin": "euler_cfg_pp"},
    "dpmpp_2m_cfg_pp": _ALL | {"order": 2},
    "dpmpp_2s_ancestral_cfg_pp": _NOISY | {"order": 2, "nfe_per_step": 2, "twin": "dpmpp_2s"},
    "res_multistep_cfg_pp": _ALL | {"order": 2, "sources": (_CFG_PP, _RES)},
    "res_multistep_ancestral_cfg_pp": _NOISY | {
        "order": 2, "twin": "res_multistep_cfg_pp", "sources": (_CFG_PP, _RES),
    },
    "gradient_estimation_cfg_pp": _ALL | {
        "order": 1, "sources": (_CFG_PP, "Permenter and Yuan 2023, arXiv 2306.04848"),
    },
    "rectified_cfg_pp": _ALL | {
        "order": 1, "nfe_per_step": 2, "nfe_last": (2,), "flow_coordinates": "flow",
        "sources": ("Saini, Gupta and Bovik 2025, arXiv 2510.07631",),
    },
}  # fmt: skip
