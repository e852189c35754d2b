"""The names of the sources of noise."""

from k_diffusing._messages import unknown

NOISE_NAMES = ("torch", "cpu", "philox", "comfy", "a1111", "brownian_tree")


def check_noise_name(noise: object) -> None:
    """Check the name of a source of noise.

    Raises:
        TypeError: It is no text.
        ValueError: There is no such source; it says which there are.
    """
    choices = f"choose one of {', '.join(NOISE_NAMES)}"
    if not isinstance(noise, str):
        raise TypeError(f"noise is the name of a source, not {noise!r}: {choices}")
    if noise not in NOISE_NAMES:
        raise ValueError(f"{unknown('noise', noise, NOISE_NAMES)} Or {choices}")
