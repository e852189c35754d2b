"""Stable Diffusion XL, text to image, sampled by k_diffusion's functions.

pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0")
image = pipe("an astronaut in a jungle", comfy_sampler="dpmpp_2m", sigma_grid="karras").images[0]
"""

import math
from collections.abc import Callable
from typing import Any

import diffusers
import torch
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.image_processor import PipelineImageInput
from diffusers.pipelines.stable_diffusion_xl.pipeline_output import StableDiffusionXLPipelineOutput
from diffusers.utils import deprecate, logging
from diffusers.utils.torch_utils import get_module_execution_device

from k_diffusing._tensors import cast
from k_diffusing.arguments import check_callback, check_guidance, count_images, diffusers_arguments, warn_of_bounds
from k_diffusing.grids.given import GridChoice
from k_diffusing.grids.part import Part
from k_diffusing.grids.tuned import of_network
from k_diffusing.images import check_images, clean_latents, size_of
from k_diffusing.model.guidance import GuidanceInterval
from k_diffusing.model.guidance_asked import GuidanceChoice
from k_diffusing.noise.check import check_noise
from k_diffusing.noise.choose import noise_streams
from k_diffusing.observing import StepCallbacks
from k_diffusing.plan import SamplingPlan
from k_diffusing.planning import discrete_plan
from k_diffusing.programs.records import Program
from k_diffusing.prompts.sdxl import conditioning
from k_diffusing.run import SamplingRun
from k_diffusing.samplers.call import run_sampler
from k_diffusing.samplers.comfyui import after_guidance
from k_diffusing.trace.record import Trace, chosen_trace

logger = logging.get_logger(f"diffusers.{__name__}")  # under diffusers' verbosity settings


class StableDiffusionXLPipeline(diffusers.StableDiffusionXLPipeline):
    """diffusers' `StableDiffusionXLPipeline`, with the sampling algorithm given as a function.

    Everything of diffusers' class works as it does there; `__call__` takes more keywords.
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
        sigma_grid: GridChoice = None,
        quantize: bool | None = None,
        guidance: GuidanceChoice | None = None,
        guider: Any = None,
        guidance_interval: GuidanceInterval | None = None,
        batch_guidance: bool = True,
        noise: str | None = None,
        program: str | Program | None = None,
        image: PipelineImageInput | None = None,
        mask_image: PipelineImageInput | None = None,
        denoise: float | None = None,
        start_step: int | None = None,
        end_step: int | None = None,
        add_noise: bool = True,
        return_with_leftover_noise: bool = False,
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
            sigma_grid: "karras", "exponential", "simple", "beta", ... (`k_diffusing.SIGMA_GRIDS`); one with options,
                {"karras": {"rho": 5}}; n + 1 sigmas, or a .json file {"sigmas": [...]} of them; or a function
                (schedule, n) -> n + 1 sigmas; None: the grid of the config of `pipe.scheduler`, which itself
                is neither used nor changed.
            quantize: tell the network the nearest integer timestep where sigma is between the grid's points,
                in place of interpolating in log sigma; None: as the program does, without one interpolate.
            guidance: in place of guidance_scale, the weight of the prompt: a number, a list of one for each step, a
                function of sigma, or a dict: {"cfg++": 0.6, "reference_steps": 20}, {"weight": 7, "rescale": 0.7}. 1
                leaves out the evaluation without the prompt, and 0.5 is half way to the prompt; see docs/guidance.md.
            guider: in its place, one of diffusers.guiders that makes one answer of those with and without the prompt.
            guidance_interval: (start, end), in fractions of the timesteps, or {"sigma": (start, end)}: elsewhere the
                UNet is called without the negative prompt, on half as many rows.
            batch_guidance: both prompts in one call of the UNet; False: in two, which takes less memory.
            noise: where all noise comes from: "torch", "cpu", "philox", "comfy", "a1111" or "brownian_tree"
                (`k_diffusing.NOISE_SOURCES`); None: the program's, without one "torch".
            program: "comfyui", "a1111", "forge", or a record such as a1111(ensd=31337): the picture of that program
                from the same settings, in everything that these arguments leave open; None: diffusers' conventions.
            image: a picture to start from, or its latents [B, channels, h, w] in the network's scale: noise is added to
                them, as by ComfyUI's KSampler.
            mask_image: where the image is made anew, white or 1; elsewhere every network call sees the image noised.
            denoise: below 1 only the last steps are taken, those of a grid of num_inference_steps / denoise; with
                program="a1111" that part of num_inference_steps, as by its img2img.
            start_step, end_step: the first step to take, and the one to end before, counted from 0.
            add_noise: False: latents are what a run with return_with_leftover_noise=True, and an end_step, has left.
            return_with_leftover_noise: False: where end_step ends a run early, its last step leads to no noise.
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
        height, width = size_of(image, height, width)
        height, width = height or side, width or side
        self.check_inputs(
            prompt, prompt_2, height, width, callback_steps, negative_prompt, negative_prompt_2, prompt_embeds,
            negative_prompt_embeds, pooled_prompt_embeds, negative_pooled_prompt_embeds, ip_adapter_image,
            ip_adapter_image_embeds, callback_on_step_end_tensor_inputs,
        )  # fmt: skip
        images = count_images(prompt, prompt_embeds, num_images_per_prompt)
        plan = self.plan(
            comfy_sampler, sampler_options, sigma_grid, num_inference_steps, timesteps=timesteps, sigmas=sigmas,
            denoising_end=denoising_end, quantize=quantize, guidance=guidance, guider=guider,
            guidance_interval=guidance_interval, noise=noise, program=program, denoise=denoise, start_step=start_step,
            end_step=end_step, return_with_leftover_noise=return_with_leftover_noise,
        )  # fmt: skip
        check_images(image, mask_image, add_noise, latents)
        check_callback(plan.sampler, callback_on_step_end, callback)
        check_guidance(plan.guidance, self.unet.config.time_cond_proj_dim is not None, guidance_rescale)
        shape = (self.unet.config.in_channels, height // self.vae_scale_factor, width // self.vae_scale_factor)
        check_noise(plan.noise, generator, seeds, images, elements=math.prod(shape))
        warn_of_bounds(self, plan.sampler, self.scheduler)
        warn_of_leftovers(plan.sampler.name, eta, callback=callback, callback_steps=callback_steps)

        # 2. Everything the denoiser closes over.
        scale = plan.guidance.scale(guidance_scale)
        self._guidance_scale, self._guidance_rescale, self._clip_skip = scale, guidance_rescale, clip_skip
        if plan.guidance.rescale is not None:
            self._guidance_rescale = plan.guidance.rescale
        self._cross_attention_kwargs, self._denoising_end = cross_attention_kwargs, denoising_end
        self._interrupt, self._num_timesteps = False, plan.num_timesteps
        device = self._execution_device
        two_prompts = plan.guides(guidance_scale) and self.unet.config.time_cond_proj_dim is None
        if negative_prompt is None and negative_prompt_embeds is None:
            negative_prompt = plan.program.empty_negative
        told = conditioning(
            self, two_prompts, device, images, num_images_per_prompt, ip_adapter_image, ip_adapter_image_embeds,
            size=(original_size or (height, width), crops_coords_top_left, target_size or (height, width)),
            negative_size=(negative_original_size, negative_crops_coords_top_left, negative_target_size),
            prompt=prompt, prompt_2=prompt_2, prompt_embeds=prompt_embeds, pooled_prompt_embeds=pooled_prompt_embeds,
            negative_prompt=negative_prompt, negative_prompt_2=negative_prompt_2,
            negative_prompt_embeds=negative_prompt_embeds, negative_pooled_prompt_embeds=negative_pooled_prompt_embeds,
        )  # fmt: skip

        # 3. The state at the first noise level.
        streams = noise_streams(plan.noise, generator, seeds, images, device)
        shape = (images, *shape)
        drawn = streams.initial(shape, device, told.dtype) if latents is None and add_noise else latents
        drawn = None if drawn is None else drawn.to(device, torch.promote_types(drawn.dtype, torch.float32))
        clean = None if image is None else clean_latents(self, image, shape, device)
        x, kept = plan.start(drawn, clean, add_noise), None
        if mask_image is not None:
            kept = plan.kept(plan.program.latent_mask(mask_image, shape, device), clean, drawn, add_noise)
        callbacks = StepCallbacks(
            told.tensors, callback_on_step_end, callback_on_step_end_tensor_inputs, callback, callback_steps
        )  # fmt: skip
        run, levels = SamplingRun(self, plan, x, told.dtype, callbacks, trace, (height, width)), plan.levels(x, scale)

        # 4. The denoiser.
        def network(net_input, at):
            """The UNet's output as guidance makes it, with the prompt, without it: each [B, 4, h, w]."""
            # A callback may have changed the scale, and ended guidance so, as diffusers' own do.
            changed = self.guidance_scale != scale
            both = self.do_classifier_free_guidance if changed else two_prompts
            if not (at.guided and both):
                output = told.output(net_input, at.timestep, both, x.dtype)
                return output, output, output
            text, uncond = told.outputs(net_input, at.timestep, batch_guidance, x.dtype)
            weight = self.guidance_scale if changed else at.weight
            return levels.guide(text, uncond, weight, at.step, self.guidance_rescale), text, uncond

        def denoiser(x, sigma, model_options=None, seed=None):
            at = levels.at(sigma, x, run.position, model_options)
            state = x if kept is None else kept.before(x, at.sigma)
            net_input = cast(plan.space.network_input(plan.space.latents(state, at.sigma), at.sigma), told.dtype)
            output, *pair = network(net_input, at)
            denoised = plan.space.denoised(state, output, at.sigma)
            if model_options:
                pair = (plan.space.denoised(state, output, at.sigma) for output in pair)
                denoised = after_guidance(model_options, state, sigma, denoised, *pair)
            denoised = denoised if kept is None else kept.after(denoised)
            return run.evaluated(x, sigma, at, net_input, denoised)

        # 5. Sample, decode.
        with run:
            run.end(run_sampler(
                plan.sampler, plan.model(denoiser), x, plan.sigmas,
                options=plan.options, noise=plan.step_noise(streams), observer=run, watch_noise=run.watch_noise,
            ))  # fmt: skip
        final = run.latents if kept is None else kept.result(run.latents)
        made: Any = final.to(told.dtype) if output_type == "latent" else self.decode(final, height, width, output_type)
        self.maybe_free_model_hooks()
        return StableDiffusionXLPipelineOutput(images=made) if return_dict else (made,)

    def plan(
        self, comfy_sampler: str | Callable = "sample_euler", sampler_options: dict[str, Any] | None = None,
        sigma_grid: GridChoice = None, num_inference_steps: int = 50, *,
        timesteps: list[int] | None = None, sigmas: list[float] | None = None, denoising_end: float | None = None,
        quantize: bool | None = None, guidance: GuidanceChoice | None = None, guider: Any = None,
        guidance_interval: GuidanceInterval | None = None, noise: str | None = None,
        program: str | Program | None = None,
        denoise: float | None = None, start_step: int | None = None, end_step: int | None = None,
        return_with_leftover_noise: bool = False,
    ) -> SamplingPlan:  # fmt: skip
        """What a call with these arguments would do, without running a model; it prints as a table.

        Raises ValueError or TypeError for input that cannot be right.
        """
        sigma_grid = of_network(sigma_grid, self.unet)
        return discrete_plan(
            self.scheduler, comfy_sampler, sampler_options, sigma_grid, num_inference_steps, timesteps=timesteps,
            sigmas=sigmas, denoising_end=denoising_end, quantize=quantize, guidance=guidance, guider=guider,
            guidance_interval=guidance_interval, noise=noise, program=program,
            part=Part(denoise, start_step, end_step, return_with_leftover_noise),
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
