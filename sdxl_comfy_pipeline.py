"""Stable Diffusion XL, text to image, sampled by k_diffusion's functions.

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0")
image = pipe("an astronaut in a jungle", comfy_sampler="dpmpp_2m", sigma_grid="karras").images[0]
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.image_processor import PipelineImageInput
from diffusers.pipelines.stable_diffusion_xl.pipeline_output import StableDiffusionXLPipelineOutput
from diffusers.utils import deprecate, logging
from diffusers.utils.torch_utils import get_module_execution_device

from k_diffusing.arguments import check_callback, count_images, diffusers_arguments, warn_of_bounds
from k_diffusing.model.guidance import GuidanceInterval
from k_diffusing.noise.check import check_noise
from k_diffusing.noise.choose import noise_streams
from k_diffusing.plan import SamplingPlan, discrete_plan
from k_diffusing.run import SamplingRun, StepCallbacks
from k_diffusing.samplers.call import run_sampler
from k_diffusing.samplers.comfyui import after_guidance
from k_diffusing.trace.record import Trace, chosen_trace

logger = logging.get_logger(f"diffusers.{__name__}")  # under diffusers' verbosity settings


class StableDiffusionXLPipeline(diffusers.StableDiffusionXLPipeline):
    """diffusers' `StableDiffusionXLPipeline`, with the sampling algorithm given as a function.

    Everything of diffusers' class works as it does there; `__call__` takes nine more keywords.
    """

    _callback_tensor_inputs = [*diffusers.StableDiffusionXLPipeline._callback_tensor_inputs, "denoised"]

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        prompt_2: str | list[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 50,
        timesteps: list[int] | None = None,
        sigmas: list[float] | None = None,
        denoising_end: float | None = None,
        guidance_scale: float = 5.0,
        negative_prompt: str | list[str] | None = None,
        negative_prompt_2: str | list[str] | None = None,
        num_images_per_prompt: int = 1,
        eta: float = 0.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        pooled_prompt_embeds: torch.Tensor | None = None,
        negative_pooled_prompt_embeds: torch.Tensor | None = None,
        ip_adapter_image: PipelineImageInput | None = None,
        ip_adapter_image_embeds: list[torch.Tensor] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        cross_attention_kwargs: dict[str, Any] | None = None,
        guidance_rescale: float = 0.0,
        original_size: tuple[int, int] | None = None,
        crops_coords_top_left: tuple[int, int] = (0, 0),
        target_size: tuple[int, int] | None = None,
        negative_original_size: tuple[int, int] | None = None,
        negative_crops_coords_top_left: tuple[int, int] = (0, 0),
        negative_target_size: tuple[int, int] | None = None,
        clip_skip: int | None = None,
        callback_on_step_end: Callable | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],  # noqa: B006 - diffusers' own default
        *,
        comfy_sampler: str | Callable | None = "sample_euler",
        sampler_options: dict[str, Any] | None = None,
        sigma_grid: str | Callable | None = None,
        quantize: bool = False,
        guidance_interval: GuidanceInterval | None = None,
        batch_guidance: bool = True,
        noise: str = "torch",
        seeds: int | list[int] | None = None,
        trace: Trace | None = None,
        callback: Callable | None = None,
        callback_steps: int | None = None,
    ) -> StableDiffusionXLPipelineOutput | tuple:
        """Generate images. All but the last keywords are diffusers', with diffusers' meaning.

        Args:
            comfy_sampler: the name of a k_diffusion sampler, with or without `sample_`; or any callable
                `(model, x, sigmas, extra_args, callback, disable, **options) -> x`; or None for diffusers' own
                loop with `pipe.scheduler`. `model(x, sigma)` returns the denoised latents, x = x0 + sigma * eps of
                shape [B, 4, height / 8, width / 8] in float32, sigma of shape [B].
                One that adds noise has a parameter `noise_sampler=None`, and draws noise_sampler(sigma, sigma_next).
            sampler_options: given to the sampler: eta, s_noise, s_churn, solver_type, order, rtol, ...
            sigma_grid: "karras", "exponential", "simple", "beta", ... (`k_diffusing.SIGMA_GRIDS`); or a
                function (schedule, n) -> n + 1 sigmas; None: the grid of the config of `pipe.scheduler`, which itself
                is neither used nor changed.
            quantize: tell the network the nearest integer timestep where sigma is between the grid's points,
                in place of interpolating in log sigma.
            guidance_interval: (start, end), in fractions of the timesteps, or {"sigma": (start, end)}: elsewhere the
                UNet is called without the negative prompt, on half as many rows.
            batch_guidance: both prompts in one call of the UNet; False: in two, which takes less memory.
            noise: where all noise comes from: "torch", "cpu", "philox", "comfy", "a1111" or "brownian_tree"
                (`k_diffusing.NOISE_SOURCES`).
            seeds: in place of generator: one for each image, or one that stands for itself, itself + 1, ...
            trace: a `k_diffusing.Trace` that takes note of every network call, draw of noise and step.
            callback, callback_steps: deprecated in diffusers; use callback_on_step_end.
            callback_on_step_end: as in diffusers, called once per step of the sampler;
                callback_on_step_end_tensor_inputs may name "denoised", the clean latents estimated in the step.
            generator: source of the initial noise and of all noise the sampler adds.

        Raises:
            ValueError, TypeError: for input that cannot be right, before any model runs.
            FloatingPointError: where the UNet returned nan or inf, or the sampler made it; it says which.
            RuntimeError: where dpm_adaptive finds no step that it accepts.
        """
        trace = chosen_trace(trace)
        if comfy_sampler is None:
            return super().__call__(**diffusers_arguments(StableDiffusionXLPipeline.__call__, locals()))

        # 1. Check everything that can be checked before a model runs.
        if isinstance(callback_on_step_end, (PipelineCallback, MultiPipelineCallbacks)):
            callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs
        side: int = self.default_sample_size * self.vae_scale_factor
        height, width = height or side, width or side
        self.check_inputs(
            prompt, prompt_2, height, width, callback_steps, negative_prompt, negative_prompt_2, prompt_embeds,
            negative_prompt_embeds, pooled_prompt_embeds, negative_pooled_prompt_embeds, ip_adapter_image,
            ip_adapter_image_embeds, callback_on_step_end_tensor_inputs,
        )  # fmt: skip
        images = count_images(prompt, prompt_embeds, num_images_per_prompt)
        plan = self.plan(
            comfy_sampler, sampler_options, sigma_grid, num_inference_steps, timesteps=timesteps, sigmas=sigmas,
            denoising_end=denoising_end, quantize=quantize, guidance_interval=guidance_interval, noise=noise,
        )  # fmt: skip
        check_callback(plan.sampler, callback_on_step_end, callback)
        shape = (self.unet.config.in_channels, height // self.vae_scale_factor, width // self.vae_scale_factor)
        check_noise(noise, generator, seeds, images, elements=math.prod(shape))
        warn_of_bounds(self, plan.sampler, self.scheduler)
        warn_of_leftovers(plan.sampler.name, eta, callback=callback, callback_steps=callback_steps)

        # 2. Everything the denoiser closes over.
        self._guidance_scale, self._guidance_rescale, self._clip_skip = guidance_scale, guidance_rescale, clip_skip
        self._cross_attention_kwargs, self._denoising_end = cross_attention_kwargs, denoising_end
        self._interrupt, self._num_timesteps = False, plan.num_timesteps
        told = conditioning(
            self, images, num_images_per_prompt, ip_adapter_image, ip_adapter_image_embeds,
            size=(original_size or (height, width), crops_coords_top_left, target_size or (height, width)),
            negative_size=(negative_original_size, negative_crops_coords_top_left, negative_target_size),
            prompt=prompt, prompt_2=prompt_2, prompt_embeds=prompt_embeds, pooled_prompt_embeds=pooled_prompt_embeds,
            negative_prompt=negative_prompt, negative_prompt_2=negative_prompt_2,
            negative_prompt_embeds=negative_prompt_embeds, negative_pooled_prompt_embeds=negative_pooled_prompt_embeds,
        )  # fmt: skip

        # 3. The state at the first noise level.
        streams, device = noise_streams(noise, generator, seeds, images, self._execution_device), self._execution_device
        initial = streams.initial((images, *shape), device, told.dtype) if latents is None else latents
        x = initial.to(device, torch.promote_types(initial.dtype, torch.float32)) * plan.initial_scale
        callbacks = StepCallbacks(
            told.tensors, callback_on_step_end, callback_on_step_end_tensor_inputs, callback, callback_steps
        )  # fmt: skip
        run, levels = SamplingRun(self, plan, x, told.dtype, callbacks, trace, (height, width)), plan.levels(x)

        # 4. The denoiser.
        def network(net_input, timestep, guided):
            """The UNet's output as guidance makes it, with the prompt, without it: each [B, 4, h, w]."""
            if not (guided and self.do_classifier_free_guidance):
                output = told.output(net_input, timestep, self.do_classifier_free_guidance).to(x.dtype)
                return output, output, output
            text, uncond = (o.to(x.dtype) for o in told.outputs(net_input, timestep, batch_guidance))
            output = uncond + self.guidance_scale * (text - uncond)
            if self.guidance_rescale > 0:
                output = rescaled(output, text, self.guidance_rescale)
            return output, text, uncond

        def denoiser(x, sigma, model_options=None, seed=None):
            at = levels.at(sigma, x, run.position.level)
            net_input = plan.space.network_input(plan.space.latents(x, at.sigma), at.sigma).to(told.dtype)
            output, *pair = network(net_input, at.timestep, at.guided)
            denoised = plan.space.denoised(x, output, at.sigma)
            if model_options:
                pair = (plan.space.denoised(x, output, at.sigma) for output in pair)
                denoised = after_guidance(model_options, x, sigma, denoised, *pair)
            return run.evaluated(x, sigma, at, net_input, denoised)

        # 5. Sample, decode.
        with run:
            run.end(run_sampler(
                plan.sampler, plan.model(denoiser), x, plan.sigmas,
                options=plan.options, noise=streams.step_noise, observer=run, watch_noise=run.watch_noise,
            ))  # fmt: skip
        final = run.latents
        image: Any = final.to(told.dtype) if output_type == "latent" else self.decode(final, height, width, output_type)
        self.maybe_free_model_hooks()
        return StableDiffusionXLPipelineOutput(images=image) if return_dict else (image,)

    def plan(
        self, comfy_sampler: str | Callable = "sample_euler", sampler_options: dict[str, Any] | None = None,
        sigma_grid: str | Callable | None = None, num_inference_steps: int = 50, *,
        timesteps: list[int] | None = None, sigmas: list[float] | None = None, denoising_end: float | None = None,
        quantize: bool = False, guidance_interval: GuidanceInterval | None = None, noise: str = "torch",
    ) -> SamplingPlan:  # fmt: skip
        """What a call with these arguments would do, without running a model; it prints as a table.

        Raises ValueError or TypeError for input that cannot be right.
        """
        return discrete_plan(
            self.scheduler, comfy_sampler, sampler_options, sigma_grid, num_inference_steps, timesteps=timesteps,
            sigmas=sigmas, denoising_end=denoising_end, quantize=quantize, guidance_interval=guidance_interval,
            noise=noise,
        )  # fmt: skip

    @torch.no_grad()
    def decode(self, latents: torch.Tensor, height: int, width: int, output_type: str = "pil") -> Any:
        """Images of the output type from clean latents [B, 4, height / 8, width / 8]."""
        return decoded(self, latents, output_type)


def warn_of_leftovers(sampler: str, eta: float, **deprecated) -> None:
    """Warn of an `eta` that means another sampler's, and of deprecated keywords."""
    for name, value in deprecated.items():
        if value is not None:
            deprecate(name, "1.0.0", f"Passing `{name}` is deprecated, use `callback_on_step_end`")
    if eta:
        logger.warning(f"eta={eta} is DDIM's and ignored here: give {sampler} sampler_options={{'eta': {eta}}}")


@dataclass
class Conditioning:
    """What the UNet is told besides latents and timestep.

    Attributes:
        dtype: the prompt embeddings', which latents get.
        tensors: by the names under which callbacks see and replace them. With guidance the negative prompts' rows
            come first.
        images: image-prompt embeddings, if there are any, with rows alike.
        timestep_cond: [B, n], the embedding of the guidance scale, for networks that take one.
        negative, positive: the rows of either, with guidance.
    """

    pipe: StableDiffusionXLPipeline
    dtype: torch.dtype
    tensors: dict[str, torch.Tensor]
    images: dict[str, list[torch.Tensor]]
    timestep_cond: torch.Tensor | None
    negative: slice | None
    positive: slice | None

    def output(self, net_input: torch.Tensor, timestep: torch.Tensor, two_prompts: bool) -> torch.Tensor:
        """The UNet's output [B, 4, h, w] with the prompt, for input alike and timestep [B].

        two_prompts: whether there are rows of negative prompts, which callbacks that end guidance cut off.
        """
        return self._call(net_input, timestep, self.positive if two_prompts else None)

    def outputs(self, net_input: torch.Tensor, timestep: torch.Tensor, joined: bool) -> tuple:
        """With the prompt, and with the negative prompt; joined: in one call of the UNet."""
        if not joined:
            uncond, text = (self._call(net_input, timestep, rows) for rows in (self.negative, self.positive))
            return text, uncond
        return self._call(torch.cat([net_input] * 2), torch.cat([timestep] * 2)).chunk(2)[::-1]

    def _call(self, net_input: torch.Tensor, timestep: torch.Tensor, rows: slice | None = None) -> torch.Tensor:
        tensors, images = self.tensors, self.images
        if rows is not None:
            tensors = {name: tensor[rows] for name, tensor in tensors.items()}
            images = {name: [tensor[rows] for tensor in each] for name, each in images.items()}
        added = {"text_embeds": tensors["add_text_embeds"], "time_ids": tensors["add_time_ids"], **images}
        return self.pipe.unet(
            net_input,
            timestep,
            encoder_hidden_states=tensors["prompt_embeds"],
            timestep_cond=self.timestep_cond,
            cross_attention_kwargs=self.pipe.cross_attention_kwargs,
            added_cond_kwargs=added,
            return_dict=False,
        )[0]


def conditioning(
    pipe: StableDiffusionXLPipeline, images: int, images_per_prompt: int, ip_adapter_image, ip_adapter_image_embeds,
    size: tuple, negative_size: tuple, **prompts,
) -> Conditioning:  # fmt: skip
    """Encode prompts, sizes and image prompts, for as many images, with the pipeline's guidance.

    size, negative_size: (original size, crop, target size). prompts: as encode_prompt takes them.
    """
    device, guided = pipe._execution_device, pipe.do_classifier_free_guidance
    encode_prompt: Any = pipe.encode_prompt  # diffusers annotates what it returns as what it takes
    embeds, negative_embeds, pooled, negative_pooled = encode_prompt(
        **prompts,
        device=device,
        num_images_per_prompt=images_per_prompt,
        do_classifier_free_guidance=guided,
        lora_scale=(pipe.cross_attention_kwargs or {}).get("scale"),
        clip_skip=pipe.clip_skip,
    )
    dtype, time_ids = embeds.dtype, _time_ids(pipe, size, pooled)
    if guided:
        both_given = negative_size[0] is not None and negative_size[2] is not None
        negative_time_ids = _time_ids(pipe, negative_size, pooled) if both_given else time_ids
        embeds, pooled = torch.cat([negative_embeds, embeds]), torch.cat([negative_pooled, pooled])
        time_ids = torch.cat([negative_time_ids, time_ids])
    tensors = {
        "prompt_embeds": embeds.to(device),
        "add_text_embeds": pooled.to(device),
        "add_time_ids": time_ids.to(device).repeat(images, 1),
    }
    image_embeds = {}
    if ip_adapter_image is not None or ip_adapter_image_embeds is not None:
        image_embeds["image_embeds"] = pipe.prepare_ip_adapter_image_embeds(
            ip_adapter_image, ip_adapter_image_embeds, device, images, guided
        )
    rows = (slice(images), slice(images, None)) if guided else (None, None)
    return Conditioning(pipe, dtype, tensors, image_embeds, _timestep_cond(pipe, images, dtype), *rows)


def _time_ids(pipe: StableDiffusionXLPipeline, size: tuple, pooled_prompt_embeds: torch.Tensor) -> torch.Tensor:
    """The micro-conditioning vector [1, 6] of an (original size, crop, target size)."""
    encoder = pipe.text_encoder_2
    width = pooled_prompt_embeds.shape[-1] if encoder is None else encoder.config.projection_dim
    return pipe._get_add_time_ids(*size, dtype=pooled_prompt_embeds.dtype, text_encoder_projection_dim=width)


def _timestep_cond(pipe: StableDiffusionXLPipeline, images: int, dtype: torch.dtype) -> torch.Tensor | None:
    """The embedding of the guidance scale, for networks that were distilled to take one."""
    width = pipe.unet.config.time_cond_proj_dim
    if width is None:
        return None
    scales = torch.tensor(pipe.guidance_scale - 1).repeat(images)
    return pipe.get_guidance_scale_embedding(scales, embedding_dim=width).to(device=pipe._execution_device, dtype=dtype)


def rescaled(output: torch.Tensor, text: torch.Tensor, rescale: float) -> torch.Tensor:
    """diffusers' rescale_noise_cfg (Lin et al. 2023, arXiv 2305.08891, section 3.4)."""
    module = diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl
    return module.rescale_noise_cfg(output, text, guidance_rescale=rescale)


def decoded(pipe: StableDiffusionXLPipeline, latents: torch.Tensor, output_type: str) -> Any:
    """Images of the output type from clean latents [B, 4, h, w]."""
    config = pipe.vae.config
    upcast = pipe.vae.dtype == torch.float16 and config.force_upcast
    if upcast:
        pipe.vae.to(torch.float32)
        latents = latents.to(next(iter(pipe.vae.post_quant_conv.parameters())).dtype)
    else:
        latents = latents.to(pipe.vae.dtype)
    if config.get("latents_mean") is None or config.get("latents_std") is None:
        latents = latents / config.scaling_factor
    else:
        mean, std = (torch.tensor(v).view(1, -1, 1, 1).to(latents) for v in (config.latents_mean, config.latents_std))
        latents = latents * std / config.scaling_factor + mean
    image = pipe.vae.decode(latents.to(get_module_execution_device(pipe.vae)), return_dict=False)[0]
    if upcast:
        pipe.vae.to(torch.float16)
    if pipe.watermark is not None:
        image = pipe.watermark.apply_watermark(image)
    return pipe.image_processor.postprocess(image, output_type=output_type)
