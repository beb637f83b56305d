"""Walls at the edge of what a model has seen: a steep rise where two atoms are closer, or a bond longer, than in training.

A network may give any energy to a structure that nothing in training resembled; minimisers and hot starts fall into such
holes. Inside the bounds the walls are exactly zero.
"""

from typing import Final, NamedTuple, Optional

import torch
from torch import Tensor, nn

from ampmm.geometry.cell import minimum_image
from ampmm.nn.scatter import scatter_sum

STIFFNESS: Final = 1.0e5  # kJ/mol/Å², some 25 times a C–C bond


class WallTerms(NamedTuple):
    """What the walls add."""

    energy: Tensor  # () kJ/mol
    forces: Tensor  # (N, 3) kJ/mol/Å


class DistanceWalls(nn.Module):
    """E = ½ k Σ_pairs [max(0, lower - r)² + max(0, r - upper)²].

    Args:
        lower: (N, N) least distances, Å; 0 for none.
        upper: (N, N) greatest distances, Å; infinite for none.
    """

    def __init__(self, lower: Tensor, upper: Tensor) -> None:
        super().__init__()
        # Pairs without a bound are left out: large QM regions have hundreds of thousands, and some models know no bounds.
        bounded = (lower > 0.0) | (upper < float("inf"))
        first, second = torch.nonzero(bounded.triu(1)).unbind(1)
        self.register_buffer("first", first)
        self.register_buffer("second", second)
        self.register_buffer("lower", lower[first, second].double())
        self.register_buffer("upper", upper[first, second].double())
        self.stiffness = STIFFNESS

    def forward(self, positions: Tensor, box: Optional[Tensor]) -> WallTerms:
        """QM positions (N, 3), Å, float64, and the box vectors or None."""
        vectors = minimum_image(positions[self.second] - positions[self.first], box)
        distances = torch.linalg.vector_norm(vectors, dim=-1)
        excess = (distances - self.upper).clamp_min(0.0) - (self.lower - distances).clamp_min(0.0)
        pull = (self.stiffness * excess / distances).unsqueeze(-1) * vectors  # on the first atom, towards the second
        n_atoms = positions.shape[0]
        forces = scatter_sum(pull, self.first, n_atoms) - scatter_sum(pull, self.second, n_atoms)
        return WallTerms(0.5 * self.stiffness * (excess * excess).sum(), forces)
