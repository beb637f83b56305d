"""Electrostatics between atomic multipoles of the QM region and MM charges, up to quadrupoles.

With r from a QM atom to an MM charge q, E = k_e q [ρ B0 + (μ·r) B1 + (Θ:(rr - r²/3)) B2], B0 = w(r), B1 = B0/r²,
B2 = 3 B1/r². For bare Coulomb, w = 1/r, these are the exact kernels. For a reaction field they are not the derivatives
of w but what AMP-BMS was trained with. Multipoles and fields are packed as in `ampmm.nn.multipoles`: (N, 9) holds the
charge, the dipole (3) and the quadrupole (5), so that the energy is the dot product of moments and fields. What belongs to a
pair is kept component by component, (components, n_pairs).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ampmm.nn import native
from ampmm.nn.multipoles import quadrupole_tensors
from ampmm.nn.packed_rows import PackedRows
from ampmm.nn.scatter import scatter_sum
from ampmm.types import Pairs
from ampmm.units import COULOMB_CONSTANT


class FieldTerms(NamedTuple):
    """The packed fields at the QM atoms and, for their derivatives, what each pair is made of (natively nothing is kept)."""

    fields: Tensor  # (N, 9) kJ/mol/e/Å^order
    unit: Tensor  # (3, n_pairs) r̂
    inverse: Tensor  # (n_pairs,) 1/r, 1/Å
    value: Tensor  # (n_pairs,) k_e q w(r), kJ/mol/e
    slope: Tensor  # (n_pairs,) k_e q w'(r), kJ/mol/e/Å


class MultipoleField(nn.Module):
    """The fields that MM charges make at QM atoms, and the derivatives of E = moments · fields by the pair vectors.

    Natively on the CPU where the library is built, unless they have to be `differentiable`: the fields by the vectors, or the
    derivatives by the moments.
    """

    native: torch.jit.Final[bool]

    def __init__(self, kernel: nn.Module) -> None:
        super().__init__()
        self.kernel = kernel
        self.native = native.available()
        self.packed_rows = PackedRows()
        self.constant = COULOMB_CONSTANT

    def forward(self, pairs: Pairs, charges: Tensor, n_atoms: int, differentiable: bool = False) -> FieldTerms:
        """From the pairs and all MM `charges` (M,) e, the fields at the `n_atoms` centers."""
        differentiable = differentiable or pairs.vectors.requires_grad or charges.requires_grad
        if self.native and not differentiable and pairs.vectors.device.type == "cpu":
            fields = torch.ops.ampmm.charge_fields(
                pairs.vectors, self.constant * charges, pairs.centers, pairs.neighbors, n_atoms, self.kernel.constants
            )
            return FieldTerms(fields, fields[:0], fields[:0, 0], fields[:0, 0], fields[:0, 0])
        vectors = pairs.vectors.t().contiguous()  # (3, n_pairs)
        distances = (vectors * vectors).sum(0).sqrt()
        value, slope = self.kernel(distances)
        source = (self.constant * charges).index_select(0, pairs.neighbors)
        value, slope = source * value, source * slope
        inverse = torch.reciprocal(distances)
        unit = vectors * inverse
        dipole = value * inverse
        quadrupole = 3.0 * dipole * inverse
        of_pairs = torch.cat([value.unsqueeze(0), dipole * unit, quadrupole * self.packed_rows(unit)])  # (9, n_pairs)
        fields = scatter_sum(of_pairs.t().contiguous(), pairs.centers, n_atoms)
        return FieldTerms(fields, unit, inverse, value, slope)

    def pair_gradients(self, terms: FieldTerms, pairs: Pairs, charges: Tensor, moments: Tensor) -> Tensor:
        """∂E/∂r of every pair, (n_pairs, 3) kJ/mol/Å, for packed moments (N, 9) and the `terms` of the same pairs and charges.

        With μ·r̂ = d and r̂·Θ·r̂ = t it is k_e q {r̂ [ρw' + d (w'/r - 2w/r²) + t (3w'/r² - 12w/r³)] + μ w/r² + 6 Θr̂ w/r³}.
        """
        if self.native and terms.unit.shape[0] == 0:  # nothing was kept
            return torch.ops.ampmm.charge_field_gradients(
                pairs.vectors, self.constant * charges, pairs.centers, pairs.neighbors, moments, self.kernel.constants
            )
        tensors = quadrupole_tensors(moments[:, 4:]).flatten(1)
        of_atoms = torch.cat([moments[:, :4], tensors[:, :3], tensors[:, 4:6], tensors[:, 8:]], dim=1).t().contiguous()
        own = of_atoms.index_select(1, pairs.centers)  # (10, n_pairs)
        inverse, value, slope, unit = terms.inverse, terms.value, terms.slope, terms.unit
        dipole = own[1:4]
        xx, xy, xz, yy, yz, zz = own[4:].unbind(0)
        x, y, z = unit.unbind(0)
        turned = torch.stack([xx * x + xy * y + xz * z, xy * x + yy * y + yz * z, xz * x + yz * y + zz * z])  # Θr̂
        along_dipole = (dipole * unit).sum(0)
        along_both = (turned * unit).sum(0)
        scaled = value * inverse
        radial = own[0] * slope + inverse * (
            along_dipole * (slope - 2.0 * scaled) + along_both * inverse * (3.0 * slope - 12.0 * scaled)
        )
        across = scaled * inverse * (dipole + 6.0 * inverse * turned)
        return (radial * unit + across).t()
