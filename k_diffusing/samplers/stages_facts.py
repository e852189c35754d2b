"""What is known of our samplers of several stages, as `facts` has it of all."""

from typing import Any

_SEEDS, _RES = "Gonzalez et al. 2023, arXiv 2305.14267", "Zhang et al. 2023, arXiv 2308.02157"
_DPMPP, _ETD = "Lu et al. 2022, arXiv 2211.01095", "Hochbruck and Ostermann 2010, Acta Numerica 19"
_EXPONENTIAL = {"stochastic": False, "family": "singlestep", "module": "singlestep"}
_TWO, _THREE = _EXPONENTIAL | {"order": 2, "nfe_per_step": 2}, _EXPONENTIAL | {"order": 3, "nfe_per_step": 3}
_IF_ETA, _NONE, _NOISY = {"noise": "gaussian"}, {"noise": None}, {"noise": "gaussian", "stochastic": True}

SINGLESTEP: dict[str, dict[str, Any]] = {
    "res_2s": _TWO | _IF_ETA | {"sources": (_RES,)},
    "res_3s": _THREE | _IF_ETA | {"sources": (_RES, _ETD)},
    "seeds_2": _TWO | _NOISY | {"twin": "dpmpp_2s", "sources": (_SEEDS,)},
    "seeds_3": _THREE | _NOISY | {"twin": "dpmpp_3s", "sources": (_SEEDS,)},
    "exp_heun_2_x0": _TWO | _NONE | {"sources": (_ETD,)},
    "exp_heun_2_x0_sde": _TWO | _NOISY | {"twin": "exp_heun_2_x0", "sources": (_ETD, _SEEDS)},
    "dpmpp_2s": _TWO | _NONE | {"sources": (_DPMPP,)},
    "dpmpp_3s": _THREE | _NONE | {"sources": (_DPMPP,)},
}
_TABLEAU = {
    "stochastic": False, "noise": None, "family": "Runge-Kutta", "module": "runge_kutta",
    "sources": ("Hairer, Norsett and Wanner 1993, Solving Ordinary Differential Equations I, chapter II.1",),
}  # fmt: skip

RUNGE_KUTTA: dict[str, dict[str, Any]] = {
    "midpoint": _TABLEAU | {"order": 2, "nfe_per_step": 2},
    "ralston": _TABLEAU | {"order": 2, "nfe_per_step": 2},
    "ralston_3": _TABLEAU | {"order": 3, "nfe_per_step": 3},
    "rk4": _TABLEAU | {"order": 4, "nfe_per_step": 4},
    "heunpp2": _TABLEAU | {
        "order": 1, "nfe_per_step": 3, "nfe_last": (2, 1), "ends_alike": True,
        "sources": ("Carzit, sd-webui-samplers-scheduler",),
    },
}  # fmt: skip
