"""Prompts encoded as other programs do it, on the demo models' text encoders.

ComfyUI's own code and Forge's, given the same encoders, return the same to 0.0, weights and long prompts included.
"""

import pytest
import torch

from k_diffusing import encode_prompts, models

ATOL = 2e-6  # of embeddings up to 4: encoding a batch, or with padding, sums in another order
LONG = "a large yellow square, " + "a small red ring on a blue background, " * 12


@pytest.fixture(scope="module")
def sdxl():
    torch.set_num_threads(1)
    return models.load("demo")


@pytest.fixture(scope="module")
def flux():
    return models.load("demo-flux")


def embeds(pipe, prompt, program="comfyui", **more):
    return encode_prompts(pipe, prompt, None, program=program, **more)["prompt_embeds"]


def plain(pipe, prompt):
    return pipe.encode_prompt(prompt, do_classifier_free_guidance=False)[0].detach()


@pytest.mark.parametrize("program", ["comfyui", "a1111"])
def test_without_weights_as_diffusers(sdxl, program):
    found = encode_prompts(sdxl, "a large yellow square", "blurry", program=program)
    wanted = sdxl.encode_prompt("a large yellow square", negative_prompt="blurry")
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    assert set(found) == set(names)
    for name, tensor in zip(names, wanted, strict=True):
        assert (found[name] - tensor).abs().max() <= ATOL


def test_comfyui_moves_away_from_the_empty_prompt(sdxl):
    text, none = plain(sdxl, "a large yellow square"), plain(sdxl, "")
    found = embeds(sdxl, "a large (yellow:1.4) square")
    at = (found - text).abs().amax(dim=(0, 2)).nonzero().flatten().tolist()
    tokens = sdxl.tokenizer("a large yellow square").input_ids
    assert at == [tokens.index(sdxl.tokenizer("yellow").input_ids[1])]
    assert (found[:, at] - (none + 1.4 * (text - none))[:, at]).abs().max() <= ATOL


def test_a1111_multiplies_and_restores_the_mean(sdxl):
    text, found = plain(sdxl, "a large yellow square"), embeds(sdxl, "a large (yellow:1.4) square", "a1111")
    width = sdxl.text_encoder.config.hidden_size
    tokens = sdxl.tokenizer("a large yellow square").input_ids
    at = tokens.index(sdxl.tokenizer("yellow").input_ids[1])
    for part in (slice(None, width), slice(width, None)):  # each text encoder's
        expected = text[..., part].clone()
        expected[:, at] *= 1.4
        expected *= text[..., part].mean() / expected.mean()
        assert (found[..., part] - expected).abs().max() <= 1e-4  # the mean is near 0, and its sum's order tells


@pytest.mark.parametrize("program", ["comfyui", "a1111"])
def test_no_prompt_is_too_long(sdxl, program):
    found = encode_prompts(sdxl, LONG, "blurry", program=program)
    assert found["prompt_embeds"].shape[1] == found["negative_prompt_embeds"].shape[1] > 77
    assert torch.equal(*found["negative_prompt_embeds"][:, :154].split(77, dim=1))  # repeated: attention sees no more
    assert (found["prompt_embeds"][:, :77] - found["prompt_embeds"][:, 77:154]).abs().max() > 0.1


def test_break_begins_a_chunk(sdxl):
    found, one = embeds(sdxl, "a large yellow square BREAK a red ring", "a1111"), plain(sdxl, "a large yellow square")
    assert found.shape[1] == 154 and (found[:, :77] - one).abs().max() <= ATOL
    assert (found[:, 77:] - plain(sdxl, "a red ring")).abs().max() <= ATOL
    assert embeds(sdxl, "a large yellow square BREAK a red ring").shape[1] == 77  # a word to ComfyUI


def test_a1111_ends_a_chunk_at_a_comma(sdxl):
    words = "a large yellow square on a red background "
    count = len(sdxl.tokenizer(words).input_ids) - 2
    start = words * (60 // count)
    prompt = f"{start}, {words * 4}"
    found = embeds(sdxl, prompt, "a1111")
    assert (found[:, :77] - plain(sdxl, f"{start},")).abs().max() <= ATOL


def test_zeros_in_place_of_the_negative_prompt(sdxl):
    found = encode_prompts(sdxl, "a large yellow square", program="comfyui", zero_negative=True)
    assert not found["negative_prompt_embeds"].any() and not found["negative_pooled_prompt_embeds"].any()


def test_another_layer(sdxl):
    text = "a large yellow square"
    found = embeds(sdxl, text, clip_layer=3)
    wanted = sdxl.encode_prompt(text, do_classifier_free_guidance=False, clip_skip=1)[0]
    assert (found - wanted).abs().max() <= ATOL


def test_flux(flux):
    found = encode_prompts(flux, "a small white ring", None, program="comfyui")
    wanted = flux.encode_prompt("a small white ring", None, max_sequence_length=256)
    assert found["prompt_embeds"].shape[1] == 256
    assert (found["prompt_embeds"] - wanted[0]).abs().max() <= 1e-5  # of embeddings up to 20
    assert (found["pooled_prompt_embeds"] - wanted[1]).abs().max() <= ATOL
    weighted = embeds(flux, "a small (white:1.4) ring")
    tokens = flux.tokenizer_2("a small").input_ids
    changed = (weighted - found["prompt_embeds"]).abs().amax(dim=(0, 2)) > 1e-4
    assert changed.nonzero().flatten().tolist()[0] == len(tokens) - 1
    assert embeds(flux, LONG * 4).shape[1] > 256


def test_prompt_embeds_give_the_pipelines_picture(sdxl):
    call = {"num_inference_steps": 2, "height": 64, "width": 64, "seeds": [1], "output_type": "latent"}
    texts = {"prompt": "a large yellow square", "negative_prompt": "blurry"}
    found = sdxl(**encode_prompts(sdxl, *texts.values(), program="comfyui"), **call).images
    assert (found - sdxl(**texts, **call).images).abs().max() <= 1e-4  # of latents up to 20
