"""The text in which A1111's web UI, and what follows it, says how a picture was made: read and written.

a prompt, of any number of lines
Negative prompt: another, or none
Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 1, Size: 512x512, Version: v1.10.1
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any

FIELD = re.compile(r'\s*([A-Za-z_][\w \-/+.]{0,60}):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')
NEGATIVE = "Negative prompt:"
LEAST_FIELDS = 3  # in a line that is no part of a prompt


@dataclass(frozen=True)
class Infotext:
    """What such a text says.

    Attributes:
        prompt: As it was typed.
        negative: The same of the negative prompt.
        fields: The settings by their names, in the text's order.
    """

    prompt: str
    negative: str
    fields: dict[str, str] = field(default_factory=dict)


def is_infotext(text: str) -> bool:
    """Whether a text ends in settings as A1111 writes them."""
    last = text.strip().rpartition("\n")[2]
    return "Steps:" in last and len(FIELD.findall(last)) >= LEAST_FIELDS


def read_infotext(text: str) -> Infotext:
    """The parts of a text; without settings, of the prompts alone."""
    lines = text.strip().split("\n")
    fields = dict(_field(*found) for found in FIELD.findall(lines.pop())) if is_infotext(text) else {}
    parts: dict[bool, list[str]] = {False: [], True: []}
    negative = False
    for line in lines:
        if not negative and line.strip().startswith(NEGATIVE):
            negative, line = True, line.strip().removeprefix(NEGATIVE)
        parts[negative].append(line.strip())
    return Infotext("\n".join(parts[False]).strip(), "\n".join(parts[True]).strip(), fields)


def _field(name: str, value: str) -> tuple[str, str]:
    """A setting; a value in quotes is a JSON text."""
    if len(value) > 1 and value[0] == value[-1] == '"':
        try:
            return name, str(json.loads(value))
        except ValueError:
            return name, value[1:-1]
    return name, value.strip()


def write_infotext(prompt: str, negative: str, fields: dict[str, Any]) -> str:
    """The text of a picture.

    Args:
        prompt: As it was typed.
        negative: The same of the negative prompt; left out if empty.
        fields: The settings by their names. None leaves one out.
    """
    told = ", ".join(f"{name}: {_quoted(str(value))}" for name, value in fields.items() if value is not None)
    lines = [prompt, *([f"{NEGATIVE} {negative}"] if negative else []), told]
    return "\n".join(lines)


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if any(letter in value for letter in ',:\n"') else value
