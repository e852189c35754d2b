"""What is known of our samplers of several stages, as `facts` has it of all."""

from typing import Any

_SEEDS, _RES, _DPMPP = "SEEDS, arXiv 2305.14267", "RES, arXiv 2308.02157", "DPM-Solver++, arXiv 2211.01095"
_ETD = "Hochbruck and Ostermann, Acta Numerica 19 (2010)"
_BUTCHER = "Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, chapter II.1"

SINGLESTEP: dict[str, dict[str, Any]] = {
    "res_2s": {
        "order": 2, "nfe_per_step": 2, "stochastic": False, "noise": "gaussian", "family": "singlestep",
        "module": "singlestep", "sources": (_RES,),
    },
    "res_3s": {
        "order": 3, "nfe_per_step": 3, "stochastic": False, "noise": "gaussian", "family": "singlestep",
        "module": "singlestep", "sources": (_RES, _ETD),
    },
    "seeds_2": {
        "order": 2, "nfe_per_step": 2, "stochastic": True, "noise": "gaussian", "twin": "dpmpp_2s",
        "family": "singlestep", "module": "singlestep", "sources": (_SEEDS,),
    },
    "seeds_3": {
        "order": 3, "nfe_per_step": 3, "stochastic": True, "noise": "gaussian", "twin": "dpmpp_3s",
        "family": "singlestep", "module": "singlestep", "sources": (_SEEDS,),
    },
    "exp_heun_2_x0": {
        "order": 2, "nfe_per_step": 2, "stochastic": False, "noise": None, "family": "singlestep",
        "module": "singlestep", "sources": (_ETD,),
    },
    "exp_heun_2_x0_sde": {
        "order": 2, "nfe_per_step": 2, "stochastic": True, "noise": "gaussian", "twin": "exp_heun_2_x0",
        "family": "singlestep", "module": "singlestep", "sources": (_ETD, _SEEDS),
    },
    "dpmpp_2s": {
        "order": 2, "nfe_per_step": 2, "stochastic": False, "noise": None, "family": "singlestep",
        "module": "singlestep", "sources": (_DPMPP,),
    },
    "dpmpp_3s": {
        "order": 3, "nfe_per_step": 3, "stochastic": False, "noise": None, "family": "singlestep",
        "module": "singlestep", "sources": (_DPMPP,),
    },
}  # fmt: skip
RUNGE_KUTTA: dict[str, dict[str, Any]] = {
    "midpoint": {
        "order": 2, "nfe_per_step": 2, "stochastic": False, "noise": None, "family": "Runge-Kutta",
        "module": "runge_kutta", "sources": (_BUTCHER,),
    },
    "ralston": {
        "order": 2, "nfe_per_step": 2, "stochastic": False, "noise": None, "family": "Runge-Kutta",
        "module": "runge_kutta", "sources": (_BUTCHER,),
    },
    "ralston_3": {
        "order": 3, "nfe_per_step": 3, "stochastic": False, "noise": None, "family": "Runge-Kutta",
        "module": "runge_kutta", "sources": (_BUTCHER,),
    },
    "rk4": {
        "order": 4, "nfe_per_step": 4, "stochastic": False, "noise": None, "family": "Runge-Kutta",
        "module": "runge_kutta", "sources": (_BUTCHER,),
    },
    "heunpp2": {
        "order": 1, "nfe_per_step": 3, "nfe_last": (2, 1), "ends_alike": True, "stochastic": False, "noise": None,
        "family": "Runge-Kutta", "module": "runge_kutta", "sources": ("Carzit, sd-webui-samplers-scheduler",),
    },
}  # fmt: skip
