"""What is known of the samplers, and the table that shows it: the standard library alone.

The facts of a sampler are the fields of its `Sampler` by their names.
"""

from typing import Any

from k_diffusing.samplers.cfg_pp_facts import CFG_PP
from k_diffusing.samplers.multistep_facts import MULTISTEP
from k_diffusing.samplers.noise_facts import ANCESTRAL, ER_SDE, FEW_STEP, RESTART
from k_diffusing.samplers.stages_facts import RUNGE_KUTTA, SINGLESTEP

# k_diffusion's own.
FACTS: dict[str, dict[str, Any]] = {
    "euler": {"order": 1, "nfe_per_step": 1, "stochastic": False, "noise": "churn", "derivative_only": True},
    "euler_ancestral": {
        "order": 1, "nfe_per_step": 1, "stochastic": True, "noise": "gaussian", "derivative_only": True,
        "aliases": ("ddpm",),
    },
    "heun": {"order": 2, "nfe_per_step": 2, "stochastic": False, "noise": "churn", "derivative_only": True},
    "dpm_2": {"order": 2, "nfe_per_step": 2, "stochastic": False, "noise": "churn", "derivative_only": True},
    "dpm_2_ancestral": {
        "order": 2, "nfe_per_step": 2, "stochastic": True, "noise": "gaussian", "derivative_only": True,
    },
    "lms": {
        "order": 4, "nfe_per_step": 1, "stochastic": False, "noise": None, "derivative_only": True, "measured": 2,
    },
    "dpm_fast": {
        "order": 3, "nfe_per_step": 3, "stochastic": False, "noise": "gaussian", "derivative_only": True,
        "takes": "sigma_range",
    },
    "dpm_adaptive": {
        "order": 3, "nfe_per_step": 3, "stochastic": False, "noise": "gaussian", "derivative_only": True,
        "takes": "sigma_range", "adaptive": True,
    },
    "dpmpp_2s_ancestral": {"order": 2, "nfe_per_step": 2, "stochastic": True, "noise": "gaussian"},
    "dpmpp_sde": {
        "order": 2, "nfe_per_step": 2, "stochastic": True, "noise": "brownian", "aliases": ("dpmpp_sde_gpu",),
    },
    "dpmpp_2m": {"order": 2, "nfe_per_step": 1, "stochastic": False, "noise": None},
    "dpmpp_2m_sde": {
        "order": 2, "nfe_per_step": 1, "stochastic": True, "noise": "brownian", "single_step": False,
        "aliases": ("dpmpp_2m_sde_gpu",),
    },
    "dpmpp_3m_sde": {
        "order": 3, "nfe_per_step": 1, "stochastic": True, "noise": "brownian", "single_step": False,
        "sigma_grid": "karras", "measured": 2, "aliases": ("dpmpp_3m_sde_gpu",),
    },
}  # fmt: skip
OUR_FACTS: dict[str, dict[str, Any]] = (
    MULTISTEP | SINGLESTEP | ER_SDE | ANCESTRAL | FEW_STEP | RUNGE_KUTTA | RESTART | CFG_PP
)
ALL_FACTS = FACTS | OUR_FACTS
ALIASES = {alias: name for name, facts in ALL_FACTS.items() for alias in facts.get("aliases", ())}
# The ten to begin with: what ComfyUI's published workflows use, most used first, and what is asked for most elsewhere.
FIRST = (
    "euler", "uni_pc", "res_multistep", "euler_ancestral", "er_sde", "lcm", "dpmpp_2m", "dpmpp_2m_sde",
    "gradient_estimation", "res_2s",
)  # fmt: skip
COLUMNS = ("", "order", "evaluations a step", "adds noise", "sigmas")


def row(name: str) -> tuple[str, ...]:
    """A sampler's cells of COLUMNS."""
    facts = ALL_FACTS[name]
    order = f"{facts['order']} ({facts['measured']:g})" if "measured" in facts else str(facts["order"])
    evaluations, sigmas = str(facts["nfe_per_step"] or "varies"), "any"
    if facts.get("takes") == "sigma_range":
        evaluations += " a trial" if facts.get("adaptive") else " (n in all)"
        sigmas = "a range"
    elif facts.get("sigma_grid"):
        sigmas = "smooth in log sigma"
    elif facts.get("distilled"):
        sigmas = "of a distilled model"
    if facts["noise"] is None:
        noise = "no"
    elif facts["stochastic"]:
        noise = "yes"
    else:
        noise = "if s_churn > 0" if facts["noise"] == "churn" else "if eta > 0"
    return name, order, evaluations, noise, sigmas


def sections() -> dict[str, list[str]]:
    """The names of all samplers by the headings of the table: the ten to begin with, then the others by family."""
    found = {"to begin with": [*FIRST]}
    for name, facts in ALL_FACTS.items():
        if name not in FIRST:
            found.setdefault(facts.get("family", "k_diffusion"), []).append(name)
    return found


def sampler_table() -> str:
    """All samplers as lines of text, a heading above each section, and the other names they go by."""
    tables = {heading: [row(name) for name in names] for heading, names in sections().items()}
    widths = [max(map(len, column)) for column in zip(COLUMNS, *sum(tables.values(), []), strict=True)]

    def line(cells):
        return "  ".join(map(str.ljust, cells, widths)).rstrip()

    lines = [line(COLUMNS)]
    for heading, rows in tables.items():
        lines += ["", f"{heading}:", *map(line, rows)]
    return "\n".join([*lines, "", *(f"{alias} is {name}" for alias, name in ALIASES.items())])
