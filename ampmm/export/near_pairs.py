"""The listed pairs that are near at the moment, from positions: PyTorch's operations, or one native operator in their place."""

from typing import Optional

import torch
from torch import Tensor, nn

from ampmm.geometry.neighbors import pair_vectors, pairs_closer_than
from ampmm.nn import native
from ampmm.types import Pairs


class NearPairs(nn.Module):
    """Of listed pairs those closer than a cutoff, with their nearest-image vectors; natively where the library is built.

    Args:
        dtype: of the vectors; positions are in double precision.
    """

    native: torch.jit.Final[bool]

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.native = native.available() and dtype in (torch.float32, torch.float64)

    def forward(
        self, positions: Tensor, others: Tensor, centers: Tensor, neighbors: Tensor, box: Optional[Tensor], cutoff: float
    ) -> Pairs:
        """Positions (N, 3) of centers and (M, 3) of neighbors, indices of the listed pairs, box (3, 3) and cutoff; all in Å."""
        if self.native and positions.device.type == "cpu":
            i, j, vectors = torch.ops.ampmm.near_pairs(
                positions, others, centers, neighbors, box, cutoff, self.dtype == torch.float32
            )
            return Pairs(i, j, vectors)
        pairs = pairs_closer_than(pair_vectors(positions, others, centers, neighbors, box), cutoff)
        return Pairs(pairs.centers, pairs.neighbors, pairs.vectors.to(self.dtype))
