"""Versions of packages, without importing them."""

from importlib import metadata

from k_diffusing import __version__

PROGRAMS = ("torch", "diffusers", "k-diffusion")  # whose numbers a result depends on


def package_versions(*names: str) -> dict[str, str | None]:
    """The version of each package by its name, as on PyPI; None for one that is not installed."""
    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = __version__ if name == "k-diffusing" else metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found
