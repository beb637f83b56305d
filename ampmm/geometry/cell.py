"""Periodic boxes: nearest images, molecules in one piece, and which cutoffs a box allows.

A box is a (3, 3) tensor whose rows are the reduced box vectors a, b, c of OpenMM (lower triangular); None is no box.
"""

from typing import Optional

import torch
from torch import Tensor


def minimum_image(vectors: Tensor, box: Optional[Tensor]) -> Tensor:
    """The nearest periodic image of difference vectors (n, 3), Å, as OpenMM finds it.

    In a triclinic box it is the nearest one only where that is within `largest_cutoff`; see `has_nearer_image`.
    """
    if box is None:
        return vectors
    # One component at a time: rows of three would leave the processor's vector units idle.
    x, y, z = vectors.unbind(-1)
    turns = torch.round(z / box[2, 2])
    x, y, z = x - turns * box[2, 0], y - turns * box[2, 1], z - turns * box[2, 2]
    turns = torch.round(y / box[1, 1])
    x, y = x - turns * box[1, 0], y - turns * box[1, 1]
    return torch.stack([x - torch.round(x / box[0, 0]) * box[0, 0], y, z]).t()


def largest_cutoff(box: Tensor) -> float:
    """Half the smallest diagonal element: up to there the nearest image is the only one in range (OpenMM's rule), Å."""
    return 0.5 * float(torch.diagonal(box).min())


def has_nearer_image(vectors: Tensor, box: Tensor, cutoff: float) -> bool:
    """Whether some vector of `minimum_image`, (n, 3), has a nearer image within `cutoff` (Å); in triclinic boxes."""
    if vectors.shape[0] == 0 or bool(torch.equal(box, torch.diag(torch.diagonal(box)))):
        return False
    own = torch.linalg.vector_norm(vectors, dim=1)
    nearest = own
    for i in range(-1, 2):
        for j in range(-1, 2):
            for k in range(-1, 2):
                image = vectors + i * box[0] + j * box[1] + k * box[2]
                nearest = torch.minimum(nearest, torch.linalg.vector_norm(image, dim=1))
    return bool(((nearest < cutoff) & (nearest < own - 1e-6)).any())


def in_one_piece(positions: Tensor, box: Optional[Tensor], gap: float = 4.0) -> Tensor:
    """Atoms (N, 3), Å, each moved to the image nearest to an atom that was placed before, nearest atoms first.

    Molecules whose neighbouring atoms are less than `gap` (Å) apart, which may be longer than half the box, become whole.
    """
    if box is None or positions.shape[0] == 0:
        return positions
    placed = positions[:1] + minimum_image(positions - positions[:1], box)
    if float((placed - placed[:1]).norm(dim=-1).max()) < largest_cutoff(box) - gap:
        return placed  # no chain of atoms gets to where the image nearest to the first atom changes
    away = torch.full_like(positions[:, 0], float("inf"))  # of each atom from the nearest of those that have their place
    vectors = torch.zeros_like(positions)
    waiting = torch.ones_like(away, dtype=torch.bool)
    latest = 0
    for _ in range(positions.shape[0]):
        waiting[latest] = False
        from_latest = minimum_image(positions - positions[latest], box)
        distances = from_latest.norm(dim=-1)
        nearer = waiting & (distances < away)
        away[nearer] = distances[nearer]
        vectors[nearer] = placed[latest] + from_latest[nearer]
        if not bool(waiting.any()):
            break
        latest = int(torch.where(waiting, away, float("inf")).argmin())
        placed[latest] = vectors[latest]
    return placed
