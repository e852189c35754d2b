"""A trace in files: one of JSON, and beside it, if tensors were kept, one of safetensors."""

import hashlib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from k_diffusing._files import write_whole
from k_diffusing.noise.interval import Interval
from k_diffusing.trace.entries import Draw, NetworkCall, Reading, State

WRITER = {"format": "pt", "written by": "Trace.save"}  # "format" as transformers has it
KINDS = {"calls": NetworkCall, "draws": Draw, "states": State}


def save(trace, path: str | Path) -> None:
    """Write path (JSON) and, if tensors were kept, the same name with .safetensors; each whole or not at all.

    Of an earlier trace saved there nothing is left.

    Args:
        trace: a Trace.
        path: of the JSON file.

    Raises:
        OSError: a file cannot be written.
    """
    path, tensors, texts = Path(path), {}, {}
    for name in KINDS:
        texts[name] = [_to_json(entry, f"{name}.{i}", tensors) for i, entry in enumerate(getattr(trace, name))]
    texts |= {name: getattr(trace, name) for name in ("sampler", "model", "coordinates", "size", "steps_from")}
    texts["sigmas"] = None if trace.sigmas is None else trace.sigmas.tolist()
    content = save_tensors(tensors, metadata=WRITER) if tensors else None
    texts["tensors"] = None if content is None else hashlib.sha256(content).hexdigest()
    beside = path.with_suffix(".safetensors")
    if content is not None:
        write_whole(beside, content)
    write_whole(path, json.dumps(texts).encode())
    if content is None and _is_ours(beside):
        beside.unlink()


def load(path: str | Path) -> dict[str, Any]:
    """Read what `save` wrote.

    Args:
        path: of the JSON file.

    Returns:
        The fields of the Trace, by name.

    Raises:
        ValueError: there is something else at path, or nothing; it says what is wrong.
    """
    path = Path(path)
    try:
        return _fields(json.loads(path.read_bytes()), path.with_suffix(".safetensors"))
    except KeyError as error:
        reason = f"it has no {error}"
    except (OSError, ValueError, OverflowError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}" if isinstance(error, OSError) else str(error)
    raise ValueError(f"{path} is not a trace: {reason}; give the .json file that Trace.save wrote")


def _is_ours(path: Path) -> bool:
    """Whether it is a safetensors file that a trace wrote."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() == WRITER
    except (OSError, SafetensorError):
        return False


def _to_json(entry: Any, key: str, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """An entry's fields as JSON has them; kept tensors go to `tensors`."""
    texts = {}
    for name, value in vars(entry).items():
        if isinstance(value, Reading):
            texts[name] = {"stats": value.stats.tolist(), "dtype": str(value.dtype).removeprefix("torch.")}
            if value.values is not None:  # a file may not have one tensor under two names
                twice = any(value.values is other for other in tensors.values())
                tensors[f"{key}.{name}"] = value.values.clone() if twice else value.values.contiguous()
        elif isinstance(value, Interval):
            levels = {"sigma": value.sigma, "sigma_next": value.sigma_next}
            texts |= {level: None if sigma is None else float(sigma) for level, sigma in levels.items()}
        else:
            texts[name] = float(value) if isinstance(value, torch.Tensor) else value
    return texts


def _fields(texts: Any, beside: Path) -> dict[str, Any]:
    """Those of a Trace in these texts and the file of tensors beside them; ValueError or KeyError if there are none."""
    _check(isinstance(texts, dict), "it is a JSON file of something else")
    tensors, found = None, {}
    if texts["tensors"] is not None:
        content = beside.read_bytes()
        whole = hashlib.sha256(content).hexdigest() == texts["tensors"]
        _check(whole, f"{beside} is damaged, or holds the tensors of another run")
        tensors = load_tensors(content)
    found["tensors"] = tensors is not None
    for name in ("sampler", "model"):
        _check(texts[name] is None or isinstance(texts[name], str), f"{name} is {texts[name]!r}, not a text")
        found[name] = texts[name]
    for name, choices in (("coordinates", ("ve", "flow")), ("steps_from", ("sampler", "calls", None))):
        _check(texts[name] in choices, f"{name} is {texts[name]!r}, not one of {choices}")
        found[name] = texts[name]
    if texts["size"] is not None:
        found["size"] = tuple(_whole(value, "size") for value in _list(texts["size"], "size", 2))
    if texts["sigmas"] is not None:
        found["sigmas"] = torch.tensor([_real(value, "sigmas") for value in _list(texts["sigmas"], "sigmas")])
    for name, kind in KINDS.items():
        entries = enumerate(_list(texts[name], name))
        found[name] = [_entry(kind, entry, f"{name}.{i}", tensors) for i, entry in entries]
    return found


def _entry(kind: type, texts: Any, key: str, tensors: dict[str, torch.Tensor] | None) -> Any:
    """A NetworkCall, Draw or State, by the types of its fields."""
    _check(isinstance(texts, dict), f"{key} is {texts!r:.40}")
    values = {}
    for one in fields(kind):
        name = f"{key}.{one.name}"
        if one.type is Interval:
            values[one.name] = _interval(texts, key)
        elif one.type is Reading:
            values[one.name] = _reading(texts[one.name], name, tensors)
        elif one.type is int:
            values[one.name] = _whole(texts[one.name], name)
        else:
            values[one.name] = torch.tensor(_real(texts[one.name], name))
    return kind(**values)


def _interval(texts: dict[str, Any], key: str) -> Interval:
    """That of a draw; null in its texts stands for a level that was not told, and then it is churn."""
    told = [(f"{key}.{name}", texts[name]) for name in ("sigma", "sigma_next")]
    levels = [None if value is None else torch.tensor(_real(value, name)) for name, value in told]
    return Interval(*levels, raised=None in levels)


def _reading(texts: Any, key: str, tensors: dict[str, torch.Tensor] | None) -> Reading:
    _check(isinstance(texts, dict), f"{key} is {texts!r:.40}")
    stats = torch.tensor([_real(value, key) for value in _list(texts["stats"], key, 3)])
    dtype = getattr(torch, texts["dtype"], None) if isinstance(texts["dtype"], str) else None
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{key} has the dtype {texts['dtype']!r:.40}")
    return Reading(stats, dtype, None if tensors is None else tensors[key])


def _check(right: bool, reason: str) -> None:
    if not right:
        raise ValueError(reason)


def _list(value: Any, key: str, length: int | None = None) -> list:
    right = isinstance(value, list) and length in (None, len(value))
    _check(right, f"{key} is {value!r:.40}, not a list" + (f" of {length}" if length else ""))
    return value


def _whole(value: Any, key: str) -> int:
    _check(type(value) is int and 0 <= value < 2**63, f"{key} is {value!r:.40}, not a count")
    return value


def _real(value: Any, key: str) -> float:
    _check(type(value) in (int, float), f"{key} is {value!r:.40}, not a number")
    return float(value)
