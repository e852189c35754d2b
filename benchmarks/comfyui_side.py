"""ComfyUI's own KSampler on the demo models, to compare our pipelines with.

    theirs = ComfyUI("path/to/ComfyUI", packages="folder of packages it needs, if they are not installed")
    theirs.latents(Cell("sdxl", "euler", "karras"))

`comfyui()` is the one whose folder COMFYUI names, with the packages in COMFYUI_SITE.

Their checkpoints are the demo models' weights, renamed by ComfyUI's own tables. Three things of theirs are changed,
as the demo models are smaller than what they know: the UNet's groups in GroupNorm, the width of SDXL's embedding of
sizes, and the channels of FLUX's latents. Prompts are the embeddings that our pipelines make.
"""

import logging
import os
import sys
import types
from pathlib import Path

import torch
from safetensors.torch import load_file

from benchmarks import demos  # noqa: F401  for the folder of the tests' support
from k_diffusing.models import DEMOS

from program_cells import SIDE, Cell, Ours  # isort: skip

# What ComfyUI calls the shapes that are in the demo models' configs.
UNET = {
    "use_checkpoint": False, "image_size": 32, "out_channels": 4, "use_spatial_transformer": True, "legacy": False,
    "num_classes": "sequential", "adm_in_channels": 160, "dtype": torch.float32, "in_channels": 4,
    "model_channels": 32, "num_res_blocks": [1, 1, 1], "transformer_depth": [0, 1, 1], "channel_mult": [1, 2, 3],
    "transformer_depth_middle": 1, "use_linear_in_transformer": True, "context_dim": 128, "num_head_channels": 16,
    "transformer_depth_output": [0, 0, 1, 1, 1, 1], "use_temporal_attention": False,
    "use_temporal_resblock": False,
}  # fmt: skip
TRANSFORMER = {
    "image_model": "flux", "in_channels": 4, "out_channels": 4, "patch_size": 2, "vec_in_dim": 64,
    "context_in_dim": 64, "hidden_size": 128, "mlp_ratio": 4.0, "num_heads": 4, "depth": 2, "depth_single_blocks": 3,
    "axes_dim": [8, 12, 12], "theta": 10000, "qkv_bias": True, "guidance_embed": True, "txt_ids_dims": [],
}  # fmt: skip
GROUPS, SIZE_WIDTH, CHANNELS = 8, 16, 4
NUDGE = 1e-7


class ComfyUI:
    """ComfyUI, imported from a folder, with the demo models in it; on the CPU, one thread.

    Attributes:
        version: Of it.
        ours: Our side, whose prompts it is given.
    """

    def __init__(self, folder: str | Path, packages: str | Path | None = None):
        sys.path.insert(0, str(folder))
        sys.path.extend([str(packages)] if packages else [])
        torch.set_num_threads(1)
        logging.basicConfig(level=logging.ERROR)
        import comfy.cli_args

        comfy.cli_args.args.cpu = True
        import comfy.sample
        import comfyui_version

        self.version, self.ours, self.patchers = comfyui_version.__version__, Ours(), {}
        self.draw, self.run = comfy.sample.prepare_noise, comfy.sample.sample

    def patcher(self, model: str, dtype: torch.dtype = torch.float32):
        """A demo model, as ComfyUI holds a checkpoint: see `Cell.model`."""
        if (model, dtype) not in self.patchers:
            make = {"sdxl-v": _zero_snr, "schnell": _schnell}.get(model, _sdxl if model == "sdxl" else _flux)
            self.patchers[model, dtype] = make(dtype)
        return self.patchers[model, dtype]

    @torch.no_grad()
    def latents(self, cell: Cell, dtype: torch.dtype = torch.float32, nudge: int = 0) -> torch.Tensor:
        """The final latents of its KSampler, as the network has them, [batch, 4, height, width].

        nudge: NUDGE of other noise, from this seed, is added to the initial one, to see how far a rounding error goes.
        """
        patcher, blank = self.patcher(cell.model, dtype), torch.zeros(cell.batch, 4, cell.height, cell.width)
        if cell.model == "flux-sized":
            patcher = _sized(patcher, cell)
        noise = self.draw(blank, cell.seed)
        if nudge:
            noise = noise + NUDGE * torch.randn(noise.shape, generator=torch.Generator().manual_seed(nudge))
        positive, negative = self._prompts(cell)
        found = self.run(
            patcher, noise, cell.steps, cell.cfg, cell.sampler, cell.grid, positive, negative, blank, denoise=1.0,
            disable_pbar=True, seed=cell.seed,
        )  # fmt: skip
        return patcher.model.process_latent_in(found)

    def floor(self, cell: Cell) -> float:
        """How far it is from itself where its initial noise is changed by a rounding error."""
        exact = self.latents(cell)
        return max(apart(exact, self.latents(cell, nudge=seed)) for seed in (1, 2, 3))

    def sigmas(self, model: str, sampler: str, grid: str, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Its noise levels, [n + 1], and what the network is told at all but the last, [n]."""
        import comfy.samplers

        patcher = self.patcher(model)
        sigmas = comfy.samplers.KSampler(patcher, steps, "cpu", sampler=sampler, scheduler=grid, denoise=1.0).sigmas
        return sigmas, patcher.get_model_object("model_sampling").timestep(sigmas[:-1]).float()

    def _prompts(self, cell: Cell) -> tuple[list, list]:
        told = self.ours.prompts(cell.model)
        if cell.model.startswith("sdxl"):
            more = {"width": SIDE * cell.width, "height": SIDE * cell.height}
        else:
            more = {"guidance": cell.guidance}
        sides = (("prompt_embeds", "pooled_prompt_embeds"), ("negative_prompt_embeds", "negative_pooled_prompt_embeds"))
        positive, negative = ([[told[text], {"pooled_output": told[pooled], **more}]] for text, pooled in sides)
        return positive, negative


def comfyui() -> ComfyUI:
    """The one that the environment names."""
    return ComfyUI(os.environ["COMFYUI"], os.environ.get("COMFYUI_SITE"))


def _weights(demo: str, part: str) -> dict[str, torch.Tensor]:
    return load_file(f"{DEMOS[demo].weights}/{part}/diffusion_pytorch_model.safetensors")


def _loaded(config, state: dict[str, torch.Tensor], dtype: torch.dtype):
    """A patcher of the model that a config makes. Raises ValueError unless the weights are all of it."""
    import comfy.model_patcher

    config.set_inference_dtype(dtype, None)
    cpu = torch.device("cpu")
    model = config.get_model(state, "", device=cpu)
    network = {name: value.to(dtype) for name, value in state.items()}
    missing, unexpected = model.diffusion_model.load_state_dict(network, strict=False)
    if missing or unexpected:
        raise ValueError(f"the demo model does not fit: missing {missing[:5]}, unexpected {unexpected[:5]}")
    return comfy.model_patcher.ModelPatcher(model.eval(), load_device=cpu, offload_device=cpu)


def _sdxl(dtype: torch.dtype):
    import comfy.ops
    import comfy.supported_models
    import comfy.utils
    from comfy.ldm.modules.diffusionmodules.openaimodel import Timestep

    class FewerGroups(comfy.ops.disable_weight_init):
        class GroupNorm(comfy.ops.disable_weight_init.GroupNorm):
            def __init__(self, num_groups, num_channels, **settings):
                super().__init__(GROUPS, num_channels, **settings)

    shapes = UNET | {"dtype": dtype}
    names = comfy.utils.unet_to_diffusers(shapes)
    config = comfy.supported_models.SDXL(shapes)
    config.unet_config["num_head_channels"] = UNET["num_head_channels"]  # which the class has overwritten
    config.custom_operations = FewerGroups
    state = {names[name]: value for name, value in _weights("demo", "unet").items()}
    patcher = _loaded(config, state, dtype)
    patcher.model.embedder = Timestep(SIZE_WIDTH)
    return patcher


def _nodes():
    """Its nodes that change a model's noise levels; they import torchaudio, which nothing here uses."""
    try:
        import torchaudio.functional  # noqa: F401
    except ImportError:
        functional = sys.modules.setdefault("torchaudio.functional", types.ModuleType("torchaudio.functional"))
        vars(sys.modules.setdefault("torchaudio", types.ModuleType("torchaudio")))["functional"] = functional
    import comfy_extras.nodes_model_advanced as nodes

    return nodes


def _zero_snr(dtype: torch.dtype):
    return _nodes().ModelSamplingDiscrete().patch(_sdxl(dtype), "v_prediction", True)[0]


def _flux(dtype: torch.dtype, kind: str = "Flux"):
    import comfy.latent_formats
    import comfy.supported_models
    import comfy.utils

    latents = type("FewerChannels", (comfy.latent_formats.Flux,), {"latent_channels": CHANNELS})
    base = getattr(comfy.supported_models, kind)
    config = type("Demo", (base,), {"latent_format": latents})(dict(TRANSFORMER))
    config.set_inference_dtype(dtype, None)
    blank = config.get_model({}, "", device=torch.device("cpu")).diffusion_model.state_dict()
    state = {name: torch.empty_like(value, dtype=torch.float32) for name, value in blank.items()}
    names = comfy.utils.flux_to_diffusers(TRANSFORMER)
    for name, value in _weights("demo-flux", "transformer").items():
        place, part, change = (names[name], None, None) if isinstance(names[name], str) else (*names[name], None)[:3]
        value = change(value) if change else value
        target = state[place] if part is None else state[place].narrow(*part)
        target.copy_(value)
    return _loaded(config, state, dtype)


def _schnell(dtype: torch.dtype):
    return _flux(dtype, "FluxSchnell")


def _sized(patcher, cell: Cell):
    return _nodes().ModelSamplingFlux().patch(patcher, 1.15, 0.5, SIDE * cell.width, SIDE * cell.height)[0]


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """|a - b| / |a|."""
    return float((a - b).double().norm() / a.double().norm())
