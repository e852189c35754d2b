"""The bundled demo models, and pipelines loaded by name."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
# In an installed copy they lie in the package, in a checkout beside it.
DEMO_MODELS = next(path for path in (_PACKAGE / "demo_models", _PACKAGE.parent / "demo_models") if path.is_dir())
