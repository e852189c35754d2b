"""Trains the demo checkpoints, on one CPU core or a GPU: the shared VAE first, then either model.

python demo_models/train.py vae
python demo_models/train.py decoder    # the VAE's decoder alone, at any later time
python demo_models/train.py sdxl
python demo_models/train.py flux
python demo_models/train.py distil     # FLUX's guidance embedding, after flux

Each can be stopped and started again, also with another --steps: only the last --decay steps, in which the learning
rate falls to zero, have to know the end. The last three write a diffusers folder when they end, and with --export at
once, from the weight average so far.
"""

import argparse
import copy
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from export import export_flux, export_sdxl
from loop import load_average, train
from nets import build_flux_parts, build_sdxl_parts
from safetensors.torch import load_file, save_file
from torch import nn
from train_denoisers import (
    WEIGHTS,
    Pictures,
    Tokens,
    distillation_loss,
    dropped,
    encode_pictures,
    flux_loss,
    sdxl_alphas,
    sdxl_loss,
)
from train_vae import train_decoder, train_vae

STEPS = {"vae": 2200, "decoder": 2000, "sdxl": 10_200, "flux": 11_500, "distil": 1000}
RATES = {"sdxl": 1.5e-3, "flux": 1.5e-3, "distil": 6e-4}
SHARD = 5000  # pictures
Objective = Callable[[int, torch.Generator], torch.Tensor]
Batches = Callable[[int, torch.Generator], tuple[torch.Tensor, Tokens, torch.Tensor]]


def load_pictures(runs: Path, n: int, device: str) -> Pictures:
    """The encoded training pictures, in files of 5,000 that are made on first use and kept in `runs`."""
    vae = AutoencoderKL.from_pretrained(runs / "vae").eval().to(device)
    shards = []
    for i in range(n // SHARD):
        path = runs / f"latents-{i}.safetensors"
        if not path.exists():
            save_file(encode_pictures(vae, SHARD, seed=1 + i)._asdict(), path.with_suffix(".part"))
            path.with_suffix(".part").replace(path)
        shards.append(load_file(path, device))
    return Pictures(*(torch.cat([shard[name] for shard in shards]) for name in Pictures._fields))


def started(build: Callable[[], nn.ModuleDict], folder: Path | None) -> nn.ModuleDict:
    """Fresh parts, or the weights of the diffusers checkpoint in `folder`."""
    parts = build()
    if folder:
        for name, part in parts.items():
            part.load_state_dict(type(part).from_pretrained(folder, subfolder=name).state_dict())
    return parts.train()


def batches(args: argparse.Namespace, short: Tokens, full: Tokens, every: int, share: float) -> Batches:
    """Latents, tokens and captions of each step, a share of the captions empty.

    The tokens are short, but full in one step of `every` and from half of the decay on.
    """
    pictures, late = load_pictures(args.runs, args.pictures, args.device), args.steps - args.decay // 2

    def batch_at(step: int, generator: torch.Generator) -> tuple[torch.Tensor, Tokens, torch.Tensor]:
        latents, captions = pictures.sample(args.batch, generator)
        tokens = short if step % every and step < late else full
        return latents, tokens, dropped(captions, share, generator)

    return batch_at


def sdxl_objective(args: argparse.Namespace, parts: nn.ModuleDict) -> Objective:
    """24 text tokens, but 77 in each third step and from half of the decay on."""
    alphas = sdxl_alphas().to(args.device)
    short, full = Tokens.make(24, 64, args.device), Tokens.make(77, 64, args.device)
    batch_at = batches(args, short, full, every=3, share=0.05)

    def loss_at(step: int, generator: torch.Generator) -> torch.Tensor:
        latents, tokens, captions = batch_at(step, generator)
        return sdxl_loss(parts, latents, tokens.clip[captions], alphas, generator, WEIGHTS[args.weights])

    return loss_at


def flux_batches(args: argparse.Namespace, every: int) -> Batches:
    """16 text tokens where they are short, else 64."""
    short, full = Tokens.make(16, 16, args.device), Tokens.make(77, 64, args.device)
    return batches(args, short, full, every, share=0.1)


def flux_objective(args: argparse.Namespace, parts: nn.ModuleDict) -> Objective:
    """Long texts in each sixth step."""
    batch_at = flux_batches(args, every=6)

    def loss_at(step: int, generator: torch.Generator) -> torch.Tensor:
        return flux_loss(parts, *batch_at(step, generator), generator)

    return loss_at


def distil_objective(args: argparse.Namespace, parts: nn.ModuleDict) -> Objective:
    """FLUX's weight average as it is at the start stays the teacher; long texts in each third step."""
    teacher = build_flux_parts().to(args.device)
    load_average(args.runs / "flux.safetensors", teacher)
    batch_at = flux_batches(args, every=3)

    def loss_at(step: int, generator: torch.Generator) -> torch.Tensor:
        return distillation_loss(parts, teacher, *batch_at(step, generator), generator)

    return loss_at


def train_denoiser(args: argparse.Namespace) -> None:
    """Trains one stage up to its last step (not at all with --export) and writes the diffusers folder."""
    sdxl = args.what == "sdxl"
    parts = started(build_sdxl_parts if sdxl else build_flux_parts, args.start).to(args.device)
    path = args.runs / f"{args.what}.safetensors"
    if args.what == "distil" and not path.exists():
        load_average(args.runs / "flux.safetensors", parts)
    average = copy.deepcopy(parts)
    if args.export:
        load_average(path, average)
    else:
        objective = {"sdxl": sdxl_objective, "flux": flux_objective, "distil": distil_objective}[args.what]
        options = {"steps": args.steps, "decay": args.decay, "lr": args.rate or RATES[args.what], "seed": args.seed}
        train(parts, average, objective(args, parts), path, memory=args.memory, muon=not sdxl, **options)
    if sdxl:
        export_sdxl(average, args.runs / "vae", args.out / "sdxl-shapes")
    else:
        export_flux(average, args.runs / "vae", args.out / "flux-shapes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=tuple(STEPS))
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="working files: resumable checkpoints")
    parser.add_argument("--out", type=Path, default=Path("demo_models"), help="where the diffusers folders go")
    parser.add_argument("--start", type=Path, help="a diffusers folder whose weights a new run starts from")
    parser.add_argument("--export", action="store_true", help="write the folder of the weight average, train nothing")
    parser.add_argument("--steps", type=int, help=f"default: {STEPS}")
    parser.add_argument("--decay", type=int, help="last steps, of a falling learning rate; default: a fifth")
    parser.add_argument("--rate", type=float, help=f"learning rate; default: {RATES}")
    parser.add_argument("--memory", type=float, default=0.99, help="of the weight average")
    parser.add_argument("--weights", choices=tuple(WEIGHTS), default="between", help="SDXL: of x0's error")
    parser.add_argument("--pictures", type=int, default=20_000, help="encoded, in files of 5,000")
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.steps = args.steps or STEPS[args.what]
    args.decay = args.steps // 5 if args.decay is None else args.decay
    last = {"steps": args.steps, "decay": args.decay, "seed": args.seed}
    if args.what == "vae":
        train_vae(args.runs, args.start, args.device, **last)
    elif args.what == "decoder":
        train_decoder(args.runs, args.device, **last)
    else:
        train_denoiser(args)


if __name__ == "__main__":
    main()
