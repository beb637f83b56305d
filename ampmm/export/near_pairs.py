"""The listed pairs that are near at the moment, from positions: PyTorch's operations, or one native operator in their place."""

from typing import Optional, Tuple

import torch
from torch import Tensor, nn

from ampmm.geometry.neighbors import all_pairs, is_near, padded_pairs, pair_vectors, pairs_closer_than
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


class PaddedPairs(nn.Module):
    """All pairs nearer than a cutoff in arrays of a fixed length, without a host that waits; natively on a GPU.

    Args:
        like: a tensor of the type that vectors shall have; positions are in double precision.
    """

    has_kernel: torch.jit.Final[bool]

    def __init__(self, like: Tensor) -> None:
        super().__init__()
        self.register_buffer("like", like.new_zeros(0), persistent=False)
        self.gpu = native.gpu_device()
        self.has_kernel = self.gpu != "" and like.dtype in (torch.float32, torch.float64)

    def forward(
        self,
        positions: Tensor,
        others: Tensor,
        box: Optional[Tensor],
        cutoff: float,
        capacity: int,
        neighbor: int,
        distinct: bool,
    ) -> Tuple[Pairs, Tensor]:
        """Positions (N, 3) and (M, 3), box (3, 3) and cutoff, Å, to `capacity` pairs, and how many are near, ().

        The rest are pairs of the last center, so that centers stay in order, with `neighbor`, out of range. `distinct`: no
        pair of an index with itself.
        """
        away = 2.0 * cutoff if cutoff < float("inf") and cutoff > 0.0 else 1.0
        if self.has_kernel and positions.device.type == self.gpu:
            i, j, vectors, n_near = torch.ops.ampmm.padded_pairs(
                positions, others, box, self.like, cutoff, capacity, neighbor, away, distinct
            )
            return Pairs(i, j, vectors), n_near
        every = all_pairs(positions, others, box)
        near = is_near(every, cutoff)
        if distinct:
            near = near & (every.centers != every.neighbors)
        last = torch.full([1], positions.shape[0] - 1, device=positions.device)
        vector = torch.full([1, 3], away, dtype=positions.dtype, device=positions.device)
        pairs, n_near = padded_pairs(every, near, capacity, Pairs(last, torch.full_like(last, neighbor), vector))
        return Pairs(pairs.centers, pairs.neighbors, pairs.vectors.to(self.like.dtype)), n_near
