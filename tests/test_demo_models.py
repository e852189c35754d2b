"""The demo checkpoints: their drawing and detector, their folders, and that they draw what a caption says."""

import copy
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline, StableDiffusionXLPipeline

FOLDER = Path(__file__).parents[1] / "demo_models"
sys.path.insert(0, str(FOLDER))
import score  # noqa: E402
import shapes  # noqa: E402

MODELS = {"sdxl-shapes": StableDiffusionXLPipeline, "flux-shapes": FluxPipeline}
LEAST = {  # of eight captions of left-out triples
    StableDiffusionXLPipeline: {"ground": 8, "colour": 7, "shape": 7, "one object": 7},
    FluxPipeline: {"ground": 8, "colour": 7, "shape": 7, "one object": 7},
}


@pytest.fixture(scope="module", params=MODELS)
def pipeline(request):
    pipe = MODELS[request.param].from_pretrained(FOLDER / request.param)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def as_array(picture):
    return picture.permute(1, 2, 0).numpy()


def test_detector_reads_every_real_drawing():
    scenes = random.Random(0).sample(shapes.all_scenes(), 200)
    for scene, picture in zip(scenes, shapes.draw_many(scenes, seed=3), strict=True):
        assert shapes.read(as_array(picture)) == shapes.Reading(*scene, 1)


def test_detector_sees_what_is_wrong():
    scene = shapes.Scene("small", "red", "circle", "blue")
    picture = as_array(shapes.draw(scene, 40, 40, 19))
    two = np.concatenate([picture[:64], as_array(shapes.draw(scene, 90, 90, 19))[64:]])
    assert shapes.read(two).count == 2
    assert shapes.read(np.full_like(picture, 0.95)) == shapes.Reading(None, None, None, "white", 0)
    blot = np.random.default_rng(0).random((128, 128)) < 0.5
    assert shapes.read(np.where(blot[..., None], picture, 0.5)).shape is None


def test_drawing_is_deterministic_and_anti_aliased():
    scenes = shapes.training_scenes()[:16]
    first, again = shapes.draw_many(scenes, seed=1), shapes.draw_many(scenes, seed=1)
    assert torch.equal(first, again)
    assert not torch.equal(first, shapes.draw_many(scenes, seed=2))
    white, black = (
        shapes.draw(shapes.Scene("large", c, "circle", "red"), 64.3, 63.6, 40.0) for c in ("white", "black")
    )
    covered = (white - black)[2] / (245 - 24) * 255  # the ball's shade, 0.5 to 1, fading over one pixel at its outline
    assert (covered > 0.3).sum() == pytest.approx(np.pi * 40**2, rel=0.01)
    assert ((covered > 0.02) & (covered < 0.45)).sum() > 100  # 250 pixels of outline, half of them part covered


def test_drawing_is_lit_from_the_upper_left():
    ball = shapes.draw(shapes.Scene("large", "green", "circle", "white"), 64, 64, 40.0)
    assert ball[1, 44, 44] > ball[1, 64, 64] > ball[1, 84, 84]
    assert ball[:, 100, 98].mean() < ball[:, 28, 30].mean() - 0.2  # outside, shadow and light


def test_left_out_triples():
    held = {scene[1:] for scene in shapes.all_scenes() if shapes.is_held_out(scene)}
    seen = {scene[1:] for scene in shapes.training_scenes()}
    assert len(held) == 29 and not held & seen
    for a, b in ((0, 1), (1, 2), (0, 2)):
        assert {(t[a], t[b]) for t in held} <= {(t[a], t[b]) for t in seen}
    assert sum(shapes.is_held_out(scene) for scene in shapes.evaluation_scenes(64)) == 32


@pytest.mark.parametrize("name", MODELS)
def test_folder_is_small_and_free_of_pickles(name):
    files = [path for path in (FOLDER / name).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 12e6
    assert {path.suffix for path in files} <= {".json", ".safetensors"}


def test_loads_in_one_dtype(pipeline):
    parts = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    assert {p.dtype for part in parts for p in part.parameters()} == {torch.float32}
    assert not any(part.training for part in parts)
    half = type(pipeline).from_pretrained(pipeline.config._name_or_path, torch_dtype=torch.bfloat16)
    parts = [part for part in half.components.values() if isinstance(part, torch.nn.Module)]
    assert torch.bfloat16 in {p.dtype for part in parts for p in part.parameters()}


def test_each_word_is_one_token(pipeline):
    caption = shapes.all_scenes()[0].caption
    for tokenizer in (pipeline.tokenizer, pipeline.tokenizer_2):
        assert len(tokenizer.tokenize(caption)) == len(caption.split())


def test_vae_in_half_precision_is_finite_and_faithful(pipeline):
    scenes = shapes.evaluation_scenes(2)
    real = shapes.draw_many(scenes, seed=5) * 2 - 1
    vae = copy.deepcopy(pipeline.vae).half()
    with torch.no_grad():
        latents = vae.encode(real.half()).latent_dist.mean
        fake = vae.decode(latents).sample
    assert (fake - real).abs().mean() < 0.03
    whitened = (latents.float() - (vae.config.shift_factor or 0)) * vae.config.scaling_factor
    assert 0.6 < whitened.std() < 1.4
    assert [shapes.read(as_array(p.float() / 2 + 0.5)) for p in fake] == [(*scene, 1) for scene in scenes]


def test_draws_what_the_caption_says(pipeline):
    """Chance is 1/8 for a colour and 1/5 for a shape; the model card has the rates of 64 captions."""
    scenes = [scene for scene in shapes.evaluation_scenes(16) if shapes.is_held_out(scene)]
    pictures = score.render(pipeline, scenes, steps=10)
    table = [score.hits(scene, shapes.read(p)) for scene, p in zip(scenes, pictures, strict=True)]
    for field, least in LEAST[type(pipeline)].items():
        assert sum(row[field] for row in table) >= least, field


def test_guidance_scale_is_guidance():
    """By the embedding 3.5 is nearer to true CFG of 1 + 0.4 (3.5 - 1) = 2 than no guidance, 1, is: by half."""
    pipe = FluxPipeline.from_pretrained(FOLDER / "flux-shapes")
    pipe.set_progress_bar_config(disable=True)
    scenes = shapes.evaluation_scenes(8)

    def latents(guidance_scale, **true_cfg):
        call = {"num_inference_steps": 1, "max_sequence_length": 64, "height": 128, "width": 128}
        generators = [torch.Generator().manual_seed(i) for i in range(len(scenes))]
        captions = [scene.caption for scene in scenes]
        return pipe(
            captions, guidance_scale=guidance_scale, generator=generators, output_type="latent", **call, **true_cfg
        ).images

    guided = latents(1.0, true_cfg_scale=2.0, negative_prompt=[""] * len(scenes))
    distilled, plain = ((latents(scale) - guided).norm() for scale in (3.5, 1.0))
    assert distilled < 0.7 * plain
