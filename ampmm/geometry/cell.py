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
    vectors = vectors - torch.round(vectors[:, 2:3] / box[2, 2]) * box[2]
    vectors = vectors - torch.round(vectors[:, 1:2] / box[1, 1]) * box[1]
    return vectors - torch.round(vectors[:, 0:1] / box[0, 0]) * box[0]


def largest_cutoff(box: Tensor) -> float:
    """Half the smallest diagonal element: up to there the nearest image is the only one in range (OpenMM's rule), Å."""
    return 0.5 * float(torch.diagonal(box).min())
