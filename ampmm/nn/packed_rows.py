"""Packed dipoles and quadrupoles component by component: the layout in which sums over many pairs are fast.

`ampmm.nn.multipoles` has the same numbers one pair, or one channel, after another. The matrices here hold integers alone,
which no change of precision rounds; the factors √½ and √⅙ of the basis are applied apart.
"""

import torch
from torch import Tensor, nn

from ampmm.nn.multipoles import basis_tensors


def _integer_basis() -> Tensor:
    """The five basis tensors without their factors: (5, 9)."""
    factors = torch.tensor([0.5, 0.5, 0.5, 0.5, 1.0 / 6.0], dtype=torch.float64).sqrt().unsqueeze(1)
    return torch.round(basis_tensors(2) / factors).to(torch.get_default_dtype())


class PackedRows(nn.Module):
    """R^1 and R^2 of unit vectors: few large operations in the place of thirty small ones."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("basis", _integer_basis(), persistent=False)

    def forward(self, unit: Tensor) -> Tensor:
        """Unit vectors (3, n) to their components and the five packed ones of r̂r̂ - I/3: (8, n)."""
        products = (unit.unsqueeze(0) * unit.unsqueeze(1)).flatten(0, 1)  # (9, n)
        packed = self.basis.to(unit.dtype) @ products  # the basis is traceless: no need to take I/3 off
        return torch.cat([unit, 0.5**0.5 * packed[:4], 6.0**-0.5 * packed[4:]])


class CartesianRows(nn.Module):
    """Dipoles and Cartesian quadrupoles from packed ones."""

    def __init__(self) -> None:
        super().__init__()
        rows = torch.zeros(12, 8)
        rows[:3, :3], rows[3:, 3:] = torch.eye(3), _integer_basis().t()
        self.register_buffer("rows", rows, persistent=False)

    def forward(self, moments: Tensor) -> Tensor:
        """(N, 8, C) to (N, 12·C): the dipole and the tensor's three rows, all channels of a component together."""
        n, c = moments.shape[0], moments.shape[2]
        packed = moments.transpose(0, 1).reshape(8, n * c)
        packed = torch.cat([packed[:3], 0.5**0.5 * packed[3:7], 6.0**-0.5 * packed[7:]])
        return (self.rows.to(packed.dtype) @ packed).reshape(12, n, c).transpose(0, 1).flatten(1)
