"""The data files, docs/data/NAME.json: a head, which says when, on what and with what, and the rows."""

import datetime
import functools
import hashlib
import io
import json
import os
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.record import Benchmark, Data, Row
from k_diffusing._files import write_whole
from k_diffusing._versions import PROGRAMS, package_versions
from k_diffusing.models import DEMOS

if TYPE_CHECKING:
    from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "data"
WEIGHTS = {"demo": ROOT / "demo_models" / "sdxl-shapes", "demo-flux": ROOT / "demo_models" / "flux-shapes"}


def path_of(name: str) -> Path:
    return FOLDER / f"{name}.json"


def read(name: str) -> Data:
    """What was measured, by the benchmark's name; without rows if nothing was."""
    path = path_of(name)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"rows": []}


def write(name: str, data: Data) -> None:
    """A line for each key of the head, and for each row."""
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in data.items() if key != "rows"]
    rows = ",\n".join(f"  {json.dumps(row)}" for row in data["rows"])
    FOLDER.mkdir(parents=True, exist_ok=True)
    write_whole(path_of(name), ("{\n" + ",\n".join([*lines, f' "rows": [\n{rows}\n ]']) + "\n}\n").encode())


def head(benchmark: Benchmark) -> Data:
    """What stands above rows that are measured now."""
    theirs = {"ComfyUI": comfyui_version()} if "COMFYUI" in benchmark.needs else {}
    return {
        "measured": datetime.date.today().isoformat(),
        "machine": f"{_processor()}, {os.cpu_count()} cores",
        "versions": package_versions(*PROGRAMS) | theirs,
        **conditions(benchmark),
    }


def conditions(benchmark: Benchmark) -> Data:
    """What rows must have been measured with to stay: of what measures times, the models' shapes alone.

    calls: how the models are called by default.
    """
    digest = shapes_digest if benchmark.alone else weights_digest
    models = {name: digest(name) for name in benchmark.models}
    calls = {name: DEMOS[name].call for name in benchmark.models}
    return {"models": models, "calls": calls, "settings": json.loads(json.dumps(benchmark.settings))}


def is_stale(benchmark: Benchmark, data: Data) -> bool:
    """Whether rows are of other settings, weights or calls."""
    return bool(data["rows"]) and any(data.get(key) != value for key, value in conditions(benchmark).items())


def missing(benchmark: Benchmark, rows: list[Row]) -> list[Row]:
    """The cells that no row is of."""
    return [cell for cell in benchmark.cells() if not any(cell.items() <= row.items() for row in rows)]


def in_order(benchmark: Benchmark, rows: list[Row]) -> list[Row]:
    """The rows in the order of the cells, without those of no cell; of two rows of a cell the later one."""
    last_first = rows[::-1]
    found = (next((row for row in last_first if cell.items() <= row.items()), None) for cell in benchmark.cells())
    return [row for row in found if row is not None]


def select(data: Data, **cell) -> list[Row]:
    """The rows of a cell, or of all cells with these values."""
    return [row for row in data["rows"] if cell.items() <= row.items()]


@functools.cache
def weights_digest(model: str) -> str:
    """12 hexadecimal digits of the sha256 of a demo model's weights."""
    found = hashlib.sha256()
    for path in sorted(WEIGHTS[model].rglob("*.safetensors")):
        found.update(path.read_bytes())
    return found.hexdigest()[:12]


@functools.cache
def shapes_digest(model: str) -> str:
    """12 hexadecimal digits of the sha256 of the names, shapes and dtypes of a demo model's weights."""
    return hashlib.sha256(json.dumps(heads(model), sort_keys=True).encode()).hexdigest()[:12]


def heads(model: str) -> dict[str, dict[str, tuple[str, list[int]]]]:
    """The tensors of each part of a demo model, by the part's name."""
    return {path.parent.name: tensors(path) for path in sorted(WEIGHTS[model].rglob("*.safetensors"))}


def tensors(path: Path) -> dict[str, tuple[str, list[int]]]:
    """The dtype and the shape of each tensor of a safetensors file, which stand at its head."""
    with path.open("rb") as file:
        head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {name: (tensor["dtype"], tensor["shape"]) for name, tensor in head.items() if name != "__metadata__"}


def made(path: Path) -> Row:
    """What the row of a file says of it, which was itself what was made."""
    return {"file": path.relative_to(ROOT).as_posix(), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def made_webp(path: Path, picture: "Image.Image", quality: int) -> Row:
    """Write a picture whole; and what its row says."""
    content = io.BytesIO()
    picture.save(content, format="webp", quality=quality, method=6)
    write_whole(path, content.getvalue())
    return made(path)


def comfyui_version() -> str:
    """Of the ComfyUI whose folder COMFYUI names."""
    text = (Path(os.environ["COMFYUI"]) / "comfyui_version.py").read_text(encoding="utf-8")
    return re.findall(r'__version__ = "(.+?)"', text)[0]


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
