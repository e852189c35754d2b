"""What is known of k_diffusion's samplers, and the table that shows it: the standard library alone.

The facts of a sampler are the fields of its `Sampler` by their names.
"""

from typing import Any

FACTS: dict[str, dict[str, Any]] = {
    "euler": {"order": 1, "nfe_per_step": 1, "stochastic": False, "noise": "churn", "derivative_only": True},
    "euler_ancestral": {
        "order": 1, "nfe_per_step": 1, "stochastic": True, "noise": "gaussian", "derivative_only": True,
    },
    "heun": {"order": 2, "nfe_per_step": 2, "stochastic": False, "noise": "churn", "derivative_only": True},
    "dpm_2": {"order": 2, "nfe_per_step": 2, "stochastic": False, "noise": "churn", "derivative_only": True},
    "dpm_2_ancestral": {
        "order": 2, "nfe_per_step": 2, "stochastic": True, "noise": "gaussian", "derivative_only": True,
    },
    "lms": {"order": 4, "nfe_per_step": 1, "stochastic": False, "noise": None, "derivative_only": True},
    "dpm_fast": {
        "order": 3, "nfe_per_step": 3, "stochastic": False, "noise": "gaussian", "derivative_only": True,
        "takes": "sigma_range",
    },
    "dpm_adaptive": {
        "order": 3, "nfe_per_step": 3, "stochastic": False, "noise": "gaussian", "derivative_only": True,
        "takes": "sigma_range", "adaptive": True,
    },
    "dpmpp_2s_ancestral": {"order": 2, "nfe_per_step": 2, "stochastic": True, "noise": "gaussian"},
    "dpmpp_sde": {"order": 2, "nfe_per_step": 2, "stochastic": True, "noise": "brownian"},
    "dpmpp_2m": {"order": 2, "nfe_per_step": 1, "stochastic": False, "noise": None},
    "dpmpp_2m_sde": {"order": 2, "nfe_per_step": 1, "stochastic": True, "noise": "brownian", "single_step": False},
    "dpmpp_3m_sde": {
        "order": 3, "nfe_per_step": 1, "stochastic": True, "noise": "brownian", "single_step": False,
        "sigma_grid": "karras",
    },
}  # fmt: skip
# Orders of accuracy that are measured to be lower than published: tests/samplers/test_order.py.
MEASURED = {"lms": 2, "dpmpp_3m_sde": 2}
COLUMNS = ("", "order", "evaluations a step", "adds noise", "sigmas")


def row(name: str) -> tuple[str, ...]:
    """A sampler's cells of COLUMNS."""
    facts = FACTS[name]
    order = f"{facts['order']} ({MEASURED[name]})" if name in MEASURED else str(facts["order"])
    evaluations, sigmas = str(facts["nfe_per_step"]), "any"
    if facts.get("takes") == "sigma_range":
        evaluations += " a trial" if facts.get("adaptive") else " (n in all)"
        sigmas = "a range"
    elif facts.get("sigma_grid"):
        sigmas = "smooth in log sigma"
    if facts["noise"] is None:
        noise = "no"
    elif facts["stochastic"]:
        noise = "yes"
    else:
        noise = "if s_churn > 0" if facts["noise"] == "churn" else "if eta > 0"
    return name, order, evaluations, noise, sigmas


def sampler_table() -> str:
    """All samplers as lines of text, a heading above."""
    rows = [COLUMNS, *map(row, FACTS)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, cells, widths)).rstrip() for cells in rows)
