"""What is known of our multistep samplers, as `facts` has it of all."""

from typing import Any

_RES, _DPM = "Zhang et al. 2023, arXiv 2308.02157", "Lu et al. 2022, arXiv 2211.01095"
_UNIPC, _SA = "Zhao et al. 2023, arXiv 2302.04867", "Xue et al. 2023, arXiv 2309.05019, eqs. 15 and 18"
_DEIS, _IPNDM = "Zhang and Chen 2022, arXiv 2204.13902", "Liu et al. 2022, arXiv 2202.09778; " + "Zhang and Chen 2022"
_GE = "Permenter and Yuan 2023, arXiv 2306.04848"
_ALL = {"nfe_per_step": 1, "stochastic": False, "noise": None, "family": "multistep"}
_SDE = _ALL | {"stochastic": True, "noise": "brownian", "module": "exponential_multistep"}
_PC = _ALL | {"module": "predictor_corrector"}
_SA_FACTS = _PC | {"stochastic": True, "noise": "gaussian", "sources": (_SA,), "order": 4}
_TIME = _ALL | {"module": "time_adams"}

MULTISTEP: dict[str, dict[str, Any]] = {
    "res_multistep": _ALL | {
        "order": 2, "module": "exponential_multistep", "sources": (_RES, _DPM), "aliases": ("res_2m",),
    },
    "res_multistep_ancestral": _SDE | {"order": 2, "noise": "gaussian", "sources": (_RES,), "twin": "res_multistep"},
    "res_3m": _ALL | {
        "order": 3, "measured": 2.2, "module": "exponential_multistep", "sources": (_RES, _DPM),
        "aliases": ("dpmpp_3m",),
    },
    "dpmpp_2m_sde_heun": _SDE | {
        "order": 2, "sources": (_DPM,), "twin": "res_multistep", "aliases": ("dpmpp_2m_sde_heun_gpu",),
    },
    "dpmpp_3m_sde_exact": _SDE | {
        "order": 3, "measured": 2.2, "sources": (_DPM,), "twin": "res_3m", "sigma_grid": "karras",
    },
    "uni_pc": _PC | {"order": 4, "measured": 3.5, "sources": (_UNIPC,)},
    "uni_pc_bh2": _PC | {"order": 4, "sources": (_UNIPC,)},
    "sa_solver": _SA_FACTS | {"measured": 4.3},
    "sa_solver_pece": _SA_FACTS | {"nfe_per_step": 2, "nfe_first": (1,), "nfe_last": (2,)},
    "deis": _TIME | {"order": 3, "measured": 2.5, "sources": (_DEIS,)},
    "ipndm": _TIME | {"order": 2, "sources": (_IPNDM,)},
    "ipndm_v": _TIME | {"order": 4, "measured": 2.7, "sources": (_IPNDM,)},
    "gradient_estimation": _TIME | {"order": 1, "sources": (_GE,)},
}  # fmt: skip
