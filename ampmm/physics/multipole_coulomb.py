"""Electrostatics between atomic multipoles of the QM region and MM charges, up to quadrupoles.

With r from a QM atom to an MM charge q, E = k_e q [ρ B0 + (μ·r) B1 + (Θ:(rr - r²/3)) B2], B0 = w(r), B1 = B0/r²,
B2 = 3 B1/r². For bare Coulomb, w = 1/r, these are the exact kernels. For a reaction field they are not the derivatives
of w but what AMP-BMS was trained with. Multipoles and fields are packed as in `ampmm.nn.multipoles`: (N, 9) holds the
charge, the dipole (3) and the quadrupole (5), so that the energy is the dot product of moments and fields.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ampmm.nn.multipoles import packed_tensors, quadrupole_tensors
from ampmm.nn.scatter import scatter_sum
from ampmm.types import Pairs
from ampmm.units import COULOMB_CONSTANT


class FieldTerms(NamedTuple):
    """The packed fields at the QM atoms and, for their derivatives, what each pair is made of."""

    fields: Tensor  # (N, 9) kJ/mol/e/Å^order
    unit: Tensor  # (n_pairs, 3) r̂
    inverse: Tensor  # (n_pairs,) 1/r, 1/Å
    value: Tensor  # (n_pairs,) k_e q w(r), kJ/mol/e
    slope: Tensor  # (n_pairs,) k_e q w'(r), kJ/mol/e/Å


class MultipoleField(nn.Module):
    """The fields that MM charges make at QM atoms, and the derivatives of E = moments · fields by the pair vectors."""

    def __init__(self, kernel: nn.Module) -> None:
        super().__init__()
        self.kernel = kernel
        self.constant = COULOMB_CONSTANT

    def forward(self, pairs: Pairs, charges: Tensor, n_atoms: int) -> FieldTerms:
        """From the pairs and all MM `charges` (M,) e, the fields at the `n_atoms` centers."""
        distances = torch.linalg.vector_norm(pairs.vectors, dim=-1)
        value, slope = self.kernel(distances)
        source = self.constant * charges[pairs.neighbors]
        value, slope = source * value, source * slope
        inverse = torch.reciprocal(distances)
        unit = pairs.vectors * inverse.unsqueeze(-1)
        dipole, quadrupole = value * inverse, 3.0 * value * inverse * inverse
        radial = torch.stack([value] + [dipole] * 3 + [quadrupole] * 5, dim=-1)  # (n_pairs, 9)
        fields = scatter_sum(radial * packed_tensors(unit, 2), pairs.centers, n_atoms)
        return FieldTerms(fields, unit, inverse, value, slope)

    def pair_gradients(self, terms: FieldTerms, centers: Tensor, moments: Tensor) -> Tensor:
        """∂E/∂r of every pair, (n_pairs, 3) kJ/mol/Å, for packed moments (N, 9); differentiable by the moments.

        With μ·r̂ = d and r̂·Θ·r̂ = t it is k_e q {r̂ [ρw' + d (w'/r - 2w/r²) + t (3w'/r² - 12w/r³)] + μ w/r² + 6 Θr̂ w/r³}.
        """
        own = moments[centers]
        tensors = quadrupole_tensors(moments[:, 4:])
        inverse, value, slope = terms.inverse, terms.value, terms.slope
        turned = (tensors[centers] * terms.unit.unsqueeze(1)).sum(dim=-1)  # (n_pairs, 3) Θr̂
        dipole = own[:, 1:4]
        along_dipole = (dipole * terms.unit).sum(dim=-1)
        along_both = (turned * terms.unit).sum(dim=-1)
        scaled = value * inverse
        radial = own[:, 0] * slope + inverse * (
            along_dipole * (slope - 2.0 * scaled) + along_both * inverse * (3.0 * slope - 12.0 * scaled)
        )
        across = (scaled * inverse).unsqueeze(-1) * (dipole + (6.0 * inverse).unsqueeze(-1) * turned)
        return radial.unsqueeze(-1) * terms.unit + across
