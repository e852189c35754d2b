"""`k-diffusing judge`: verdicts and exit codes."""

import pytest
from users_samplers import LAME, own

from k_diffusing import judge as library_judge
from k_diffusing.cli import main


def judge(argv):
    return main(["judge", *argv])


def test_command_line(capsys):
    assert judge(["k:heun"]) == 0
    assert "k:heun on sdxl: right in distribution" in capsys.readouterr().out
    assert judge(["k:dpmpp_2m,flow_coordinates=velocity", "--model", "flux"]) == 1
    assert judge(["k:hoin"]) == 2


def test_an_order_that_is_asked_for(capsys, tmp_path):
    path = tmp_path / "lame.py"
    path.write_text(LAME)
    lame = [f"{path}:sample_lame"]
    assert judge(lame) == 0  # the warning alone fails nothing
    assert judge([*lame, "--order", "2"]) == 1
    assert "sample_lame does not reach order 2" in capsys.readouterr().out
    assert judge([*lame, "--order", "1"]) == 0
    assert judge(["heun", "--order", "2"]) == 0


def test_a_sigma_grid(capsys):
    assert judge(["euler_ancestral", "--sigma-grid", "karras,rho=3"]) == 0
    one = capsys.readouterr().out
    assert judge(["euler_ancestral"]) == 0 and capsys.readouterr().out != one
    for grid, complaint in (
        ("karras,roh=3", "did you mean 'rho'"),
        ("turbo", "ten steps at most"),
        ("bong_tangent", "is for flow"),
    ):
        assert judge(["euler", "--sigma-grid", grid]) == 2
        assert complaint in capsys.readouterr().err


def test_a_list_of_sigmas_has_its_own_steps():
    with pytest.raises(ValueError, match="judged in 25 and in 100 steps, and a list of sigmas has its own"):
        library_judge("euler", sigma_grid=[5.0, 1.0, 0.0])


def test_an_order_that_cannot_be_asked_for(capsys):
    assert judge(["dpmpp_sde", "--order", "2"]) == 2
    assert "order 2 cannot be asked of dpmpp_sde: it adds noise" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["compare", "euler", "heun", "--order", "2"])
    assert "--order" in capsys.readouterr().err
    for asked in ("0", "-1", "nan"):
        assert judge(["euler", "--order", asked]) == 2


def test_a_sampler_that_fails_before_the_judge(tmp_path, capsys):
    assert judge([own(tmp_path, "    return None\n")]) == 3
    assert "returned None" in capsys.readouterr().err


def test_a_sampler_as_a_program_runs_it(capsys):
    """By its own name euler_ancestral runs on x0 + sigma eps; ComfyUI has another, on the latents."""
    assert judge(["euler_ancestral", "euler_ancestral,program=comfyui", "--model", "flux"]) == 0
    assert len({line.split(": ", 1)[1] for line in capsys.readouterr().out.splitlines()}) == 2
    assert judge(["lms", "--program", "comfyui", "--order", "2"]) == 0
