"""What the QM region looked like in training: dynamics that leaves these bounds leaves what the model learned."""

from typing import Any

import numpy as np

from ampmm.data.schema import FrameSet
from ampmm.elements import symbol
from ampmm.geometry.bonds import bonded_pairs


def training_bounds(frames: FrameSet, train: np.ndarray) -> dict[str, Any]:
    """Bounds of the training frames, as a card stores them.

    Returns:
        "min_distance": {"C-H": Å} over all pairs of QM atoms; "max_bond": {"C-H": Å} over the pairs that are bonded
        in the first training frame; "max_force_qm": the largest norm of the force on a QM atom, kJ/mol/Å.
    """
    positions = frames.positions_qm[train]  # (F, N, 3)
    first, second = np.triu_indices(len(frames.numbers), k=1)
    pairs = np.stack([first, second], axis=1)
    distances = np.linalg.norm(positions[:, second] - positions[:, first], axis=-1)  # (F, n_pairs)
    shortest, longest = distances.min(axis=0), distances.max(axis=0)
    bonds = {tuple(pair) for pair in bonded_pairs(frames.numbers, positions[0]).tolist()}
    min_distance: dict[str, float] = {}
    max_bond: dict[str, float] = {}
    for pair, low, high in zip(pairs.tolist(), shortest, longest, strict=True):
        key = element_pair(*frames.numbers[pair])
        min_distance[key] = min(low, min_distance.get(key, np.inf))
        if tuple(pair) in bonds:
            max_bond[key] = max(high, max_bond.get(key, 0.0))
    return {
        "min_distance": {key: round(float(value), 4) for key, value in sorted(min_distance.items())},
        "max_bond": {key: round(float(value), 4) for key, value in sorted(max_bond.items())},
        "max_force_qm": round(float(np.linalg.norm(frames.forces_qm[train], axis=-1).max()), 2),
    }


def element_pair(first: int, second: int) -> str:
    """Two atomic numbers as an unordered pair of symbols, e.g. ``"C-H"``."""
    return "-".join(sorted((symbol(int(first)), symbol(int(second)))))
