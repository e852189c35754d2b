"""A step does no more work on latents than a step of diffusers' own loop does, and its scalar work is the host's."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from k_diffusing.oracle.closed_form import OracleTransformer, OracleUNet, oracle_flux, oracle_sdxl

SIDES, LATENTS = {"sdxl": 256, "flux": 256}, {"sdxl": 4 * 32 * 32, "flux": 256 * 64}
GUIDANCE = {"sdxl": {"guidance_scale": 5.0}, "flux": {"true_cfg_scale": 2.0, "guidance_scale": 1.0}}
FEW, MANY = 3, 9


class Work(TorchDispatchMode):
    """Counts operations outside of the network: all, those on whole latents, and those that make room for such."""

    def __init__(self, family):
        super().__init__()
        self.size, self.all, self.whole, self.made, self.network = LATENTS[family], 0, 0, 0, False

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if self.network:
            return out
        self.all += 1
        view = function.is_view
        if isinstance(out, torch.Tensor) and out.numel() >= self.size and not view:
            self.whole += 1
            self.made += function._schema.returns[0].alias_info is None
        elif not view and function.overloadpacket != torch.ops.aten.index_select:  # which reads a few rows
            self.whole += any(isinstance(one, torch.Tensor) and one.numel() >= self.size for one in args)
        return out


WORK = []  # the one that counts now


class NullUNet(OracleUNet):
    def forward(self, sample, timestep, encoder_hidden_states, **_):
        return (halved(sample),)


class NullTransformer(OracleTransformer):
    def forward(self, hidden_states, **_):
        return (halved(hidden_states),)


def halved(tensor):
    for work in WORK:
        work.network = True
    try:
        return tensor * 0.5
    finally:
        for work in WORK:
            work.network = False


@pytest.fixture(scope="module")
def pipes():
    sdxl, flux = oracle_sdxl(), oracle_flux()
    sdxl.unet, flux.transformer = NullUNet(), NullTransformer(in_channels=64)
    for pipe in (sdxl, flux):
        pipe.set_progress_bar_config(disable=True)
    return {"sdxl": sdxl, "flux": flux}


def per_step(pipe, family, sampler, **options):
    """(operations, those on whole latents, those that make such) in a step, when the grid has been run on before."""
    prompt = {"prompt_embeds": torch.zeros(1, 77, 16), "pooled_prompt_embeds": torch.zeros(1, 16)}
    prompt |= {f"negative_{name}": value for name, value in prompt.items()}
    counts = []
    for steps in (FEW, FEW, MANY, MANY):
        WORK.append(Work(family))
        try:
            with WORK[0]:
                pipe(
                    **prompt, **GUIDANCE[family], **options, height=SIDES[family], width=SIDES[family],
                    num_inference_steps=steps, comfy_sampler=sampler, generator=torch.Generator().manual_seed(0),
                    output_type="latent",
                )  # fmt: skip
        finally:
            work = WORK.pop()
        counts.append((work.all, work.whole, work.made))
    return [(many - few) / (MANY - FEW) for few, many in zip(counts[1], counts[3], strict=True)]


@pytest.mark.parametrize("family", GUIDANCE)
def test_euler_does_no_more_than_diffusers(pipes, family):
    ours, theirs = (per_step(pipes[family], family, sampler) for sampler in ("euler", None))
    assert ours[1] <= theirs[1] and ours[2] < theirs[2]
    # Above diffusers' work on latents: sigma [B], a few elements looked at for nan, the timestep that a user may read.
    assert ours[0] <= theirs[0]


@pytest.mark.parametrize("family", GUIDANCE)
@pytest.mark.parametrize("sampler, draws", [("dpmpp_2m_sde", 1), ("dpmpp_sde", 2), ("euler_ancestral", 1)])
def test_a_draw_is_one_draw(pipes, family, sampler, draws, monkeypatch):
    """Noise of a sampler's step is drawn once for each time that the sampler asks."""
    drawn, randn = [], torch.randn

    def counted(*args, **kwargs):
        drawn.append(1)
        return randn(*args, **kwargs)

    monkeypatch.setattr(torch, "randn", counted)
    counts = []
    for steps in (FEW, MANY):
        drawn.clear()
        prompt = {"prompt_embeds": torch.zeros(1, 77, 16), "pooled_prompt_embeds": torch.zeros(1, 16)}
        pipes[family](
            **prompt, height=64, width=64, num_inference_steps=steps, comfy_sampler=sampler, guidance_scale=1.0,
            generator=torch.Generator().manual_seed(0), output_type="latent",
        )  # fmt: skip
        counts.append(len(drawn))
    assert (counts[1] - counts[0]) / (MANY - FEW) == draws
