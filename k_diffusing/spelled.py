"""What a command line misspells: answered by the standard library alone, before torch is imported.

Whoever runs what was asked for checks the rest.
"""

from collections.abc import Iterable
from pathlib import Path

from k_diffusing.model.guidance_asked import of_text
from k_diffusing.names.grids import check_grid_name
from k_diffusing.names.noise import check_noise_name
from k_diffusing.samplers.asked import check_texts

NOT_NAMED = ("scheduler", "own")  # sigma grids that are no grids of ours


def check_spelling(
    samplers: Iterable[str],
    grids: Iterable[str | None] = (),
    noise: str | None = None,
    guidance: Iterable[str | None] = (),
) -> None:
    """Check the words of a command line. What was left out is None.

    Args:
        samplers: As `SAMPLER_FORMS` has them.
        grids: Sigma grids: names, with options after a comma, and files.
        noise: A source of noise.
        guidance: Guidance by step.

    Raises:
        ValueError: A word that cannot be, or a file that there is not; it says what there is to choose from.
        TypeError: Guidance of another kind.
    """
    check_texts(samplers)
    for text in filter(None, grids):
        check_grid_text(text)
    if noise is not None:
        check_noise_name(noise)
    for word in filter(None, guidance):
        of_text(word)


def check_grid_text(text: str) -> None:
    """Raise ValueError for a sigma grid's name that is none, or for a file that there is not."""
    name = text.split(",")[0].strip()
    if name.lower().endswith(".json"):
        if not Path(name).is_file():
            raise ValueError(
                f"sigma_grid={name!r} cannot be read (no such file): give a .json file of sigmas, or a name"
            )
    elif name not in NOT_NAMED:
        check_grid_name(name)


def check_counts(**counts: int | None) -> None:
    """Raise ValueError for a number of a command line that is below 1; None is one that was left out."""
    for name, count in counts.items():
        if count is not None and count < 1:
            raise ValueError(f"--{name.replace('_', '-')} {count}: give an integer of at least 1")
