"""Bonds from covalent radii."""

import numpy as np
import pytest

from ampmm.errors import InputError
from ampmm.geometry.bonds import bonded_pairs

WATER_DIMER = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0],
                        [2.85, 0.0, 0.0], [3.2, 0.9, 0.0], [3.2, -0.9, 0.0]])  # fmt: skip


def test_waters_have_their_own_bonds_and_none_for_the_hydrogen_bond():
    assert bonded_pairs(np.array([8, 1, 1, 8, 1, 1]), WATER_DIMER).tolist() == [[0, 1], [0, 2], [3, 4], [3, 5]]


def test_single_atoms_have_none():
    assert bonded_pairs(np.array([8]), WATER_DIMER[:1]).shape == (0, 2)


def test_heavy_elements_are_refused_by_name():
    with pytest.raises(InputError, match=r"up to Xe, got \[92\]"):
        bonded_pairs(np.array([8, 92]), WATER_DIMER[:2])
