"""Periodic boxes: nearest images, and which cutoffs a box allows.

A box is a (3, 3) tensor whose rows are the reduced box vectors a, b, c of OpenMM (lower triangular); None is no box.
"""

from typing import Optional

import torch
from torch import Tensor


def minimum_image(vectors: Tensor, box: Optional[Tensor]) -> Tensor:
    """The nearest periodic image of difference vectors (n, 3), Å; the same as OpenMM's for triclinic boxes."""
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
