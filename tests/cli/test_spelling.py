"""What a command line misspells is answered without torch, diffusers and k_diffusion, which take seconds to import."""

import json
import subprocess
import sys

import pytest

from k_diffusing.names.noise import NOISE_NAMES
from k_diffusing.noise.sources import NOISE_SOURCES

TWO = ["compare", "euler", "heun"]
# Words of a command line, and what the answer names: the value, and the cure.
MISSPELT = [
    (["compare", "eulr", "heun"], "'eulr': did you mean 'euler'?"),
    ([*TWO, "--sigma-grid", "karas"], "'karas': did you mean 'karras'?"),
    ([*TWO, "--sigma-grid", "nowhere.json"], "'nowhere.json' cannot be read (no such file)"),
    ([*TWO, "--noise", "philoks"], "'philoks': did you mean 'philox'?"),
    ([*TWO, "--guidance", "7,x"], "'7,x' is no guidance: give a number"),
    ([*TWO, "--steps", "0"], "--steps 0: give an integer of at least 1"),
    ([*TWO, "--height", "-8"], "--height -8: give an integer of at least 1"),
    ([*TWO, "--model", "nowhere"], "--model nowhere does not exist: give a diffusers folder"),
    (["compare", "euler", "nowhere.py:heun"], "there is no file nowhere.py"),
    (["compare", "euler", "web:heun"], "unknown sampler source 'web:heun'"),
    (["judge", "eulr"], "'eulr': did you mean 'euler'?"),
    (["judge", "euler", "--sigma-grid", "karas"], "'karas': did you mean 'karras'?"),
    (["tune", "--sampler", "eulr"], "'eulr': did you mean 'euler'?"),
    (["tune", "--program", "comfi"], "'comfi': did you mean 'comfyui'?"),
    (["tune", "--batch-size", "0"], "--batch-size 0: give an integer of at least 1"),
    (["render", "--samplers", "eulr"], "'eulr': did you mean 'euler'?"),
    (["render", "--sigma-grid", "karas"], "'karas': did you mean 'karras'?"),
    (["render", "--noise", "philoks"], "'philoks': did you mean 'philox'?"),
    (["render", "--sigma-grids", "karras"], "unknown option '--sigma-grids': did you mean '--sigma-grid'?"),
    (["render", "--stesp=5"], "unknown option '--stesp': did you mean '--steps'?"),
    ([*TWO, "--stesp", "5"], "unknown option '--stesp': did you mean '--steps'?"),
    (["render", "--list", "runs"], "unrecognized arguments: runs"),
    (["render", "--steps", "0"], "--steps 0: give an integer of at least 1"),
    (["render", "--width", "100"], "--width 100: give a positive multiple of 8"),
    (["render", "--model", "nowhere"], "--model nowhere does not exist: give a diffusers folder"),
]
SCRIPT = """
import contextlib, io, json, sys
for heavy in ("torch", "diffusers", "transformers", "k_diffusion"):
    sys.modules[heavy] = None
from k_diffusing.cli import main
answers = []
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(io.StringIO()):
        try:
            code = main(words)
        except SystemExit as end:  # argparse's
            code = end.code
    answers.append([code, said.getvalue()])
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers():
    """The exit code and the message of each; one process, as torch is in this one."""
    asked = json.dumps([words for words, _ in MISSPELT])
    run = subprocess.run([sys.executable, "-c", SCRIPT, asked], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("number", range(len(MISSPELT)), ids=[" ".join(words) for words, _ in MISSPELT])
def test_it_is_answered_without_torch(answers, number):
    code, said = answers[number]
    assert code == 2 and MISSPELT[number][1] in said, said


def test_the_names_of_noise_are_those_that_there_are():
    assert tuple(NOISE_SOURCES) == NOISE_NAMES
