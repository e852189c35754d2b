"""ComfyUI's nodes as far as they are understood: their widgets in order, with the values they have at first.

A workflow that was saved from the editor lists a node's values without their names, so that the order matters; after a
seed it lists what becomes of the seed after a run ("randomize", "fixed", ...), which is no input.
"""

from typing import Any, NamedTuple

CONTROLS = ("fixed", "increment", "decrement", "randomize")


class Widget(NamedTuple):
    """A value that a node asks for.

    Attributes:
        name: The input's name.
        default: What it is at first.
        control: Whether what becomes of it after a run is listed after it.
    """

    name: str
    default: Any
    control: bool = False


def _widgets(**defaults) -> tuple[Widget, ...]:
    return tuple(Widget(name, default, name in ("seed", "noise_seed")) for name, default in defaults.items())


_SIZE = {"width": 1024, "height": 1024}
_RANGE = {"sigma_max": 14.614642, "sigma_min": 0.0291675}
_NOISE = {"eta": 1.0, "s_noise": 1.0}
_TILES = {"tile_size": 512, "overlap": 64, "temporal_size": 64, "temporal_overlap": 8}
WIDGETS: dict[str, tuple[Widget, ...]] = {
    # Models, and what changes them.
    "CheckpointLoaderSimple": _widgets(ckpt_name=""),
    "CheckpointLoader": _widgets(config_name="", ckpt_name=""),
    "UNETLoader": _widgets(unet_name="", weight_dtype="default"),
    "CLIPLoader": _widgets(clip_name="", type="stable_diffusion", device="default"),
    "DualCLIPLoader": _widgets(clip_name1="", clip_name2="", type="sdxl", device="default"),
    "VAELoader": _widgets(vae_name=""),
    "LoraLoader": _widgets(lora_name="", strength_model=1.0, strength_clip=1.0),
    "LoraLoaderModelOnly": _widgets(lora_name="", strength_model=1.0),
    "CLIPSetLastLayer": _widgets(stop_at_clip_layer=-1),
    "ModelSamplingFlux": _widgets(max_shift=1.15, base_shift=0.5, **_SIZE),
    "ModelSamplingDiscrete": _widgets(sampling="eps", zsnr=False),
    # Prompts.
    "CLIPTextEncode": _widgets(text=""),
    "CLIPTextEncodeSDXL": _widgets(
        **_SIZE, crop_w=0, crop_h=0, target_width=1024, target_height=1024, text_g="", text_l=""
    ),
    "CLIPTextEncodeFlux": _widgets(clip_l="", t5xxl="", guidance=3.5),
    "ConditioningZeroOut": (),
    "FluxGuidance": _widgets(guidance=3.5),
    "FluxDisableGuidance": (),
    # Latents and pictures.
    "EmptyLatentImage": _widgets(width=512, height=512, batch_size=1),
    "EmptySD3LatentImage": _widgets(**_SIZE, batch_size=1),
    "RepeatLatentBatch": _widgets(amount=1),
    "VAEEncode": (),
    "VAEEncodeForInpaint": _widgets(grow_mask_by=6),
    "SetLatentNoiseMask": (),
    "VAEDecode": (),
    "VAEDecodeTiled": _widgets(**_TILES),
    "LoadImage": _widgets(image=""),
    "LoadImageMask": _widgets(image="", channel="alpha"),
    "SaveImage": _widgets(filename_prefix="ComfyUI"),
    "PreviewImage": (),
    # Samplers.
    "KSampler": _widgets(seed=0, steps=20, cfg=8.0, sampler_name="euler", scheduler="simple", denoise=1.0),
    "KSamplerAdvanced": _widgets(
        add_noise="enable", noise_seed=0, steps=20, cfg=8.0, sampler_name="euler", scheduler="simple",
        start_at_step=0, end_at_step=10_000, return_with_leftover_noise="disable",
    ),
    "SamplerCustom": _widgets(add_noise=True, noise_seed=0, cfg=8.0),
    "SamplerCustomAdvanced": (),
    "RandomNoise": _widgets(noise_seed=0),
    "DisableNoise": (),
    "BasicGuider": (),
    "CFGGuider": _widgets(cfg=8.0),
    "KSamplerSelect": _widgets(sampler_name="euler"),
    "SamplerEulerAncestral": _widgets(**_NOISE),
    "SamplerEulerAncestralCFGPP": _widgets(**_NOISE),
    "SamplerLMS": _widgets(order=4),
    "SamplerLCM": _widgets(s_noise=1.0, s_noise_end=1.0, noise_clip_std=0.0),
    "SamplerSEEDS2": _widgets(solver_type="phi_1", **_NOISE, r=0.5),
    "SamplerER_SDE": _widgets(solver_type="ER-SDE", max_stage=3, **_NOISE),
    "SamplerDPMPP_2S_Ancestral": _widgets(**_NOISE),
    "SamplerDPMPP_SDE": _widgets(**_NOISE, r=0.5, noise_device="gpu"),
    "SamplerDPMPP_2M_SDE": _widgets(solver_type="midpoint", **_NOISE, noise_device="gpu"),
    "SamplerDPMPP_3M_SDE": _widgets(**_NOISE, noise_device="gpu"),
    "SamplerDPMAdaptative": _widgets(
        order=3, rtol=0.05, atol=0.0078, h_init=0.05, pcoeff=0.0, icoeff=1.0, dcoeff=0.0, accept_safety=0.81,
        eta=0.0, s_noise=1.0,
    ),
    # Sigmas.
    "BasicScheduler": _widgets(scheduler="simple", steps=20, denoise=1.0),
    "KarrasScheduler": _widgets(steps=20, **_RANGE, rho=7.0),
    "ExponentialScheduler": _widgets(steps=20, **_RANGE),
    "PolyexponentialScheduler": _widgets(steps=20, **_RANGE, rho=1.0),
    "LaplaceScheduler": _widgets(steps=20, **_RANGE, mu=0.0, beta=0.5),
    "VPScheduler": _widgets(steps=20, beta_d=19.9, beta_min=0.1, eps_s=0.001),
    "BetaSamplingScheduler": _widgets(steps=20, alpha=0.6, beta=0.6),
    "SDTurboScheduler": _widgets(steps=1, denoise=1.0),
    "AlignYourStepsScheduler": _widgets(model_type="SD1", steps=10, denoise=1.0),
    "OptimalStepsScheduler": _widgets(model_type="FLUX", steps=20, denoise=1.0),
    "ManualSigmas": _widgets(sigmas="1, 0.5"),
    "SplitSigmas": _widgets(step=0),
    "SplitSigmasDenoise": _widgets(denoise=1.0),
    # Values by themselves.
    "PrimitiveInt": (Widget("value", 0, control=True),),
    "PrimitiveFloat": _widgets(value=0.0),
    "PrimitiveString": _widgets(value=""),
    "PrimitiveStringMultiline": _widgets(value=""),
    "PrimitiveBoolean": _widgets(value=False),
}  # fmt: skip
PRIMITIVES = tuple(kind for kind in WIDGETS if kind.startswith("Primitive"))
OUTPUTS = ("SaveImage", "PreviewImage")


def default(kind: str, name: str) -> Any:
    """What a widget is at first; None if the node has no such widget."""
    return next((widget.default for widget in WIDGETS.get(kind, ()) if widget.name == name), None)


def named_values(kind: str, values: list[Any], slots: list[str]) -> dict[str, Any]:
    """The values of a node's widgets by name.

    Args:
        kind: The node's class.
        values: Those that the editor saved, in order.
        slots: The names of its widgets as the file has them, for a node that is not known.
    """
    widgets = WIDGETS.get(kind) or tuple(Widget(name, None, name in ("seed", "noise_seed")) for name in slots)
    left, found = list(values), {}
    for widget in widgets:
        if not left:
            break
        found[widget.name] = left.pop(0)
        if widget.control and left and left[0] in CONTROLS:
            left.pop(0)
    return found
