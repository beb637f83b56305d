"""Which atoms of a molecule are bonded, from distances and covalent radii."""

from typing import Final

import numpy as np

from ampmm.elements import symbol
from ampmm.errors import InputError

# Single-bond covalent radii, Å: Cordero et al., Dalton Trans. 2008, 2832 (C: sp3; Mn, Fe, Co: high spin).
COVALENT_RADII: Final = dict(enumerate((
    0.31, 0.28,
    1.28, 0.96, 0.84, 0.76, 0.71, 0.66, 0.57, 0.58,
    1.66, 1.41, 1.21, 1.11, 1.07, 1.05, 1.02, 1.06,
    2.03, 1.76, 1.70, 1.60, 1.53, 1.39, 1.61, 1.52, 1.50, 1.24, 1.32, 1.22, 1.22, 1.20, 1.19, 1.20, 1.20, 1.16,
    2.20, 1.95, 1.90, 1.75, 1.64, 1.54, 1.47, 1.46, 1.42, 1.39, 1.45, 1.44, 1.42, 1.39, 1.39, 1.38, 1.39, 1.40,
), start=1))  # fmt: skip


def bonded_pairs(numbers: np.ndarray, positions: np.ndarray, tolerance: float = 1.3) -> np.ndarray:
    """Pairs i < j closer than `tolerance` times the sum of their covalent radii: (n_bonds, 2).

    Args:
        numbers: (N,) atomic numbers up to 54 (Xe).
        positions: (N, 3) Å of a whole molecule.
    """
    unknown = sorted({int(number) for number in numbers} - set(COVALENT_RADII))
    if unknown:
        raise InputError(f"numbers: covalent radii are known up to {symbol(len(COVALENT_RADII))}, got {unknown}")
    radii = np.array([COVALENT_RADII[int(number)] for number in numbers])
    first, second = np.triu_indices(len(radii), k=1)
    distances = np.linalg.norm(positions[second] - positions[first], axis=-1)
    bonded = distances < tolerance * (radii[first] + radii[second])
    return np.stack([first[bonded], second[bonded]], axis=1)
