"""Multipoles in the field of MM charges: against charges close together, and the derivatives against autograd."""

import pytest
import torch

from ampmm.nn.multipoles import quadrupole_tensors
from ampmm.physics.coulomb import BareCoulomb, ReactionField
from ampmm.physics.multipole_coulomb import MultipoleField
from ampmm.types import Pairs
from ampmm.units import COULOMB_CONSTANT

# Two atoms and three charges, one of them beyond the cutoff of 7 Å.
POSITIONS = torch.tensor([[0.3, 0.1, -0.2], [1.4, -0.6, 0.5]], dtype=torch.float64)
SITES = torch.tensor([[2.0, 2.5, -1.0], [-3.0, 0.4, 1.9], [8.0, 1.0, 0.5]], dtype=torch.float64)
CHARGES = torch.tensor([-0.8, 0.4, 0.9], dtype=torch.float64)
CENTERS, NEIGHBORS = torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([0, 1, 2, 0, 1, 2])


def all_pairs() -> Pairs:
    return Pairs(CENTERS, NEIGHBORS, SITES[NEIGHBORS] - POSITIONS[CENTERS])


def random_moments() -> torch.Tensor:
    return torch.randn(2, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def test_bare_fields_are_those_of_charges_close_together():
    """ρ; a dipole as ±q at ±δ/2; a quadrupole from the second differences of q/|r|, all about the first atom."""
    fields = MultipoleField(BareCoulomb())(all_pairs(), CHARGES, 2).fields[0]

    def potential(shift: torch.Tensor) -> torch.Tensor:
        return COULOMB_CONSTANT * (CHARGES / (SITES - POSITIONS[0] - shift).norm(dim=-1)).sum()

    step = 1e-3
    axes = step * torch.eye(3, dtype=torch.float64)
    assert fields[0].item() == pytest.approx(potential(0.0 * axes[0]).item(), rel=1e-12)
    gradient = torch.stack([(potential(axis) - potential(-axis)) / (2.0 * step) for axis in axes])
    torch.testing.assert_close(fields[1:4], gradient, rtol=1e-5, atol=1e-5)
    second = torch.tensor(
        [[(potential(a + b) - potential(a - b) - potential(b - a) + potential(-a - b)).item() / (4.0 * step**2)
          for b in axes] for a in axes], dtype=torch.float64,
    )  # fmt: skip
    # 3 (rr - r²/3)/r⁵ is the Hessian of 1/r.
    torch.testing.assert_close(quadrupole_tensors(fields[4:]), second, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kernel", [BareCoulomb(), ReactionField(7.0)])
def test_pair_gradients_are_those_of_autograd(kernel):
    field, pairs, moments = MultipoleField(kernel), all_pairs(), random_moments().requires_grad_()
    pairs.vectors.requires_grad_()
    terms = field(pairs, CHARGES, 2)
    (expected,) = torch.autograd.grad((moments * terms.fields).sum(), pairs.vectors)
    got = field.pair_gradients(terms, pairs, CHARGES, moments)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    # Linear in the moments, which training differentiates.
    (by_moments,) = torch.autograd.grad(got.square().sum(), moments)
    torch.testing.assert_close((by_moments * moments).sum(), 2.0 * got.square().sum())


def test_beyond_the_cutoff_there_is_no_field():
    pairs = all_pairs()
    far = Pairs(CENTERS[[2, 5]], NEIGHBORS[[2, 5]], pairs.vectors[[2, 5]])
    field = MultipoleField(ReactionField(6.0))
    terms = field(far, CHARGES, 2)
    assert (terms.fields == 0.0).all() and (field.pair_gradients(terms, far, CHARGES, random_moments()) == 0.0).all()


def test_packed_quadrupoles_as_tensors_are_traceless_symmetric_with_the_same_products():
    packed = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    tensors = quadrupole_tensors(packed)
    torch.testing.assert_close(tensors, tensors.transpose(1, 2))
    assert tensors.diagonal(dim1=1, dim2=2).sum(-1).abs().max() < 1e-14
    torch.testing.assert_close(tensors.flatten(1) @ tensors.flatten(1).T, packed @ packed.T)
