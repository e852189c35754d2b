"""The samplers of a workflow: each node that runs one, made a stage of the recipe."""

import re
from typing import Any

from k_diffusing.reproduce.chains import Found, once, read_model, read_prompt
from k_diffusing.reproduce.graph import Node
from k_diffusing.reproduce.nodes import default
from k_diffusing.reproduce.reading import Reading
from k_diffusing.reproduce.recipe import Grid, Stage
from k_diffusing.reproduce.values import MAX_NUMBER, MAX_SEED, MAX_STEPS, real

KSAMPLERS = ("KSampler", "KSamplerAdvanced")
SAMPLERS = (*KSAMPLERS, "SamplerCustom", "SamplerCustomAdvanced")
# Nodes that are one sampler: its name in ComfyUI, and the options that it is given.
SAMPLER_NODES = {
    "SamplerEulerAncestral": ("euler_ancestral", ("eta", "s_noise")),
    "SamplerEulerAncestralCFGPP": ("euler_ancestral_cfg_pp", ("eta", "s_noise")),
    "SamplerLMS": ("lms", ("order",)),
    "SamplerLCM": ("lcm", ("s_noise", "s_noise_end", "noise_clip_std")),
    "SamplerDPMPP_2S_Ancestral": ("dpmpp_2s_ancestral", ("eta", "s_noise")),
    "SamplerDPMPP_SDE": ("dpmpp_sde", ("eta", "s_noise", "r")),
    "SamplerDPMPP_2M_SDE": ("dpmpp_2m_sde", ("eta", "s_noise", "solver_type")),
    "SamplerDPMPP_3M_SDE": ("dpmpp_3m_sde", ("eta", "s_noise")),
    "SamplerSEEDS2": ("seeds_2", ("eta", "s_noise", "r", "solver_type")),
    "SamplerER_SDE": ("er_sde", ("s_noise", "max_stage")),
    "SamplerDPMAdaptative": (
        "dpm_adaptive",
        ("order", "rtol", "atol", "h_init", "pcoeff", "icoeff", "dcoeff", "accept_safety", "eta", "s_noise"),
    ),
}
WHOLE, TEXT = ("order", "max_stage"), ("solver_type", "model_type")
# Nodes that are a sigma grid: their inputs, which program="comfyui" takes as the grid's options.
GRID_NODES = {
    "KarrasScheduler": ("sigma_max", "sigma_min", "rho"),
    "ExponentialScheduler": ("sigma_max", "sigma_min"),
    "PolyexponentialScheduler": ("sigma_max", "sigma_min", "rho"),
    "VPScheduler": ("beta_d", "beta_min", "eps_s"),
    "BetaSamplingScheduler": ("alpha", "beta"),
    "LaplaceScheduler": ("sigma_max", "sigma_min", "mu", "beta"),
    "SDTurboScheduler": ("denoise",),
    "AlignYourStepsScheduler": ("model_type", "denoise"),
    "OptimalStepsScheduler": ("model_type", "denoise"),
}
NUMBERS = re.compile(r"[-+]?\d*\.*\d+")  # of a list of sigmas, as ComfyUI finds them: no exponents


def read_stage(reading: Reading, node: Node) -> Stage:
    """A stage from a node of SAMPLERS."""
    stage = Stage()
    stage.where["stage"] = node.label
    if node.kind in KSAMPLERS:
        _ksampler(reading, stage, node)
    elif node.kind == "SamplerCustom":
        _seed(reading, stage, node)
        stage.told(node.label, add_noise=reading.flag(node, "add_noise") is not False)
        _guided(reading, stage, node)
        _custom(reading, stage, node)
    else:
        _noise(reading, stage, reading.follow(node, "noise"))
        _guider(reading, stage, reading.follow(node, "guider"))
        _custom(reading, stage, node)
    return stage


def _seed(reading: Reading, stage: Stage, node: Node, name: str = "noise_seed") -> None:
    stage.told(node.label, seed=reading.whole(node, name, 0, MAX_SEED))


def _guided(reading: Reading, stage: Stage, node: Node) -> None:
    """cfg, the prompts and the network of a node that has them all."""
    stage.told(node.label, cfg=reading.real(node, "cfg", 0))
    read_model(reading, stage, reading.follow(node, "model"))
    stage.prompt = read_prompt(reading, stage, reading.follow(node, "positive"))
    stage.negative = read_prompt(reading, stage, reading.follow(node, "negative"))


def _ksampler(reading: Reading, stage: Stage, node: Node) -> None:
    advanced = node.kind == "KSamplerAdvanced"
    _seed(reading, stage, node, "noise_seed" if advanced else "seed")
    stage.told(node.label, steps=reading.whole(node, "steps", 1), sampler=reading.text(node, "sampler_name"))
    _scheduler(stage, node, reading.text(node, "scheduler"))
    if advanced:
        stage.told(
            node.label,
            add_noise=reading.flag(node, "add_noise") is not False,
            leftover_noise=bool(reading.flag(node, "return_with_leftover_noise")),
            start_step=reading.whole(node, "start_at_step") or None,
        )
        end = reading.whole(node, "end_at_step")
        if end is not None and (stage.steps is None or end < stage.steps):
            stage.told(node.label, end_step=end)
    elif (denoise := reading.real(node, "denoise", 0)) != 1:
        stage.told(node.label, denoise=denoise)
    _guided(reading, stage, node)


def _scheduler(stage: Stage, node: Node, name: str | None) -> None:
    stage.told(node.label, scheduler=name, grid=Grid(name) if name else None)


def _noise(reading: Reading, stage: Stage, found: Found) -> None:
    if found and found[0].kind == "RandomNoise":
        _seed(reading, stage, found[0])
    elif found and found[0].kind == "DisableNoise":
        stage.told(found[0].label, seed=0, add_noise=False)
    else:
        reading.recipe.lacks(found[0].label if found else stage.where["stage"], "its noise is not known here")


def _guider(reading: Reading, stage: Stage, found: Found) -> None:
    if found and found[0].kind == "CFGGuider":
        _guided(reading, stage, found[0])
        return
    if found is None or found[0].kind != "BasicGuider":
        effect = "combines the network's estimates in another way than guidance does"
        reading.recipe.lacks(found[0].label if found else stage.where["stage"], effect)
    if found:
        node = found[0]
        stage.told(node.label, cfg=1.0)
        read_model(reading, stage, reading.follow(node, "model"))
        stage.prompt = read_prompt(reading, stage, reading.follow(node, "conditioning", "positive", "cond1"))


def _custom(reading: Reading, stage: Stage, node: Node) -> None:
    stage.custom = True
    _sampler(reading, stage, reading.follow(node, "sampler"))
    _sigmas(reading, stage, reading.follow(node, "sigmas"))


def _sampler(reading: Reading, stage: Stage, found: Found) -> None:
    node = found[0] if found else None
    if node is not None and node.kind == "KSamplerSelect":
        stage.told(node.label, sampler=reading.text(node, "sampler_name"))
    elif node is not None and node.kind in SAMPLER_NODES:
        name, wanted = SAMPLER_NODES[node.kind]
        options = {option: _option(reading, node, option) for option in wanted}
        on_gpu = "_gpu" if default(node.kind, "noise_device") and reading.text(node, "noise_device") == "gpu" else ""
        stage.told(node.label, sampler=name + on_gpu, sampler_options=options)
        if name == "er_sde" and (kind := reading.text(node, "solver_type")) != "ER-SDE":
            reading.recipe.lacks(node.label, f"its solver_type is {kind!r}, and ours is ER-SDE")
    else:
        reading.recipe.lacks(node.label if node else stage.where["stage"], "its sampler is not known here")


def _option(reading: Reading, node: Node, name: str) -> Any:
    if name in TEXT:
        return reading.text(node, name)
    return reading.whole(node, name, 0, 100) if name in WHOLE else reading.real(node, name, 0)


def _sigmas(reading: Reading, stage: Stage, found: Found) -> None:
    """The grid, and the part of it that is run: what split nodes leave of it, from its source on."""
    passed, cuts = set(), []
    while found:
        node, slot = once(found, passed)
        if node.kind not in ("SplitSigmas", "SplitSigmasDenoise"):
            if _grid(reading, stage, node):
                break
            effect = "changes the sigmas, and so every step"
            reading.recipe.lacks(node.label, effect)
        else:
            cuts.insert(0, (node, slot))
        found = reading.onward(node, slot, "sigmas")
    if stage.grid is None:
        reading.recipe.lacks(stage.where["stage"], "its sigmas are not known here")
    _cut(reading, stage, cuts)


def _grid(reading: Reading, stage: Stage, node: Node) -> bool:
    """Whether the node makes a grid; which, if so."""
    if node.kind == "BasicScheduler":
        _scheduler(stage, node, reading.text(node, "scheduler"))
        stage.told(node.label, steps=reading.whole(node, "steps", 1))
        if (denoise := reading.real(node, "denoise", 0)) != 1:
            stage.told(node.label, denoise=denoise)
    elif node.kind in GRID_NODES:
        read = {option: reading.text if option in TEXT else reading.real for option in GRID_NODES[node.kind]}
        numbers = {option: kind(node, option) for option, kind in read.items()}
        stage.told(node.label, grid=Grid(node.kind, numbers), steps=reading.whole(node, "steps", 1))
    elif node.kind == "ManualSigmas":
        found = NUMBERS.findall((reading.text(node, "sigmas") or "")[: 20 * MAX_STEPS])
        sigmas = [real(float(one), f"a sigma of node {node.label}", 0, MAX_NUMBER) for one in found if ".." not in one]
        stage.told(node.label, grid=Grid("ManualSigmas", {"sigmas": sigmas}), steps=max(len(sigmas) - 1, 0))
    else:
        return False
    return True


def _cut(reading: Reading, stage: Stage, cuts: list[tuple[Node, int]]) -> None:
    """start_step and end_step, from the nodes that split the grid, the first one first."""
    if not cuts or stage.steps is None:
        return
    start, end = 0, stage.steps
    for node, slot in cuts:
        if node.kind == "SplitSigmas":
            cut = start + (reading.whole(node, "step") or 0)
        else:
            denoise = reading.real(node, "denoise", 0)
            cut = end - round((end - start) * (1.0 if denoise is None else denoise))
        cut = min(max(cut, start), end)
        start, end = (start, cut) if slot == 0 else (cut, end)
    where = ", ".join(node.label for node, _ in cuts)
    if start:
        stage.told(where, start_step=start)
    if end < stage.steps:
        stage.told(where, end_step=end, leftover_noise=True)
