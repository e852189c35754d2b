"""The names of sigma grids, and what is said of one that is none, or not here."""

import pytest

from k_diffusing.grids.check import check_grid_choice
from k_diffusing.grids.named import SIGMA_GRIDS
from k_diffusing.names.grids import AUTOMATIC, GRID_NAMES


def test_grids_that_are_here():
    here = [row.name for row in GRID_NAMES.values() if row.here]
    assert here == [*SIGMA_GRIDS, AUTOMATIC]
    for row in GRID_NAMES.values():
        for text in row.spellings if row.here else ():
            check_grid_choice(text)


def test_misspelt_and_absent_grids():
    with pytest.raises(ValueError, match="unknown sigma_grid 'Karas': did you mean 'karras'.*Choose one of karras, "):
        check_grid_choice("Karas")
    with pytest.raises(ValueError, match="'Align Your Steps 32' is known and not here: give its values as a list"):
        check_grid_choice("Align Your Steps 32")
