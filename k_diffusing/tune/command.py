"""`k-diffusing tune`: finds sigma grids, says how good they are, and writes them with a page."""

import argparse
import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from k_diffusing._files import write_whole
from k_diffusing._messages import one_line

FITTED = "fitted"  # as tune.FITTED, whose module imports torch
TUNE = """Find the sigma grid for a model, a sampler and a number of network evaluations.

k-diffusing tune --model demo --sampler dpmpp_2m --evaluations 6 8 10 20
k-diffusing tune --model my/sdxl --prompt-file prompts.txt --dtype float16 --device cuda
k-diffusing tune --sampler euler dpmpp_2m my_samplers.py:sample_heun --evaluations 8    which sampler, on which grid?
k-diffusing tune --sampler dpmpp_2m fitted    fitted: a multistep sampler whose weights are found, too

It writes FOLDER/MODEL-SAMPLER.json, to be given as sigma_grid=, and a page; of several samplers MODEL-choices.json:
which of them to take for each number of evaluations. Ended, the same command goes on.
{forms}
Exit code: 0, 2 for bad input, 3 if a sampler fails, 130 for Ctrl-C.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those of the command."""
    add = parser.add_argument
    add("--model", default="demo", help="demo, demo-flux, a hub name, diffusers folder or .safetensors file")
    add(
        "--sampler",
        "--samplers",
        nargs="+",
        default=["dpmpp_2m"],
        metavar="SAMPLER",
        help="one, or several to choose of",
    )
    add(
        "--evaluations",
        nargs="+",
        type=int,
        default=[6, 8, 10, 20],
        metavar="N",
        help="of the network, a grid for each",
    )
    add("--prompts", nargs="+", default=[], metavar="PROMPT", help="half to choose with, half held out; default: ours")
    add("--prompt-file", type=Path, metavar="FILE", help="one a line")
    add("--pictures", type=int, default=32, help="to choose with, default 32; half as many are held out")
    add("--batch-size", type=int, default=16, help="most pictures in one call of the network; default 16")
    add("--seed", type=int, default=0)
    for name in ("guidance-scale", "true-cfg-scale"):
        add(f"--{name}", type=float)
    add("--guidance", metavar="WEIGHT", help="in place of them: 5, or weight=5,rescale=0.7; the same in all steps")
    for name in ("height", "width"):
        add(f"--{name}", type=int)
    add("--program", help="tune for what that program does")
    add("--dtype", choices=("float32", "float16", "bfloat16"), default="float32")
    add("--device", default="cpu")
    parser.set_defaults(prompt=None, noise=None)  # of what the commands share
    add("--output", type=Path, default=Path("output/tune"), metavar="FOLDER")


def run(args: argparse.Namespace, load: Callable, call_of: Callable, say: Callable) -> int:
    """Run the command. load(args): the pipeline. call_of(args): keywords of its runs. Raises as tune_grid does."""
    prompts = _prompts(args)
    if args.pictures < 1 or not args.evaluations or min(args.evaluations) < 2:
        raise ValueError(f"--pictures {args.pictures} --evaluations {args.evaluations}: give 4 pictures and 2 at least")
    import torch

    from k_diffusing.tune import tune
    from k_diffusing.tune.page import page
    from k_diffusing.tune.table import budget_lines, choice_lines, choices_json

    args.output.mkdir(parents=True, exist_ok=True)  # fails before the model runs
    threads = torch.get_num_threads()
    pipe, call = load(args), call_of(args)
    torch.set_num_threads(
        threads
    )  # pictures of a demo are made on one, to be the same on any machine; these are not kept
    del call["prompt"]
    most = sum(tune.most_evaluations(args.evaluations, args.pictures, text == FITTED) for text in args.sampler)
    say(f"at most {most} network evaluations, a picture each; what is measured is kept in {args.output / 'work'}")
    found = []
    with bar(most) as tick:
        for text in args.sampler:
            tuned = tune.tune_grid(
                pipe, text, args.evaluations, call=call, prompts=prompts, pictures=args.pictures, seed=args.seed,
                batch_size=args.batch_size, folder=args.output / "work", tick=tick,
            )  # fmt: skip
            path = args.output / f"{_stem(args.model, tuned.label)}.json"
            tuned.save(path)
            found.append((path, tuned))
    for path, tuned in found:
        for line in budget_lines(tuned):
            say(line)
        say(f"wrote {path}: sigma_grid={str(path)!r}")
    for line in choice_lines([tuned for _, tuned in found]):
        say(line)
    if len(found) > 1:
        table = args.output / f"{_stem(args.model, 'choices')}.json"
        write_whole(table, choices_json(found).encode())
        say(f"wrote {table}")
    index = args.output / f"{_stem(args.model, '-'.join(tuned.label for _, tuned in found))}.html"
    write_whole(index, page([tuned for _, tuned in found]).encode())
    say(f"wrote {index}")
    return 0


def _prompts(args: argparse.Namespace) -> list[str]:
    """The user's, or some of ours. Raises ValueError."""
    if args.prompts and args.prompt_file:
        raise ValueError("--prompts and --prompt-file each give prompts: choose one")
    if args.prompt_file:
        try:
            lines = args.prompt_file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeError) as error:
            raise ValueError(f"--prompt-file {args.prompt_file} cannot be read: {one_line(error)}") from error
        return [line.strip() for line in lines if line.strip()]
    if args.prompts:
        return args.prompts
    from k_diffusing.tune.prompts import some_prompts

    return some_prompts(args.model, 2 * args.pictures)


def _stem(model: str, label: str) -> str:
    return re.sub(r"[^\w.=+-]+", "_", f"{Path(model).name}-{label}")[-160:]


@contextlib.contextmanager
def bar(most: int) -> Iterator[Callable[[int], Any]]:
    """A progress bar on a terminal's stderr; yields what tells it of evaluations."""
    if not sys.stderr.isatty():
        yield lambda evaluations: None
        return
    from tqdm import tqdm

    with tqdm(total=most, unit="evaluation", unit_scale=True, dynamic_ncols=True) as shown:
        yield shown.update
