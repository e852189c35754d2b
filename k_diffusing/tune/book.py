"""What was measured so far, in a folder, so that a run that was ended goes on where it was."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from k_diffusing._files import write_whole
from k_diffusing.tune.fine import Fine


def digest(facts: Any) -> str:
    """12 hexadecimal digits of the sha256 of what JSON can hold, and of tensors in it."""

    def plain(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return hashlib.sha256(value.detach().float().cpu().numpy().tobytes()).hexdigest()
        return repr(value)

    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=plain).encode()).hexdigest()[:12]


class Book:
    """Errors by what was run, and fine runs; kept in a folder if there is one."""

    def __init__(self, folder: Path | None, pictures: Any, facts: Any):
        """pictures: all that a fine run depends on. facts: what an error depends on besides."""
        self.folder, self.of_pictures, self.of_errors = folder, digest(pictures), digest([pictures, facts])
        self.errors: dict[str, list[float]] = {}
        path = self._file(f"errors-{self.of_errors}.json")
        if path is not None and path.exists():
            self.errors = json.loads(path.read_text(encoding="utf-8"))

    def _file(self, name: str) -> Path | None:
        return None if self.folder is None else self.folder / name

    def note(self, key: str, errors: list[float]) -> None:
        """Keep the errors of a run."""
        self.errors[key] = errors
        path = self._file(f"errors-{self.of_errors}.json")
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, json.dumps(self.errors).encode())

    def fine(self, name: str, make: Callable[[], Fine], own: bool = False) -> Fine:
        """A fine run, made unless it is there; own: whether it is the sampler's, and not that of all of them."""
        path = self._file(f"fine-{self.of_errors if own else self.of_pictures}-{name}.safetensors")
        if path is None:
            return make()
        from safetensors.torch import load_file, save

        if path.exists():
            kept = load_file(path)
            sigmas, change, turn = (kept[key].numpy() for key in ("sigmas", "change", "turn"))
            return Fine(sigmas, change, turn, kept["ends"], tuple(kept["shape"].tolist()))
        found = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {key: torch.from_numpy(np.array(getattr(found, key))) for key in ("sigmas", "change", "turn")}
        arrays |= {"ends": found.ends.contiguous(), "shape": torch.tensor(found.shape)}
        write_whole(path, save(arrays))
        return found
