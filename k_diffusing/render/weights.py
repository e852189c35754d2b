"""What tells weights from others, without loading them: a fingerprint, or a commit of the hub."""

import hashlib
import os
from pathlib import Path

from k_diffusing.render.words import utf8

ENDS = 2**20  # bytes at both ends of a file that its fingerprint covers


def model_identity(model: str) -> dict[str, str | None]:
    """The name, the revision (of a hub model, as the local cache has it) and the fingerprint of weights.

    The fingerprint of a file or folder is the sha256 of names, sizes and the first and last MiB of every file: 24 GB
    take a second, and a change in the middle of a file that keeps its size goes unseen. That of a hub model is its
    commit; None as long as it is not in the cache.
    """
    path = Path(model)
    if path.exists():
        return {"name": utf8(path.resolve().name), "revision": None, "fingerprint": fingerprint(path)}
    commit = _cached_commit(model)
    return {"name": model, "revision": commit, "fingerprint": commit}


def fingerprint(path: Path) -> str:
    """sha256 over the names, sizes and both ends of a file, or of all files of a folder that are not hidden."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    total = hashlib.sha256()
    for file in files:
        name = file.name if file == path else file.relative_to(path).as_posix()
        if any(part.startswith(".") for part in name.split("/")):
            continue
        size = file.stat().st_size
        total.update(f"{name}\0{size}\0".encode("utf-8", "surrogateescape"))
        with file.open("rb") as stream:
            total.update(stream.read(ENDS))
            stream.seek(max(size - ENDS, 0))
            total.update(stream.read(ENDS))
    return total.hexdigest()


def _cached_commit(name: str) -> str | None:
    """The commit of "main" in huggingface_hub's cache; its rules for where that is, without importing it."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    cache = Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()
    try:
        return (cache / f"models--{name.replace('/', '--')}" / "refs" / "main").read_text(encoding="utf-8").strip()
    except OSError:
        return None


def steady(model: dict[str, str | None]) -> dict[str, str | None]:
    """A model's identity as far as it is the same before and after a download."""
    return model if model["revision"] is None and model["fingerprint"] else {"name": model["name"]}


def model_name(model: str) -> str:
    """A hub name as it is; of a folder or a file the last part."""
    return utf8(Path(model).resolve().name) if Path(model).exists() else model
