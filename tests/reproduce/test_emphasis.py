"""Weights of words, read as each program reads them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k_diffusing.reproduce.emphasis import read_a1111, read_comfyui, take_loras
from k_diffusing.reproduce.values import BadFile


def weights(read, prompt):
    return [(text, round(weight, 6)) for text, weight in read(prompt).words if text]


@pytest.mark.parametrize(
    "prompt, expected",
    [
        ("a (ring:1.3) here", [("a ", 1), ("ring", 1.3), (" here", 1)]),
        ("((ring))", [("ring", 1.21)]),
        ("(a (ring:1.5):0.5)", [("a ", 0.5), ("ring", 1.5)]),  # the innermost number counts
        (r"a \(ring\) (b)", [("a (ring) ", 1), ("b", 1.1)]),
        ("(a:b:1.2)", [("a:b", 1.2)]),
        ("[ring]", [("[ring]", 1)]),
        ("(never closed", [("(never closed", 1)]),
        ("closed) (a:2)", [("closed) (a:2)", 1)]),  # as there: what closes nothing hides the next one
        ("", []),
    ],
)
def test_comfyui(prompt, expected):
    assert weights(read_comfyui, prompt) == expected


@pytest.mark.parametrize(
    "prompt, expected",
    [
        ("a (ring:1.3) here", [("a ", 1), ("ring", 1.3), (" here", 1)]),
        ("((ring))", [("ring", 1.21)]),
        ("(a (ring:1.5):0.5)", [("a ", 0.5), ("ring", 0.75)]),  # brackets in brackets multiply
        ("[ring]", [("ring", round(1 / 1.1, 6))]),
        (r"a \(ring\) \[b\]", [("a (ring) [b]", 1)]),
        ("(never closed", [("never closed", 1.1)]),
        ("a: b", [("a: b", 1)]),
        ("a BREAK b", [("a ", 1), ("BREAK", -1), (" b", 1)]),
    ],
)
def test_a1111(prompt, expected):
    assert weights(read_a1111, prompt) == expected


@pytest.mark.parametrize("read", [read_comfyui, read_a1111])
@given(prompt=st.text("ab ()[]:\\.1<>|", max_size=60))
def test_any_prompt_is_read(read, prompt):
    assert all(abs(one.weight) < 1e7 for one in read(prompt).words)


@pytest.mark.parametrize("read", [read_comfyui, read_a1111])
def test_many_brackets(read):
    with pytest.raises(BadFile, match="deep"):
        read("(" * 100_000 + "a" + ")" * 100_000)
    assert len(read("(a:1.2) b " * 5000).weighted) == 5000


def test_loras():
    assert take_loras("a <lora:x:0.5> b<lora:y>") == ("a  b", [("x", 0.5, 0.5), ("y", 1.0, 1.0)])
