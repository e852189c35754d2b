"""Trains the demo checkpoints on CPU cores: the shared VAE first, then either model.

python demo_models/train.py vae --threads 2
python demo_models/train.py sdxl
python demo_models/train.py flux
python demo_models/train.py distil     # FLUX's guidance embedding, after flux

Each can be stopped and started again; the last three write a diffusers folder when they end.
"""

import argparse
import copy
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from export import export_flux, export_sdxl
from loop import load_average, train
from nets import build_flux_parts, build_sdxl_parts
from safetensors.torch import load_file, save_file
from train_denoisers import (
    Pictures,
    Tokens,
    distillation_loss,
    dropped,
    encode_pictures,
    flux_loss,
    sdxl_alphas,
    sdxl_loss,
)
from train_vae import train_vae

STEPS = {"vae": 1400, "sdxl": 1700, "flux": 8600, "distil": 300}
RATES = {"sdxl": 1.5e-3, "flux": 1.5e-3, "distil": 6e-4}


def load_pictures(runs: Path, n: int = 10_000) -> Pictures:
    """The encoded training pictures; made on first use and kept in runs/latents.safetensors."""
    path = runs / "latents.safetensors"
    if not path.exists():
        vae = AutoencoderKL.from_pretrained(runs / "vae").eval()
        save_file(encode_pictures(vae, n, seed=1)._asdict(), path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)
    return Pictures(**load_file(path))


def train_sdxl(runs: Path, out: Path, steps: int, seed: int, batch: int) -> None:
    """UNet and both text encoders together; 24 text tokens for the first 70 % of the steps, then 77."""
    torch.manual_seed(seed)
    parts, pictures, alphas = build_sdxl_parts(), load_pictures(runs), sdxl_alphas()
    short, full = Tokens.make(24, 64), Tokens.make(77, 64)

    def loss_at(step: int, generator: torch.Generator) -> torch.Tensor:
        latents, captions = pictures.sample(batch, generator)
        ids = (short if step < 0.7 * steps else full).clip[dropped(captions, 0.05, generator)]
        return sdxl_loss(parts, latents, ids, alphas, generator)

    average = copy.deepcopy(parts)
    train(parts, average, loss_at, runs / "sdxl.safetensors", steps=steps, lr=RATES["sdxl"], seed=seed)
    export_sdxl(average, runs / "vae", out / "sdxl-shapes")


def train_flux(runs: Path, out: Path, steps: int, seed: int, batch: int) -> None:
    """Transformer, CLIP and T5 together; 16 text tokens, but 64 in each sixth step and in the last 8 %."""
    torch.manual_seed(seed)
    parts, pictures = build_flux_parts(), load_pictures(runs)
    short, full = Tokens.make(16, 16), Tokens.make(77, 64)

    def loss_at(step: int, generator: torch.Generator) -> torch.Tensor:
        latents, captions = pictures.sample(batch, generator)
        tokens = short if step % 6 and step < 0.92 * steps else full
        return flux_loss(parts, latents, tokens, dropped(captions, 0.1, generator), generator)

    average = copy.deepcopy(parts)
    path = runs / "flux.safetensors"
    train(parts, average, loss_at, path, steps=steps, lr=RATES["flux"], seed=seed, muon=True)
    export_flux(average, runs / "vae", out / "flux-shapes")


def train_distil(runs: Path, out: Path, steps: int, seed: int, batch: int) -> None:
    """Starts from FLUX's weight average, which stays the teacher."""
    teacher = build_flux_parts()
    load_average(runs / "flux.safetensors", teacher)
    parts, average = copy.deepcopy(teacher), copy.deepcopy(teacher)
    pictures, short, full = load_pictures(runs), Tokens.make(16, 16), Tokens.make(77, 64)

    def loss_at(step: int, generator: torch.Generator) -> torch.Tensor:
        latents, captions = pictures.sample(batch, generator)
        tokens = short if step % 3 and step < 0.8 * steps else full
        captions = dropped(captions, 0.1, generator)
        return distillation_loss(parts, teacher, latents, tokens, captions, generator)

    path = runs / "distil.safetensors"
    options = {"lr": RATES["distil"], "seed": seed, "decay": 0.98, "warmup": 20, "muon": True}
    train(parts, average, loss_at, path, steps=steps, **options)
    export_flux(average, runs / "vae", out / "flux-shapes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=tuple(STEPS))
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="working files: resumable checkpoints")
    parser.add_argument("--out", type=Path, default=Path("demo_models"), help="where the diffusers folders go")
    parser.add_argument("--steps", type=int, help=f"default: {STEPS}")
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    steps = args.steps or STEPS[args.what]
    if args.what == "vae":
        train_vae(args.runs, steps, args.seed)
    else:
        run = {"sdxl": train_sdxl, "flux": train_flux, "distil": train_distil}[args.what]
        run(args.runs, args.out, steps, args.seed, args.batch)


if __name__ == "__main__":
    main()
