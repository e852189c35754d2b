"""The two render scripts as modules, and tiny random pipelines saved for them."""

import importlib.util
import sys
from pathlib import Path

from tiny_models import seeded_weights, tiny_flux, tiny_sdxl
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from flux_comfy_pipeline import FluxPipeline
from sdxl_comfy_pipeline import StableDiffusionXLPipeline

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "demo_models"))
from shape_tokens import clip_tokenizer, t5_tokenizer  # noqa: E402

WORDS = ("a", "red", "blue", "circle", "on", "background")


def script(name):
    """test.py or test_flux.py as a module; `import test` may be the standard library's."""
    spec = importlib.util.spec_from_file_location(f"script_{name}", ROOT / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SDXL, FLUX = script("test"), script("test_flux")


@seeded_weights()
def clip(model_class, width, tokenizer):
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=16,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return model_class(config).eval()


def saved_sdxl(folder):
    pipe, words = tiny_sdxl(StableDiffusionXLPipeline), clip_tokenizer(WORDS)
    pipe.register_modules(
        tokenizer=words,
        tokenizer_2=words,
        text_encoder=clip(CLIPTextModel, 8, words),
        text_encoder_2=clip(CLIPTextModelWithProjection, 8, words),
    )
    pipe.save_pretrained(folder)


def saved_flux(folder):
    pipe, words, pieces = tiny_flux(FluxPipeline), clip_tokenizer(WORDS), t5_tokenizer(WORDS)
    config = T5Config(vocab_size=len(pieces), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    with seeded_weights():
        t5 = T5EncoderModel(config).eval()
    pipe.register_modules(
        tokenizer=words,
        tokenizer_2=pieces,
        text_encoder=clip(CLIPTextModel, 16, words),
        text_encoder_2=t5,
    )
    pipe.save_pretrained(folder)
