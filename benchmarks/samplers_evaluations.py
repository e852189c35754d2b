"""README's contact sheet: five samplers against evaluations on the SDXL demo model, and what they converge to.

python benchmarks/samplers_evaluations.py    # a minute on one core; into docs/images/samplers-evaluations.png
"""

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import test  # noqa: E402
from k_diffusing._files import write_whole  # noqa: E402

SAMPLERS = ("euler", "heun", "dpmpp_2m", "euler_ancestral", "dpmpp_2m_sde")
PICTURE, WIDTH, COLOURS = ROOT / "docs" / "images" / "samplers-evaluations.png", 770, 64


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        grid = ["--evaluations", "5", "10", "20", "40", "--sigma-grid", "karras", "--output", folder]
        code = test.main(["--samplers", *SAMPLERS, *grid])
        if code:
            return code
        with Image.open(Path(folder) / "sdxl-samplers.png") as sheet:
            small = sheet.convert("RGB").resize((WIDTH, round(sheet.height * WIDTH / sheet.width)), Image.LANCZOS)
    content = io.BytesIO()
    small.quantize(COLOURS, dither=Image.Dither.NONE).save(content, format="png", optimize=True)
    write_whole(PICTURE, content.getvalue())
    print(f"wrote {PICTURE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
