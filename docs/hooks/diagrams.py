"""The two diagrams of architecture.md as HTML: mermaid's own script would be fetched from outside.

`flowchart TD` becomes a column of boxes, its parts side by side; `sequenceDiagram` a drawing in SVG. Of mermaid only
what these two use is understood; anything else is an error, so that no diagram is dropped.
"""

import re
from html import escape

BLOCK = re.compile(r"^```mermaid\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COLUMN, ROW, TOP = 132, 26, 44  # pixels of the sequence: between participants, between messages, above the first


def on_page_markdown(markdown, page, config, files):
    """Each block of mermaid drawn."""
    return BLOCK.sub(lambda block: drawn(block[1]), markdown)


def drawn(text: str) -> str:
    """A diagram in HTML. Raises ValueError for a line that is not understood."""
    kind, *lines = (line.strip() for line in text.strip().splitlines())
    if kind == "flowchart TD":
        return layers(lines)
    if kind == "sequenceDiagram":
        return sequence(lines)
    raise ValueError(f"a diagram of this kind is not drawn: {kind!r}")


def layers(lines: list[str]) -> str:
    """Boxes in the order of the chain at the end."""
    boxes = dict(re.fullmatch(r'(\w+)\["(.+)"\]', line).groups() for line in lines[:-1])
    rows = []
    for name in lines[-1].split(" --> "):
        parts = "".join(f"<span>{bold_name(part)}</span>" for part in boxes[name].split(" | "))
        rows.append(f"<li>{parts}</li>")
    return f'<ol class="layers">{"".join(rows)}</ol>'


def bold_name(part: str) -> str:
    """The module's name, and what it is for."""
    name, colon, about = part.partition(":")
    return f"<b>{escape(name)}</b>{colon}{escape(about)}"


def sequence(lines: list[str]) -> str:
    """Participants as columns, messages as arrows, a loop as a frame."""
    people, drawing, frames, y = {}, [], [], TOP
    for line in lines:
        if found := re.fullmatch(r"participant (\w+) as (.+)", line):
            people[found[1]] = (COLUMN * len(people) + COLUMN // 2, found[2])
        elif found := re.fullmatch(r"(\w+)(-{1,2})>>(\w+): (.+)", line):
            y += ROW
            drawing.append(message(people[found[1]][0], people[found[3]][0], y, found[4], dashed=found[2] == "--"))
        elif found := re.fullmatch(r"loop (.+)", line):
            y += ROW
            frames.append((y - 12, found[1]))
        elif line == "end":
            top, about = frames.pop()
            y += 12
            width = COLUMN * len(people) - 4
            drawing.insert(0, f'<rect x="2" y="{top}" width="{width}" height="{y - top}" rx="4" class="frame"/>')
            drawing.append(f'<text x="10" y="{top + 14}" class="loop">{escape(about)}</text>')
        else:
            raise ValueError(f"this line of a sequence is not drawn: {line!r}")
    return figure(people, drawing, y + 20)


def message(start: int, end: int, y: int, text: str, dashed: bool) -> str:
    """An arrow and, above it, its words; one to oneself is words alone."""
    back = end < start
    x, anchor = (start - 6, ' text-anchor="end"') if back else (start + 6, "")
    words = f'<text x="{x}" y="{y - 4}"{anchor}>{escape(text)}</text>'
    if start == end:
        return f'<circle cx="{start}" cy="{y - 8}" r="3" class="dot"/>{words}'
    head, dashes = end + (6 if back else -6), ' stroke-dasharray="4 3"' if dashed else ""
    return f'<path d="M{start} {y}H{end}M{head} {y - 4}L{end} {y}L{head} {y + 4}"{dashes}/>{words}'


def figure(people: dict, drawing: list[str], height: int) -> str:
    """The whole drawing, which a narrow screen scrolls."""
    heads = []
    for x, name in people.values():
        words = re.sub(r"(, | of | in |k_diffusion's )", r"\1\n", name, count=1).split("\n")
        lines = "".join(f'<tspan x="{x}" dy="{13 * bool(i)}">{escape(word)}</tspan>' for i, word in enumerate(words))
        heads.append(f'<text x="{x}" y="14" text-anchor="middle" class="head">{lines}</text>')
        heads.append(f'<path d="M{x} {TOP - 8}V{height}" class="life"/>')
    size = f'width="{COLUMN * len(people)}" height="{height}" viewBox="0 0 {COLUMN * len(people)} {height}"'
    return f'<div class="wide"><svg class="sequence" {size} role="img">{"".join(heads + drawing)}</svg></div>'
