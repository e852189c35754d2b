"""Every sigma grid drawn, and pictures back to their noise and again.

A picture of a demo model, from its own prompt, is taken to its noise and sampled from it again, without guidance, on a
grid of the same steps. What the VAE alone changes, encoding and decoding the picture, is a row apart.
"""

from collections.abc import Iterable
from typing import Any

from benchmarks.data import select
from benchmarks.demos import demo_pipeline
from benchmarks.pages import markdown_table
from benchmarks.record import Benchmark, Data, Row
from benchmarks.style import BLUE, WIDTH, pyplot

TITLES = {"demo": "SDXL demo", "demo-flux": "FLUX demo"}
SAMPLERS, STEPS, SEED = ("euler", "dpmpp_2m", "heun"), (10, 25, 50, 100), 3
VAE = "VAE"
DRAWN = 10  # steps of each grid in the figure, or as many as it can have
ONLY = {
    "flux2_dev_turbo": 8,
    "qwen_image_2_1_turbo": 8,
    "ltx2_distilled": 8,
    "dmd2_sdxl": 4,
    "turbo": 4,
    "lcm_timesteps": 4,
}


def cells() -> list[Row]:
    found = []
    for model in TITLES:
        runs = [(VAE, 0), *((sampler, steps) for sampler in SAMPLERS for steps in STEPS)]
        found += [{"model": model, "sampler": sampler, "steps": steps} for sampler, steps in runs]
    return found


def measure(cells: list[Row]) -> Iterable[Row]:
    trips = {model: RoundTrip(model) for model in {cell["model"] for cell in cells}}
    for cell in cells:
        trip = trips[cell["model"]]
        yield cell | (trip.vae() if cell["sampler"] == VAE else trip.run(cell["sampler"], cell["steps"]))


class RoundTrip:
    """A picture of a demo model, dpmpp_2m's with 28 steps, guided, and its way to its noise and back."""

    def __init__(self, model: str):
        from k_diffusing.images import clean_latents
        from k_diffusing.models import DEMOS

        self.pipe, call = demo_pipeline(model), DEMOS[model].keywords
        self.picture = self.pipe(**call, comfy_sampler="dpmpp_2m", num_inference_steps=28, seeds=SEED).images[0]
        self.told: dict[str, Any] = {"prompt": call["prompt"], "guidance_scale": 1.0}
        self.told |= {name: call[name] for name in ("max_sequence_length",) if name in call}
        self.told["sigma_grid"] = "karras" if model == "demo" else None
        channels = 4 if model == "demo" else self.pipe.transformer.config.in_channels // 4
        clean = clean_latents(self.pipe, self.picture, (1, channels, 16, 16), self.pipe.device)
        self.latents = clean if model == "demo" else self.pipe._pack_latents(clean, *clean.shape)

    def vae(self) -> Row:
        """What encoding and decoding alone change."""
        return self.apart(self.latents)

    def run(self, sampler: str, steps: int) -> Row:
        """What the way there and back changes, in levels of the picture and as a part of the latents' deviation."""
        from k_diffusing.inversion import invert

        noise = invert(self.pipe, self.picture, sampler=sampler, steps=steps, **self.told)
        call = {"latents": noise, "comfy_sampler": sampler, "num_inference_steps": steps, "height": 128, "width": 128}
        latents = self.pipe(**self.told, **call, output_type="latent").images
        error = float((latents.float() - self.latents).pow(2).mean().sqrt() / self.latents.std())
        return {**self.apart(latents), "latents": round(error, 5), "noise": round(float(noise.std()), 3)}

    def apart(self, latents) -> Row:
        """Levels of 255 that the latents' picture is from the first one: on average, and at most."""
        import numpy as np

        back = self.pipe.decode(latents, 128, 128)[0]
        difference = np.abs(np.asarray(back, float) - np.asarray(self.picture, float))
        return {"mean": round(float(difference.mean()), 3), "most": int(difference.max())}


def table(data: Data) -> str:
    """Mean difference of pictures, and rms difference of latents over their deviation."""
    lines = []
    for model, title in TITLES.items():
        [vae] = select(data, model=model, sampler=VAE)
        for sampler in SAMPLERS:
            rows = [select(data, model=model, sampler=sampler, steps=steps)[0] for steps in STEPS]
            texts = [f"{row['mean']:.2f}, {row['latents']:.4f}" for row in rows]
            lines.append([f"{title}, {sampler}", *texts, f"{vae['mean']:.2f}"])
    return markdown_table(["", *(f"{n} steps" for n in STEPS), "VAE alone"], lines)


def there(data: Data, samplers: tuple[str, ...]) -> str:
    """With how many steps the pictures of both models are as near as the VAE alone has them, to 0.05 levels."""
    for steps in STEPS:
        found = [
            select(data, model=model, sampler=sampler, steps=steps)[0]["mean"]
            - select(data, model=model, sampler=VAE)[0]["mean"]
            for model in TITLES
            for sampler in samplers
        ]
        if max(found) <= 0.05:
            return f"with {steps} steps"
    return f"not with {STEPS[-1]} steps"


def figure(data: Data):
    """Each grid's sigmas as points of a line, SDXL's on a logarithmic axis and FLUX's flow times."""
    import diffusers

    from k_diffusing.grids.named import SIGMA_GRIDS
    from k_diffusing.model.scheduler_config import flow_schedule, noise_schedule
    from k_diffusing.oracle.closed_form import SDXL_SCHEDULE

    flow = flow_schedule(diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0))
    sdxl = noise_schedule(diffusers.EulerDiscreteScheduler(**SDXL_SCHEDULE))
    drawn, panels = pyplot().subplots(1, 2, figsize=(WIDTH, 5.2), layout="constrained")
    titles = ("SDXL: sigma", "flow models: t, here of shift 3")
    for panel, schedule, title in zip(panels, (sdxl, flow), titles, strict=True):
        rows = []
        for name, grid in SIGMA_GRIDS.items():
            try:
                rows.append((name, grid(schedule, ONLY.get(name, DRAWN))[:-1]))
            except ValueError:  # it is for the other kind of models
                continue
        for i, (_, sigmas) in enumerate(reversed(rows)):
            panel.plot(sigmas, [i] * len(sigmas), "o-", color=BLUE, markersize=3.5, linewidth=0.7)
        panel.set_yticks(range(len(rows)), [name for name, _ in reversed(rows)], fontsize=8)
        panel.set_title(title)
        panel.invert_xaxis()
        if schedule is sdxl:
            panel.set_xscale("log")
    return drawn


BENCHMARK = Benchmark(
    name="sigma_grids",
    about="How near a picture comes back from its noise, by sampler and steps; and every sigma grid drawn.",
    takes="2 minutes",
    cells=cells,
    measure=measure,
    settings={"picture": "dpmpp_2m, 28 steps, guided", "seed": SEED},
    models=("demo", "demo-flux"),
    tables={
        "round-trip": table,
        "there": lambda data: there(data, SAMPLERS[1:]),
        "there-euler": lambda data: there(data, SAMPLERS[:1]),
    },
    pictures={"sigma_grids.png": figure},
)
