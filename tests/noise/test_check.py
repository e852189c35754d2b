"""What noise cannot be drawn from, and what it can."""

import numpy as np
import pytest
import torch
from noise_draws import SEEDED, generators

from k_diffusing.noise.check import check_noise
from k_diffusing.noise.choose import noise_streams
from k_diffusing.noise.sources import NOISE_SOURCES

BAD = {
    "a name": (("phlox", None, None), ValueError, "unknown noise 'phlox': did you mean 'philox'.*brownian_tree"),
    "not a name": ((3, None, None), TypeError, "noise is the name of a source, not 3.*comfy"),
    "both": (("torch", torch.Generator(), 7), ValueError, "seeds=7 and generator= each decide"),
    "too few seeds": (("torch", None, [1, 2]), ValueError, "2 seeds for 3 images"),
    "a negative seed": (("torch", None, -1), ValueError, "seed -1 is not in 0 to"),
    "a large seed": (("torch", None, [1, 2, 2**64]), ValueError, "18446744073709551616 is not in"),
    "a seed's type": (("torch", None, [1, 2, 0.5]), TypeError, "whole number"),
    "a generator's type": (("torch", 7, None), TypeError, "not 7"),
    "too few generators": (("torch", generators(1, 2), None), ValueError, "2 generators for 3 images"),
    **{f"{name} unseeded": ((name, None, None), ValueError, f"noise='{name}' starts from a seed") for name in SEEDED},
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    arguments, error, message = BAD[name]
    for call in (check_noise, lambda *given: noise_streams(*given, "cpu")):
        with pytest.raises(error, match=message):
            call(*arguments, 3)


class OnGpu(torch.Generator):
    """Stands in for a GPU's."""

    device = torch.device("cuda")


def test_the_cpu_source_wants_generators_of_the_cpu():
    with pytest.raises(ValueError, match=r"^noise='cpu' cannot draw from a generator on cuda: use torch.Generator"):
        check_noise("cpu", OnGpu(), None, 1)
    check_noise("torch", OnGpu(), None, 1)


def test_good_input_passes_and_registry_names_agree():
    for name, source in NOISE_SOURCES.items():
        assert source.name == name and source.reproduces and source.needs
        check_noise(name, None, [1, 2, np.int64(3)], 3)
        check_noise(name, generators(1)[0], None, 3)
    assert all((check_noise(name, None, None, 3) or True) for name in NOISE_SOURCES if name not in SEEDED)
