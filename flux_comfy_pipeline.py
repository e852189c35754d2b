"""FLUX, text to image, sampled by k_diffusion's functions.

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", dtype=torch.bfloat16)
image = pipe("an astronaut in a jungle", comfy_sampler="dpmpp_2m").images[0]
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import diffusers
import numpy as np
import torch
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.image_processor import PipelineImageInput
from diffusers.pipelines.flux import FluxPipelineOutput
from diffusers.utils.torch_utils import get_module_execution_device

from k_diffusing.arguments import check_callback, count_images, diffusers_arguments, warn_of_bounds
from k_diffusing.model.guidance import GuidanceInterval
from k_diffusing.noise.check import check_noise
from k_diffusing.noise.choose import noise_streams
from k_diffusing.plan import SamplingPlan, flow_plan
from k_diffusing.run import SamplingRun, StepCallbacks
from k_diffusing.samplers.call import run_sampler
from k_diffusing.samplers.comfyui import after_guidance
from k_diffusing.samplers.patch import to_d
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
            sigma_grid: "karras", "simple", "beta", ... (`k_diffusing.SIGMA_GRIDS`) or a function (schedule, n) ->
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
                (`k_diffusing.NOISE_SOURCES`).
            seeds: in place of generator: one for each image, or one that stands for itself, itself + 1, ...
            trace: a `k_diffusing.Trace` that takes note of every network call, draw of noise and step.
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
            return super().__call__(**diffusers_arguments(FluxPipeline.__call__, locals()))

        # 1. Check everything that can be checked before a model runs.
        if isinstance(callback_on_step_end, (PipelineCallback, MultiPipelineCallbacks)):
            callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs
        height = height or self.default_sample_size * self.vae_scale_factor
        width = width or self.default_sample_size * self.vae_scale_factor
        self.check_inputs(
            prompt, prompt_2, height, width, negative_prompt, negative_prompt_2, prompt_embeds, negative_prompt_embeds,
            pooled_prompt_embeds, negative_pooled_prompt_embeds, callback_on_step_end_tensor_inputs,
            max_sequence_length,
        )  # fmt: skip
        images = count_images(prompt, prompt_embeds, num_images_per_prompt)
        plan = self.plan(
            comfy_sampler, sampler_options, sigma_grid, num_inference_steps, sigmas=sigmas, height=height, width=width,
            latents=latents, flow_coordinates=flow_coordinates, guidance_interval=guidance_interval, noise=noise,
        )  # fmt: skip
        check_callback(plan.sampler, callback_on_step_end)
        channels, stride = self.transformer.config.in_channels // 4, self.vae_scale_factor * 2
        shape = (images, channels, 2 * (int(height) // stride), 2 * (int(width) // stride))
        check_noise(noise, generator, seeds, images, elements=math.prod(shape[1:]))
        warn_of_bounds(self, plan.sampler, self.scheduler)
        texts = Texts(prompt, prompt_2, prompt_embeds, pooled_prompt_embeds)
        negative = Texts(negative_prompt, negative_prompt_2, negative_prompt_embeds, negative_pooled_prompt_embeds)
        if not (true_cfg_scale > 1 and negative.given):
            negative = None
        else:
            check_shapes(self, texts, negative, num_images_per_prompt, max_sequence_length, batch_guidance)

        # 2. Everything the denoiser closes over.
        self._guidance_scale, self._joint_attention_kwargs = guidance_scale, joint_attention_kwargs or {}
        self._current_timestep, self._interrupt = None, False
        told = conditioning(
            self, texts, negative, shape, num_images_per_prompt, max_sequence_length,
            (ip_adapter_image, ip_adapter_image_embeds),
            (negative_ip_adapter_image, negative_ip_adapter_image_embeds), (height, width),
        )  # fmt: skip

        # 3. The state at the first noise level: unit noise, whatever that level is.
        streams, device = noise_streams(noise, generator, seeds, images, self._execution_device), self._execution_device
        if latents is None:
            latents = self._pack_latents(streams.initial(shape, device, told.dtype), *shape)
        else:
            latents = latents.to(device, told.dtype)
        state_dtype = torch.promote_types(latents.dtype, torch.float32)
        initial = latents.to(state_dtype) * plan.initial_scale
        x = plan.space.state(initial, plan.sigmas[0])
        callbacks = StepCallbacks(told.tensors, callback_on_step_end, callback_on_step_end_tensor_inputs)
        run, levels = SamplingRun(self, plan, x, told.dtype, callbacks, trace, (height, width)), plan.levels(x)
        self._num_timesteps = plan.steps or len(plan.sigmas) - 1

        # 4. The denoiser.
        def network(net_input, timestep, guided):
            """The velocity as true CFG makes it, with the prompt, without it: each [B, tokens, channels]."""
            self._current_timestep = timestep[0]
            timestep, stage = timestep.to(told.dtype) / 1000, run.position.stage
            if negative is None or not guided:
                velocity = told.transformer("cond", net_input, timestep, stage).to(state_dtype)
                return velocity, velocity, velocity
            if batch_guidance:
                both = told.transformer("both", torch.cat([net_input] * 2), torch.cat([timestep] * 2), stage)
                uncond, velocity = both.to(state_dtype).chunk(2)
            else:
                calls = (told.transformer(name, net_input, timestep, stage) for name in ("cond", "uncond"))
                velocity, uncond = (output.to(state_dtype) for output in calls)
            return uncond + true_cfg_scale * (velocity - uncond), velocity, uncond

        velocity, lean = None, plan.derivative_is_enough and not run.shows_denoised

        def denoiser(x, sigma, model_options=None, seed=None):
            nonlocal velocity
            at = levels.at(sigma, x, run.position.level)
            latents = plan.space.latents(x, at.sigma)
            # What the first network call sees makes no round trip through the coordinates, so it is diffusers' own.
            net_input = (initial if run.at_start(x) else latents).to(told.dtype)
            velocity, *pair = network(net_input, at.timestep, at.guided)
            if lean:
                return run.evaluated(x, sigma, at, net_input, velocity)
            denoised = latents - at.time * velocity
            if model_options:
                denoised = after_guidance(model_options, x, sigma, denoised, *(latents - at.time * v for v in pair))
            return run.evaluated(
                x, sigma, at, net_input, denoised, velocity if plan.coordinates == "velocity" else None
            )

        def derivative(x, sigma, denoised):
            """`to_d` in flow coordinates: the velocity is the derivative; nothing is divided by t."""
            return denoised if plan.coordinates == "velocity" else velocity

        # 5. Sample, decode.
        pack = {"unpacked_shape": shape, "pack": lambda drawn: self._pack_latents(drawn, *drawn.shape)}
        with run:
            run.end(run_sampler(
                plan.sampler, plan.model(denoiser), x, plan.sigmas, options=plan.options,
                noise=functools.partial(streams.step_noise, **pack, time=plan.space.time),
                derivative=derivative if plan.patches_to_d else to_d, observer=run, watch_noise=run.watch_noise,
            ))  # fmt: skip
        self._current_timestep, latents = None, run.latents
        image = latents.to(told.dtype) if output_type == "latent" else self.decode(latents, height, width, output_type)
        self.maybe_free_model_hooks()
        return FluxPipelineOutput(images=image) if return_dict else (image,)

    def plan(
        self, comfy_sampler: str | Callable = "sample_euler", sampler_options: dict[str, Any] | None = None,
        sigma_grid: str | Callable | None = None, num_inference_steps: int = 28, *, sigmas: list[float] | None = None,
        height: int | None = None, width: int | None = None, latents: torch.Tensor | None = None,
        flow_coordinates: str = "auto", guidance_interval: GuidanceInterval | None = None, noise: str = "torch",
    ) -> SamplingPlan:  # fmt: skip
        """What a call with these arguments would do, without running a model; it prints as a table.

        height, width, or packed latents [B, tokens, channels]: the size, by which the scheduler may shift flow time.
        Raises ValueError or TypeError for input that cannot be right.
        """
        sides = (side or self.default_sample_size * self.vae_scale_factor for side in (height, width))
        return flow_plan(
            self.scheduler, comfy_sampler, sampler_options, sigma_grid, num_inference_steps,
            mu=dynamic_shift(self, *sides, latents), sigmas=sigmas, flow_coordinates=flow_coordinates,
            guidance_interval=guidance_interval, noise=noise,
        )  # fmt: skip

    @torch.no_grad()
    def decode(self, latents: torch.Tensor, height: int, width: int, output_type: str = "pil"):
        """Images of the output type from packed clean latents [B, tokens, channels]."""
        config = self.vae.config
        latents = self._unpack_latents(latents.to(self.vae.dtype), height, width, self.vae_scale_factor)
        latents = latents / config.scaling_factor + config.shift_factor
        image = self.vae.decode(latents.to(get_module_execution_device(self.vae)), return_dict=False)[0]
        return self.image_processor.postprocess(image, output_type=output_type)


class Texts(NamedTuple):
    """A prompt, or the embeddings in its place, as the user gave them."""

    prompt: str | list[str] | None
    prompt_2: str | list[str] | None
    prompt_embeds: torch.Tensor | None
    pooled_prompt_embeds: torch.Tensor | None

    @property
    def embeds(self) -> dict[str, torch.Tensor | None]:
        """The embeddings by encode_prompt's keywords."""
        return {"prompt_embeds": self.prompt_embeds, "pooled_prompt_embeds": self.pooled_prompt_embeds}

    @property
    def given(self) -> bool:
        """Whether there is anything to encode or to use."""
        return self.prompt is not None or (self.prompt_embeds is not None and self.pooled_prompt_embeds is not None)

    def shape(self, pipe: FluxPipeline, images_per_prompt: int, tokens: int) -> tuple:
        """Of the embeddings: of those given, or of what the encoder will make of the prompt."""
        if self.prompt_embeds is not None:
            return tuple(self.prompt_embeds.shape)
        prompt = self.prompt_2 or self.prompt
        prompts = 1 if isinstance(prompt, str) else len(prompt)
        return prompts * images_per_prompt, tokens, pipe.transformer.config.joint_attention_dim


def check_shapes(pipe, texts: Texts, negative: Texts, images_per_prompt: int, tokens: int, joined: bool) -> None:
    """Raise ValueError for prompts whose embeddings cannot go together; joined: in one call of the transformer."""
    both_given = texts.prompt_embeds is not None and negative.prompt_embeds is not None
    if both_given and texts.prompt_embeds.shape != negative.prompt_embeds.shape:
        shapes = f"{tuple(texts.prompt_embeds.shape)} != {tuple(negative.prompt_embeds.shape)}"
        raise ValueError(
            "prompt_embeds and negative_prompt_embeds must have the same shape when passed directly: " + shapes
        )
    shapes = [each.shape(pipe, images_per_prompt, tokens) for each in (negative, texts)]
    if joined and shapes[0] != shapes[1]:
        raise ValueError(
            f"batch_guidance=True cannot join prompts of the shapes {shapes[0]} and {shapes[1]}: leave it out, "
            "or pass as many negative prompts as prompts, with embeddings of max_sequence_length tokens"
        )


class Side(NamedTuple):
    """What the transformer is told of the prompt or of the negative prompt, besides the prompt's embeddings."""

    text: dict[str, torch.Tensor | None]
    images: list[torch.Tensor] | None

    def joined(self, other: "Side") -> "Side":
        """Both in one batch, this one first."""
        pooled = torch.cat([self.text["pooled_projections"], other.text["pooled_projections"]])
        guidance = None if other.text["guidance"] is None else other.text["guidance"].repeat(2)
        text = other.text | {"pooled_projections": pooled, "guidance": guidance}
        images = None if other.images is None else [torch.cat(p) for p in zip(self.images, other.images, strict=True)]
        return Side(text, images)


@dataclass
class Conditioning:
    """What the transformer is told besides latents and timestep.

    Attributes:
        tensors: the prompt's embeddings by the name under which callbacks see and replace them.
        negative_embeds: the negative prompt's, if true CFG is on.
        sides: by the names of calls: "cond" (prompt), "uncond" (negative prompt), "both" (negative prompt first).
    """

    pipe: FluxPipeline
    dtype: torch.dtype
    tensors: dict[str, torch.Tensor]
    negative_embeds: torch.Tensor | None
    image_ids: torch.Tensor
    sides: dict[str, Side]

    def transformer(self, name: str, net_input: torch.Tensor, timestep: torch.Tensor, stage: int) -> torch.Tensor:
        """Its output [B, tokens, channels] for input alike and timestep [B].

        A cache keeps what it knows by name: the stages of a step are as far apart as two prompts are.
        """
        embeds = {"cond": self.tensors["prompt_embeds"], "uncond": self.negative_embeds}
        if name == "both":
            embeds["both"] = torch.cat([self.negative_embeds, self.tensors["prompt_embeds"]])
        side, kwargs = self.sides[name], self.pipe.joint_attention_kwargs
        if side.images is not None:
            kwargs = {**kwargs, "ip_adapter_image_embeds": side.images}
        with self.pipe.transformer.cache_context(f"{name}_{stage}" if stage else name):
            return self.pipe.transformer(
                hidden_states=net_input,
                timestep=timestep,
                encoder_hidden_states=embeds[name],
                img_ids=self.image_ids,
                joint_attention_kwargs=kwargs,
                return_dict=False,
                **side.text,
            )[0]


def conditioning(
    pipe: FluxPipeline, texts: Texts, negative: Texts | None, shape: tuple, images_per_prompt: int, tokens: int,
    images: tuple, negative_images: tuple, size: tuple,
) -> Conditioning:  # fmt: skip
    """Encode prompts and image prompts for latents of `shape` [B, channels, h, w].

    images, negative_images: (images, embeddings) as the user gave them. size: in pixels, (height, width).
    """
    device, guidance = pipe._execution_device, None
    if pipe.transformer.config.guidance_embeds:
        guidance = torch.full([shape[0]], pipe.guidance_scale, device=device, dtype=torch.float32)
    scale = pipe.joint_attention_kwargs.get("scale")
    encode = functools.partial(
        pipe.encode_prompt, device=device, num_images_per_prompt=images_per_prompt, max_sequence_length=tokens,
        lora_scale=scale,
    )  # fmt: skip
    embeds, pooled, text_ids = encode(texts.prompt, texts.prompt_2, **texts.embeds)
    negative_embeds, sides = None, {}
    cond_text = {"pooled_projections": pooled, "txt_ids": text_ids, "guidance": guidance}
    if negative is not None:
        encoded = encode(negative.prompt, negative.prompt_2, **negative.embeds)
        negative_embeds, negative_pooled, negative_ids = encoded
    image_embeds, negative_image_embeds = _ip_adapter_embeds(pipe, images, negative_images, size, device, shape[0])
    sides["cond"] = Side(cond_text, image_embeds)
    if negative is not None:
        text = cond_text | {"pooled_projections": negative_pooled, "txt_ids": negative_ids}
        # An image prompt without a negative one serves both, as it does in diffusers.
        sides["uncond"] = Side(text, image_embeds if negative_image_embeds is None else negative_image_embeds)
        sides["both"] = sides["uncond"].joined(sides["cond"])
    image_ids = pipe._prepare_latent_image_ids(shape[0], shape[2] // 2, shape[3] // 2, device, embeds.dtype)
    return Conditioning(pipe, embeds.dtype, {"prompt_embeds": embeds}, negative_embeds, image_ids, sides)


def dynamic_shift(pipe: FluxPipeline, height: int, width: int, latents: torch.Tensor | None) -> float:
    """mu, the log of the time shift that the scheduler's config asks for at this number of image tokens."""
    stride, config = pipe.vae_scale_factor * 2, pipe.scheduler.config
    tokens = (int(height) // stride) * (int(width) // stride) if latents is None else latents.shape[1]
    return diffusers.pipelines.flux.pipeline_flux.calculate_shift(
        tokens,
        config.get("base_image_seq_len", 256),
        config.get("max_image_seq_len", 4096),
        config.get("base_shift", 0.5),
        config.get("max_shift", 1.15),
    )


def _ip_adapter_embeds(pipe, positive: tuple, negative: tuple, size: tuple, device, images: int) -> tuple:
    """Image-prompt embeddings, positive and negative, each None if no adapter is used.

    positive, negative: (images, embeddings) as the user gave them. Where only one side has an image prompt, a
    black image stands for the other.
    """
    if all(part is None for part in (*positive, *negative)):
        return None, None
    black = [np.zeros((size[1], size[0], 3), dtype=np.uint8)] * pipe.transformer.encoder_hid_proj.num_ip_adapters
    sides = [side if any(part is not None for part in side) else (black, None) for side in (positive, negative)]
    return tuple(pipe.prepare_ip_adapter_image_embeds(*side, device, images) for side in sides)
