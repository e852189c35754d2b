"""Noise levels whose arithmetic is looked up: the bits are those of tensors, and nobody can spoil them for others."""

import pytest
import torch
from gaussian_data import SIGMAS, denoiser, start
from hypothesis import given
from hypothesis import strategies as st
from operations import Operations

from k_diffusing.samplers.host_numbers import HostNumber, host_grid
from k_diffusing.samplers.patch import rebound, to_d
from samplers_patch import SAMPLERS, run_sampler, sampler_options

ON_GRIDS = [name for name, sampler in SAMPLERS.items() if sampler.takes == "sigmas"]
GRIDS = {"karras": SIGMAS, "flow": torch.linspace(1, 0, 7), "above 0": torch.linspace(14.6, 0.5, 6)}
OPTIONS = (
    {}, {"eta": 0.0}, {"eta": 0.3, "s_noise": 1.003}, {"s_churn": 3.0, "s_tmin": 0.1, "s_tmax": 5.0, "s_noise": 0.9},
    {"solver_type": "heun"}, {"r": 0.3}, {"order": 3},
)  # fmt: skip


def normals(x, seen):
    """A noise_sampler that notes what it was asked for."""
    generator = torch.Generator().manual_seed(3)

    def noise_sampler(sigma, sigma_next):
        assert type(sigma) is torch.Tensor and type(sigma_next) is torch.Tensor
        seen.append((float(sigma), float(sigma_next)))
        return torch.randn(x.shape, generator=generator, dtype=x.dtype)

    return noise_sampler


def churn(x, sigmas, kind):
    """As k_diffusion draws it."""
    return lambda sigma, sigma_next: torch.randn_like(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ON_GRIDS)
def test_bits_are_those_of_the_function_called_with_tensors(name, dtype):
    sampler, known = SAMPLERS[name], sampler_options(SAMPLERS[name])
    plain = rebound(sampler.function, {"to_d": to_d})
    for grid in GRIDS.values():
        for options in OPTIONS:
            if not set(options) <= set(known):
                continue
            x, asked = start().to(dtype), ([], [])
            first, second = ({"noise_sampler": normals(x, seen)} if "noise_sampler" in known else {} for seen in asked)
            with torch.random.fork_rng():
                torch.manual_seed(0)
                expected = plain(denoiser, x, grid, disable=True, **options, **first)
                torch.manual_seed(0)
                found = run_sampler(sampler, denoiser, x, grid, options=options | second, noise=churn)
            assert torch.equal(found, expected), (grid, options)
            assert asked[0] == asked[1]


NUMBERS = st.floats(width=32, allow_nan=False, min_value=-(2.0**60), max_value=2.0**60)
BINARY = ("__add__", "__sub__", "__mul__", "__truediv__", "__lt__", "__le__", "__gt__", "__ge__", "__eq__")
UNARY = ("neg", "abs", "sqrt", "log", "exp", "expm1", "__neg__", "__abs__")


def same(found, expected):
    found, expected = (torch.as_tensor(value) for value in (found, expected))
    both_nan = found.isnan() & expected.isnan() if expected.is_floating_point() else False
    return found.dtype == expected.dtype and bool((found == expected) | both_nan)


@given(NUMBERS, NUMBERS, st.sampled_from([torch.float32, torch.float64]))
def test_arithmetic_is_torchs(a, b, dtype):
    a, b = a or 0.0, b or 0.0  # Python's -0.0 counts as 0.0
    left, right = pair = torch.tensor([a, b], dtype=dtype)
    one, other = host_grid(pair).numbers
    for _ in range(2):  # what is remembered is the same
        for name in BINARY:
            operation = getattr(torch.Tensor, name)
            assert same(getattr(one, name)(other), operation(left, right)), name
            assert same(getattr(one, name)(b), operation(left, b)), name
        for name in UNARY:
            assert same(getattr(one, name)(), getattr(left, name)()), name
        assert same(a - other, a - right) and same(a / other, a / right) and same(a + other, a + right)
        assert same(one**2, left**2) and same(one**0.5, left**0.5) and same(a * other, a * right)
        assert same(one.lerp(other, 0.5), left.lerp(right, 0.5)) and same(min(one, other), min(left, right))


@given(NUMBERS, st.sampled_from([torch.float32, torch.float64]))
def test_with_latents_it_is_a_0_dim_tensor(value, dtype):
    x, level, number = start(1).to(dtype), torch.tensor(value), host_grid(torch.tensor([value]))[0]
    pairs = [(number * x, level * x), (x * number, x * level), (number - x, level - x), (x - number, x - level)]
    pairs += [(number + x, level + x), (x + number, x + level), (x / number, x / level), (number / x, level / x)]
    for found, expected in pairs:
        assert type(found) is torch.Tensor and found.dtype == dtype
        assert torch.equal(found.nan_to_num(7.0), expected.nan_to_num(7.0))
    assert (x.to("meta") * number).device.type == "meta" and (number * x.to("meta")).device.type == "meta"


def test_signs_of_zero_are_kept_apart():
    zero, negative = host_grid(torch.tensor([0.0, -0.0])).numbers
    assert [float(1 / number) for number in (zero, negative, zero.neg(), negative.neg())] == [
        torch.inf, -torch.inf, -torch.inf, torch.inf
    ]  # fmt: skip


def test_a_noise_sampler_may_write_into_its_levels():
    x, seen = start(), []

    def noise_sampler(sigma, sigma_next):
        seen.append(float(sigma))
        sigma.zero_(), sigma_next.zero_()
        return torch.ones_like(x)

    runs = [
        run_sampler(SAMPLERS["euler_ancestral"], denoiser, x, SIGMAS, options={"noise_sampler": noise_sampler})
        for _ in range(2)
    ]
    assert torch.equal(*runs) and seen[:7] == SIGMAS[:7].tolist() == seen[7:]


def test_the_model_gets_plain_tensors():
    def model(x, sigma):
        assert type(x) is torch.Tensor and type(sigma) is torch.Tensor and sigma.shape == (2,)
        return denoiser(x, sigma)

    for name in ON_GRIDS:
        run_sampler(SAMPLERS[name], model, start(), SIGMAS)


def test_what_is_made_under_inference_mode_serves_elsewhere():
    with torch.inference_mode():
        number = host_grid(torch.tensor([0.123456, 0.3]))[0] + 0.1
    assert isinstance(number, HostNumber) and not number.is_inference()
    assert (torch.ones(2, requires_grad=True) * number).sum().requires_grad


@pytest.mark.parametrize("name, most", [("euler", 7), ("dpmpp_2m", 40)])
def test_a_first_run_on_a_grid_makes_what_is_new_of_it(name, most):
    """Of euler, besides what a second run does: a sigma and its difference from the next. Logarithms are torch's."""
    counts = []
    for steps in (4, 14):  # grids that no other test has
        grid = torch.linspace(11.71875, 0.109375, steps + 1)
        with Operations() as operations:
            run_sampler(SAMPLERS[name], lambda x, sigma: x, start(), grid)
        counts.append(operations.count)
    assert (counts[1] - counts[0]) / 10 <= most


@pytest.mark.parametrize("name, most", [("euler", 5), ("dpmpp_2m", 7)])
def test_a_step_is_the_work_on_latents_and_the_sigmas_of_the_batch(name, most):
    """In a second run on a grid; euler's: sigma [B], x - denoised, / sigma, * dt, +."""
    counts = []
    for steps in (3, 13):
        grid = torch.linspace(10, 0.1, steps + 1)
        for _ in range(2):
            with Operations() as operations:
                run_sampler(SAMPLERS[name], lambda x, sigma: x, start(), grid)
        counts.append(operations.count)
    assert (counts[1] - counts[0]) / 10 <= most
