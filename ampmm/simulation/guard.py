"""Has the QM region left what the model saw in training? Distances and forces against the bounds on its card."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from ampmm.elements import symbols
from ampmm.embedding import Bounds
from ampmm.geometry.cell import minimum_image


def complaint(
    numbers: Sequence[int],
    positions: np.ndarray,
    forces: np.ndarray | None,
    bounds: Bounds,
    labels: Sequence[str] | None = None,
    box: np.ndarray | None = None,
) -> str:
    """What is wrong with a frame of the QM region, in plain words; "" when nothing is.

    Args:
        numbers: atomic numbers, (N,).
        positions: (N, 3) Å, in any periodic images.
        forces: of the model on the QM atoms, (N, 3) kJ/mol/Å, or None when there is no model.
        bounds: from `bounds_from_card`.
        labels: the atoms' names for the message; else symbol and place.
        box: (3, 3) Å, or None without a periodic box.
    """
    labels = labels or [f"{name}{index}" for index, name in enumerate(symbols(numbers))]
    if not np.isfinite(positions).all():
        return "the QM positions are not finite"
    vectors = torch.as_tensor(positions[:, None] - positions[None]).reshape(-1, 3)
    vectors = minimum_image(vectors, None if box is None else torch.as_tensor(box))
    distances = torch.linalg.vector_norm(vectors, dim=-1).numpy().reshape(len(positions), -1)
    for i, j in _first(distances < bounds.min_distance):
        return (
            f"{labels[i]} and {labels[j]} are {distances[i, j]:.2f} Å apart; "
            f"closer than {bounds.min_distance[i, j]:.2f} Å the model was not trained"
        )
    for i, j in _first(distances > bounds.max_distance):
        return (
            f"the bond {labels[i]}–{labels[j]} is {distances[i, j]:.2f} Å long; "
            f"beyond {bounds.max_distance[i, j]:.2f} Å the model was not trained"
        )
    if forces is None:
        return ""
    if not np.isfinite(forces).all():
        return "the model's forces on the QM atoms are not finite"
    largest = np.linalg.norm(forces, axis=1)
    index = int(largest.argmax())
    if largest[index] > bounds.max_force:
        return (
            f"the force on {labels[index]} is {largest[index]:.0f} kJ/mol/Å; "
            f"beyond {bounds.max_force:.0f} kJ/mol/Å the model was not trained"
        )
    return ""


def _first(found: np.ndarray) -> list[tuple[int, int]]:
    places = np.argwhere(found)
    return [(int(places[0][0]), int(places[0][1]))] if len(places) else []


def finite(*values: float) -> bool:
    """Whether all of these numbers are finite."""
    return all(math.isfinite(value) for value in values)
