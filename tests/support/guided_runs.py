"""Guided runs of the tiny pipelines, and the rows of each network call in them."""

from tiny_models import flux_prompt, sdxl_prompt, seeded

FAMILIES = ("sdxl", "flux")
SCALE = {"sdxl": {"guidance_scale": 5.0}, "flux": {"true_cfg_scale": 3.0}}
PLAIN = {"sdxl": {"guidance_scale": 1.0}, "flux": {"true_cfg_scale": 1.0}}
SIZE = {"height": 16, "width": 16, "output_type": "latent"}


def prompt(family, images=1):
    return sdxl_prompt(images) if family == "sdxl" else flux_prompt(images, negative=True)


def network(pipe):
    return pipe.unet if hasattr(pipe, "unet") else pipe.transformer


class Rows:
    """The rows of each network call, and the timestep it was told."""

    def __init__(self, pipe):
        self.calls = []
        self.hook = network(pipe).register_forward_pre_hook(self.see, with_kwargs=True)

    def see(self, module, args, kwargs):
        x = args[0] if args else kwargs["hidden_states"]
        timestep = args[1] if args else kwargs["timestep"] * 1000
        self.calls.append((len(x), float(timestep.flatten()[0])))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.hook.remove()

    @property
    def rows(self):
        return sum(rows for rows, _ in self.calls)


def run(pipe, family, sampler="euler", steps=6, images=1, **options):
    options = {**SCALE[family], **options}
    with Rows(pipe) as seen:
        call = {**prompt(family, images), **SIZE, "comfy_sampler": sampler, "num_inference_steps": steps, **options}
        latents = pipe(**call, generator=seeded()).images
    return latents, seen
