"""The figures of docs/convergence.md and docs/adherence.md: the statistics, what is drawn, what the pages say."""

import math
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "benchmarks"))

import caption_adherence  # noqa: E402
import convergence  # noqa: E402
import figure_style  # noqa: E402
import tune_grids  # noqa: E402

from k_diffusing.grids.named import karras  # noqa: E402
from k_diffusing.model.scheduler_config import flow_schedule, noise_schedule  # noqa: E402
from k_diffusing.oracle.closed_form import draw, oracle_flux, oracle_sdxl, training_sigmas  # noqa: E402
from k_diffusing.oracle.mixture import MIXTURE  # noqa: E402
from k_diffusing.render.checks import solver_of  # noqa: E402
from samplers_patch import SAMPLERS  # noqa: E402

LIMIT = 150 * 1024  # bytes of a picture


@pytest.fixture(scope="module")
def measured() -> dict:
    return figure_style.read_data(convergence.DATA, {})


@pytest.fixture(scope="module")
def read_back() -> dict:
    return figure_style.read_data(caption_adherence.DATA, {})


# Statistics.


def test_fitted_slope_is_that_of_a_power_law_above_the_floor():
    points = [(n, 5.0 * n**-2.0) for n in (6, 20, 40, 80)]
    assert convergence.fitted_slope(points, 1e-6) == pytest.approx(2)
    below = [*points, (160, 1e-4), (320, 1e-4)]
    assert convergence.fitted_slope(below, 1e-4) == pytest.approx(2)
    assert convergence.fitted_slope([(6, 1.0), (10, 0.5), (20, 0.1)], 1e-6) is None


def test_relative_rms_is_of_each_image():
    reference = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    assert convergence.relative_rms(reference * 1.1, reference) == pytest.approx([0.1, 0.1])
    assert convergence.relative_rms(torch.zeros(2, 2), reference) == pytest.approx([1, 1])
    assert convergence.geometric_mean([0.1, 10.0]) == pytest.approx(1)


def test_sliced_distance_of_a_shift():
    """Along a direction u a shift by s moves everything by |u s|; 0.203 |s| on average."""
    vectors = torch.randn(2000, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert convergence.sliced_distance(vectors, vectors) == 0
    shifted = vectors + 2.0 * torch.eye(16, dtype=torch.float64)[0]
    assert convergence.sliced_distance(vectors, shifted) == pytest.approx(2.0 * 0.203, rel=0.2)


def test_patches_are_2x2_of_four_channels():
    latents = torch.arange(2 * 4 * 4 * 4.0).reshape(2, 4, 4, 4)
    found = convergence.patches(latents)
    assert found.shape == (2 * 4, 16)
    assert set(found[0].tolist()) == set(latents[0, :, :2, :2].flatten().tolist())
    tokens = torch.randn(2, 64, 16)
    assert torch.equal(convergence.patches(tokens), tokens.reshape(-1, 16).double())


@pytest.mark.parametrize("name", [name for name, sampler in SAMPLERS.items() if not sampler.adaptive])
@pytest.mark.parametrize("budget", [6, 24])
def test_steps_within_a_budget(name, budget):
    steps = solver_of(SAMPLERS[name]).steps_within(budget)
    each = 1 if SAMPLERS[name].takes == "sigma_range" else SAMPLERS[name].nfe_per_step
    assert each * (steps - 1) + 1 <= budget < each * steps + 1


def test_the_grids_of_a_model_share_their_ends():
    flow, discrete = flow_schedule(oracle_flux().scheduler, 1.15), noise_schedule(oracle_sdxl().scheduler)
    for grid, schedule in ((convergence.flow_karras, flow), (karras, discrete)):
        ends = torch.stack([grid(schedule, n)[[0, -2, -1]] for n in (5, 50, 500)])
        assert torch.allclose(ends, ends[:1].expand(3, 3), rtol=1e-5) and (ends[:, -1] == 0).all()


def test_the_limit_is_the_exact_solution_and_its_last_euler_step():
    """The ODE moves every point along with its quantile. lms has another last step, so another and nearer limit."""
    pipe, side = oracle_sdxl(), 8
    noise = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(convergence.SEED)).double()
    low, high = (float(training_sigmas()[i]) for i in (0, -1))
    p = MIXTURE.cdf(noise * (high**2 + 1) ** 0.5, high)
    limit = MIXTURE.posterior_mean(MIXTURE.quantile(p, low), torch.ones(()), torch.tensor(low))
    call = {"seed": convergence.SEED, "side": side, "sigma_grid": "karras"}
    found = {name: draw(pipe, name, 200, **call).double() for name in ("dpmpp_2m", "lms")}
    exact = MIXTURE.quantile(p)
    errors = {name: convergence.relative_rms(x, limit)[0] for name, x in found.items()}
    assert errors["dpmpp_2m"] < 5e-4 and errors["lms"] == pytest.approx(0.0019, rel=0.3)
    assert convergence.relative_rms(found["lms"], exact)[0] < 5e-4
    assert convergence.relative_rms(limit, exact)[0] == pytest.approx(0.0019, rel=0.3)


# Layout.


def test_spread_keeps_the_order_the_gap_and_the_bounds():
    placed = figure_style.spread([0.5, 0.52, 0.1, 0.51, 0.99, 1.2], gap=0.05, low=0.0, high=1.0)
    order = sorted(range(6), key=lambda i: placed[i])
    assert order == [2, 0, 3, 1, 4, 5]
    gaps = [placed[b] - placed[a] for a, b in zip(order, order[1:], strict=False)]
    assert min(gaps) >= 0.05 - 1e-9 and 0 <= min(placed) and max(placed) <= 1 + 1e-9
    assert figure_style.spread([0.3, 0.7], gap=0.1, low=0.0, high=1.0) == [0.3, 0.7]


def test_filled_replaces_what_stands_between_the_comments():
    page = "a\n<!-- x, 1 -->\nold\nlines\n<!-- /x, 1 -->\nb\n"
    assert figure_style.filled(page, {"x, 1": r"new \1"}) == "a\n<!-- x, 1 -->\nnew \\1\n<!-- /x, 1 -->\nb\n"
    with pytest.raises(ValueError, match="no place for 'y'"):
        figure_style.filled(page, {"y": ""})


def test_every_sampler_has_a_look_of_its_own():
    assert list(figure_style.LOOKS) and set(figure_style.LOOKS) == set(SAMPLERS)
    assert len(set(figure_style.LOOKS.values())) == len(SAMPLERS)


# The data, the pages, the pictures.


def test_the_data_are_complete(measured, read_back):
    for model, settings in convergence.MODELS.items():
        for sampler in SAMPLERS.values():
            wanted = convergence.settings(settings, sampler) if settings.noisy_images or not sampler.stochastic else ()
            points = convergence.points(measured, model, sampler.name)
            assert len(points) == len(wanted), (model, sampler.name)
            assert all(math.isfinite(error) and error > 0 for _, error in points)
    done = [{key: row[key] for key in ("model", "sampler", "setting")} for row in read_back["rows"]]
    cases = caption_adherence.cases()
    assert all(done.count(case) == 1 for case in cases) and len(done) == len(cases)


def test_the_pages_say_what_the_data_say(measured, read_back):
    for script, data in ((convergence, measured), (caption_adherence, read_back)):
        page = script.PAGE.read_text(encoding="utf-8")
        assert figure_style.filled(page, script.blocks(data)) == page


def test_the_pages_links_and_pictures_exist():
    for page, pictures in (
        (convergence.PAGE, convergence.PICTURES.values()),
        (caption_adherence.PAGE, [caption_adherence.PICTURE]),
    ):
        for picture in pictures:
            assert f"images/{picture.name}" in page.read_text(encoding="utf-8")
            assert 10_000 < picture.stat().st_size < LIMIT


def test_drawing_needs_the_data_alone(tmp_path, measured, read_back):
    convergence.draw_figure(measured, False, tmp_path / "a.png")
    caption_adherence.draw_figure(read_back, tmp_path / "b.png")
    for picture in tmp_path.iterdir():
        assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size < LIMIT


# Tuned grids.


def test_the_page_of_tuned_grids_says_what_was_measured():
    data, page = figure_style.read_data(tune_grids.DATA, {}), tune_grids.PAGE.read_text(encoding="utf-8")
    assert figure_style.filled(page, tune_grids.blocks(data)) == page
    for row in data["rows"]:
        assert len(row["sigmas"]) > row["evaluations"] and {row["chosen"], row["named"], "karras"} <= set(row["errors"])
