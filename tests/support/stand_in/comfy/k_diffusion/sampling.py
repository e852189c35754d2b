"""Samplers that reach for everything ComfyUI's do."""

import torch

import comfy.model_sampling


def ones(x):
    return x.new_ones(len(x))


@torch.no_grad()
def sample_euler(model, x, sigmas, extra_args=None, callback=None, disable=None, s_churn=0.0):
    extra_args = extra_args or {}
    for i in range(len(sigmas) - 1):
        sigma_hat = sigmas[i]
        if s_churn > 0:
            sigma_hat = sigmas[i] * (1 + s_churn / (len(sigmas) - 1))
            x = x + torch.randn_like(x) * (sigma_hat**2 - sigmas[i] ** 2) ** 0.5
        denoised = model(x, sigma_hat * ones(x), **extra_args)
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigma_hat, "denoised": denoised})
        x = x + (x - denoised) / sigma_hat * (sigmas[i + 1] - sigma_hat)
    return x


@torch.no_grad()
def sample_renoised(model, x, sigmas, extra_args=None, callback=None, disable=None, noise_sampler=None):
    """DDIM-like: half of the noise is exchanged in each step, as the model's own kind of data has it."""
    flow = isinstance(model.inner_model.inner_model.model_sampling, comfy.model_sampling.CONST)
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i] * ones(x), **(extra_args or {}))
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": denoised})
        alpha = 1 - sigmas[i] if flow else 1.0
        noise = (x - alpha * denoised) / sigmas[i]
        if sigmas[i + 1] > 0:
            noise = (noise + noise_sampler(sigmas[i], sigmas[i + 1])) / 2**0.5
        scaling = model.inner_model.model_patcher.get_model_object("model_sampling").noise_scaling
        x = scaling(sigmas[i + 1], noise, denoised)
    return x


@torch.no_grad()
def sample_euler_cfg_pp(model, x, sigmas, extra_args=None, callback=None, disable=None, seen=None, gain=1.0):
    """Guided denoised latents, unguided direction; `seen` gets what the hook is given."""
    extra_args = dict(extra_args or {})
    latest = []

    def after_guidance(args):
        latest[:] = [args["uncond_denoised"]]
        if seen is not None:
            seen.append(args)
        return args["denoised"] * gain

    options = dict(extra_args.get("model_options", {}))
    options["sampler_post_cfg_function"] = [*options.get("sampler_post_cfg_function", []), after_guidance]
    extra_args["model_options"] = options
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i] * ones(x), **extra_args)
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": denoised})
        x = denoised + (x - latest[0]) / sigmas[i] * sigmas[i + 1]
    return x


@torch.no_grad()
def sample_look(model, x, sigmas, extra_args=None, callback=None, disable=None, seen=None):
    """Takes note of the model's noise levels."""
    levels = model.inner_model.model_patcher.get_model_object("model_sampling")
    seen.append({"min": float(levels.sigma_min), "max": float(levels.sigma_max)})
    seen[-1] |= {percent: levels.percent_to_sigma(percent) for percent in (0.0, 1e-4, 0.5, 1.0)}
    seen[-1]["kinds"] = [kind.__name__ for kind in type(levels).__mro__]
    return sample_euler(model, x, sigmas, extra_args=extra_args, callback=callback)
