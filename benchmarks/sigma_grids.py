"""The figure and the table of docs/sigma_grids.md: every sigma grid drawn, and pictures back to their noise and again.

python benchmarks/sigma_grids.py           measures what docs/sigma_grids.json lacks, draws, and fills the page
python benchmarks/sigma_grids.py --draw    measures nothing

Measured: a picture of a demo model, from its own prompt, is taken to its noise and sampled from it again, without
guidance, on a grid of the same steps. What the VAE alone changes, encoding and decoding the picture, is a row apart.
"""

import time
from pathlib import Path

from figure_style import (
    ROOT,
    demo_pipeline,
    fill_page,
    markdown_table,
    measured_by,
    only_draw,
    pyplot,
    read_data,
    save,
    write_data,
)

from k_diffusing.grids.named import SIGMA_GRIDS
from k_diffusing.inversion import invert
from k_diffusing.model.scheduler_config import flow_schedule, noise_schedule
from k_diffusing.models import DEMOS

PAGE, DATA = ROOT / "docs" / "sigma_grids.md", ROOT / "docs" / "sigma_grids.json"
FIGURE = ROOT / "docs" / "images" / "sigma_grids.png"
MODELS, SAMPLERS, STEPS, SEED = ("demo", "demo-flux"), ("euler", "dpmpp_2m", "heun"), (10, 25, 50, 100), 3
SETTINGS = {"steps": list(STEPS), "picture": "dpmpp_2m, 28 steps, guided", "seed": SEED}
DRAWN = 10  # steps of each grid in the figure, or as many as it can have
ONLY = {
    "flux2_dev_turbo": 8,
    "qwen_image_2_1_turbo": 8,
    "ltx2_distilled": 8,
    "dmd2_sdxl": 4,
    "turbo": 4,
    "lcm_timesteps": 4,
}


def measure(data: dict) -> None:
    """The rows that are missing, into the data and its file."""
    import numpy as np

    from k_diffusing.images import clean_latents

    have = {(row["model"], row["sampler"], row["evaluations"]) for row in data["rows"]}
    for model in MODELS:
        wanted = [(sampler, n) for sampler in SAMPLERS for n in STEPS if (model, sampler, n) not in have]
        if not wanted:
            continue
        pipe, call = demo_pipeline(model), DEMOS[model].keywords
        picture = pipe(**call, comfy_sampler="dpmpp_2m", num_inference_steps=28, seeds=SEED).images[0]
        told = {"prompt": call["prompt"], "guidance_scale": 1.0}
        told |= {name: call[name] for name in ("max_sequence_length",) if name in call}
        channels = 4 if model == "demo" else pipe.transformer.config.in_channels // 4
        clean = clean_latents(pipe, picture, (1, channels, 16, 16), pipe.device)
        packed = clean if model == "demo" else pipe._pack_latents(clean, *clean.shape)

        def apart(back, picture=picture) -> dict[str, float]:
            difference = np.abs(np.asarray(back, float) - np.asarray(picture, float))
            return {"mean": round(float(difference.mean()), 3), "most": int(difference.max())}

        if (model, "VAE", 0) not in have:
            data["rows"].append(
                {
                    "model": model,
                    "sampler": "VAE",
                    "evaluations": 0,
                    **apart(pipe.decode(packed, 128, 128)[0]),
                    "seconds": 0,
                }
            )
        for sampler, n in wanted:
            start, settings = time.perf_counter(), {"sigma_grid": "karras" if model == "demo" else None}
            noise = invert(pipe, picture, sampler=sampler, steps=n, **told, **settings)
            run = {"latents": noise, "comfy_sampler": sampler, "num_inference_steps": n, "height": 128, "width": 128}
            latents = pipe(**told, **settings, **run, output_type="latent").images
            back = pipe.decode(latents, 128, 128)[0]
            row = {"model": model, "sampler": sampler, "evaluations": n, **apart(back)}
            row["latents"] = round(float((latents.float() - packed).pow(2).mean().sqrt() / packed.std()), 5)
            row["noise"] = round(float(noise.std()), 3)
            data["rows"].append(row | {"seconds": round(time.perf_counter() - start, 1)})
            write_data(DATA, data)


def draw() -> None:
    """Each grid's sigmas as points of a line, SDXL's on a logarithmic axis and FLUX's flow times."""
    import diffusers

    from k_diffusing.oracle.closed_form import SDXL_SCHEDULE

    plt = pyplot()
    flow = flow_schedule(diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0))
    sdxl = noise_schedule(diffusers.EulerDiscreteScheduler(**SDXL_SCHEDULE))
    figure, panels = plt.subplots(1, 2, figsize=(9.0, 5.2), layout="constrained")
    for panel, schedule, title in zip(
        panels, (sdxl, flow), ("SDXL: sigma", "flow models: t, here of shift 3"), strict=True
    ):
        rows = []
        for name, grid in SIGMA_GRIDS.items():
            try:
                rows.append((name, grid(schedule, ONLY.get(name, DRAWN))[:-1]))
            except ValueError:  # it is for the other kind of models
                continue
        for i, (_, sigmas) in enumerate(reversed(rows)):
            panel.plot(sigmas, [i] * len(sigmas), "o-", color="#0072b2", markersize=3.5, linewidth=0.7)
        panel.set_yticks(range(len(rows)), [name for name, _ in reversed(rows)], fontsize=8)
        panel.set_title(title)
        panel.invert_xaxis()
        if schedule is sdxl:
            panel.set_xscale("log")
    save(figure, FIGURE)


def table(data: dict) -> str:
    """Mean difference of pictures, and rms difference of latents over their deviation."""
    found = {(row["model"], row["sampler"], row["evaluations"]): row for row in data["rows"]}
    lines = []
    for model in MODELS:
        vae = found[model, "VAE", 0]
        for sampler in SAMPLERS:
            rows = [found[model, sampler, n] for n in STEPS]
            cells = [f"{row['mean']:.2f}, {row['latents']:.4f}" for row in rows]
            lines.append([f"{'SDXL' if model == 'demo' else 'FLUX'} demo, {sampler}", *cells, f"{vae['mean']:.2f}"])
    return markdown_table(["", *(f"{n} steps" for n in STEPS), "VAE alone"], lines)


def main() -> None:
    drawn_alone = only_draw(__doc__)
    data = read_data(DATA, SETTINGS)
    if not drawn_alone:
        measure(data)
        write_data(DATA, data)
    draw()
    fill_page(PAGE, {"round trip": table(data), "measured": measured_by(Path(__file__).name, data)})


if __name__ == "__main__":
    main()
