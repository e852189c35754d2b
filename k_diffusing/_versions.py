"""Versions of packages, without importing them."""

import platform
from importlib import metadata

from k_diffusing import __version__

PROGRAMS = ("torch", "diffusers", "k-diffusion")  # whose numbers a result depends on
OTHERS = ("transformers", "accelerate", "safetensors", "numpy", "scipy", "torchsde")  # which can break a run


def package_versions(*names: str) -> dict[str, str | None]:
    """The version of each package by its name, as on PyPI; None for one that is not installed."""
    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = __version__ if name == "k-diffusing" else metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def environment() -> str:
    """A line for a report: the versions of all that a run depends on, Python's and the system's."""
    packages = package_versions("k-diffusing", *PROGRAMS, *OTHERS)
    named = (f"{name} {version or 'not installed'}" for name, version in packages.items())
    return f"{', '.join(named)}, Python {platform.python_version()}, {platform.platform()}"
