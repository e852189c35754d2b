"""What a grid calls a sampler that the command line names by where it comes from; standard library only.

k:sample_euler,eta=0.5               euler,eta=0.5
DPM++ 2M SDE Karras                  dpmpp_2m_sde_karras
diffusers:UniPCMultistepScheduler    UniPCMultistepScheduler
comfy:sample_er_sde                  comfy:er_sde
/home/me/v2/mine.py:my_heun          mine.py:my_heun, or v2/mine.py:my_heun beside v1/mine.py:my_heun
"""

import hashlib
import importlib.util
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from k_diffusing.names.texts import sampler_text
from k_diffusing.samplers.named import find_name

COMFYUI = "comfy/k_diffusion/sampling.py"


def sampler_names(texts: Iterable[str]) -> dict[str, str]:
    """Each sampler's name, and the text that named it first: two texts for one sampler are one."""
    texts = list(texts)
    files = {path for text in texts if (path := file_of(text))}
    found = {}
    for text in texts:
        found.setdefault(_name(text, files), text)
    return found


def grid_names(texts: Iterable[str]) -> dict[str, str]:
    """Each sigma grid's name, and the text that named it: of a file that can be read its name and its content's sum."""
    found = {}
    for text in texts:
        path = Path(text)
        if path.suffix.lower() == ".json" and path.is_file():
            found.setdefault(f"{path.stem}-{_digest(path.read_bytes())[:8]}.json", text)
        else:
            found.setdefault(text, text)
    return found


def file_of(text: str) -> Path | None:
    """The user's file that a sampler is in."""
    kind, _, _ = text.split(",")[0].rpartition(":")
    return Path(kind).resolve() if kind.endswith(".py") else None


def _name(text: str, files: set[Path]) -> str:
    (kind, name, options), source = sampler_text(text), text.split(",")[0].strip()
    if kind == "k":
        found = find_name(name)
        source = found.name if found else name.removeprefix("sample_")
    elif kind == "diffusers" and name.endswith("Scheduler"):
        source = name
    elif kind == "comfy":
        source = f"comfy:{name.removeprefix('sample_')}"
    elif file := file_of(text):
        source = f"{_tail(file, files)}:{name}"
    return ",".join([source, *options])


def _tail(file: Path, files: set[Path]) -> str:
    """As little of a path's end as tells it from the other files'; nothing else of the machine's folders."""
    parts = next(n for n in range(1, len(file.parts) + 1) if sum(f.parts[-n:] == file.parts[-n:] for f in files) == 1)
    return "/".join(file.parts[-parts:])


def full_name(name: str) -> str:
    """As a picture's text has it: k_diffusion's samplers with their prefix."""
    source = name.split(",")[0]
    return name if ":" in source or source.endswith("Scheduler") else f"sample_{name}"


def file_tags(names: Iterable[str]) -> dict[str, str]:
    """For each sampler a part of files' names: letters, digits, dots, underscores; no two differ in case alone."""
    tags = {name: re.sub(r"[^\w.]+", "_", name.replace("=", ""), flags=re.ASCII) for name in names}
    count = Counter(tag.lower() for tag in tags.values())
    unlike = {name for name, tag in tags.items() if count[tag.lower()] > 1 or len(tag) > 80}
    return {name: f"{tag[:80]}_{_digest(name.encode())[:6]}" if name in unlike else tag for name, tag in tags.items()}


def contents(names: dict[str, str]) -> dict[str, str]:
    """The sha256, shortened, of each file that samplers are in and that can be read; not of what it imports."""
    found = {}
    for name, text in names.items():
        label, path = name.split(",")[0].rpartition(":")[0], file_of(text)
        if label == "comfy":
            label, path = COMFYUI, _comfyui_file()
        if path is not None and path.is_file():
            found[label] = _digest(path.read_bytes())[:12]
    return found


def _comfyui_file() -> Path | None:
    """Where ComfyUI's samplers are in the user's own install; nothing of it is imported."""
    spec = importlib.util.find_spec("comfy")
    folders = [] if spec is None else spec.submodule_search_locations or []
    return next((path for folder in folders if (path := Path(folder).parent / COMFYUI).is_file()), None)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
