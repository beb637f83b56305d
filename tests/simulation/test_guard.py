"""The guard stops on what the model never saw, and only on that."""

import numpy as np
import pytest

from ampmm.embedding import bounds_from_card
from ampmm.errors import InputError
from ampmm.simulation.guard import complaint

NUMBERS, BONDS = [6, 1, 8], [(0, 1), (0, 2)]
POSITIONS = np.array([[0.0, 0.0, 0.0], [1.1, 0.0, 0.0], [0.0, 1.2, 0.0]])
CARD = {"min_distance": {"C-H": 1.0, "O-C": 1.1, "H-O": 1.5}, "max_bond": {"H-C": 1.3, "C-O": 1.4}, "max_force_qm": 100.0}


def verdict(positions=POSITIONS, force=10.0, card=CARD, slack=0.0):
    bounds = bounds_from_card(card, NUMBERS, BONDS, slack, slack)
    return complaint(NUMBERS, positions, np.full((3, 3), force / np.sqrt(3)), bounds, ["C1", "H1", "O1"])


def test_a_frame_as_in_training_passes():
    assert verdict() == ""


def test_a_molecule_split_over_the_box_is_measured_by_its_nearest_images():
    """OpenMM leaves atoms in the images in which a file brought them."""
    box = np.array([[20.0, 0.0, 0.0], [6.0, 18.0, 0.0], [-5.0, 4.0, 19.0]])
    bounds = bounds_from_card(CARD, NUMBERS, BONDS, 0.0, 0.0)
    split = POSITIONS + np.array([[0, 0, 0], [1, -1, 0], [0, 2, 1]]) @ box
    assert complaint(NUMBERS, split, None, bounds, box=box) == ""
    split[1] += [0.4, 0.0, 0.0]
    assert "is 1.50 Å long" in complaint(NUMBERS, split, None, bounds, box=box)


@pytest.mark.parametrize(
    ("atom", "position", "words"),
    [
        (1, [0.9, 0.0, 0.0], "C1 and H1 are 0.90 Å apart"),
        (1, [1.4, 0.0, 0.0], "the bond C1–H1 is 1.40 Å long"),
        (2, [0.0, 1.5, 0.0], "the bond C1–O1 is 1.50 Å long"),
        (1, [np.nan, 0.0, 0.0], "not finite"),
    ],
)
def test_distances_beyond_the_bounds(atom, position, words):
    positions = POSITIONS.copy()
    positions[atom] = position
    assert words in verdict(positions)


def test_unbonded_atoms_may_be_far_apart():
    bounds = bounds_from_card({"max_bond": {"H-O": 1.0}}, NUMBERS, BONDS, 0.0, 0.0)
    assert complaint(NUMBERS, POSITIONS, None, bounds) == ""


def test_forces_and_slack():
    assert "the force on C1 is 120 kJ/mol/Å" in verdict(force=120.0)
    assert verdict(force=120.0, slack=0.3) == ""
    assert "not finite" in verdict(force=np.nan)
    assert verdict(force=1e9, card={}) == ""


def test_a_broken_card_is_named():
    with pytest.raises(InputError, match="bounds: max_force_qm: expected a positive number, got 'big'"):
        verdict(card={"max_force_qm": "big"})
