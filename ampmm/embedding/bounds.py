"""What the model saw of the QM region in training, laid out for the atoms at hand."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ampmm.elements import symbols
from ampmm.errors import InputError


class Bounds(NamedTuple):
    """The bounds of one QM region, slack included; a missing one is infinite (or zero, for the least distances)."""

    min_distance: np.ndarray  # (N, N) Å, closest approach allowed
    max_distance: np.ndarray  # (N, N) Å, bonded atoms only
    max_force: float  # kJ/mol/Å


def bounds_from_card(
    bounds: Mapping[str, Any],
    numbers: Sequence[int],
    bonds: Sequence[tuple[int, int]],
    distance_slack: float = 0.0,
    force_slack: float = 0.0,
) -> Bounds:
    """The card's bounds laid out for these atoms.

    Args:
        bounds: of the card: `min_distance` and `max_bond` {"C-H": Å}, `max_force_qm` kJ/mol/Å; each may be missing.
        numbers: atomic numbers, (N,).
        bonds: bonded pairs of QM atoms, counted from 0 within the QM region.
        distance_slack: fraction by which a distance may go beyond its bound.
        force_slack: fraction by which a force may.

    Raises:
        InputError: a bound is not a positive number.
    """
    names = symbols(numbers)
    n_atoms = len(names)
    least, greatest = np.zeros((n_atoms, n_atoms)), np.full((n_atoms, n_atoms), np.inf)
    closest, longest = bounds.get("min_distance") or {}, bounds.get("max_bond") or {}
    for i in range(n_atoms):
        for j in range(n_atoms):
            if i != j:
                least[i, j] = _bound(closest, names[i], names[j], 0.0) * (1.0 - distance_slack)
    for i, j in bonds:
        greatest[i, j] = greatest[j, i] = _bound(longest, names[i], names[j], np.inf) * (1.0 + distance_slack)
    force = bounds.get("max_force_qm")
    return Bounds(least, greatest, np.inf if force is None else _positive("max_force_qm", force) * (1.0 + force_slack))


def _bound(table: Mapping[str, Any], first: str, second: str, missing: float) -> float:
    for key in (f"{first}-{second}", f"{second}-{first}"):
        if key in table:
            return _positive(key, table[key])
    return missing


def _positive(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise InputError(f"model card: bounds: {name}: expected a positive number, got {value!r}")
    return float(value)
