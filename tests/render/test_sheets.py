"""Contact sheets: the layout of one column, tables of 2 to 40, and which sheets a grid has."""

import pytest
import trivial_grid
from PIL import Image, ImageFont

from k_diffusing.render import report as grid_report
from k_diffusing.render import sheets as contact_sheet
from k_diffusing.render.axes import Axes
from k_diffusing.render.cells import Solver
from k_diffusing.render.folder import RunFolder

SAMPLERS = ("euler", "dpmpp_2s_ancestral")


def tiles(count, size):
    colours = [(200, 40 + 10 * i, 30) for i in range(count)]
    return [(f"sampler_{i}", "28 nfe", Image.new("RGB", size, colour)) for i, colour in enumerate(colours)]


def test_contact_sheet_shows_every_picture_in_order():
    made = tiles(13, (128, 128))
    sheet = contact_sheet.contact_sheet(made, "model", "prompt")
    assert sheet.size == (2 * 24 + 5 * 256 + 4 * 16, 84 + 24 + 3 * (256 + 34) + 2 * 16)
    for i, (_, _, picture) in enumerate(made):
        x, y = 24 + i % 5 * 272, 84 + i // 5 * 306
        assert sheet.getpixel((x, y)) == sheet.getpixel((x + 255, y + 255)) == picture.getpixel((0, 0))
        label = sheet.crop((x, y + 258, x + 256, y + 290)).convert("L")
        assert label.getextrema()[0] < 60 and label.getextrema()[1] == 255
    last = sheet.crop((24 + 3 * 272, 84 + 2 * 306, *sheet.size))
    assert last.getextrema() == ((255, 255),) * 3  # two places of the last row are empty
    heading = sheet.crop((0, 0, sheet.width, 84)).convert("L")
    assert heading.getextrema()[0] < 60


SHOWN = {(1024, 512): (384, 192), (300, 200): (300, 200), (64, 32): (256, 128), (256, 1024): (96, 384)}


@pytest.mark.parametrize(("size", "shown"), SHOWN.items())
def test_contact_sheet_scales_pictures(size, shown):
    sheet = contact_sheet.contact_sheet(tiles(1, size), "model", "a very long prompt\nin two lines " * 20)
    assert sheet.size == (2 * 24 + max(shown[0], 256), 84 + 24 + shown[1] + 34)
    assert sheet.getpixel((24, 84)) == sheet.getpixel((23 + shown[0], 83 + shown[1])) == (200, 40, 30)
    assert sheet.crop((sheet.width - 24, 0, sheet.width, 84)).getextrema() == ((255, 255),) * 3


def tile_of(size=(128, 128), missing=()):
    """tile(i, j) of a table whose pictures tell their place by their colour."""
    return lambda i, j: (
        None if (i, j) in missing else (Image.new("RGB", size, (200, 10 * i, 5 * j)), f"{10 * j + 1} nfe")
    )


@pytest.mark.parametrize("columns", [2, 5, 12, 40])
def test_table_shows_every_picture(columns):
    titles = [f"{5 * (j + 1)} steps" for j in range(columns)]
    sheet = contact_sheet.table_sheet(list(SAMPLERS), titles, tile_of(missing={(1, 1)}), "model", "prompt")
    colours = {colour for _, colour in sheet.getcolors(2**24)}
    shown = {(200, 10 * i, 5 * j) for i in range(2) for j in range(columns)}
    assert shown & colours == shown - {(200, 10, 5)}
    assert sheet.width <= 40 * 136 + 400
    smallest = min(side for _, side in [sheet.size]) if columns == 2 else 400
    assert smallest >= 400


def test_labels_are_high_enough_to_read():
    left, top, right, bottom = ImageFont.load_default(size=22).getbbox("d0")
    assert bottom - top >= 15


def test_long_labels_are_wrapped_then_shortened():
    font = ImageFont.load_default(size=22)
    lines = contact_sheet.wrapped("a large yellow square on a purple background", font, 128, 3)
    assert len(lines) == 3 and lines[-1].endswith("...") and all(font.getlength(line) <= 128 for line in lines)
    assert contact_sheet.wrapped("dpmpp_2s_ancestral", font, 130, 3) == ["dpmpp_2s_", "ancestral"]
    assert contact_sheet.wrapped("EulerDiscreteScheduler", font, 160, 3) == ["EulerDiscrete", "Scheduler"]
    assert contact_sheet.wrapped("v2/mine.py:my_heun,eta=0.5", font, 130, 3) == ["v2/mine.py:", "my_heun,", "eta=0.5"]
    assert contact_sheet.wrapped("euler", font, 130, 3) == ["euler"]
    assert contact_sheet.wrapped("", font, 130, 3) == [""]


def test_long_names_stay_under_their_tiles():
    tiles = [("FlowMatchEulerDiscreteScheduler,shift=3.0", "100 nfe", Image.new("RGB", (256, 256)))] * 2
    sheet = contact_sheet.contact_sheet(tiles, "", "")
    right = contact_sheet.MARGIN + 256
    gap = sheet.crop((right, contact_sheet.HEAD, right + contact_sheet.GAP, sheet.height))
    assert gap.getcolors() == [(gap.width * gap.height, (255, 255, 255))]
    bottom = sheet.crop((0, sheet.height - 6, sheet.width, sheet.height))
    assert len(bottom.getcolors()) == 1  # the last line has room


class Measured:
    """A font that counts how often it is asked."""

    def __init__(self):
        self.font, self.asked = ImageFont.load_default(size=18), 0

    def getlength(self, text):
        self.asked += 1
        return self.font.getlength(text)


@pytest.mark.parametrize("text", ["", "a", "iiii", "two words", "a red circle on a blue background " * 3, "W" * 4000])
@pytest.mark.parametrize("width", [0, 20, 60, 200])
def test_as_much_as_fits_is_found_in_few_looks(text, width):
    font = Measured()
    found = contact_sheet.shortened(text, font, width)
    assert font.asked <= 2 + len(text).bit_length()
    if font.getlength(text) <= width:
        assert found == text
    else:
        kept = len(found) - len("...")
        assert found == text[:kept] + "..." and (kept == 0 or font.getlength(found) <= width)
        longer = text[: kept + 1] + "..."
        assert font.getlength(longer) > width or len(longer) >= len(text)  # one that is no shorter says less


def test_files_are_closed(tmp_path):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    sheet = contact_sheet.table_sheet(["a"], ["b"], lambda i, j: (tmp_path / "a.png", "1 nfe"), "", "")
    assert (255, 0, 0) in {colour for _, colour in sheet.getcolors(2**24)}
    with contact_sheet.opened(tmp_path / "a.png") as picture:
        file = picture.fp
    assert file.closed


def sheets(**axes):
    solvers = (Solver("euler"), Solver("dpmpp_sde", 2, has_eta=True))
    found = grid_report.sheets("sdxl", Axes(solvers, **{"steps": (5,), **axes}))
    return [(sheet.file, sheet.column, len(sheet.shown), sheet.converged) for sheet in found]


def test_which_sheets_a_grid_has():
    assert sheets() == [("sdxl-samplers.png", None, 0, False)]
    assert sheets(steps=(5, 10)) == [("sdxl-samplers.png", "steps", 2, False)]
    assert sheets(steps=(), budgets=(5, 10), reference=9) == [("sdxl-samplers.png", "budget", 2, True)]
    assert sheets(seeds=(0, 1), etas=(0.0, 1.0), reference=9) == [
        ("sdxl-samplers-eta0.png", "seed", 2, False),
        ("sdxl-samplers-eta1.png", "seed", 2, False),
    ]
    assert [file for file, *_ in sheets(seeds=tuple(range(90)))] == [
        "sdxl-samplers.png",
        "sdxl-samplers-part2.png",
        "sdxl-samplers-part3.png",
    ]


def places(folder, axes, sheet):
    """The file in each place of a sheet, by row and column."""
    args = trivial_grid.arguments(["--output", str(folder)])
    found = {}

    def note(rows, columns, tile, heading, caption):
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                place = tile(i, j)
                found[row, column] = place and place[0].name
        return Image.new("RGB", (1, 1))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grid_report, "table_sheet", note)
        patch.setattr(grid_report, "sheets", lambda *_: [sheet])
        grid_report.write_sheets(RunFolder(folder, "sdxl"), args, axes)
    return found


def test_converged_column_and_a_missing_cell(tmp_path):
    argv = ["--samplers", "euler", "dpmpp_sde", "--steps", "4", "8", "--seeds", "0", "1", "--eta", "0", "1"]
    assert trivial_grid.main([*argv, "--output", str(tmp_path)]) == 0
    (tmp_path / "sdxl-sample_euler-steps8-seed1.png").unlink()
    solvers = tuple(trivial_grid.check(trivial_grid.arguments(argv)))
    axes = Axes(solvers, (4, 8), (), (0, 1), ("a prompt",), (None,), (5.0,), (None,), etas=(0.0, 1.0), reference=200)
    last = list(grid_report.sheets("sdxl", axes))[-1]
    assert last.file == "sdxl-samplers-seed1-eta1.png"
    assert places(tmp_path, axes, last) == {
        ("euler", "4 steps"): "sdxl-sample_euler-steps4-seed1.png",
        ("euler", "8 steps"): None,
        ("euler", "converged"): "sdxl-converged-seed1.png",
        ("dpmpp_sde", "4 steps"): "sdxl-sample_dpmpp_sde-steps4-seed1-eta1.png",
        ("dpmpp_sde", "8 steps"): "sdxl-sample_dpmpp_sde-steps8-seed1-eta1.png",
        ("dpmpp_sde", "converged"): "sdxl-converged-seed1.png",
    }
