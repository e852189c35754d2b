"""`k-diffusing compare`: exit codes, files, what is told; on tiny random weights."""

import json

import pytest
from diffusers import EulerDiscreteScheduler
from tiny_checkpoints import saved_sdxl
from users_samplers import own

from k_diffusing.cli import main
from k_diffusing.oracle.closed_form import SDXL_SCHEDULE


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny-sdxl"
    saved_sdxl(folder)
    EulerDiscreteScheduler(**SDXL_SCHEDULE).save_pretrained(folder / "scheduler")
    return folder


@pytest.fixture
def compare(weights):
    """Runs the command on tiny weights, unless told otherwise; its exit code."""
    fixed = ["--model", str(weights), "--height", "16", "--width", "16", "--prompt", "a red circle"]
    return lambda argv: main(["compare", *fixed, *argv])


def test_exit_codes_and_files(compare, tmp_path, capsys):
    options = ["--steps", "4", "--output", str(tmp_path)]
    assert compare(["k:euler", "diffusers:EulerDiscreteScheduler", *options, "--html"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("k:euler and diffusers:EulerDiscreteScheduler agree to ")
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".png", ".html"}
    written = json.loads(next(tmp_path.glob("*.json")).read_text(encoding="utf-8"))
    assert written["agree"] and len(written["rows"]) == 4
    assert compare(["k:euler", "k:heun", *options]) == 1
    assert "part at step 0: update rule" in capsys.readouterr().out


def test_a_users_file(compare, tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(
        "def sample_mine(model, x, sigmas, extra_args=None, callback=None, disable=None, gain=1.0):\n"
        "    for i in range(len(sigmas) - 1):\n"
        "        denoised = model(x, sigmas[i] * x.new_ones([len(x)]))\n"
        "        x = x + gain * (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])\n"
        "    return x\n"
    )
    options = ["--steps", "4", "--output", str(tmp_path)]
    assert compare(["k:euler", f"{path}:sample_mine", *options]) == 0
    assert compare(["k:euler", f"{path}:sample_mine,gain=1.1", *options]) == 1


def test_bad_command_lines(compare, capsys):
    assert compare(["k:euler"]) == 2
    assert "give two samplers" in capsys.readouterr().err
    for option in ("--sigma-grid", "--grid"):
        assert compare(["euler", "heun", option, "karas"]) == 2
        assert "did you mean 'karras'" in capsys.readouterr().err
    assert compare(["k:euler", "k:heun", "--noise", "comfi"]) == 2
    assert "did you mean 'comfy'" in capsys.readouterr().err


def test_noise_of_both_runs(compare, tmp_path):
    options = ["--steps", "3", "--noise", "philox", "--output", str(tmp_path)]
    assert compare(["k:euler_ancestral", "diffusers:EulerAncestralDiscreteScheduler", *options]) == 0
    [found] = [json.loads(path.read_text(encoding="utf-8")) for path in tmp_path.glob("*.json")]
    assert found["call"]["noise"] == "philox"


def test_a_model_that_is_not_there(compare, capsys):
    assert compare(["k:euler", "k:heun", "--model", "no/where/at/all"]) == 2
    assert "--model no/where/at/all does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    "body, said",
    [
        ("    model(x, sigmas[0])\n", "sample_mine returned None: a sampler returns its final x"),
        ("    return model(x, sigmas[0])[..., :4]\n", "returned the shape [1, 4, 8, 4]: its x has [1, 4, 8, 8]"),
        ("    return x * 0.1\n", "sample_mine never called the model"),
        ("    model(x, sigmas[0])\n    return x * float('nan')\n", "nan or inf"),
        ("    raise SystemExit(0)\n", "SystemExit"),
        ("    return model(x, sigmas[0]) / [1]\n", "TypeError"),
    ],
)
def test_a_sampler_that_fails(compare, tmp_path, capsys, body, said):
    for samplers in (["euler", own(tmp_path, body)], [own(tmp_path, body), "euler"]):
        assert compare([*samplers, "--steps", "2", "--output", str(tmp_path)]) == 3
        [first, *frames] = capsys.readouterr().err.splitlines()
        assert first.startswith("error: ") and "mine.py:sample_mine failed: " in first and said in first
        assert all(frame.startswith("  mine.py:2, in sample_mine: ") for frame in frames) and len(frames) <= 1


def test_the_frames_of_a_users_error_are_shown(compare, tmp_path, capsys):
    (tmp_path / "my_slopes.py").write_text("def slope(x):\n    return x / missing\n")
    text = own(tmp_path, "    model(x, sigmas[0])\n    return my_slopes.slope(x)\n")
    (tmp_path / "mine.py").write_text("import my_slopes\n" + (tmp_path / "mine.py").read_text(encoding="utf-8"))
    assert compare(["euler", text, "--steps", "2", "--output", str(tmp_path)]) == 3
    assert capsys.readouterr().err.splitlines()[1:] == [
        "  mine.py:4, in sample_mine: return my_slopes.slope(x)",
        "  my_slopes.py:2, in slope: return x / missing",
    ]


def test_an_interrupted_comparison(compare, tmp_path, capsys):
    text = own(tmp_path, "    raise KeyboardInterrupt\n")
    assert compare(["euler", text, "--steps", "2", "--output", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "interrupted\n" and not list(tmp_path.glob("*.json"))


@pytest.mark.parametrize(
    "text, said",
    [
        ("diffusers:DPMSolverMultistepScheduler,algorithm_type=dpm", "dpm is not implemented"),
        ("diffusers:DPMSolverMultistepScheduler,timestep_spacing=trailin", "cannot run with these settings"),
        ("diffusers:UniPCMultistepScheduler,beta_schedule=lin", "cannot be made with beta_schedule='lin'"),
        ("diffusers:EulerDiscreteScheduler,use_karras_sigmas=yes", "use_karras_sigmas is True or False, not 'yes'"),
        ("diffusers:UniPCMultistepScheduler,solver_order=two", "solver_order"),
        ("diffusers:EulerDiscreteScheduler,prediction_type=eps", "unknown prediction_type 'eps'"),
        ("dpmpp_2m_sde,solver_type=hoin", "solver_type"),
        ("euler,s_churn=much", "s_churn"),
    ],
)
def test_option_values_that_there_are_not(compare, capsys, text, said):
    assert compare(["euler", text]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and said in line


def test_a_folder_that_cannot_be_written(compare, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert compare(["euler", "heun", "--output", str(tmp_path / "file" / "folder")]) == 2
    assert "file" in capsys.readouterr().err


def test_a_program_of_both_runs_and_of_one(compare, tmp_path, capsys):
    options = ["--steps", "3", "--output", str(tmp_path)]
    assert compare(["k:lms", "k:lms", *options, "--program", "comfyui"]) == 0
    [found] = [json.loads(path.read_text(encoding="utf-8")) for path in tmp_path.glob("*.json")]
    assert found["call"]["program"] == "comfyui" and "noise" not in found["call"]  # which is the program's
    assert found["rows"][0]["timestep"] == [999.0, 999.0]  # of its "simple", where SDXL's config has 958
    capsys.readouterr()
    assert compare(["k:lms", "k:lms,program=comfyui", *options]) == 1
    assert "initial noise scale" in capsys.readouterr().out
    assert compare(["k:lms", "k:lms,program=comfui", *options]) == 2
    assert "did you mean 'comfyui'" in capsys.readouterr().err


def test_one_grid_for_a_program_and_for_diffusers(compare, tmp_path):
    """Without a grid's name, that of the pipeline's scheduler is both runs' grid."""
    assert compare(["k:euler", "k:euler,program=comfyui", "--steps", "3", "--output", str(tmp_path)]) == 1
    [found] = [json.loads(path.read_text(encoding="utf-8")) for path in tmp_path.glob("*.json")]
    assert all(a == b for a, b in (row["sigma"] for row in found["rows"]))
