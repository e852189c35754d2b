"""A sampler that fails: the error, with where in the user's own code it was raised."""

import contextlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from k_diffusing.trace.record import Trace

PACKAGE = Path(__file__).resolve().parents[1]
PIPELINES = ("sdxl_comfy_pipeline.py", "flux_comfy_pipeline.py")
SHOWN = 5  # frames


class SamplerError(RuntimeError):
    """A sampler raised an error, never called the model or returned what are no latents."""


@contextlib.contextmanager
def sampler_errors(label: str, function: str | Callable, trace: Trace) -> Iterator[None]:
    """Blame a sampler for what is raised inside once its run has begun; what is raised before, by checks, stays so.

    Args:
        label: what the sampler was named by.
        function: the sampler, the frames of whose own code are told.
        trace: a new one, given to the pipeline.

    Raises:
        SamplerError: the sampler failed.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        if trace.sigmas is None:
            raise
        lines = [f"{label} failed: {type(error).__name__}: {error}", *_frames(function, error)]
        raise SamplerError("\n".join(lines)) from error


def _frames(function: str | Callable, error: BaseException) -> list[str]:
    """Those that lie in the function's folder, and neither in a package nor in this project, the innermost last."""
    try:
        file = None if isinstance(function, str) else inspect.getsourcefile(inspect.unwrap(function))
    except TypeError:  # an object, or a builtin
        return []
    if file is None:
        return []
    folder = Path(file).resolve().parent
    modules = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    loaded = map(Path, filter(None, modules))
    ours = {path for path in loaded if path.is_relative_to(PACKAGE) or path.name in PIPELINES}
    kept = []
    for frame in traceback.extract_tb(error.__traceback__):
        path = Path(frame.filename).resolve()
        if path.is_relative_to(folder) and path not in ours and "site-packages" not in path.parts:
            kept.append(f"  {path.name}:{frame.lineno}, in {frame.name}: {frame.line}")
    return kept[-SHOWN:]
