"""Our multistep samplers: which are the same, to rounding; their orders inside a run; other programs' forms."""

import importlib.util
import math
from functools import partial

import diffusers
import pytest
import torch

from k_diffusing.compare.sources import find_source
from k_diffusing.model.scheduler_config import noise_schedule
from k_diffusing.oracle.closed_form import SDXL_SCHEDULE
from k_diffusing.oracle.mixture import MIXTURE
from k_diffusing.oracle.order import ode_error, slope
from k_diffusing.samplers.comfyui import ComfyModel, Levels, model_sampling
from k_diffusing.samplers.exponential_adams import adams_weights, phi, two_point_weights
from k_diffusing.samplers.time_adams import _published_ipndm_v, in_even_steps, in_sigma, in_time, vp_time
from k_diffusing.schedulers.as_sampler import as_sampler
from samplers_patch import OUR_SAMPLERS, check_options, find_sampler, run_sampler, sampler_options

SIGMAS = torch.tensor([14.6, 8.0, 4.5, 2.4, 1.5, 1.1, 0.5, 0.31, 0.2, 0.05, 0.0], dtype=torch.float64)
SAME = 1e-12  # of states up to 40 in float64
FAR = 1000.0  # a sigma so large that the first steps, from there on, are all but exact


def denoiser(x, sigma):
    sigma = sigma.reshape(-1, *[1] * (x.ndim - 1))
    return MIXTURE.posterior_mean(x, torch.ones_like(sigma), sigma).to(x.dtype)


def start():
    return 14.6 * torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def noise(sigma, sigma_next):
    """The same for the same step, in any sampler."""
    return torch.randn(start().shape, generator=torch.Generator().manual_seed(int(1000 * float(sigma)))).double()


def run(name, sigmas=SIGMAS, **options):
    return run_sampler(find_sampler(name), denoiser, start(), sigmas, options=options)


# Identities.


@pytest.mark.parametrize("sigmas", [SIGMAS, SIGMAS[:-1]], ids=["to 0", "to 0.05"])
@pytest.mark.parametrize(
    "a, b",
    [
        (("res_multistep", {}), ("dpmpp_2m_sde", {"eta": 0.0, "solver_type": "heun"})),
        (("res_multistep_ancestral", {"eta": 0.0, "variant": "published"}), ("res_multistep", {})),
        (
            ("dpmpp_2m_sde_heun", {"noise_sampler": noise}),
            ("dpmpp_2m_sde", {"solver_type": "heun", "noise_sampler": noise}),
        ),
        (
            ("dpmpp_2m_sde_heun", {"noise_sampler": noise, "eta": 0.6, "s_noise": 1.1}),
            ("dpmpp_2m_sde", {"solver_type": "heun", "noise_sampler": noise, "eta": 0.6, "s_noise": 1.1}),
        ),
        (
            ("res_multistep_ancestral", {"noise_sampler": noise, "s_noise": 1.1}),
            ("dpmpp_2m_sde_heun", {"noise_sampler": noise, "s_noise": 1.1}),
        ),
        (
            ("res_multistep_ancestral", {"noise_sampler": noise, "variant": "published"}),
            ("res_multistep_ancestral", {"noise_sampler": noise}),
        ),
        (("sa_solver", {"eta": 0.0, "corrector_order": 0, "predictor_order": 1}), ("euler", {})),
        (("sa_solver_pece", {"eta": 0.0, "corrector_order": 0, "predictor_order": 1}), ("euler", {})),
        (("uni_pc", {"order": 1, "lower_order_final": False}), ("uni_pc", {"order": 1})),
        (("sa_solver", {"tau_func": lambda sigma: 1e3, "noise_sampler": noise}), ("lcm", {"noise_sampler": noise})),
        (("dpmpp_2m_sde_heun", {"eta": 1e6, "noise_sampler": noise}), ("lcm", {"noise_sampler": noise})),
        (("gradient_estimation", {"ge_gamma": 1.0}), ("euler", {})),
        (("gradient_estimation", {"ge_gamma": 1.5}), ("ipndm", {"max_order": 2})),
        (("ipndm_v", {}), ("deis", {"deis_mode": "rhoab", "max_order": 4})),
        (("ipndm_v", {"max_order": 2, "variant": "published"}), ("ipndm_v", {"max_order": 2})),
        *(((name, {"max_order": 1}), ("euler", {})) for name in ("deis", "ipndm", "ipndm_v")),
    ],
)  # fmt: skip
def test_the_same_to_rounding(a, b, sigmas):
    assert (run(a[0], sigmas, **a[1]) - run(b[0], sigmas, **b[1])).abs().max() <= SAME


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_ipndm_v_is_lms(order):
    """k_diffusion integrates its polynomials numerically, and takes the last step to 0 with them: up to there."""
    ours = run("ipndm_v", SIGMAS[:-1], max_order=order)
    # 1e-7: what scipy's quad is asked for, a relative 1e-4, is reached with room
    assert (ours - run("lms", SIGMAS[:-1], order=order)).abs().max() <= 1e-7


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_dpmpp_3m_sde_has_half_a_weight(eta):
    """With the whole one, the difference to k_diffusion's is what its second difference lacks: seen at third steps."""
    exact, theirs = (
        run(name, SIGMAS[[0, 2, 4, 5]], eta=eta, noise_sampler=noise) for name in ("dpmpp_3m_sde_exact", "dpmpp_3m_sde")
    )
    first_two = [
        run(name, SIGMAS[[0, 2, 4]], eta=eta, noise_sampler=noise) for name in ("dpmpp_3m_sde_exact", "dpmpp_3m_sde")
    ]
    assert (first_two[0] - first_two[1]).abs().max() <= SAME
    assert (exact - theirs).abs().max() > 1e-4


@pytest.mark.parametrize("order", [1, 2, 3])
def test_unipc_is_sa_solver_without_noise_but_for_its_two_point_weights(order):
    """Away from the end, whose orders are counted otherwise; and only where no two estimates are used."""
    exact = run("sa_solver", SIGMAS[:-1], eta=0.0, predictor_order=order, corrector_order=order + 1)
    simple = run(
        "sa_solver", SIGMAS[:-1], eta=0.0, predictor_order=order, corrector_order=order + 1, simple_order_2=True
    )
    assert (run("uni_pc", SIGMAS[:-1], order=order) - simple).abs().max() <= SAME
    assert 1e-5 < (exact - simple).abs().max() < 0.5


def test_a_state_drawn_anew_is_not_corrected():
    """Nothing of the step that led to it is left there."""
    options = {"tau_func": lambda sigma: 1e3 if sigma == SIGMAS[1] else 0.0, "noise_sampler": noise}
    runs = [run("sa_solver", SIGMAS[:3], corrector_order=order, **options) for order in (0, 4)]
    assert torch.equal(*runs)


def test_a_correction_keeps_what_a_callback_changed():
    """A state that is moved where a step begins stays moved: the correction changes weights alone."""

    def moved(x, sigma):
        if float(sigma[0]) == float(SIGMAS[4]):
            x.add_(100.0)
        return torch.zeros_like(x)

    run_with = [
        run_sampler(find_sampler("uni_pc"), model, torch.ones(1, 1, dtype=torch.float64), SIGMAS[:6])
        for model in (moved, lambda x, sigma: torch.zeros_like(x))
    ]
    assert run_with[0] - run_with[1] == pytest.approx(100 * float(SIGMAS[5] / SIGMAS[4]))


# Options.


@pytest.mark.parametrize("name", [name for name, record in OUR_SAMPLERS.items() if record.family == "multistep"])
def test_options_that_are_accepted_run(name):
    """Each by itself, from the smallest values to the largest."""
    record = find_sampler(name)
    for option in set(sampler_options(record)) - {"noise_sampler", "tau_func"}:
        values = [0, 1, 2, 3, 4, 5, 0.0, 1e-300, 0.5, 1e30, 1e308, True, False, "rhoab", "logrho", "published", None]
        accepted = 0
        for value in values:
            try:
                check_options(record, {option: value})
            except (ValueError, TypeError):
                continue
            accepted += 1
            assert run(name, **{option: value}).shape == start().shape
        assert accepted


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("uni_pc", {"order": 5}, "uni_pc cannot run with order=5: give a whole number from 1 to 4"),
        ("sa_solver", {"predictor_order": 0}, "give a whole number from 1 to 4"),
        ("sa_solver", {"corrector_order": 5}, "give a whole number from 0 to 4"),
        ("sa_solver", {"tau_func": 1.0}, "tau_func=1.0: give a function sigma -> tau, or None"),
        ("sa_solver", {"simple_order_2": 1}, "simple_order_2=1: give True or False"),
        ("uni_pc", {"lower_order_final": None}, "lower_order_final=None: give True or False"),
        ("deis", {"deis_mode": "log"}, "deis_mode='log': give 'tab', 'rhoab' or 'logrho'"),
        ("ipndm", {"max_order": True}, "max_order=True: give a whole number from 1 to 4"),
        ("ipndm_v", {"variant": "right"}, "variant='right': give None or 'published'"),
        ("gradient_estimation", {"ge_gamma": -1}, "ge_gamma=-1: give a number from 0 to 100"),
    ],
)
def test_values_that_an_option_cannot_have(name, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        check_options(find_sampler(name), options)


# Weights.


@pytest.mark.parametrize("z", [1e-6, 1e-3, 0.3, 0.999, 1.0, 1.5, 7.0, 60.0])
@pytest.mark.parametrize("order", [0, 1, 2, 3, 4, 5])
def test_phi_functions(order, z):
    v = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    expected = (
        (torch.exp(-z * v) * (1 - v) ** (order - 1)).mean() / math.factorial(order - 1) if order else math.exp(-z)
    )
    assert phi(order, z) == pytest.approx(float(expected), rel=1e-7)  # the midpoint rule's error


POLYNOMIALS = [lambda u, power=power: (u - 0.3) ** power for power in range(5)]


@pytest.mark.parametrize("exponent", [1.0, 2.0])
@pytest.mark.parametrize(
    "nodes", [[0.0], [0.0, -0.4], [0.0, -0.4, -1.1], [0.7, 0.0, -0.4, -1.1], [0.7, 0.0, -0.1, -0.2, -0.9]]
)
def test_exponential_weights_are_exact_for_polynomials(nodes, exponent):
    u = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000 * 0.7
    weights = adams_weights(nodes, 0.0, 0.7, exponent)
    for polynomial in POLYNOMIALS[: len(nodes)]:
        expected = 0.7 * exponent * float((torch.exp(-exponent * (0.7 - u)) * polynomial(u)).mean())
        assert sum(w * polynomial(at) for w, at in zip(weights, nodes, strict=True)) == pytest.approx(
            expected, abs=1e-9
        )


@pytest.mark.parametrize("nodes", [[0.0, -0.4], [0.7, 0.0]])
def test_two_point_weights_are_exact_with_the_exact_slope(nodes):
    exact = adams_weights(nodes, 0.0, 0.7, 2.0)
    assert two_point_weights(lambda z: 2 * z * phi(2, z), nodes, 0.0, 0.7, 2.0) == pytest.approx(exact, abs=1e-14)


NODES = [2.0, 3.0, 4.5, 6.7]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "coefficients, theta",
    [(in_sigma, float), (partial(in_time, math.log), math.log), (partial(in_time, vp_time), vp_time)],
    ids=["sigma", "log", "vp"],
)
def test_time_weights_are_exact_for_polynomials_of_the_time(count, coefficients, theta):
    sigma = 2.0 - (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000 * 0.9
    weights = coefficients(NODES[:count], 1.1)
    for power in range(count):
        expected = -0.9 * sum(theta(float(one)) ** power for one in sigma) / len(sigma)
        found = sum(w * theta(node) ** power for w, node in zip(weights, NODES, strict=False))
        assert found == pytest.approx(expected, rel=1e-8)  # the midpoint rule's error


def test_weights_of_even_steps():
    """Adams and Bashforth's."""
    assert in_even_steps(NODES, 1.0) == pytest.approx([-55 / 24, 59 / 24, -37 / 24, 9 / 24], abs=1e-14)
    assert in_sigma([4.0, 5.0, 6.0], 3.0) == pytest.approx([-23 / 12, 16 / 12, -5 / 12], abs=1e-14)


def test_the_published_weights_of_ipndm_v_are_wrong():
    """Weights of a constant sum up to the step; those of a straight line in sigma do not give its integral."""
    published, right = _published_ipndm_v([3.0, 4.5, 6.7], 2.0), in_sigma([3.0, 4.5, 6.7], 2.0)
    assert published == pytest.approx([-1.803, 1.124, -0.320], abs=1e-3)
    assert right == pytest.approx([-1.529, 0.662, -0.133], abs=1e-3)
    assert _published_ipndm_v([4.0, 5.0, 6.0, 7.0], 3.0) == pytest.approx([-2.375, 2.708, -1.792, 0.458], abs=1e-3)


# Orders, without the first steps: started where these do no harm.


@pytest.mark.parametrize(
    "name, options, order",
    [
        ("res_multistep", {}, 2),
        ("res_3m", {}, 3),
        ("dpmpp_3m_sde_exact", {"eta": 0.0}, 3),
        ("uni_pc", {"order": 1}, 2),
        ("uni_pc", {"order": 2}, 3),
        ("uni_pc", {"order": 3}, 4),
        ("uni_pc_bh2", {"order": 2}, 3),
        ("uni_pc_bh2", {"order": 3}, 4),
        ("sa_solver", {"eta": 0.0, "predictor_order": 2, "corrector_order": 3}, 3),
        ("sa_solver", {"eta": 0.0}, 4),
        ("sa_solver_pece", {"eta": 0.0}, 4),
        ("deis", {}, 3),
        ("deis", {"max_order": 2}, 2),
        ("deis", {"deis_mode": "rhoab"}, 3),
        ("ipndm", {}, 2),
        ("ipndm_v", {"max_order": 3}, 3),
        ("ipndm_v", {}, 4),
        ("gradient_estimation", {}, 1),
        ("gradient_estimation", {"ge_gamma": 1.5}, 2),
    ],
)
def test_order_inside(name, options, order):
    errors = tuple(ode_error(name, n, options, sigma_max=FAR) for n in (160, 320))
    assert slope(errors, (160, 320)) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize(
    "name, options, steps, order",
    [
        ("uni_pc", {"order": 4}, (80, 640), 5),
        ("uni_pc_bh2", {"order": 4}, (80, 640), 5),
        ("deis", {"deis_mode": "logrho"}, (640, 1280), 3),
    ],
)
def test_order_inside_on_finer_grids(name, options, steps, order):
    """Where the slope comes to it late: UniPC's goes up and down about 4.8, the other falls from 3.4."""
    errors = tuple(ode_error(name, n, options, sigma_max=FAR) for n in steps)
    assert slope(errors, steps) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize(
    "name, sigma_max, published",
    [("ipndm_v", FAR, 2.9), ("uni_pc", 10.0, 2.0), ("uni_pc_bh2", 10.0, 2.0)],
)
def test_published_forms_are_of_lower_order(name, sigma_max, published):
    """ipndm_v has order 3 in place of 4, even on steps even in log sigma; UniPC's last step is Euler's."""
    errors = [
        tuple(ode_error(name, n, {"variant": variant}, sigma_max=sigma_max) for n in (160, 320))
        for variant in ("published", None)
    ]
    assert slope(errors[0], (160, 320)) == pytest.approx(published, abs=0.15)
    assert errors[0][1] > 10 * errors[1][1]


# ComfyUI's own, where it is installed (its folder on PYTHONPATH).

INSTALLED = importlib.util.find_spec("comfy") is not None
THEIRS = [
    ("res_multistep", {}, {}),
    ("res_multistep_ancestral", {"eta": 0.7}, {"eta": 0.7, "variant": "published"}),
    ("dpmpp_2m_sde_heun", {}, {}),
    ("uni_pc", {}, {"variant": "published"}),
    ("uni_pc_bh2", {}, {"variant": "published"}),
    ("sa_solver", {"tau_func": lambda sigma: 0.8}, {"tau_func": lambda sigma: 0.8}),
    ("sa_solver", {"tau_func": lambda sigma: 0.0}, {"eta": 0.0}),
    (
        "sa_solver",
        {"tau_func": lambda sigma: 0.5, "simple_order_2": True, "predictor_order": 2, "corrector_order": 2},
        {"tau_func": lambda sigma: 0.5, "simple_order_2": True, "predictor_order": 2, "corrector_order": 2},
    ),
    ("sa_solver_pece", {"tau_func": lambda sigma: 0.8}, {"tau_func": lambda sigma: 0.8}),
    ("deis", {}, {"variant": "published"}),
    ("deis", {"max_order": 2}, {"max_order": 2, "variant": "published"}),
    ("ipndm", {}, {}),
    ("ipndm_v", {}, {"variant": "published"}),
    ("gradient_estimation", {}, {}),
    ("gradient_estimation", {"ge_gamma": 1.5}, {"ge_gamma": 1.5}),
]


@pytest.fixture
def float64():
    """UniPC there makes tensors of its own."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.skipif(not INSTALLED, reason="ComfyUI is not installed: put its folder on PYTHONPATH")
@pytest.mark.parametrize("name, theirs, ours", THEIRS)
def test_comfyuis_functions_give_the_same(float64, name, theirs, ours):
    if name.startswith("uni_pc"):
        module = importlib.import_module("comfy.extra_samplers.uni_pc")
        function = {"uni_pc": module.sample_unipc, "uni_pc_bh2": module.sample_unipc_bh2}[name]
    else:
        function = find_source(f"comfy:{name}").sampler
    schedule = noise_schedule(diffusers.EulerDiscreteScheduler(**SDXL_SCHEDULE))
    model = ComfyModel(lambda x, sigma, **_: denoiser(x, sigma), model_sampling(Levels(schedule), flow=False))
    drawn = {"noise_sampler": noise} if "ancestral" in name or "sde" in name or "sa_" in name else {}
    expected = function(model, start(), SIGMAS.clone(), extra_args={}, disable=True, **drawn, **theirs)
    # 1e-5: their coefficients are partly in float32
    assert (run(name, **drawn, **ours) - expected).abs().max() <= 1e-5


# diffusers' schedulers of the same methods.


@pytest.mark.parametrize(
    "sampler, options, scheduler, settings",
    [
        *(
            (name, {"order": order}, "UniPCMultistepScheduler", {"solver_order": order, "solver_type": solver})
            for name, solver in (("uni_pc", "bh1"), ("uni_pc_bh2", "bh2"))
            for order in (1, 2, 3)
        ),
        *(
            ("deis", {"max_order": order, "deis_mode": "logrho"}, "DEISMultistepScheduler", {"solver_order": order})
            for order in (1, 2, 3)
        ),
        *(
            (
                "sa_solver",
                {"predictor_order": predict, "corrector_order": correct, "simple_order_2": True, "tau_func": tau},
                "SASolverScheduler",
                {"predictor_order": predict, "corrector_order": correct, "tau_func": tau},
            )
            for predict, correct in ((1, 1), (2, 2), (3, 4))
            for tau in (lambda sigma: 0.0, lambda sigma: 0.8)
        ),
    ],
)
@pytest.mark.parametrize("to_zero", [False, True])
def test_diffusers_schedulers_give_the_same(sampler, options, scheduler, settings, to_zero):
    to_zero &= sampler.startswith("uni_pc")  # the others lower their orders before the end by rules of their own
    settings = settings | {"lower_order_final": to_zero}
    theirs = as_sampler(getattr(diffusers, scheduler)(**SDXL_SCHEDULE, **settings))
    grid, drawn = SIGMAS.float()[: None if to_zero else -1], {}
    if sampler == "sa_solver":
        drawn = {"noise_sampler": lambda *interval: noise(*interval).float()}
    expected = theirs(denoiser, start().float(), grid, **drawn)
    ours = run_sampler(find_sampler(sampler), denoiser, start().float(), grid, options=options | drawn)
    # 2e-4: of states up to 40 in float32, with weights of estimates that nearly cancel in theirs
    assert (ours - expected).abs().max() <= 2e-4
