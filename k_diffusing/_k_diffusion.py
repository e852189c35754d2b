"""k_diffusion's sampling functions, importable also where `import k_diffusion` is not.

The package's `__init__` imports training code (clip, clean-fid, dctorch, ...) that is missing or fails on machines
where sampling would run: `make` installs none of it, clip wants `pkg_resources`, gone from setuptools 82, and
torchvision may be built for another torch. Sampling needs none of these. A later `import k_diffusion` of the user
gives the same module objects, whichever way they were loaded.

A torchvision that cannot be imported breaks diffusers' pipelines too: this module hides it from them. They do without
one, of which transformers would warn at each start.
"""

import contextlib
import importlib
import importlib.util
import logging
import sys
import types
import warnings

REQUIREMENT = "k-diffusion>=0.1.1,<0.2"


def hide_broken_torchvision() -> None:
    """Make an installed torchvision that fails to import count as not installed.

    transformers asks only whether torchvision is installed, imports it, and takes diffusers down with it; with
    the name blocked it falls back to Pillow. A torchvision that works is left alone.
    """
    if "torchvision" in sys.modules or importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
    except Exception:  # RuntimeError (operators of another torch), OSError (libraries), ImportError: all the same to us
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        sys.modules["torchvision"] = None  # pyright: ignore[reportArgumentType] - so an import is blocked
        if "diffusers" in sys.modules:  # it has looked for torchvision already, and found it
            sys.modules["diffusers"].utils.import_utils._torchvision_available = False


def hush_advice_on_torchvision() -> None:
    """Let transformers not advise to install torchvision whenever diffusers imports its image processors.

    Pictures are processed by Pillow then, and only where an IP-Adapter has one.
    """
    logger = logging.getLogger("transformers.utils.import_utils")
    logger.addFilter(lambda record: "requires torchvision (not installed)" not in record.getMessage())


@contextlib.contextmanager
def torchvision_stand_in():
    """Empty torchvision modules for the length of an import, where the real ones are not to be had.

    `k_diffusion.utils` imports `torchvision.transforms.functional` for two helpers that sampling never calls.
    """
    if sys.modules.get("torchvision") is not None or importlib.util.find_spec("torchvision") is not None:
        yield
        return
    names = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
    before = {name: sys.modules[name] for name in names if name in sys.modules}
    modules = {name: types.ModuleType(name) for name in names}
    for name in names[1:]:
        parent, _, attribute = name.rpartition(".")
        setattr(modules[parent], attribute, modules[name])
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]
        sys.modules.update(before)


def bare_package(name: str) -> types.ModuleType:
    """The package `name` without running its `__init__`; submodules are imported when they are asked for."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        cure = f'pip install --no-deps "{REQUIREMENT}"'
        raise ImportError(
            f"{name} is not installed: {cure} (its own requirements are for training)", name=name
        ) from None
    package = importlib.util.module_from_spec(spec)

    def import_submodule(attribute: str):
        full_name = f"{name}.{attribute}"
        if attribute.startswith("__") or importlib.util.find_spec(full_name) is None:
            raise AttributeError(f"module {name!r} has no attribute {attribute!r}")
        return importlib.import_module(full_name)

    vars(package)["__getattr__"] = import_submodule
    sys.modules[name] = package
    return package


def import_k_sampling() -> types.ModuleType:
    """The module `k_diffusion.sampling`, by the package's own `__init__` if it runs, without it if not."""
    hide_broken_torchvision()
    hush_advice_on_torchvision()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="pkg_resources is deprecated")  # clip's, not the user's
        try:
            importlib.import_module("k_diffusion")
        except Exception:  # whichever of its training dependencies failed, sampling needs none of them
            bare_package("k_diffusion")
        with torchvision_stand_in():
            return importlib.import_module("k_diffusion.sampling")


k_sampling = import_k_sampling()
