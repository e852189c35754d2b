"""The weights that a prompt gives its words, in ComfyUI's way and in A1111's: what they are, nothing is encoded.

ComfyUI: (word) is 1.1 times, (word:1.3) is 1.3 whatever stands around it. A1111: (word) and [word] multiply and divide
by 1.1, (word:1.3) multiplies by 1.3; BREAK, AND, [a:b:0.5] and [a|b] are A1111's alone.
"""

import re
from typing import NamedTuple

from k_diffusing.reproduce.values import BadFile

MAX_WEIGHT, MAX_DEPTH = 1e6, 150  # 1.1 to the power of 150 is above the largest weight
OPENING, CLOSING = "\0<", "\0>"  # stand for brackets that are letters
UP, DOWN = 1.1, 1 / 1.1
NUMBER = re.compile(r"\s*[+-]?(?:\d+\.?\d*|\.\d+)\s*\Z")
LORA = re.compile(r"<(lora|lyco):([^:<>]+)((?::[^:<>]*)*)>")
HYPERNET = re.compile(r"<hypernet:[^<>]*>")


class Words(NamedTuple):
    """A part of a prompt with one weight."""

    text: str
    weight: float


BREAK = Words("BREAK", -1.0)  # where A1111 ends a chunk of tokens


class Prompted(NamedTuple):
    """A prompt that was read.

    Attributes:
        words: Its parts in order, as they are encoded: no brackets or weights are left in them.
        marks: What else is in it that changes the picture: "AND", "[a:b:0.5]", "embedding:name", ...
    """

    words: list[Words]
    marks: list[str]

    @property
    def plain(self) -> str:
        """The text that is encoded."""
        return "".join(one.text for one in self.words)

    @property
    def weighted(self) -> list[Words]:
        """The parts whose weight is not 1."""
        return [one for one in self.words if one.weight != 1 and one.text and one != BREAK]


def read_comfyui(prompt: str) -> Prompted:
    r"""A prompt as ComfyUI reads it: round brackets alone, the innermost number counts; \( and \) are letters.

    Raises:
        BadFile: Brackets lie in each other more than MAX_DEPTH deep.
    """
    left = [(prompt.replace("\\(", OPENING).replace("\\)", CLOSING), 1.0, 0)]
    words: list[Words] = []
    while left:
        text, weight, depth = left.pop()
        if depth > MAX_DEPTH:
            raise BadFile(f"a prompt has brackets more than {MAX_DEPTH} deep in each other")
        inner = []
        for part in _outer_brackets(text):
            if len(part) > 1 and part[0] == "(" and part[-1] == ")":
                inner.append((*_explicit(part[1:-1], weight), depth + 1))
            elif inner:
                inner.append((part, weight, depth))
            else:
                words.append(Words(part.replace(OPENING, "(").replace(CLOSING, ")"), weight))
        left += reversed(inner)
    return Prompted(words, _comfyui_marks(prompt))


def _outer_brackets(text: str) -> list[str]:
    """A text cut before and after each pair of brackets that lies in no other."""
    parts, start, depth = [], 0, 0
    for at, letter in enumerate(text):
        if letter == "(":
            if depth == 0 and at > start:
                parts.append(text[start:at])
                start = at
            depth += 1
        elif letter == ")":
            depth -= 1
            if depth == 0:
                parts.append(text[start : at + 1])
                start = at + 1
    return [*parts, text[start:]] if start < len(text) else parts


def _explicit(text: str, around: float) -> tuple[str, float]:
    """The text in a pair of brackets without its number, and its weight."""
    before, colon, number = text.rpartition(":")
    if colon and before and NUMBER.match(number):
        return before, _bounded(float(number))
    return text, _bounded(around * UP)


def _bounded(weight: float) -> float:
    return min(max(weight, -MAX_WEIGHT), MAX_WEIGHT)


def _comfyui_marks(prompt: str) -> list[str]:
    return re.findall(r"(?:(?<=\s)|^)embedding:\S{1,80}", prompt) + re.findall(r"\{[^{}]{0,80}\|[^{}]{0,80}\}", prompt)


A1111 = re.compile(r"\\[()\[\]\\]?|[()\[\]]|:\s*([+-]?[.\d]+)\s*\)|\bBREAK\b|[^\\()\[\]:B]+|.", re.DOTALL)


def read_a1111(prompt: str) -> Prompted:
    r"""A prompt as A1111 reads it: round brackets raise, square ones lower, \ before a bracket makes it a letter.

    Raises:
        BadFile: Brackets lie in each other more than MAX_DEPTH deep.
    """
    weights: list[list] = []  # [text, weight], which closing brackets change
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def close(kind: str, factor: float) -> None:
        for one in weights[opened[kind].pop() :]:
            one[1] = _bounded(one[1] * factor)

    for match in A1111.finditer(prompt):
        text = match[0]
        if text in opened:
            opened[text].append(len(weights))
            if len(opened[text]) > MAX_DEPTH:
                raise BadFile(f"a prompt has brackets more than {MAX_DEPTH} deep in each other")
        elif match[1] is not None and opened["("] and NUMBER.match(match[1]):
            close("(", float(match[1]))
        elif text == ")" and opened["("]:
            close("(", UP)
        elif text == "]" and opened["["]:
            close("[", DOWN)
        else:
            weights.append([*BREAK] if text == BREAK.text else [text.removeprefix("\\"), 1.0])
    for kind, factor in (("(", UP), ("[", DOWN)):  # never closed: they hold to the end
        while opened[kind]:
            close(kind, factor)
    return Prompted(_joined(weights), _a1111_marks(prompt))


def _joined(weights: list[list]) -> list[Words]:
    """Parts of one weight made one."""
    words: list[Words] = []
    for text, weight in weights:
        if words and words[-1].weight == weight:
            words[-1] = Words(words[-1].text + text, weight)
        else:
            words.append(Words(text, weight))
    return words


def _a1111_marks(prompt: str) -> list[str]:
    marks = ["AND"] if re.search(r"\bAND\b", prompt) else []  # BREAK is one of the words
    marks += re.findall(r"\[[^\[\]|:]{0,80}(?::[^\[\]|:]{0,80})?:\s*[.\d]+\s*\]", prompt)  # [a:b:0.5], [a:0.5]
    marks += re.findall(r"\[[^\[\]:]{0,80}\|[^\[\]:]{0,80}\]", prompt)  # [a|b]
    return marks + HYPERNET.findall(prompt)


def take_loras(prompt: str) -> tuple[str, list[tuple[str, float, float]]]:
    """A1111's <lora:name:strength> taken out of a prompt: what is left; name, strength, text's strength of each."""
    found = []
    for _, name, rest in LORA.findall(prompt):
        numbers = [float(one) for one in rest.split(":")[1:3] if NUMBER.match(one)]
        text = numbers[0] if numbers else 1.0
        found.append((name.strip(), _bounded(numbers[1] if len(numbers) > 1 else text), _bounded(text)))
    return LORA.sub("", prompt), found
