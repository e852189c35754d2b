"""FLUX, text to image, sampled by k_diffusion's functions.

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", dtype=torch.bfloat16)
image = pipe("an astronaut in a jungle", comfy_sampler="dpmpp_2m").images[0]
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.image_processor import PipelineImageInput
from diffusers.pipelines.flux import FluxPipelineOutput
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from diffusers.utils.torch_utils import get_module_execution_device

from k_diffusing.grids.choose import flow_grid
from k_diffusing.model.coordinates import FLOW_COORDINATES
from k_diffusing.model.guidance import GuidanceInterval, guidance_at
from k_diffusing.model.scheduler_config import flow_schedule
from k_diffusing.noise.check import check_noise
from k_diffusing.noise.choose import noise_streams
from k_diffusing.programs.conventions import drops_penultimate
from k_diffusing.run import SamplingRun, check_call, check_diffusers_loop, count_images
from k_diffusing.samplers.comfyui import ComfyModel, Levels, after_guidance, model_sampling
from k_diffusing.samplers.options import choose_coordinates
from k_diffusing.samplers.patch import to_d
from k_diffusing.schedulers.as_sampler import warn_of_bounds
from k_diffusing.trace.record import Trace, chosen_trace


class FluxPipeline(diffusers.FluxPipeline):
    """diffusers' `FluxPipeline`, with the sampling algorithm given as a function.

    Everything of diffusers' class works as it does there; `__call__` takes nine more keywords.
    """

    _callback_tensor_inputs = [*diffusers.FluxPipeline._callback_tensor_inputs, "denoised"]

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] = None,
        prompt_2: str | list[str] | None = None,
        negative_prompt: str | list[str] = None,
        negative_prompt_2: str | list[str] | None = None,
        true_cfg_scale: float = 1.0,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 28,
        sigmas: list[float] | None = None,
        guidance_scale: float = 3.5,
        num_images_per_prompt: int | None = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.FloatTensor | None = None,
        prompt_embeds: torch.FloatTensor | None = None,
        pooled_prompt_embeds: torch.FloatTensor | None = None,
        ip_adapter_image: PipelineImageInput | None = None,
        ip_adapter_image_embeds: list[torch.Tensor] | None = None,
        negative_ip_adapter_image: PipelineImageInput | None = None,
        negative_ip_adapter_image_embeds: list[torch.Tensor] | None = None,
        negative_prompt_embeds: torch.FloatTensor | None = None,
        negative_pooled_prompt_embeds: torch.FloatTensor | None = None,
        output_type: str | None = "pil",
        return_dict: bool = True,
        joint_attention_kwargs: dict[str, Any] | None = None,
        callback_on_step_end: Callable | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],  # noqa: B006 - diffusers' own default
        max_sequence_length: int = 512,
        *,
        comfy_sampler: str | Callable | None = "sample_euler",
        sampler_options: dict[str, Any] | None = None,
        sigma_grid: str | Callable | None = None,
        flow_coordinates: str = "auto",
        guidance_interval: GuidanceInterval | None = None,
        batch_guidance: bool = False,
        noise: str = "torch",
        seeds: int | list[int] | None = None,
        trace: Trace | None = None,
    ) -> FluxPipelineOutput | tuple:
        """Generate images. All but the last keywords are diffusers', with diffusers' meaning.

        Args:
            comfy_sampler: the name of a k_diffusion sampler, with or without `sample_`; or any callable
                `(model, x, sigmas, extra_args, callback, disable, **options) -> x`; or None for diffusers' own
                loop with `pipe.scheduler`. `model(x, sigma)` returns the denoised latents; x is packed, of shape
                [B, tokens, channels] in float32, sigma of shape [B], in the coordinates of flow_coordinates.
                One that adds noise has a parameter `noise_sampler=None`, and draws noise_sampler(sigma, sigma_next).
            sampler_options: given to the sampler: eta, s_noise, s_churn, solver_type, order, rtol, ...
            sigma_grid: "karras", "simple", "beta", ... (`k_diffusing.grids.grids.SIGMA_GRIDS`) or a function (schedule, n) ->
                n + 1 values, in flow time; None: the grid of the config of `pipe.scheduler`, which itself is neither
                used nor changed.
            flow_coordinates: what the sampler sees of latents = (1 - t) x0 + t eps.
                "flow": the latents, sigma = t; right for samplers that see only the derivative and add no noise.
                "ve": x = latents / (1 - t) = x0 + sigma eps, sigma = t / (1 - t); right for every sampler.
                "auto": "flow" for euler, heun, dpm_2, lms, dpm_fast and dpm_adaptive unless their options make
                them add noise, and for functions of ComfyUI and diffusers' flow-matching schedulers, which know
                these coordinates; "ve" for all others.
                "velocity": the latents, with the velocity in place of the denoised latents; wrong for most
                samplers, kept to reproduce what earlier programs did.
            guidance_interval: of true CFG: (start, end), in fractions of the scheduler's time before its shift, or
                {"sigma": (start, end)} in flow time: elsewhere the transformer is not called with the negative prompt.
            batch_guidance: both prompts of true CFG in one call of the transformer; False: in two, as diffusers does,
                which takes less memory.
            noise: where all noise comes from: "torch", "cpu", "philox", "comfy", "a1111" or "brownian_tree"
                (`k_diffusing.noise.sources.NOISE_SOURCES`).
            seeds: in place of generator: one for each image, or one that stands for itself, itself + 1, ...
            trace: a `k_diffusing.trace.record.Trace` that takes note of every network call, draw of noise and step.
            callback_on_step_end: as in diffusers, called once per step of the sampler;
                callback_on_step_end_tensor_inputs may name "denoised", the clean latents estimated in the step.
            generator: source of the initial noise and of all noise the sampler adds.

        Raises:
            ValueError, TypeError: for input that cannot be right, before any model runs.
            FloatingPointError: where the transformer returned nan or inf, or the sampler made it; it says which.
            RuntimeError: where dpm_adaptive finds no step that it accepts.
        """
        trace = chosen_trace(trace)
        if comfy_sampler is None:
            arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
            check_diffusers_loop(FluxPipeline.__call__, arguments)
            return super().__call__(**arguments)

        # 1. Check everything that can be checked before a model runs.
        if isinstance(callback_on_step_end, (PipelineCallback, MultiPipelineCallbacks)):
            callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs
        height = height or self.default_sample_size * self.vae_scale_factor
        width = width or self.default_sample_size * self.vae_scale_factor
        self.check_inputs(
            prompt, prompt_2, height, width,
            negative_prompt=negative_prompt,
            negative_prompt_2=negative_prompt_2,
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
            pooled_prompt_embeds=pooled_prompt_embeds,
            negative_pooled_prompt_embeds=negative_pooled_prompt_embeds,
            callback_on_step_end_tensor_inputs=callback_on_step_end_tensor_inputs,
            max_sequence_length=max_sequence_length,
        )  # fmt: skip
        images = count_images(prompt, prompt_embeds, num_images_per_prompt)
        sampler = check_call(
            comfy_sampler, sampler_options, sigma_grid, num_inference_steps,
            watched=callback_on_step_end is not None, sigmas=sigmas,
        )  # fmt: skip
        channels, stride = self.transformer.config.in_channels // 4, self.vae_scale_factor * 2
        shape = (images, channels, 2 * (int(height) // stride), 2 * (int(width) // stride))
        check_noise(noise, generator, seeds, images, elements=math.prod(shape[1:]))
        chosen = choose_coordinates(flow_coordinates, sampler, sampler_options)
        coordinates = FLOW_COORDINATES[chosen]
        mu = self._dynamic_shift(height, width, latents)
        schedule = flow_schedule(self.scheduler, mu)
        warn_of_bounds(self, sampler, self.scheduler)
        guides = guidance_at(guidance_interval, schedule)
        drop = drops_penultimate(noise, sampler.name)
        grid_scheduler = sampler.grid_scheduler or self.scheduler
        times = flow_grid(grid_scheduler, schedule, num_inference_steps, sigma_grid, sigmas, mu, drop).sigmas
        levels = coordinates.sigmas(times)
        negative_given = negative_prompt_embeds is not None and negative_pooled_prompt_embeds is not None
        true_cfg = true_cfg_scale > 1 and (negative_prompt is not None or negative_given)
        if true_cfg and prompt_embeds is not None and negative_prompt_embeds is not None:
            if prompt_embeds.shape != negative_prompt_embeds.shape:
                shapes = f"{tuple(prompt_embeds.shape)} != {tuple(negative_prompt_embeds.shape)}"
                raise ValueError(
                    "prompt_embeds and negative_prompt_embeds must have the same shape when passed directly: " + shapes
                )
        if true_cfg and batch_guidance:
            texts = (negative_prompt_2 or negative_prompt, negative_prompt_embeds), (prompt_2 or prompt, prompt_embeds)
            shapes = [self._embeds_shape(*text, num_images_per_prompt, max_sequence_length) for text in texts]
            if shapes[0] != shapes[1]:
                raise ValueError(
                    f"batch_guidance=True cannot join prompts of the shapes {shapes[0]} and {shapes[1]}: leave it out, "
                    "or pass as many negative prompts as prompts, with embeddings of max_sequence_length tokens"
                )

        self._guidance_scale = guidance_scale
        self._joint_attention_kwargs = joint_attention_kwargs or {}
        self._current_timestep = None
        self._interrupt = False
        device = self._execution_device

        # 2. Everything the denoiser closes over.
        guidance = None
        if self.transformer.config.guidance_embeds:
            guidance = torch.full([images], guidance_scale, device=device, dtype=torch.float32)
        encoding = {
            "device": device,
            "num_images_per_prompt": num_images_per_prompt,
            "max_sequence_length": max_sequence_length,
            "lora_scale": (joint_attention_kwargs or {}).get("scale"),
        }
        prompt_embeds, pooled_prompt_embeds, text_ids = self.encode_prompt(
            prompt, prompt_2, prompt_embeds=prompt_embeds, pooled_prompt_embeds=pooled_prompt_embeds, **encoding
        )
        conditioning = {"prompt_embeds": prompt_embeds}
        positive = {"pooled_projections": pooled_prompt_embeds, "txt_ids": text_ids, "guidance": guidance}
        negative = None
        if true_cfg:
            negative_prompt_embeds, negative_pooled_prompt_embeds, negative_text_ids = self.encode_prompt(
                negative_prompt,
                negative_prompt_2,
                prompt_embeds=negative_prompt_embeds,
                pooled_prompt_embeds=negative_pooled_prompt_embeds,
                **encoding,
            )
            negative = positive | {"pooled_projections": negative_pooled_prompt_embeds, "txt_ids": negative_text_ids}
            if batch_guidance:
                both = positive | {
                    "pooled_projections": torch.cat([negative_pooled_prompt_embeds, pooled_prompt_embeds]),
                    "guidance": None if guidance is None else guidance.repeat(2),
                }
        dtype = prompt_embeds.dtype
        image_embeds, negative_image_embeds = self._ip_adapter_embeds(
            (ip_adapter_image, ip_adapter_image_embeds),
            (negative_ip_adapter_image, negative_ip_adapter_image_embeds),
            (height, width), device, images,
        )  # fmt: skip
        # 3. The state at the first noise level: unit noise, whatever that level is.
        streams = noise_streams(noise, generator, seeds, images, device)
        drawn = None if latents is not None else self._pack_latents(streams.initial(shape, device, dtype), *shape)
        given, image_ids = self.prepare_latents(
            images, channels, height, width, dtype, device, generator, drawn if latents is None else latents
        )
        latents = given if drawn is None else drawn  # given has the model's dtype, some noise has more digits
        state_dtype = torch.promote_types(latents.dtype, torch.float32)
        scale = coordinates.time(levels[0]) if noise == "comfy" else 1.0
        initial = latents.to(state_dtype) * scale
        x = start = coordinates.state(initial, levels[0])

        # 4. The denoiser.
        def transformer(name, net_input, timestep, prompt_embeds, image_embeds, text):
            kwargs = self.joint_attention_kwargs
            if image_embeds is not None:
                kwargs = {**kwargs, "ip_adapter_image_embeds": image_embeds}
            # A cache keeps what it knows by name: the stages of a step are as far apart as two prompts are.
            with self.transformer.cache_context(f"{name}_{run.stage}" if run.stage else name):
                return self.transformer(
                    hidden_states=net_input,
                    timestep=timestep,
                    encoder_hidden_states=prompt_embeds,
                    img_ids=image_ids,
                    joint_attention_kwargs=kwargs,
                    return_dict=False,
                    **text,
                )[0].to(state_dtype)

        def network(net_input, timestep, guided):
            self._current_timestep = timestep[0]
            timestep = timestep.to(dtype) / 1000
            prompt_embeds = conditioning["prompt_embeds"]
            if negative is None or not guided:
                velocity = transformer("cond", net_input, timestep, prompt_embeds, image_embeds, positive)
                return velocity, velocity, velocity
            # An image prompt without a negative one serves both, as it does in diffusers.
            negative_images = image_embeds if negative_image_embeds is None else negative_image_embeds
            if batch_guidance:
                twice = torch.cat([net_input] * 2), torch.cat([timestep] * 2)
                prompts = torch.cat([negative_prompt_embeds, prompt_embeds])
                images_of = image_embeds
                if image_embeds is not None:
                    images_of = [torch.cat(pair) for pair in zip(negative_images, image_embeds, strict=True)]
                uncond, velocity = transformer("both", *twice, prompts, images_of, both).chunk(2)
            else:
                velocity = transformer("cond", net_input, timestep, prompt_embeds, image_embeds, positive)
                uncond = transformer("uncond", net_input, timestep, negative_prompt_embeds, negative_images, negative)
            return uncond + true_cfg_scale * (velocity - uncond), velocity, uncond

        last = {"denoised": None, "velocity": None}
        grid_times = coordinates.time(levels)
        grid_timesteps = schedule.timestep(grid_times).to(device).unsqueeze(1).repeat(1, images)
        on_grid = list(zip(levels, grid_times, grid_timesteps, map(guides, grid_times), strict=True))
        # A sampler that does nothing but pass it to `to_d` needs no denoised latents, if nobody looks at them.
        watched = "denoised" in callback_on_step_end_tensor_inputs or trace is not None
        only_to_d = sampler.derivative_only and sampler.takes == "sigmas" and not sampler.custom
        lean = chosen == "flow" and only_to_d and not watched

        def denoiser(x, sigma, model_options=None, seed=None):
            if run.grid_index is None:
                t = coordinates.time(sigma)
                level, time = sigma.reshape(-1, 1, 1), t.reshape(-1, 1, 1)
                timestep, guided = schedule.timestep(t), guides(t)
            else:  # known on the host: fewer operations
                level, time, timestep, guided = on_grid[run.grid_index]
            latents = coordinates.latents(x, level)
            # What the first network call sees makes no round trip through the coordinates, so it is diffusers' own.
            net_input = (initial if x is start else latents).to(dtype)
            velocity, *pair = network(net_input, timestep, guided)
            if lean:
                run.record(x, sigma, velocity)
                return velocity
            denoised = latents - time * velocity
            if model_options:
                denoised = after_guidance(model_options, x, sigma, denoised, *(latents - time * one for one in pair))
            run.record(x, sigma, denoised)
            if chosen == "flow":
                last.update(denoised=denoised, velocity=velocity)
            returned = velocity if chosen == "velocity" else denoised
            if trace is not None:
                trace.record_call(x, sigma, timestep, net_input, returned)
            return returned

        def velocity_derivative(x, sigma, denoised):
            """`to_d` in flow coordinates: the velocity is the derivative; nothing is divided by t."""
            if chosen == "velocity" or lean:
                return denoised
            return last["velocity"] if denoised is last["denoised"] else to_d(x, sigma, denoised)

        # 5. Sample, decode.
        run = SamplingRun(
            self, sampler, levels, lambda sigma: schedule.timestep(coordinates.time(sigma)).to(device),
            coordinates.latents, coordinates.state, dtype, conditioning, callback_on_step_end,
            callback_on_step_end_tensor_inputs, trace=trace,
        )  # fmt: skip
        self._num_timesteps = run.count or len(levels) - 1
        if trace is not None:
            trace.start(sampler.name, levels, "ve" if chosen == "ve" else "flow", self, (height, width))
        if sampler.custom:
            levels_for_comfyui = Levels(schedule, (lambda t: t / (1 - t)) if chosen == "ve" else (lambda t: t))
            denoiser = ComfyModel(denoiser, model_sampling(levels_for_comfyui, flow=chosen != "ve"))
        derivative = to_d if chosen == "ve" else velocity_derivative
        step_noise = functools.partial(
            streams.step_noise,
            unpacked_shape=shape,
            pack=lambda drawn: self._pack_latents(drawn, *drawn.shape),
            time=coordinates.time,
        )
        latents = run.sample(denoiser, x, sampler_options, step_noise, derivative)
        self._current_timestep = None
        image = latents.to(dtype) if output_type == "latent" else self.decode(latents, height, width, output_type)
        self.maybe_free_model_hooks()
        return FluxPipelineOutput(images=image) if return_dict else (image,)

    def _embeds_shape(self, prompt, embeds: torch.Tensor | None, images_per_prompt: int, tokens: int) -> tuple:
        """Of a prompt's embeddings: of those given, or of what the encoder will make of the prompt."""
        if embeds is not None:
            return tuple(embeds.shape)
        prompts = 1 if isinstance(prompt, str) else len(prompt)
        return prompts * images_per_prompt, tokens, self.transformer.config.joint_attention_dim

    def _dynamic_shift(self, height: int, width: int, latents: torch.Tensor | None) -> float:
        """mu, the log of the time shift that the scheduler's config asks for at this number of image tokens."""
        stride = self.vae_scale_factor * 2
        tokens = (int(height) // stride) * (int(width) // stride) if latents is None else latents.shape[1]
        config = self.scheduler.config
        return calculate_shift(
            tokens,
            config.get("base_image_seq_len", 256),
            config.get("max_image_seq_len", 4096),
            config.get("base_shift", 0.5),
            config.get("max_shift", 1.15),
        )

    def _ip_adapter_embeds(self, positive: tuple, negative: tuple, size: tuple, device, images: int) -> tuple:
        """Image-prompt embeddings, positive and negative, each None if no adapter is used.

        positive, negative: (images, embeddings) as the user gave them. Where only one side has an image prompt, a
        black image stands for the other.
        """
        if all(part is None for part in (*positive, *negative)):
            return None, None
        black = [np.zeros((size[1], size[0], 3), dtype=np.uint8)] * self.transformer.encoder_hid_proj.num_ip_adapters
        sides = [side if any(part is not None for part in side) else (black, None) for side in (positive, negative)]
        return tuple(self.prepare_ip_adapter_image_embeds(*side, device, images) for side in sides)

    @torch.no_grad()
    def decode(self, latents: torch.Tensor, height: int, width: int, output_type: str = "pil"):
        """Images of the output type from packed clean latents [B, tokens, channels]."""
        config = self.vae.config
        latents = self._unpack_latents(latents.to(self.vae.dtype), height, width, self.vae_scale_factor)
        latents = latents / config.scaling_factor + config.shift_factor
        image = self.vae.decode(latents.to(get_module_execution_device(self.vae)), return_dict=False)[0]
        return self.image_processor.postprocess(image, output_type=output_type)
