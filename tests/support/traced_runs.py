"""Runs of both tiny pipelines to be traced."""

from tiny_models import seeded

STEPS = 5


def run(pipes, family="sdxl", comfy_sampler="euler", **settings):
    pipe, prompt = pipes[family]
    call = {"height": 16, "width": 16, "num_inference_steps": STEPS, "output_type": "latent"} | settings
    return pipe(**prompt, comfy_sampler=comfy_sampler, generator=seeded(), **call).images


def euler(model, x, sigmas, extra_args=None, callback=None, disable=None):
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i] * x.new_ones(len(x)))
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": denoised})
        x = x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
    return x


def silent_euler(model, x, sigmas):
    return euler(model, x, sigmas)
