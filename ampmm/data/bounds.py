"""What the QM region looked like in training: dynamics that leaves these bounds leaves what the model learned."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from ampmm.data.schema import FrameSet
from ampmm.elements import symbol
from ampmm.geometry.bonds import bonded_pairs

FRAMES_FOR_BONDS = 100  # evenly over the training frames
FRAMES_AT_ONCE = 500  # all pairs of 10'000 frames of 63 atoms would be half a gigabyte


def training_bounds(frames: FrameSet, train: np.ndarray) -> dict[str, Any]:
    """Bounds of the training frames `train` (indices), as a card stores them.

    Returns:
        "min_distance": {"C-H": Å} over all pairs of QM atoms; "max_bond": {"C-H": Å} over the pairs that are bonded
        in more than half of the training frames; "max_force_qm": the largest norm of the force on a QM atom, kJ/mol/Å.
    """
    first, second = np.triu_indices(len(frames.numbers), k=1)
    shortest, longest = np.full(len(first), np.inf), np.zeros(len(first))
    for some in np.array_split(train, max(1, len(train) // FRAMES_AT_ONCE)):
        positions = frames.positions_qm[some]  # (F, N, 3)
        distances = np.linalg.norm(positions[:, second] - positions[:, first], axis=-1)  # (F, n_pairs)
        shortest, longest = np.minimum(shortest, distances.min(axis=0)), np.maximum(longest, distances.max(axis=0))
    pairs = np.stack([first, second], axis=1)
    bonds = _usual_bonds(frames, train[:: max(1, len(train) // FRAMES_FOR_BONDS)])
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


def _usual_bonds(frames: FrameSet, some: np.ndarray) -> set[tuple[int, int]]:
    """Pairs that are bonded in more than half of `some` frames: in a single one a proton may be on its way."""
    found = Counter(tuple(pair) for each in some for pair in bonded_pairs(frames.numbers, frames.positions_qm[each]).tolist())
    return {pair for pair, count in found.items() if 2 * count > len(some)}


def wider(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Bounds of two sets of frames of the same atoms together; one that only one of them has is taken from there."""
    both = {**second, **first}
    for name, choose in (("min_distance", min), ("max_bond", max)):
        tables = [each[name] for each in (first, second) if name in each]
        if tables:
            keys = sorted(set().union(*tables))
            both[name] = {key: choose(table[key] for table in tables if key in table) for key in keys}
    forces = [each["max_force_qm"] for each in (first, second) if "max_force_qm" in each]
    return {**both, **({"max_force_qm": max(forces)} if forces else {})}


def element_pair(first: int, second: int) -> str:
    """Two atomic numbers as an unordered pair of symbols, e.g. ``"C-H"``."""
    return "-".join(sorted((symbol(int(first)), symbol(int(second)))))
