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
from diffusers.pipelines.stable_diffusion_xl import StableDiffusionXLPipelineOutput
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import rescale_noise_cfg
from diffusers.utils import deprecate, logging
from diffusers.utils.torch_utils import get_module_execution_device

from k_diffusing.grids.choose import discrete_grid
from k_diffusing.model.guidance import GuidanceInterval, guidance_at
from k_diffusing.model.scheduler_config import noise_schedule, preconditioning
from k_diffusing.noise.check import check_noise
from k_diffusing.noise.choose import noise_streams
from k_diffusing.programs.conventions import drops_penultimate, initial_scale
from k_diffusing.run import SamplingRun, check_call, check_diffusers_loop, count_images
from k_diffusing.samplers.comfyui import ComfyModel, Levels, after_guidance, model_sampling
from k_diffusing.samplers.patch import to_d
from k_diffusing.schedulers.as_sampler import warn_of_bounds
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
        prompt: str | list[str] = None,
        prompt_2: str | list[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 50,
        timesteps: list[int] = None,
        sigmas: list[float] = None,
        denoising_end: float | None = None,
        guidance_scale: float = 5.0,
        negative_prompt: str | list[str] | None = None,
        negative_prompt_2: str | list[str] | None = None,
        num_images_per_prompt: int | None = 1,
        eta: float = 0.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        pooled_prompt_embeds: torch.Tensor | None = None,
        negative_pooled_prompt_embeds: torch.Tensor | None = None,
        ip_adapter_image: PipelineImageInput | None = None,
        ip_adapter_image_embeds: list[torch.Tensor] | None = None,
        output_type: str | None = "pil",
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
            sigma_grid: "karras", "exponential", "simple", "beta", ... (`k_diffusing.grids.grids.SIGMA_GRIDS`); or a
                function (schedule, n) -> n + 1 sigmas; None: the grid of the config of `pipe.scheduler`, which itself
                is neither used nor changed.
            quantize: tell the network the nearest integer timestep where sigma is between the grid's points,
                in place of interpolating in log sigma.
            guidance_interval: (start, end), in fractions of the timesteps, or {"sigma": (start, end)}: elsewhere the
                UNet is called without the negative prompt, on half as many rows.
            batch_guidance: both prompts in one call of the UNet; False: in two, which takes less memory.
            noise: where all noise comes from: "torch", "cpu", "philox", "comfy", "a1111" or "brownian_tree"
                (`k_diffusing.noise.sources.NOISE_SOURCES`).
            seeds: in place of generator: one for each image, or one that stands for itself, itself + 1, ...
            trace: a `k_diffusing.trace.record.Trace` that takes note of every network call, draw of noise and step.
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
            arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
            legacy = {name: arguments.pop(name) for name in ("callback", "callback_steps")}
            check_diffusers_loop(StableDiffusionXLPipeline.__call__, arguments)
            return super().__call__(**arguments, **{name: v for name, v in legacy.items() if v is not None})

        # 1. Check everything that can be checked before a model runs.
        for name, value in (("callback", callback), ("callback_steps", callback_steps)):
            if value is not None:
                deprecate(name, "1.0.0", f"Passing `{name}` is deprecated, use `callback_on_step_end`")
        if isinstance(callback_on_step_end, (PipelineCallback, MultiPipelineCallbacks)):
            callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs
        height = height or self.default_sample_size * self.vae_scale_factor
        width = width or self.default_sample_size * self.vae_scale_factor
        self.check_inputs(
            prompt, prompt_2, height, width, callback_steps, negative_prompt, negative_prompt_2, prompt_embeds,
            negative_prompt_embeds, pooled_prompt_embeds, negative_pooled_prompt_embeds, ip_adapter_image,
            ip_adapter_image_embeds, callback_on_step_end_tensor_inputs,
        )  # fmt: skip
        images = count_images(prompt, prompt_embeds, num_images_per_prompt)
        watched = callback_on_step_end is not None or callback is not None
        sampler = check_call(
            comfy_sampler, sampler_options, sigma_grid, num_inference_steps, watched, timesteps=timesteps, sigmas=sigmas
        )
        scale = self.vae_scale_factor
        shape = (images, self.unet.config.in_channels, height // scale, width // scale)
        check_noise(noise, generator, seeds, images, elements=math.prod(shape[1:]))
        if eta:
            logger.warning(
                f"eta={eta} is DDIM's and ignored here: give {sampler.name} sampler_options={{'eta': {eta}}}"
            )
        if getattr(sampler.function, "flow_coordinates", None) == "flow":
            raise ValueError(
                f"{sampler.name} integrates flow matching, which SDXL is not: take a scheduler with betas, such as "
                "UniPCMultistepScheduler.from_config(pipe.scheduler.config), without use_flow_sigmas"
            )
        schedule = noise_schedule(self.scheduler)
        row = preconditioning(self.scheduler)
        warn_of_bounds(self, sampler, self.scheduler)
        guides = guidance_at(guidance_interval, schedule)
        drop = drops_penultimate(noise, sampler.name)
        grid_scheduler = sampler.grid_scheduler or self.scheduler
        grid = discrete_grid(grid_scheduler, schedule, num_inference_steps, sigma_grid, timesteps, sigmas, drop)
        grid = grid._replace(initial_scale=initial_scale(noise, grid, schedule.sigmas[-1]))
        steps = self._steps_before(denoising_end, grid, schedule)
        levels = grid.sigmas[: steps + 1]
        if quantize:
            schedule.timestep(levels, quantize)  # raises where timesteps are not integers

        self._guidance_scale = guidance_scale
        self._guidance_rescale = guidance_rescale
        self._clip_skip = clip_skip
        self._cross_attention_kwargs = cross_attention_kwargs
        self._denoising_end = denoising_end
        self._interrupt = False
        device = self._execution_device

        # 2. Everything the denoiser closes over.
        prompt_embeds, negative_prompt_embeds, pooled_prompt_embeds, negative_pooled_prompt_embeds = self.encode_prompt(
            prompt=prompt,
            prompt_2=prompt_2,
            device=device,
            num_images_per_prompt=num_images_per_prompt,
            do_classifier_free_guidance=self.do_classifier_free_guidance,
            negative_prompt=negative_prompt,
            negative_prompt_2=negative_prompt_2,
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
            pooled_prompt_embeds=pooled_prompt_embeds,
            negative_pooled_prompt_embeds=negative_pooled_prompt_embeds,
            lora_scale=(cross_attention_kwargs or {}).get("scale"),
            clip_skip=clip_skip,
        )
        dtype = prompt_embeds.dtype
        size = (original_size or (height, width), crops_coords_top_left, target_size or (height, width))
        negative_size = (negative_original_size, negative_crops_coords_top_left, negative_target_size)
        time_ids = self._time_ids(size, pooled_prompt_embeds)
        if self.do_classifier_free_guidance:
            both_given = negative_original_size is not None and negative_target_size is not None
            negative_time_ids = self._time_ids(negative_size, pooled_prompt_embeds) if both_given else time_ids
            prompt_embeds = torch.cat([negative_prompt_embeds, prompt_embeds])
            pooled_prompt_embeds = torch.cat([negative_pooled_prompt_embeds, pooled_prompt_embeds])
            time_ids = torch.cat([negative_time_ids, time_ids])
        conditioning = {
            "prompt_embeds": prompt_embeds.to(device),
            "add_text_embeds": pooled_prompt_embeds.to(device),
            "add_time_ids": time_ids.to(device).repeat(images, 1),
        }
        image_embeds = {}
        if ip_adapter_image is not None or ip_adapter_image_embeds is not None:
            image_embeds["image_embeds"] = self.prepare_ip_adapter_image_embeds(
                ip_adapter_image, ip_adapter_image_embeds, device, images, self.do_classifier_free_guidance
            )
        timestep_cond = None
        if self.unet.config.time_cond_proj_dim is not None:
            timestep_cond = self.get_guidance_scale_embedding(
                torch.tensor(guidance_scale - 1).repeat(images), embedding_dim=self.unet.config.time_cond_proj_dim
            ).to(device=device, dtype=dtype)

        # 3. The state at the first noise level.
        if grid.timesteps is not None:
            schedule = schedule.with_grid(grid.sigmas[:-1], grid.timesteps)
        schedule = schedule.to(device)
        streams = noise_streams(noise, generator, seeds, images, device)
        if latents is None:
            latents = streams.initial(shape, device, dtype)
        state_dtype = torch.promote_types(latents.dtype, torch.float32)
        x = latents.to(device, state_dtype) * grid.initial_scale

        # 4. The denoiser.
        def unet(net_input, timestep, part=None):
            """One call, on that part of the conditioning, in which the negative prompts come first."""
            rows, images_of = conditioning, image_embeds
            if part is not None:
                rows = {name: tensor[part] for name, tensor in conditioning.items()}
                images_of = {name: [tensor[part] for tensor in each] for name, each in image_embeds.items()}
            return self.unet(
                net_input,
                timestep,
                encoder_hidden_states=rows["prompt_embeds"],
                timestep_cond=timestep_cond,
                cross_attention_kwargs=self.cross_attention_kwargs,
                added_cond_kwargs={
                    "text_embeds": rows["add_text_embeds"],
                    "time_ids": rows["add_time_ids"],
                    **images_of,
                },
                return_dict=False,
            )[0].to(state_dtype)

        def network(net_input, timestep, guided):
            negative, positive = slice(images), slice(images, None)
            if not (guided and self.do_classifier_free_guidance):
                output = unet(net_input, timestep, positive if self.do_classifier_free_guidance else None)
                return output, output, output
            if batch_guidance:
                uncond, text = unet(torch.cat([net_input] * 2), torch.cat([timestep] * 2)).chunk(2)
            else:
                uncond, text = (unet(net_input, timestep, part) for part in (negative, positive))
            output = uncond + self.guidance_scale * (text - uncond)
            if self.guidance_rescale > 0:
                output = rescale_noise_cfg(output, text, guidance_rescale=self.guidance_rescale)
            return output, text, uncond

        grid_timesteps = schedule.timestep(levels.to(device), quantize).unsqueeze(1).repeat(1, images)
        on_grid = list(zip(levels, grid_timesteps, map(guides, levels), strict=True))

        def denoiser(x, sigma, model_options=None, seed=None):
            if run.grid_index is None:
                level, timestep, guided = sigma.reshape(-1, 1, 1, 1), schedule.timestep(sigma, quantize), guides(sigma)
            else:  # known on the host: fewer operations
                level, timestep, guided = on_grid[run.grid_index]
            net_input = row.network_input(x, level).to(dtype)
            output, *pair = network(net_input, timestep, guided)
            denoised = row.denoised(x, output, level)
            if model_options:
                pair = [row.denoised(x, one, level) for one in pair]
                denoised = after_guidance(model_options, x, sigma, denoised, *pair)
            run.record(x, sigma, denoised)
            if trace is not None:
                trace.record_call(x, sigma, timestep, net_input, denoised)
            return denoised

        def to_scheduler(x, sigma):
            return x / (sigma**2 + 1) ** 0.5 if grid.scaled_latents else x

        def to_state(latents, sigma):
            return latents * (sigma**2 + 1) ** 0.5 if grid.scaled_latents else latents

        # 5. Sample, decode.
        run = SamplingRun(
            self, sampler, levels, lambda sigma: schedule.timestep(sigma.to(device), quantize), to_scheduler, to_state,
            dtype, conditioning, callback_on_step_end, callback_on_step_end_tensor_inputs, callback, callback_steps,
            trace=trace,
        )  # fmt: skip
        self._num_timesteps = run.count or steps
        if trace is not None:
            trace.start(sampler.name, levels, "ve", self, (height, width))
        if sampler.custom:
            denoiser = ComfyModel(denoiser, model_sampling(Levels(schedule), flow=False))
        latents = run.sample(denoiser, x, sampler_options, streams.step_noise, to_d)
        image = latents.to(dtype) if output_type == "latent" else self.decode(latents, height, width, output_type)
        self.maybe_free_model_hooks()
        return StableDiffusionXLPipelineOutput(images=image) if return_dict else (image,)

    def _time_ids(self, size: tuple, pooled_prompt_embeds: torch.Tensor) -> torch.Tensor:
        """The micro-conditioning vector [1, 6] of an (original size, crop, target size)."""
        encoder = self.text_encoder_2
        width = pooled_prompt_embeds.shape[-1] if encoder is None else encoder.config.projection_dim
        return self._get_add_time_ids(*size, dtype=pooled_prompt_embeds.dtype, text_encoder_projection_dim=width)

    def _steps_before(self, denoising_end: float | None, grid, schedule) -> int:
        """How many steps of the grid to take: those whose timestep is in the part before `denoising_end`."""
        steps = len(grid.sigmas) - 1
        if not isinstance(denoising_end, float) or not 0 < denoising_end < 1:
            return steps
        timesteps = schedule.timestep(grid.sigmas[:-1]) if grid.timesteps is None else grid.timesteps
        train = self.scheduler.config.num_train_timesteps
        steps = int((timesteps >= round(train - denoising_end * train)).sum())
        if steps == 0:
            raise ValueError(
                f"denoising_end={denoising_end} leaves no step to take on a grid of {len(timesteps)} steps"
            )
        return steps

    @torch.no_grad()
    def decode(self, latents: torch.Tensor, height: int, width: int, output_type: str = "pil"):
        """Images of the output type from clean latents [B, 4, height / 8, width / 8]."""
        config = self.vae.config
        upcast = self.vae.dtype == torch.float16 and config.force_upcast
        if upcast:
            self.vae.to(torch.float32)
            latents = latents.to(next(iter(self.vae.post_quant_conv.parameters())).dtype)
        else:
            latents = latents.to(self.vae.dtype)
        if config.get("latents_mean") is None or config.get("latents_std") is None:
            latents = latents / config.scaling_factor
        else:
            mean, std = (
                torch.tensor(v).view(1, -1, 1, 1).to(latents) for v in (config.latents_mean, config.latents_std)
            )
            latents = latents * std / config.scaling_factor + mean
        image = self.vae.decode(latents.to(get_module_execution_device(self.vae)), return_dict=False)[0]
        if upcast:
            self.vae.to(torch.float16)
        if self.watermark is not None:
            image = self.watermark.apply_watermark(image)
        return self.image_processor.postprocess(image, output_type=output_type)
