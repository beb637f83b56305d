"""Which pairs are closer than a cutoff: QM–QM edges and QM–MM pairs, from positions in Å.

QM regions are small, so distances are taken for all N·N or N·M candidates, for a block of QM atoms at a time;
`ampmm.export.runtime.Potential` keeps the result over many steps.
"""

from typing import Optional

import torch
from torch import Tensor

from ampmm.geometry.cell import minimum_image
from ampmm.types import Pairs


def edges_within(positions: Tensor, cutoff: float, box: Optional[Tensor]) -> Pairs:
    """Both directions of every pair of atoms (N, 3) closer than `cutoff`."""
    n = positions.shape[0]
    index = torch.arange(n, device=positions.device)
    centers = index.repeat_interleave(n)
    neighbors = index.repeat(n)
    distinct = centers != neighbors
    return pairs_closer_than(pair_vectors(positions, positions, centers[distinct], neighbors[distinct], box), cutoff)


def unordered_pairs_within(positions: Tensor, cutoff: float, box: Optional[Tensor]) -> Pairs:
    """Every pair of atoms (N, 3) closer than `cutoff` (may be infinite) once, center before neighbor."""
    index = torch.triu_indices(positions.shape[0], positions.shape[0], 1, device=positions.device)
    return pairs_closer_than(pair_vectors(positions, positions, index[0], index[1], box), cutoff)


def pair_vectors(positions: Tensor, others: Tensor, centers: Tensor, neighbors: Tensor, box: Optional[Tensor]) -> Pairs:
    """Given pairs with their nearest-image vectors from `positions[centers]` to `others[neighbors]`."""
    return Pairs(centers, neighbors, minimum_image(others[neighbors] - positions[centers], box))


def pairs_closer_than(pairs: Pairs, cutoff: float) -> Pairs:
    """The pairs whose vector is shorter than `cutoff`."""
    near = torch.nonzero((pairs.vectors * pairs.vectors).sum(dim=-1) < cutoff * cutoff).squeeze(-1)
    return Pairs(pairs.centers[near], pairs.neighbors[near], pairs.vectors[near])


def pairs_between(
    positions: Tensor, others: Tensor, cutoff: float, box: Optional[Tensor], candidates_per_block: int = 1 << 20
) -> Pairs:
    """Pairs of `positions` (N, 3) and `others` (M, 3) closer than `cutoff` (may be infinite)."""
    n, m = positions.shape[0], others.shape[0]
    everyone = torch.arange(m, device=positions.device)
    rows_per_block = max(1, candidates_per_block // max(m, 1))
    centers: list[Tensor] = []
    neighbors: list[Tensor] = []
    vectors: list[Tensor] = []
    for start in range(0, n, rows_per_block):
        rows = torch.arange(start, min(n, start + rows_per_block), device=positions.device)
        block = pair_vectors(positions, others, rows.repeat_interleave(m), everyone.repeat(rows.shape[0]), box)
        block = pairs_closer_than(block, cutoff)
        centers.append(block.centers)
        neighbors.append(block.neighbors)
        vectors.append(block.vectors)
    return Pairs(torch.cat(centers), torch.cat(neighbors), torch.cat(vectors))
