"""Packed quadrupoles component by component: the layout in which sums over many pairs are fast.

`ampmm.nn.multipoles` has the same numbers one pair, or one channel, after another. The buffers here hold integers alone, which
no change of precision rounds: the basis without its factors, and the squared norms that give those.
"""

import torch
from torch import Tensor, nn

from ampmm.nn.multipoles import basis_tensors

_SQUARED_NORMS = (2.0, 2.0, 2.0, 2.0, 6.0)


def _integer_basis() -> Tensor:
    """The five basis tensors without their factors: (5, 9)."""
    norms = torch.tensor(_SQUARED_NORMS, dtype=torch.float64).sqrt().unsqueeze(1)
    return torch.round(basis_tensors(2) * norms).to(torch.get_default_dtype())


class PackedRows(nn.Module):
    """R² of unit vectors: two large operations in the place of thirty small ones."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("basis", _integer_basis(), persistent=False)
        self.register_buffer("squared_norms", torch.tensor(_SQUARED_NORMS).unsqueeze(1), persistent=False)

    def forward(self, unit: Tensor) -> Tensor:
        """Unit vectors (3, n) to the packed components of r̂r̂ - I/3: (5, n)."""
        basis = self.basis.to(unit.dtype) * self.squared_norms.to(unit.dtype).rsqrt()
        products = (unit.unsqueeze(0) * unit.unsqueeze(1)).flatten(0, 1)  # (9, n)
        return basis @ products  # traceless: no need to take I/3 off


class CartesianRows(nn.Module):
    """Dipoles and Cartesian quadrupoles from packed ones."""

    def __init__(self) -> None:
        super().__init__()
        rows = torch.zeros(12, 8)
        rows[:3, :3], rows[3:, 3:] = torch.eye(3), _integer_basis().t()
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("squared_norms", torch.tensor((1.0, 1.0, 1.0, *_SQUARED_NORMS)), persistent=False)

    def forward(self, moments: Tensor) -> Tensor:
        """(N, 8, C) to (N, 12·C): the dipole and the tensor's three rows, all channels of a component together."""
        n, c = moments.shape[0], moments.shape[2]
        rows = self.rows.to(moments.dtype) * self.squared_norms.to(moments.dtype).rsqrt()
        return (rows @ moments.transpose(0, 1).reshape(8, n * c)).reshape(12, n, c).transpose(0, 1).flatten(1)
