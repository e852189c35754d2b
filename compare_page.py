"""A comparison of two samplers as a figure and as one HTML page.

page(comparison)          # str: no file beside it, and no request leaves it
figure_png(comparison)    # bytes; needs matplotlib
"""

import base64
import io
import math
from html import escape
from textwrap import shorten

from PIL import Image

PAPER_INK_A_B_PARTING = {
    False: ("#ffffff", "#1b1f24", "#2166ac", "#c4571a", "#b3261e"),
    True: ("#15181c", "#e4e7eb", "#74b3f0", "#f2a15f", "#ff9c92"),  # dark
}
SHOWN = 384  # CSS pixels: smaller pictures are enlarged to this
STRIP_HEIGHT = 256  # pixels: film strips that are higher are made smaller
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

CSS = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1f24; --quiet: #58616b; --line: #d5dae0;
  --a: #2166ac; --b: #c4571a; --good: #176b33; --good-paper: #e8f4ec; --bad: #b3261e; --bad-paper: #fbeceb; }
@media (prefers-color-scheme: dark) { :root { --paper: #15181c; --ink: #e4e7eb; --quiet: #9aa4af; --line: #363d45;
  --a: #74b3f0; --b: #f2a15f; --good: #77d193; --good-paper: #16291d; --bad: #ff9c92; --bad-paper: #331a19; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 62rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { margin: 0; font-size: 1.6rem; line-height: 1.25; }
h2 { margin: 2.25rem 0 .6rem; font-size: 1.1rem; }
p, ul, ol { margin: .4rem 0; }
code, td { font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: .9em; }
dt, th, .quiet { color: var(--quiet); }
.a, .b { color: var(--a); font-weight: 700; }
.b { color: var(--b); }
header { padding: 1rem 1.25rem; border-left: .5rem solid var(--tone); background: var(--tone-paper); }
header.agree { --tone: var(--good); --tone-paper: var(--good-paper); }
header.part { --tone: var(--bad); --tone-paper: var(--bad-paper); }
h1 span { color: var(--tone); }
.columns { display: flex; flex-wrap: wrap; gap: 0 3rem; }
.columns > section { flex: 1 1 19rem; min-width: 0; }
.columns > .pictures { flex: 0 1 auto; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1rem; margin: 0; }
dd { margin: 0; }
.compared { max-width: 100%; }
.wipe { position: relative; cursor: ew-resize; touch-action: pan-y; user-select: none; }
.wipe img { position: absolute; width: 100%; height: 100%; }
.wipe img + img { clip-path: inset(0 0 0 var(--cut)); }
.wipe::after { content: ""; position: absolute; inset: 0 auto 0 var(--cut); width: 2px; margin-left: -1px;
  background: #fff; box-shadow: 0 0 0 1px #0008; }
.slider { width: calc(100% + 16px); height: 1.5rem; margin: .4rem -8px; accent-color: var(--ink); cursor: ew-resize; }
.names { display: grid; grid-template-columns: 1fr 1fr; gap: 1.5rem; }
.names span + span { text-align: right; }
.figure { display: block; width: 100%; max-width: 36rem; height: auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; min-width: 46rem; width: 100%; }
th { font-weight: 400; font-size: .9em; }
th, td { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th[colspan] { text-align: center; }
tr > .found { text-align: left; }
td:first-child { position: sticky; left: 0; background: var(--paper); }
.parting td { background: var(--bad-paper); border-block: 2px solid var(--bad); }
.strip { display: block; height: 7rem; max-width: none; margin-bottom: .75rem; }
"""

SCRIPT = """
const wipe = document.querySelector(".wipe"), slider = document.querySelector(".slider");
function show() {
  wipe.style.setProperty("--cut", slider.value + "%");
  slider.setAttribute("aria-valuetext", `a in the left ${slider.value} %, b in the rest`);
}
function drag(event) {
  const box = wipe.getBoundingClientRect();
  if (event.buttons) { slider.value = 100 * (event.clientX - box.left) / box.width; show(); }
}
slider.addEventListener("input", show);
for (const kind of ["pointerdown", "pointermove"]) wipe.addEventListener(kind, drag);
show();
"""


def figure(comparison, dark: bool = False):
    """A matplotlib figure: rms of x and of denoised in both runs against sigma, and below it their distance.

    The last sigma, 0, is left out. Raises ImportError without matplotlib.
    """
    from matplotlib import figure as figures  # optional: pip install matplotlib

    paper, ink, *colors, red = PAPER_INK_A_B_PARTING[dark]
    drawn = figures.Figure(figsize=(5, 6.2), dpi=200, layout="constrained", facecolor=paper)
    labels = [f"{name}: {shorten(label, 60)}" for name, label in zip("ab", comparison.labels, strict=True)]
    drawn.suptitle("\n".join(labels), color=ink, fontsize=10, parse_math=False)
    top, bottom = drawn.subplots(2, 1, sharex=True)
    flow = "flow" in {trace.coordinates for trace in comparison.traces}
    for name, trace, color, width in zip("ab", comparison.traces, colors, (4, 1.5), strict=True):
        for quantity, points, line in zip(("x", "denoised"), _trajectory(trace, flow), ("-", "--"), strict=True):
            top.plot(*points, line, color=color, lw=width, label=f"{quantity} of {name}")
    top.set_ylabel("rms", color=ink)
    _plot_distance(bottom, comparison.difference, ink, red)
    bottom.set_ylabel("|a − b| / |a|", color=ink)
    bottom.set_xlabel(f"{'t' if flow else 'sigma'}, from the first step to the last", color=ink)
    bottom.invert_xaxis()
    for axes in (top, bottom):
        axes.set(facecolor=paper, xscale="log", yscale="log")
        axes.grid(color=ink, alpha=0.12)
        axes.tick_params(which="both", color=ink, labelcolor=ink)
        axes.spines[:].set_color(ink)
        axes.legend(facecolor=paper, edgecolor="none", labelcolor=ink, fontsize=9)
    return drawn


def _trajectory(trace, flow: bool) -> list[tuple[list[float], list[float]]]:
    """(sigmas, rms) of x and of each step's first denoised estimate; flow: in flow coordinates, whatever the run's."""
    scale = float(flow and trace.coordinates == "ve")  # if 1: x / (1 + sigma) at sigma / (1 + sigma)
    x = [(float(state.sigma), state.x.rms / (1 + scale * float(state.sigma))) for state in trace.states]
    denoised = [(float(call.sigma), call.denoised.rms) for call in trace.calls if call.stage == 0]
    return [_columns((sigma / (1 + scale * sigma), rms) for sigma, rms in points) for points in (x, denoised)]


def _columns(points) -> tuple[list[float], list[float]]:
    """The points that have a place on two log axes, as two lists."""
    kept = [point for point in points if all(0 < value < math.inf for value in point)]
    return [sigma for sigma, _ in kept], [value for _, value in kept]


def _plot_distance(axes, difference, ink: str, red: str) -> None:
    """The runs' distance at each step, the tolerance, and where they part."""
    for quantity, line in (("x", "o-"), ("denoised", "s:")):
        points = _columns((row.sigma[0], getattr(row, quantity)) for row in difference.rows)
        axes.plot(*points, line, color=ink, ms=3.5, lw=1, label=quantity)
    axes.axhline(difference.tolerance, color=ink, lw=1, ls="--", label=f"tolerance {difference.tolerance:g}")
    if difference.first and difference.first.step < len(difference.rows):
        sigma = difference.rows[difference.first.step].sigma[0]
        axes.axvline(sigma, color=red, lw=2, label=f"they part: {difference.unit} {difference.first.step}")


def figure_png(comparison, dark: bool = False) -> bytes:
    """`figure` as a PNG file. Raises ImportError without matplotlib."""
    buffer = io.BytesIO()
    figure(comparison, dark).savefig(buffer, format="png")
    return buffer.getvalue()


def page(comparison, strips: tuple[Image.Image, Image.Image] | None = None) -> str:
    """One HTML page, whole in itself. strips: the film strips of a and b, as `Trace.strip(pipe)` makes them."""
    title = escape(f"{' and '.join(comparison.labels)} {comparison.verdict}")
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<link rel="icon" href="data:,">\n<title>{title}</title>\n<style>{CSS}</style>\n</head>\n<body>',
            _verdict(comparison),
            f'<div class="columns">\n{_run(comparison)}\n{_pictures(comparison)}\n</div>',
            _section("Trajectories", _figure(comparison)),
            _section(f"{comparison.difference.unit.capitalize()}s", _table(comparison.difference)),
            _section("Findings", _findings(comparison.difference)),
            _section("Denoised estimates", _strips(comparison.labels, strips)) if strips else "",
            f"<script>{SCRIPT}</script>\n</body>\n</html>\n",
        ]
    )


def _section(heading: str, content: str, kind: str = "") -> str:
    return f'<section class="{kind}">\n<h2>{heading}</h2>\n{content}\n</section>'


def _data(png: bytes | Image.Image) -> str:
    """A data URI."""
    if isinstance(png, Image.Image):
        buffer = io.BytesIO()
        png.save(buffer, format="PNG")
        png = buffer.getvalue()
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _verdict(comparison) -> str:
    found, first = comparison.difference, comparison.difference.first
    kind, sign, said = "agree", "✓", found.verdict
    if first:
        kind, sign, said = "part", "≠", f"part at {found.unit} {first.step}"
    names = " and ".join(f"<code>{escape(label)}</code>" for label in comparison.labels)
    largest = f"{found.largest:.1e} at most, " if math.isfinite(found.largest) else ""
    sizes = f"{largest}{found.result:.1e} in the result; tolerance {found.tolerance:g}"
    lines = [f'<header class="{kind}">\n<h1><span aria-hidden="true">{sign}</span> {names} {said}</h1>']
    lines += [f"<p>{escape(str(first))}</p>"] if first else []
    lines.append(f'<p class="quiet">|a − b| / |a| of x: {sizes}</p>')
    lines += [f"<p><strong>Note:</strong> {escape(note)}</p>" for note in comparison.notes]
    return "\n".join([*lines, "</header>"])


def _run(comparison) -> str:
    """What was run."""
    lines = []
    for name, label, trace in zip("ab", comparison.labels, comparison.traces, strict=True):
        size = f"{trace.step_count} steps, " if trace.steps_from else ""
        size += f"{len(trace.calls)} network calls"
        lines.append(f'<dt class="{name}">{name}</dt><dd><code>{escape(label)}</code><br>{size}</dd>')
    for name, value in comparison.call.items():
        lines.append(f"<dt>{escape(name)}</dt><dd>{escape(str(value)) or '(empty)'}</dd>")
    return _section("What was run", "\n".join(["<dl>", *lines, "</dl>"]))


def _pictures(comparison) -> str:
    """Both pictures in one place, and the slider that wipes from one to the other."""
    width, height = comparison.pictures[0].size
    shown = round(width * max(1, SHOWN / max(width, height)))
    pictures, names = [], []
    for name, label, picture in zip("ab", map(escape, comparison.labels), comparison.pictures, strict=True):
        pictures.append(f'<img alt="picture of {name}, {label}" draggable="false" src="{_data(picture)}">')
        names.append(f'<span><b class="{name}">{name}</b> <code>{label}</code></span>')
    slider = '<input class="slider" type="range" value="50" aria-label="Wipe: a left of the line, b right of it">'
    lines = [f'<div class="compared" style="width: {shown}px">']
    lines += [f'<div class="wipe" style="aspect-ratio: {width} / {height}; --cut: 50%">', *pictures, "</div>"]
    lines += [slider, '<div class="names">', *names, "</div>\n</div>"]
    return _section("Pictures", "\n".join(lines), "pictures")


def _figure(comparison) -> str:
    try:
        light, dark = (_data(figure_png(comparison, dark)) for dark in (False, True))
    except ImportError:
        return "<p>The figure needs matplotlib: <code>pip install matplotlib</code></p>"
    alt = "rms of x and of denoised in both runs against sigma, and below it their distance: as in the table"
    source = f'<source media="(prefers-color-scheme: dark)" srcset="{dark}">'
    return f'<picture>\n{source}\n<img class="figure" alt="{alt}" src="{light}">\n</picture>'


def _table(found) -> str:
    rows = []
    for row in found.rows:
        numbers = [f"{sigma:.4f}" for sigma in row.sigma] + [f"{timestep:.2f}" for timestep in row.timestep]
        cells = [row.step, *numbers, f"{row.x:.1e}", f"{row.denoised:.1e}"]
        rows.append(_row(cells, row.parted, found.first if found.first and found.first.step == row.step else None))
    late = found.first if found.first and found.first.step == len(rows) else None  # one run has no such step
    rows.append(_row(["end", "", "", "", "", f"{found.result:.1e}", ""], None, late))
    return f"""<p class="quiet">x at the start of each {found.unit}, and the first denoised estimate in it</p>
<div class="scroll" tabindex="0" role="region" aria-label="Table of the {found.unit}s">
<table><thead><tr><th rowspan="2">{found.unit}</th><th colspan="2">sigma</th><th colspan="2">timestep</th>
<th colspan="2">|a − b| / |a|</th><th class="found" rowspan="2">what differs first in the {found.unit}</th></tr>
<tr><th>a</th><th>b</th><th>a</th><th>b</th><th>x</th><th>denoised</th></tr></thead>
<tbody>
{"".join(rows)}</tbody></table></div>"""


def _row(cells: list, differs: str | None, parting) -> str:
    """parting: the finding, in the row of the step in which the runs part."""
    text, kind = escape(differs or ""), ""
    if parting:
        text, kind = f"<strong>{escape(parting.quantity)}: they part here</strong>", ' class="parting"'
    numbers = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr{kind}>{numbers}<td class="found">{text}</td></tr>\n'


def _findings(found) -> str:
    if not found.findings:
        return "<p>No quantity differs.</p>"
    lines = [f"<li>{found.unit.capitalize()} {one.step}, {escape(str(one))}</li>" for one in found.findings]
    return "\n".join(["<ol>", *lines, "</ol>"])


def _strips(labels: tuple[str, str], strips: tuple[Image.Image, Image.Image]) -> str:
    lines = ['<p class="quiet">From the first step to the last, decoded.</p>']
    lines.append('<div class="scroll" tabindex="0" role="region" aria-label="Film strips">')
    for name, label, strip in zip("ab", map(escape, labels), strips, strict=True):
        small = strip.copy()
        small.thumbnail((strip.width, STRIP_HEIGHT))
        lines.append(f'<div><b class="{name}">{name}</b> <code>{label}</code></div>')
        lines.append(f'<img class="strip" alt="denoised estimates of {name}, {label}" src="{_data(small)}">')
    return "\n".join([*lines, "</div>"])
