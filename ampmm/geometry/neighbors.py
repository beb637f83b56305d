"""Which pairs are closer than a cutoff: QM–QM edges and QM–MM pairs, from positions in Å.

Distances are taken for a block of QM atoms at a time, of all other atoms or of those near the block;
`ampmm.export.runtime.Potential` keeps the result over many steps. Vectors are (n_pairs, 3) in shape and component after
component in memory, so that sums over pairs run at full width.
"""

from typing import Optional, Tuple

import torch
from torch import Tensor

from ampmm.geometry.cell import largest_cutoff, minimum_image
from ampmm.types import Pairs


def edges_within(positions: Tensor, cutoff: float, box: Optional[Tensor]) -> Pairs:
    """Both directions of every pair of atoms (N, 3) closer than `cutoff`."""
    pairs = pairs_between(positions, positions, cutoff, box)
    distinct = torch.nonzero(pairs.centers != pairs.neighbors).squeeze(-1)
    return Pairs(
        pairs.centers.index_select(0, distinct),
        pairs.neighbors.index_select(0, distinct),
        pairs.vectors.t().index_select(1, distinct).t(),
    )


def unordered_pairs_within(positions: Tensor, cutoff: float, box: Optional[Tensor]) -> Pairs:
    """Every pair of atoms (N, 3) closer than `cutoff` (may be infinite) once, center before neighbor."""
    index = torch.triu_indices(positions.shape[0], positions.shape[0], 1, device=positions.device)
    return pairs_closer_than(pair_vectors(positions, positions, index[0], index[1], box), cutoff)


def pair_vectors(positions: Tensor, others: Tensor, centers: Tensor, neighbors: Tensor, box: Optional[Tensor]) -> Pairs:
    """Given pairs with their nearest-image vectors from `positions[centers]` to `others[neighbors]`."""
    vectors = others.t().contiguous().index_select(1, neighbors) - positions.t().contiguous().index_select(1, centers)
    return Pairs(centers, neighbors, minimum_image(vectors.t(), box))


def pairs_closer_than(pairs: Pairs, cutoff: float) -> Pairs:
    """The pairs whose vector is shorter than `cutoff`."""
    near = torch.nonzero(is_near(pairs, cutoff)).squeeze(-1)
    return Pairs(
        pairs.centers.index_select(0, near), pairs.neighbors.index_select(0, near), pairs.vectors.t().index_select(1, near).t()
    )


def pairs_between(positions: Tensor, others: Tensor, cutoff: float, box: Optional[Tensor], block: int = 32) -> Pairs:
    """Pairs of `positions` (N, 3) and `others` (M, 3) closer than `cutoff` (may be infinite).

    A `block` of consecutive atoms meets only what lies near its first atom: neighbours in the order are neighbours in space in
    most topologies, and where they are not it costs time only.
    """
    centers: list[Tensor] = []
    neighbors: list[Tensor] = []
    vectors: list[Tensor] = []
    for start in range(0, positions.shape[0], block):
        rows = torch.arange(start, min(positions.shape[0], start + block), device=positions.device)
        near = _near_block(positions[start : start + block], others, cutoff, box)
        m = near.shape[0]
        pairs = pair_vectors(positions, others, rows.repeat_interleave(m), near.repeat(rows.shape[0]), box)
        pairs = pairs_closer_than(pairs, cutoff)
        centers.append(pairs.centers)
        neighbors.append(pairs.neighbors)
        vectors.append(pairs.vectors.t())
    if len(centers) == 0:
        none = torch.zeros(0, dtype=torch.long, device=positions.device)
        return Pairs(none, none, positions.new_zeros([0, 3]))
    return Pairs(torch.cat(centers), torch.cat(neighbors), torch.cat(vectors, dim=1).t())


def _near_block(block: Tensor, others: Tensor, cutoff: float, box: Optional[Tensor]) -> Tensor:
    """Which of `others` can be closer than `cutoff` to an atom of the block: the sphere around all of it, or everyone."""
    zeros = torch.zeros(block.shape[0], dtype=torch.long, device=block.device)
    own = pair_vectors(block, block, zeros, torch.arange(block.shape[0], device=block.device), box).vectors
    # Coordinates carry rounding errors; a NaN in them makes the sphere infinite.
    radius = cutoff + 1e-3 + float((own * own).sum(dim=-1).max().sqrt())
    everyone = torch.arange(others.shape[0], device=block.device)
    # Beyond half the box the nearest image is not unique, and the triangle inequality between nearest images may fail.
    if not radius < (float("inf") if box is None else largest_cutoff(box)):
        return everyone
    first = torch.zeros(others.shape[0], dtype=torch.long, device=block.device)
    return pairs_closer_than(pair_vectors(block, others, first, everyone, box), radius).neighbors


def all_pairs(positions: Tensor, others: Tensor, box: Optional[Tensor]) -> Pairs:
    """Every atom of `positions` (N, 3) with every one of `others` (M, 3), centers ascending."""
    n, m = positions.shape[0], others.shape[0]
    rows = torch.arange(n, device=positions.device).unsqueeze(1).expand(n, m).flatten()
    columns = torch.arange(m, device=positions.device).repeat(n)
    return pair_vectors(positions, others, rows, columns, box)


def is_near(pairs: Pairs, cutoff: float) -> Tensor:
    """Whether each pair's vector is shorter than `cutoff`, (n_pairs,)."""
    components = pairs.vectors.t()  # (3, n_pairs), contiguous where `pair_vectors` made them
    return (components * components).sum(dim=0) < cutoff * cutoff


def padded_pairs(pairs: Pairs, near: Tensor, capacity: int, filling: Pairs) -> Tuple[Pairs, Tensor]:
    """The pairs that are `near` (n_pairs,), then `filling`'s one pair until they are `capacity` pairs; how many are near ().

    The shapes depend on no values, and nothing waits for a GPU. Of more near pairs than `capacity` the last ones are missing.
    """
    n = near.shape[0]
    rank = near.cumsum(0)
    slots = torch.where(near & (rank <= capacity), rank - 1, capacity)  # the one behind the last takes what is not wanted
    own = torch.arange(n, device=near.device)
    chosen = torch.full([capacity + 1], n, device=near.device).scatter(0, slots, own)[:capacity]
    return (
        Pairs(
            torch.cat([pairs.centers, filling.centers]).index_select(0, chosen),
            torch.cat([pairs.neighbors, filling.neighbors]).index_select(0, chosen),
            torch.cat([pairs.vectors.t(), filling.vectors.t()], dim=1).index_select(1, chosen).t(),
        ),
        near.sum(),
    )
