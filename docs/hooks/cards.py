"""The page of cards: what is known of each sampler, from the package's tables and docs/data.

The page is made while the site is built: nothing on it is written by hand but the formulas (formulas.py).
"""

import json
import re
from html import escape
from pathlib import Path

from curves import backdrop, figure, points
from formulas import FORMULAS, SOURCES
from mkdocs.structure.files import File

from k_diffusing.names.samplers import SAMPLER_NAMES
from k_diffusing.samplers.facts import ALL_FACTS

INTRO = """# All samplers

A card for each: a step in formulas, its facts, its names in other programs, what it draws on the two demo models in
{steps} steps, and how its error falls with network evaluations. The curve is of the probability-flow ODE on a
closed-form model, without noise (thin: all others). *Distance* is that of the results, noise and all, from a known
distribution (W1; exact samples are at 0.003 to 0.015), with {distances} steps.

A step goes from sigma `s` to `t`. `D` is the denoised estimate at `x` and `s`, `e = (x − D) / s`. `D'`, `e'` are those
of a further stage, `D₁`, `e₁` those of the step before. `h = log(s / t)`, `h₁` that of the step before. `z` is unit
noise; `up = η t √(1 − t²/s²)`, `t` at most, and `down = √(t² − up²)`. [samplers.md](samplers.md) derives
and compares them.
"""
DATA = ("samplers", "sampler_curves", "sampler_pictures")
PROGRAMS = ("diffusers", "ComfyUI", "A1111")  # each has a field of its name in SamplerNames
TITLES = {  # of the families, in the order of the page, each with its place in samplers.md
    "k_diffusion": ("k_diffusion's own", "k_diffusions-own"),
    "multistep": ("Multistep", "multistep"),
    "singlestep": ("Singlestep", "singlestep"),
    "Runge-Kutta": ("Runge-Kutta", "runge-kutta"),
    "ER-SDE": ("ER-SDE", "er-sde"),
    "ancestral": ("Ancestral", "ancestral"),
    "restart": ("Restart", "restart"),
    "few steps": ("For models distilled to few steps", "for-models-distilled-to-few-steps"),
    "CFG++": ("CFG++", "cfg"),
}


def on_files(files, config):
    """Adds cards.md."""
    data = Path(config.docs_dir) / "data"
    found = {name: json.loads((data / f"{name}.json").read_text("utf-8")) for name in DATA}
    files.append(File.generated(config, "cards.md", content=page(found)))
    return files


def page(data: dict[str, dict]) -> str:
    """The page, in Markdown, of the data files by name."""
    curves = {row["sampler"]: points(row) for row in data["sampler_curves"]["rows"]}
    distances = {row["sampler"]: row["w1"] for row in data["samplers"]["rows"]}
    drawn = data["sampler_pictures"]["settings"]
    steps = data["samplers"]["settings"]["steps"]
    parts = [INTRO.format(steps=drawn["steps"], distances=" / ".join(map(str, steps))), backdrop(curves)]
    for family, (title, anchor) in TITLES.items():
        parts.append(f"## {title}\n\n[Where they come from, and how they compare](samplers.md#{anchor}).\n")
        for name, facts in ALL_FACTS.items():
            if facts.get("family", "k_diffusion") == family:
                pictures = tiles(drawn["samplers"].index(name), drawn["tile"], drawn["columns"], name)
                parts.append(card(name, facts, distances.get(name), curves.get(name), pictures))
    return "\n".join(parts)


def card(name: str, facts: dict, w1: dict | None, curve: str | None, pictures: str) -> str:
    """One sampler."""
    rows = "".join(f"<dt>{label}</dt><dd>{text}</dd>" for label, text in told(name, facts, w1) if text)
    drawing = figure(name, curve) if curve else ""
    return (
        f"### `{name}`\n\n"
        f'<div class="card"><div class="side">{pictures}{drawing}</div>'
        f"<div><pre><code>{escape(FORMULAS[name], quote=False)}</code></pre><dl>{rows}</dl></div></div>\n"
    )


def told(name: str, facts: dict, w1: dict | None) -> list[tuple[str, str]]:
    """Label and text, in HTML, of each line; lines without a text are left out."""
    names = SAMPLER_NAMES.get(name)
    order = str(facts["order"]) + (f" (measured: {facts['measured']:g})" if facts.get("measured") else "")
    noise = "yes" if facts["stochastic"] else {"churn": "if s_churn > 0", None: "no"}.get(facts["noise"], "if eta > 0")
    also = (*facts.get("aliases", ()), *(names.others if names else ()))
    also = tuple(other for other in also if not names or other not in names.comfyui)
    results = w1 and "; ".join(
        f"{model.upper()} {', '.join(f'{value:.3f}' for value in values)}" for model, values in w1.items()
    )
    return [
        ("Source", sourced("; ".join(facts.get("sources", ())) or SOURCES[name])),
        ("Order", order),
        ("Evaluations a step", str(facts["nfe_per_step"] or "varies")),
        ("Adds noise", noise),
        ("Grid", facts.get("sigma_grid") and f"needs one such as {facts['sigma_grid']}"),
        ("Made for", "distilled models" if facts.get("distilled") else ""),
        ("Curve", no_curve(facts)),
        ("Distance", results or ""),
        *((program, listed(getattr(names, program.lower(), ())) or "none") for program in PROGRAMS),
        ("Also", listed(also)),
        ("Note", escape(names.note) if names else ""),
    ]


def no_curve(facts: dict) -> str:
    """Why a sampler's error is not drawn; empty where it is."""
    if facts.get("adaptive"):
        return "none: it chooses its own steps"
    return "none: it always adds noise" if facts["stochastic"] and facts.get("noiseless", {}) is None else ""


def sourced(text: str) -> str:
    """arXiv's numbers as links."""
    return re.sub(r"arXiv (\d{4}\.\d{5})", r'<a href="https://arxiv.org/abs/\1">arXiv \1</a>', escape(text))


def listed(names: tuple[str, ...]) -> str:
    """Names as code, each once."""
    return ", ".join(f"<code>{escape(name)}</code>" for name in dict.fromkeys(names))


def tiles(index: int, tile: int, columns: int, name: str) -> str:
    """Its places in the sheets of both demo models."""
    place = f"{-tile * (index % columns)}px {-tile * (index // columns)}px"
    shown = f'style="background-position:{place}" role="img" aria-label="{name}, '
    return "".join(f'<span class="tile {kind}" {shown}{kind.upper()} demo"></span>' for kind in ("sdxl", "flux"))
