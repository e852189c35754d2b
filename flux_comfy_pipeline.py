"""FLUX, text to image, sampled by k_diffusion's functions.

pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", dtype=torch.bfloat16)
image = pipe("an astronaut in a jungle", comfy_sampler="dpmpp_2m").images[0]
"""

import math
from collections.abc import Callable
from typing import Any

import diffusers
import torch
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.image_processor import PipelineImageInput
from diffusers.pipelines.flux.pipeline_output import FluxPipelineOutput
from diffusers.utils.torch_utils import get_module_execution_device

from k_diffusing._tensors import cast
from k_diffusing.arguments import (
    check_callback,
    check_negative,
    check_train_steps,
    count_images,
    diffusers_arguments,
    warn_of_bounds,
)
from k_diffusing.grids.given import GridChoice
from k_diffusing.grids.part import Part
from k_diffusing.grids.tuned import of_network
from k_diffusing.images import check_images, clean_latents, size_of
from k_diffusing.model.guidance import GuidanceInterval
from k_diffusing.model.guidance_asked import GuidanceChoice
from k_diffusing.model.scheduler_config import size_mu
from k_diffusing.noise.check import check_noise
from k_diffusing.noise.choose import noise_streams
from k_diffusing.noise.streams import Streams
from k_diffusing.observing import StepCallbacks
from k_diffusing.plan import SamplingPlan
from k_diffusing.planning import flow_plan
from k_diffusing.programs.choose import find_program
from k_diffusing.programs.records import Program
from k_diffusing.prompts.flux import Prompt, check_shapes, conditioning
from k_diffusing.run import SamplingRun
from k_diffusing.samplers.call import run_sampler
from k_diffusing.samplers.comfyui import after_guidance
from k_diffusing.trace.record import Trace, chosen_trace


class FluxPipeline(diffusers.FluxPipeline):
    """diffusers' `FluxPipeline`, with the sampling algorithm given as a function.

    Everything of diffusers' class works as it does there; `__call__` takes more keywords.
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
        sigma_grid: GridChoice = None,
        flow_coordinates: str = "auto",
        guidance: GuidanceChoice | None = None,
        guider: Any = None,
        guidance_interval: GuidanceInterval | None = None,
        batch_guidance: bool = False,
        noise: str | None = None,
        program: str | Program | None = None,
        image: PipelineImageInput | None = None,
        mask_image: PipelineImageInput | None = None,
        denoise: float | None = None,
        start_step: int | None = None,
        end_step: int | None = None,
        add_noise: bool = True,
        return_with_leftover_noise: bool = False,
        mu: float | None = None,
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
            sigma_grid: "karras", "simple", "beta", ... (`k_diffusing.SIGMA_GRIDS`); one with options,
                {"karras": {"rho": 5}}; n + 1 flow times, which are not shifted again, or a .json file
                {"sigmas": [...]} of them; or a function (schedule, n) -> n + 1 flow times; None: the grid of the config
                of `pipe.scheduler`, which itself is neither used nor changed.
            flow_coordinates: what the sampler sees of latents = (1 - t) x0 + t eps.
                "flow": the latents, sigma = t; right for samplers that see only the derivative and add no noise.
                "ve": x = latents / (1 - t) = x0 + sigma eps, sigma = t / (1 - t); right for every sampler.
                "auto": "flow" for euler, heun, dpm_2, lms, dpm_fast and dpm_adaptive unless their options make
                them add noise, and for functions of ComfyUI and diffusers' flow-matching schedulers, which know
                these coordinates; "ve" for all others.
                "velocity": the latents, with the velocity in place of the denoised latents; wrong for most
                samplers, kept to reproduce what earlier programs did.
            guidance: in place of true_cfg_scale, the weight of the prompt: a number, a list of one for each step, a
                function of sigma (flow time), or a dict: {"cfg++": 0.6, "reference_steps": 20}, {"weight": 3,
                "rescale": 0.7}. 1 leaves out the evaluation without the prompt, and 0.5 is half way to the prompt;
                see docs/guidance.md.
            guider: in its place, one of diffusers.guiders that makes one answer of those with and without the prompt.
            guidance_interval: of true CFG: (start, end), in fractions of the scheduler's time before its shift, or
                {"sigma": (start, end)} in flow time: elsewhere the transformer is not called with the negative prompt.
            batch_guidance: both prompts of true CFG in one call of the transformer; False: in two, as diffusers does,
                which takes less memory.
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
            max_sequence_length: as in diffusers; the usual 512 is ComfyUI's 256 with program="comfyui".
            mu: the log of flow time's shift, in place of that for the size of the image or of the program's.
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
        if max_sequence_length == 512:  # left as it is
            max_sequence_length = find_program(program, noise).prompt_tokens
        if comfy_sampler is None:
            return super().__call__(**diffusers_arguments(FluxPipeline.__call__, locals()))

        # 1. Check everything that can be checked before a model runs.
        if isinstance(callback_on_step_end, (PipelineCallback, MultiPipelineCallbacks)):
            callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs
        side: int = self.default_sample_size * self.vae_scale_factor
        height, width = size_of(image, height, width)
        size = height, width = height or side, width or side
        self.check_inputs(
            prompt, prompt_2, height, width, negative_prompt, negative_prompt_2, prompt_embeds, negative_prompt_embeds,
            pooled_prompt_embeds, negative_pooled_prompt_embeds, callback_on_step_end_tensor_inputs,
            max_sequence_length,
        )  # fmt: skip
        images = count_images(prompt, prompt_embeds, num_images_per_prompt)
        plan = self.plan(
            comfy_sampler, sampler_options, sigma_grid, num_inference_steps, sigmas=sigmas, height=height, width=width,
            latents=latents, flow_coordinates=flow_coordinates, guidance=guidance, guider=guider,
            guidance_interval=guidance_interval, noise=noise, program=program, mu=mu, denoise=denoise,
            start_step=start_step, end_step=end_step, return_with_leftover_noise=return_with_leftover_noise,
        )  # fmt: skip
        check_images(image, mask_image, add_noise, latents)
        check_callback(plan.sampler, callback_on_step_end)
        shape = latent_shape(self, images, height, width)
        check_noise(plan.noise, generator, seeds, images, elements=math.prod(shape[1:]))
        warn_of_bounds(self, plan.sampler, self.scheduler)
        if negative_prompt is None and negative_prompt_embeds is None:
            negative_prompt = plan.program.empty_negative
        given = Prompt(prompt, prompt_2, prompt_embeds, pooled_prompt_embeds, ip_adapter_image, ip_adapter_image_embeds)
        negative = Prompt(
            negative_prompt, negative_prompt_2, negative_prompt_embeds, negative_pooled_prompt_embeds,
            negative_ip_adapter_image, negative_ip_adapter_image_embeds,
        )  # fmt: skip
        true_cfg = plan.guides(true_cfg_scale) and negative.has_text
        check_negative(plan.guidance, negative.has_text)
        if true_cfg:
            check_shapes(self, given, negative, num_images_per_prompt, max_sequence_length, batch_guidance)

        # 2. Everything the denoiser closes over.
        self._guidance_scale, self._joint_attention_kwargs = guidance_scale, joint_attention_kwargs or {}
        self._current_timestep, self._interrupt, self._num_timesteps = None, False, plan.num_timesteps
        told = conditioning(self, given, negative, true_cfg, shape, num_images_per_prompt, max_sequence_length, size)

        # 3. The state at the first noise level: unit noise, whatever that level is.
        streams = noise_streams(plan.noise, generator, seeds, images, self._execution_device)
        drawn = initial_latents(self, latents, streams, shape, told.dtype) if add_noise or latents is not None else None
        device, pack = self._execution_device, lambda unpacked: self._pack_latents(unpacked, *unpacked.shape)
        clean = None if image is None else pack(clean_latents(self, image, shape, device))
        initial = plan.start(drawn, clean, add_noise)
        x, kept = plan.space.state(initial, plan.sigmas[0]), None
        if mask_image is not None:
            kept = plan.kept(pack(plan.program.latent_mask(mask_image, shape, device)), clean, drawn, add_noise)
        callbacks = StepCallbacks(told.tensors, callback_on_step_end, callback_on_step_end_tensor_inputs)
        run, levels = SamplingRun(self, plan, x, told.dtype, callbacks, trace, size), plan.levels(
            x, true_cfg_scale, tell=lambda timestep: timestep.to(told.dtype) / 1000
        )  # fmt: skip

        # 4. The denoiser.
        def network(net_input, at):
            """The velocity as true CFG makes it, with the prompt, without it: each [B, tokens, channels]."""
            self._current_timestep = at.timestep[0]
            inputs = net_input, at.told, run.position.stage, x.dtype
            if not (true_cfg and at.guided):
                velocity = told.velocity(*inputs)
                return velocity, velocity, velocity
            velocity, uncond = told.velocities(*inputs, batch_guidance)
            return levels.guide(velocity, uncond, at.weight, at.step, rescale), velocity, uncond

        velocity, rescale, returns_velocity = None, plan.guidance.rescale or 0.0, plan.coordinates == "velocity"
        lean = plan.derivative_is_enough and not run.shows_denoised and kept is None

        def denoiser(x, sigma, model_options=None, seed=None):
            nonlocal velocity
            at = levels.at(sigma, x, run.position, model_options)
            state = x if kept is None else kept.before(x, at.sigma)
            latents = plan.space.latents(state, at.sigma)
            # What the first network call sees makes no round trip through the coordinates, so it is diffusers' own.
            net_input = cast(initial if kept is None and run.at_start(x) else latents, told.dtype)
            velocity, *pair = network(net_input, at)
            if lean:
                return run.evaluated(x, sigma, at, net_input, velocity)
            denoised = latents - at.time * velocity
            if model_options:
                pair = (latents - at.time * velocity for velocity in pair)
                denoised = after_guidance(model_options, state, sigma, denoised, *pair)
            denoised = denoised if kept is None else kept.after(denoised)
            return run.evaluated(x, sigma, at, net_input, denoised, velocity if returns_velocity else denoised)

        def derivative(x, sigma, denoised):
            """`to_d` in flow coordinates: the velocity is the derivative; nothing is divided by t."""
            return denoised if returns_velocity else velocity

        # 5. Sample, decode.
        patched = plan.patches_to_d and kept is None  # what is kept of an image changes the derivative too
        with run:
            run.end(run_sampler(
                plan.sampler, plan.model(denoiser), x, plan.sigmas, options=plan.options,
                noise=plan.step_noise(streams, unpacked_shape=shape, pack=pack),
                derivative=derivative if patched else None, observer=run, watch_noise=run.watch_noise,
            ))  # fmt: skip
        self._current_timestep = None
        final = run.latents if kept is None else kept.result(run.latents)
        made: Any = final.to(told.dtype) if output_type == "latent" else self.decode(final, height, width, output_type)
        self.maybe_free_model_hooks()
        return FluxPipelineOutput(images=made) if return_dict else (made,)

    def plan(
        self, comfy_sampler: str | Callable = "sample_euler", sampler_options: dict[str, Any] | None = None,
        sigma_grid: GridChoice = None, num_inference_steps: int = 28, *, sigmas: list[float] | None = None,
        height: int | None = None, width: int | None = None, latents: torch.Tensor | None = None,
        flow_coordinates: str = "auto", guidance: GuidanceChoice | None = None, guider: Any = None,
        guidance_interval: GuidanceInterval | None = None, noise: str | None = None,
        program: str | Program | None = None, mu: float | None = None,
        denoise: float | None = None, start_step: int | None = None, end_step: int | None = None,
        return_with_leftover_noise: bool = False,
    ) -> SamplingPlan:  # fmt: skip
        """What a call with these arguments would do, without running a model; it prints as a table.

        height, width, or packed latents [B, tokens, channels]: the size, by which the scheduler may shift flow time.
        Raises ValueError or TypeError for input that cannot be right.
        """
        check_train_steps(self.scheduler)
        sigma_grid = of_network(sigma_grid, self.transformer)
        return flow_plan(
            self.scheduler, comfy_sampler, sampler_options, sigma_grid, num_inference_steps,
            size_mu=dynamic_shift(self, height, width, latents), mu=mu, sigmas=sigmas,
            flow_coordinates=flow_coordinates, guidance=guidance, guider=guider, guidance_interval=guidance_interval,
            noise=noise, program=program, part=Part(denoise, start_step, end_step, return_with_leftover_noise),
        )  # fmt: skip

    @torch.no_grad()
    def decode(self, latents: torch.Tensor, height: int, width: int, output_type: str = "pil") -> Any:
        """Images of the output type from packed clean latents [B, tokens, channels]."""
        config = self.vae.config
        latents = self._unpack_latents(latents.to(self.vae.dtype), height, width, self.vae_scale_factor)
        latents = latents / config.scaling_factor + config.shift_factor
        image = self.vae.decode(latents.to(get_module_execution_device(self.vae)), return_dict=False)[0]
        return self.image_processor.postprocess(image, output_type=output_type)


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
    side = pipe.default_sample_size * pipe.vae_scale_factor
    _, _, rows, columns = latent_shape(pipe, 1, height or side, width or side)
    return size_mu(pipe.scheduler, rows // 2 * (columns // 2) if latents is None else latents.shape[1])
