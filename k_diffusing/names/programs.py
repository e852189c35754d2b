"""The names of the programs whose pictures can be made here."""

from k_diffusing._messages import unknown

PROGRAM_NAMES = ("comfyui", "a1111", "forge")


def check_program_name(program: object) -> None:
    """Check the name of a program.

    Raises:
        TypeError: It is no text.
        ValueError: There is no such program; it says which there are.
    """
    choices = f"choose one of {', '.join(PROGRAM_NAMES)}, or None for diffusers' conventions"
    if not isinstance(program, str):
        raise TypeError(f"program is the name of a program, not {program!r}: {choices}")
    if program not in PROGRAM_NAMES:
        raise ValueError(f"{unknown('program', program, PROGRAM_NAMES)} Or {choices}")
