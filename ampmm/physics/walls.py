"""Walls at the edge of what a model has seen: a rise where two atoms are closer, or a bond longer, than in training.

A network may give any energy to a structure that nothing in training resembled; minimisers and hot starts fall into such
holes. Inside the bounds the walls are exactly zero.
"""

from typing import Final, NamedTuple, Optional

import torch
from torch import Tensor, nn

from ampmm.geometry.cell import minimum_image
from ampmm.nn.scatter import scatter_sum
from ampmm.units import ANGSTROM_PER_NM

# The same for every pair of elements, and slower than a C–H bond's stretch: a time step that suits the bonds suits the walls.
FREQUENCY: Final = 500.0  # 1/ps, 2650 cm⁻¹; between two carbons some four times as stiff as their bond
_HYDROGEN: Final = 1.008  # amu


class WallTerms(NamedTuple):
    """What the walls add."""

    energy: Tensor  # () kJ/mol
    forces: Tensor  # (N, 3) kJ/mol/Å


def wall_stiffness(reduced_masses: Tensor) -> Tensor:
    """kJ/mol/Å², of reduced masses in amu; 1 amu/ps² is 1 kJ/mol/nm²."""
    return reduced_masses * (FREQUENCY / ANGSTROM_PER_NM) ** 2


class DistanceWalls(nn.Module):
    """E = ½ Σ_pairs k_ij [max(0, lower - r)² + max(0, r - upper)²], k_ij = μ_ij ω² with the pair's reduced mass.

    Args:
        lower: (N, N) least distances, Å; 0 for none.
        upper: (N, N) greatest distances, Å; infinite for none.
        masses: (N,) amu; None: all are hydrogens'.
    """

    def __init__(self, lower: Tensor, upper: Tensor, masses: Optional[Tensor] = None) -> None:
        super().__init__()
        # Pairs without a bound are left out: large QM regions have hundreds of thousands, and some models know no bounds.
        bounded = (lower > 0.0) | (upper < float("inf"))
        first, second = torch.nonzero(bounded.triu(1)).unbind(1)
        self.register_buffer("first", first)
        self.register_buffer("second", second)
        self.register_buffer("lower", lower[first, second].double())
        self.register_buffer("upper", upper[first, second].double())
        masses = torch.full((len(lower),), _HYDROGEN) if masses is None else masses
        reduced = masses[first] * masses[second] / (masses[first] + masses[second])
        self.register_buffer("stiffness", wall_stiffness(reduced.double()))

    def forward(self, positions: Tensor, box: Optional[Tensor]) -> WallTerms:
        """QM positions (N, 3), Å, float64, and the box vectors or None."""
        vectors = minimum_image(positions[self.second] - positions[self.first], box)
        distances = torch.linalg.vector_norm(vectors, dim=-1)
        excess = (distances - self.upper).clamp_min(0.0) - (self.lower - distances).clamp_min(0.0)
        pull = (self.stiffness * excess / distances).unsqueeze(-1) * vectors  # on the first atom, towards the second
        n_atoms = positions.shape[0]
        forces = scatter_sum(pull, self.first, n_atoms) - scatter_sum(pull, self.second, n_atoms)
        return WallTerms(0.5 * (self.stiffness * excess * excess).sum(), forces)
