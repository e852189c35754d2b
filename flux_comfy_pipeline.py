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
from diffusers.pipelines.flux.pipeline_output import FluxPipelineOutput
from diffusers.utils.torch_utils import get_module_execution_device

from k_diffusing.arguments import check_callback, count_images, diffusers_arguments, warn_of_bounds
from k_diffusing.model.guidance import GuidanceInterval
from k_diffusing.noise.check import check_noise
from k_diffusing.noise.choose import noise_streams
from k_diffusing.noise.streams import Streams
from k_diffusing.plan import SamplingPlan, flow_plan
from k_diffusing.run import SamplingRun, StepCallbacks
from k_diffusing.samplers.call import run_sampler
from k_diffusing.samplers.comfyui import after_guidance
from k_diffusing.trace.record import Trace, chosen_trace


class FluxPipeline(diffusers.FluxPipeline):
    """diffusers' `FluxPipeline`, with the sampling algorithm given as a function.

    Everything of diffusers' class works as it does there; `__call__` takes nine more keywords.
    """

    _callback_tensor_inputs = [*diffusers.FluxPipeline._callback_tensor_inputs, "denoised"]

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        prompt_2: str | list[str] | None = None,
        negative_prompt: str | list[str] | None = None,
        negative_prompt_2: str | list[str] | None = None,
        true_cfg_scale: float = 1.0,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 28,
        sigmas: list[float] | None = None,
        guidance_scale: float = 3.5,
        num_images_per_prompt: int = 1,
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
        output_type: str = "pil",
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
        side: int = self.default_sample_size * self.vae_scale_factor
        size = height, width = height or side, width or side
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
        shape = latent_shape(self, images, height, width)
        check_noise(noise, generator, seeds, images, elements=math.prod(shape[1:]))
        warn_of_bounds(self, plan.sampler, self.scheduler)
        given = Prompt(prompt, prompt_2, prompt_embeds, pooled_prompt_embeds, ip_adapter_image, ip_adapter_image_embeds)
        negative = Prompt(
            negative_prompt, negative_prompt_2, negative_prompt_embeds, negative_pooled_prompt_embeds,
            negative_ip_adapter_image, negative_ip_adapter_image_embeds,
        )  # fmt: skip
        true_cfg = true_cfg_scale > 1 and negative.has_text
        if true_cfg:
            check_shapes(self, given, negative, num_images_per_prompt, max_sequence_length, batch_guidance)

        # 2. Everything the denoiser closes over.
        self._guidance_scale, self._joint_attention_kwargs = guidance_scale, joint_attention_kwargs or {}
        self._current_timestep, self._interrupt, self._num_timesteps = None, False, plan.num_timesteps
        told = conditioning(self, given, negative, true_cfg, shape, num_images_per_prompt, max_sequence_length, size)

        # 3. The state at the first noise level: unit noise, whatever that level is.
        streams = noise_streams(noise, generator, seeds, images, self._execution_device)
        initial = initial_latents(self, latents, streams, shape, told.dtype) * plan.initial_scale
        x = plan.space.state(initial, plan.sigmas[0])
        callbacks = StepCallbacks(told.tensors, callback_on_step_end, callback_on_step_end_tensor_inputs)
        run, levels = SamplingRun(self, plan, x, told.dtype, callbacks, trace, size), plan.levels(x)

        # 4. The denoiser.
        def network(net_input, timestep, guided):
            """The velocity as true CFG makes it, with the prompt, without it: each [B, tokens, channels]."""
            self._current_timestep = timestep[0]
            inputs = net_input, timestep.to(told.dtype) / 1000, run.position.stage
            if not (true_cfg and guided):
                velocity = told.velocity(*inputs).to(x.dtype)
                return velocity, velocity, velocity
            velocity, uncond = (v.to(x.dtype) for v in told.velocities(*inputs, batch_guidance))
            return uncond + true_cfg_scale * (velocity - uncond), velocity, uncond

        velocity, returns_velocity = None, plan.coordinates == "velocity"
        lean = plan.derivative_is_enough and not run.shows_denoised

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
            return run.evaluated(x, sigma, at, net_input, denoised, velocity if returns_velocity else denoised)

        def derivative(x, sigma, denoised):
            """`to_d` in flow coordinates: the velocity is the derivative; nothing is divided by t."""
            return denoised if returns_velocity else velocity

        # 5. Sample, decode.
        pack = {"unpacked_shape": shape, "pack": lambda drawn: self._pack_latents(drawn, *drawn.shape)}
        with run:
            run.end(run_sampler(
                plan.sampler, plan.model(denoiser), x, plan.sigmas, options=plan.options,
                noise=functools.partial(streams.step_noise, **pack, time=plan.space.time),
                derivative=derivative if plan.patches_to_d else None, observer=run, watch_noise=run.watch_noise,
            ))  # fmt: skip
        self._current_timestep, final = None, run.latents
        image: Any = final.to(told.dtype) if output_type == "latent" else self.decode(final, height, width, output_type)
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
        return flow_plan(
            self.scheduler, comfy_sampler, sampler_options, sigma_grid, num_inference_steps,
            mu=dynamic_shift(self, height, width, latents), sigmas=sigmas, flow_coordinates=flow_coordinates,
            guidance_interval=guidance_interval, noise=noise,
        )  # fmt: skip

    @torch.no_grad()
    def decode(self, latents: torch.Tensor, height: int, width: int, output_type: str = "pil") -> Any:
        """Images of the output type from packed clean latents [B, tokens, channels]."""
        config = self.vae.config
        latents = self._unpack_latents(latents.to(self.vae.dtype), height, width, self.vae_scale_factor)
        latents = latents / config.scaling_factor + config.shift_factor
        image = self.vae.decode(latents.to(get_module_execution_device(self.vae)), return_dict=False)[0]
        return self.image_processor.postprocess(image, output_type=output_type)


class Prompt(NamedTuple):
    """A prompt or a negative prompt: its words, or embeddings in their place, and its image, as the user gave them."""

    text: str | list[str] | None
    text_2: str | list[str] | None
    embeds: torch.Tensor | None
    pooled_embeds: torch.Tensor | None
    image: PipelineImageInput | None
    image_embeds: list[torch.Tensor] | None

    @property
    def has_text(self) -> bool:
        """Whether there are words to encode, or embeddings of some."""
        return self.text is not None or (self.embeds is not None and self.pooled_embeds is not None)

    @property
    def has_image(self) -> bool:
        """Whether there is an image to encode, or embeddings of one."""
        return self.image is not None or self.image_embeds is not None

    def embeds_shape(self, pipe: FluxPipeline, images_per_prompt: int, tokens: int) -> tuple[int, ...]:
        """Of the embeddings: of those given, or of what the encoder will make of the words."""
        if self.embeds is not None:
            return tuple(self.embeds.shape)
        text = self.text_2 or self.text
        prompts = len(text) if isinstance(text, list) else 1
        return prompts * images_per_prompt, tokens, pipe.transformer.config.joint_attention_dim


def check_shapes(
    pipe: FluxPipeline, positive: Prompt, negative: Prompt, images_per_prompt: int, tokens: int, joined: bool
) -> None:
    """Raise ValueError for prompts whose embeddings cannot go together; joined: in one call of the transformer."""
    given = [tuple(prompt.embeds.shape) for prompt in (positive, negative) if prompt.embeds is not None]
    if len(set(given)) > 1:
        raise ValueError(
            "prompt_embeds and negative_prompt_embeds must have the same shape when passed directly: "
            f"{given[0]} != {given[1]}"
        )
    shapes = [prompt.embeds_shape(pipe, images_per_prompt, tokens) for prompt in (negative, positive)]
    if joined and shapes[0] != shapes[1]:
        raise ValueError(
            f"batch_guidance=True cannot join prompts of the shapes {shapes[0]} and {shapes[1]}: leave it out, "
            "or pass as many negative prompts as prompts, with embeddings of max_sequence_length tokens"
        )


class Side(NamedTuple):
    """What the transformer is told of a prompt, besides the prompt's embeddings.

    Attributes:
        text: by the transformer's keywords.
        images: image-prompt embeddings, one for each adapter; None without adapters.
    """

    text: dict[str, Any]
    images: list[torch.Tensor] | None

    def joined(self, other: "Side") -> "Side":
        """Both in one batch, this one first."""
        pooled = torch.cat([self.text["pooled_projections"], other.text["pooled_projections"]])
        guidance = None if other.text["guidance"] is None else other.text["guidance"].repeat(2)
        text = other.text | {"pooled_projections": pooled, "guidance": guidance}
        if self.images is None or other.images is None:
            return Side(text, None)
        return Side(text, [torch.cat(pair) for pair in zip(self.images, other.images, strict=True)])


@dataclass
class Conditioning:
    """What the transformer is told besides latents and timestep.

    Attributes:
        dtype: the prompt embeddings', which latents and timestep get.
        tensors: the prompt's embeddings by the name under which callbacks see and replace them.
        negative_tensors: the negative prompt's, which callbacks do not see; empty without true CFG.
        image_ids: [tokens, 3], the places of the image's tokens.
        sides: by the names of calls: "cond" (prompt), "uncond" (negative prompt), "both" (negative prompt first).
    """

    pipe: FluxPipeline
    dtype: torch.dtype
    tensors: dict[str, torch.Tensor]
    negative_tensors: dict[str, torch.Tensor]
    image_ids: torch.Tensor
    sides: dict[str, Side]

    def velocity(self, net_input: torch.Tensor, timestep: torch.Tensor, stage: int) -> torch.Tensor:
        """With the prompt, [B, tokens, channels], for input alike and timestep [B] from 0 to 1."""
        return self._call("cond", self.tensors["prompt_embeds"], net_input, timestep, stage)

    def velocities(self, net_input: torch.Tensor, timestep: torch.Tensor, stage: int, joined: bool) -> tuple:
        """With the prompt, and with the negative prompt; joined: in one call of the transformer."""
        negative = self.negative_tensors["prompt_embeds"]
        if not joined:
            velocity = self.velocity(net_input, timestep, stage)
            return velocity, self._call("uncond", negative, net_input, timestep, stage)
        embeds = torch.cat([negative, self.tensors["prompt_embeds"]])
        both = self._call("both", embeds, torch.cat([net_input] * 2), torch.cat([timestep] * 2), stage)
        return both.chunk(2)[::-1]

    def _call(self, name: str, embeds, net_input: torch.Tensor, timestep: torch.Tensor, stage: int) -> torch.Tensor:
        """A cache keeps what it knows by name: the stages of a step are as far apart as two prompts are."""
        side, kwargs = self.sides[name], self.pipe.joint_attention_kwargs
        if side.images is not None:
            kwargs = {**(kwargs or {}), "ip_adapter_image_embeds": side.images}
        with self.pipe.transformer.cache_context(f"{name}_{stage}" if stage else name):
            return self.pipe.transformer(
                hidden_states=net_input,
                timestep=timestep,
                encoder_hidden_states=embeds,
                img_ids=self.image_ids,
                joint_attention_kwargs=kwargs,
                return_dict=False,
                **side.text,
            )[0]


def conditioning(
    pipe: FluxPipeline, positive: Prompt, negative: Prompt, true_cfg: bool, shape: tuple[int, int, int, int],
    images_per_prompt: int, tokens: int, size: tuple[int, int],
) -> Conditioning:  # fmt: skip
    """Encode the prompts for latents of `shape` [B, channels, h, w].

    true_cfg: whether the negative prompt is encoded. tokens: of a prompt. size: in pixels, (height, width).
    """
    device, guidance = pipe._execution_device, None
    encode_prompt: Any = pipe.encode_prompt  # diffusers annotates what it returns as what it takes
    if pipe.transformer.config.guidance_embeds:
        guidance = torch.full([shape[0]], pipe.guidance_scale, device=device, dtype=torch.float32)

    def encode(prompt: Prompt) -> Any:
        return encode_prompt(
            prompt.text,
            prompt.text_2,
            prompt_embeds=prompt.embeds,
            pooled_prompt_embeds=prompt.pooled_embeds,
            device=device,
            num_images_per_prompt=images_per_prompt,
            max_sequence_length=tokens,
            lora_scale=(pipe.joint_attention_kwargs or {}).get("scale"),
        )

    def side(encoded: tuple, images: list[torch.Tensor] | None) -> Side:
        _, pooled, text_ids = encoded
        return Side({"pooled_projections": pooled, "txt_ids": text_ids, "guidance": guidance}, images)

    prompt, negative_prompt = encode(positive), encode(negative) if true_cfg else None
    images, negative_images = _image_embeds(pipe, positive, negative, size, device, shape[0])
    embeds, negative_tensors, sides = prompt[0], {}, {"cond": side(prompt, images)}
    if negative_prompt is not None:
        negative_tensors["prompt_embeds"] = negative_prompt[0]
        sides["uncond"] = side(negative_prompt, negative_images)
        sides["both"] = sides["uncond"].joined(sides["cond"])
    image_ids = pipe._prepare_latent_image_ids(shape[0], shape[2] // 2, shape[3] // 2, device, embeds.dtype)
    return Conditioning(pipe, embeds.dtype, {"prompt_embeds": embeds}, negative_tensors, image_ids, sides)


def latent_shape(pipe: FluxPipeline, images: int, height: int, width: int) -> tuple[int, int, int, int]:
    """Of latents before they are packed, [images, channels, h, w]; height, width: in pixels."""
    stride = pipe.vae_scale_factor * 2
    return images, pipe.transformer.config.in_channels // 4, 2 * (int(height) // stride), 2 * (int(width) // stride)


def initial_latents(
    pipe: FluxPipeline, latents: torch.Tensor | None, streams: Streams, shape: tuple[int, int, int, int],
    dtype: torch.dtype,
) -> torch.Tensor:  # fmt: skip
    """Packed latents [images, tokens, channels], the user's or unit noise, in float32 or wider.

    They are as the model's dtype has them. shape: before they are packed.
    """
    if latents is None:
        start: torch.Tensor = pipe._pack_latents(streams.initial(shape, pipe._execution_device, dtype), *shape)
    else:
        start = latents.to(pipe._execution_device, dtype)
    return start.to(torch.promote_types(start.dtype, torch.float32))


def dynamic_shift(
    pipe: FluxPipeline, height: int | None, width: int | None, latents: torch.Tensor | None
) -> float:  # fmt: skip
    """mu, the log of the time shift that the scheduler's config asks for at this number of image tokens."""
    config, side = pipe.scheduler.config, pipe.default_sample_size * pipe.vae_scale_factor
    _, _, rows, columns = latent_shape(pipe, 1, height or side, width or side)
    tokens = rows // 2 * (columns // 2) if latents is None else latents.shape[1]
    return diffusers.pipelines.flux.pipeline_flux.calculate_shift(
        tokens,
        config.get("base_image_seq_len", 256),
        config.get("max_image_seq_len", 4096),
        config.get("base_shift", 0.5),
        config.get("max_shift", 1.15),
    )


def _image_embeds(pipe: FluxPipeline, positive: Prompt, negative: Prompt, size: tuple[int, int], device, images: int):
    """Image-prompt embeddings of both prompts, each None if no adapter is used.

    Where only one of them has an image, a black one stands for the other.
    """
    if not (positive.has_image or negative.has_image):
        return None, None
    black = [np.zeros((size[1], size[0], 3), dtype=np.uint8)] * pipe.transformer.encoder_hid_proj.num_ip_adapters
    given = [(each.image, each.image_embeds) if each.has_image else (black, None) for each in (positive, negative)]
    return [pipe.prepare_ip_adapter_image_embeds(*each, device, images) for each in given]
