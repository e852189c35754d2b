"""A user's own function as sampler: the forms of sigma its model takes, and what it may not do."""

import pytest
import torch
from tiny_models import flux_prompt, sdxl_prompt, seeded, tiny_flux, tiny_sdxl

from flux_comfy_pipeline import FluxPipeline
from sdxl_comfy_pipeline import StableDiffusionXLPipeline


@pytest.fixture(scope="module", params=["sdxl", "flux"])
def sample(request):
    if request.param == "sdxl":
        pipe, prompt = tiny_sdxl(StableDiffusionXLPipeline), sdxl_prompt(2)
    else:
        pipe, prompt = tiny_flux(FluxPipeline), flux_prompt(2)
    call = {**prompt, "height": 16, "width": 16, "num_inference_steps": 3, "output_type": "latent"}
    return lambda sampler: pipe(**call, comfy_sampler=sampler, generator=seeded()).images


def euler(form):
    def sampler(model, x, sigmas, extra_args=None, callback=None, disable=None):
        for i in range(len(sigmas) - 1):
            denoised = model(x, form(sigmas[i], x))
            if callback is not None:
                callback({"x": x, "i": i, "sigma": float(sigmas[i]), "denoised": denoised})
            x = x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
        return x

    return sampler


@pytest.mark.parametrize(
    "form",
    [
        lambda sigma, x: float(sigma),
        lambda sigma, x: sigma,
        lambda sigma, x: sigma.reshape(1),
        lambda sigma, x: sigma.reshape(1, 1, 1, 1),
        lambda sigma, x: sigma.item() * torch.ones(len(x), 1, 1, 1),
    ],
)
def test_the_model_takes_sigma_in_any_form(sample, form):
    assert torch.equal(sample(euler(form)), sample(euler(lambda sigma, x: sigma * x.new_ones(len(x)))))


@pytest.mark.parametrize(
    "sampler, error, said",
    [
        (lambda model, x, sigmas: x, ValueError, "never called the model"),
        (lambda model, x, sigmas: x * sigmas[-1], ValueError, "never called the model"),
        (lambda model, x, sigma_min, sigma_max: None, TypeError, "returned None: a sampler returns its final x"),
        (lambda model, x, sigmas: [model(x, sigmas[0])], TypeError, "a sampler returns its final x, a tensor"),
        (lambda model, x, sigmas: model(x, sigmas[0])[:1], ValueError, r"returned the shape \[1, .*its x has \[2, "),
        (lambda model, x, sigmas: model(x, sigmas), ValueError, r"sigma as a number or of shape \[2\], not \[4\]"),
    ],
)
def test_what_a_sampler_may_not_do(sample, sampler, error, said):
    with pytest.raises(error, match=said):
        sample(sampler)


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
def test_grad_and_inference_mode_of_the_functions_own(sample, mode):
    """With so many evaluations that what is noted of them finds no more room made outside of the mode."""
    plain = euler(lambda sigma, x: sigma)

    def many(model, x, sigmas):
        for _ in range(40):
            model(x, sigmas[0])
        return plain(model, x, sigmas)

    def in_mode(model, x, sigmas):
        with mode():
            x = x.clone().requires_grad_() if mode is torch.enable_grad else x
            return many(model, x, sigmas)

    assert torch.equal(sample(in_mode).detach(), sample(many))
