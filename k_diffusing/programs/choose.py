"""The program of one call."""

from k_diffusing.names.programs import check_program_name
from k_diffusing.noise.sources import NoiseSource
from k_diffusing.programs.a1111 import A1111, FORGE
from k_diffusing.programs.comfyui import COMFYUI
from k_diffusing.programs.records import DIFFUSERS, NOISE_OF_A1111, NOISE_OF_COMFYUI, Program

PROGRAMS = {"comfyui": COMFYUI, "a1111": A1111, "forge": FORGE}
_OF_NOISE = {"comfy": NOISE_OF_COMFYUI, "a1111": NOISE_OF_A1111}


def find_program(program: str | Program | None, noise: str | NoiseSource | None = None) -> Program:
    """The record of a program.

    Args:
        program: A name of PROGRAMS, a record, or None for diffusers' conventions.
        noise: The user's noise source. Where there is no program, that of a program brings its initial scale and the
            sigmas that it drops.

    Raises:
        TypeError: It is no name.
        ValueError: There is no such program.
    """
    if isinstance(program, Program):
        return program
    if program is None:
        return _OF_NOISE.get(str(noise), DIFFUSERS)
    check_program_name(program)
    return PROGRAMS[program]
