"""Kernels of the QM–MM electrostatics, and the potential and forces made from them."""

import pytest
import torch

from ampmm.errors import InputError
from ampmm.geometry.neighbors import pairs_between
from ampmm.physics.coulomb import BareCoulomb, ElectrostaticPotential, ReactionField, coulomb_kernel
from ampmm.units import COULOMB_CONSTANT

CUTOFF = 9.0
KERNELS = pytest.mark.parametrize("kernel", [BareCoulomb(), ReactionField(CUTOFF)], ids=["bare", "reaction-field"])


def distances(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@KERNELS
def test_slope_is_the_derivative_of_the_kernel(kernel):
    r = torch.linspace(0.5, 8.9, 30, dtype=torch.float64, requires_grad=True)
    value, slope = kernel(r)
    (expected,) = torch.autograd.grad(value.sum(), r)
    torch.testing.assert_close(slope, expected)
    step = 1e-5
    difference = (kernel(r + step)[0] - kernel(r - step)[0]) / (2.0 * step)
    torch.testing.assert_close(slope, difference, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("cutoff", [6.0, 9.0, 14.0])
@pytest.mark.parametrize("permittivity", [1.0, 4.0, 78.4, 1e9])
def test_reaction_field_ends_with_value_slope_and_curvature_zero(cutoff, permittivity):
    kernel = ReactionField(cutoff, permittivity)
    r = distances(cutoff * (1.0 - 1e-12)).requires_grad_()
    value, slope = kernel(r)
    (curvature,) = torch.autograd.grad(slope.sum(), r)
    assert abs(value.item()) * cutoff < 1e-12
    assert abs(slope.item()) * cutoff**2 < 1e-11
    assert abs(curvature.item()) * cutoff**3 < 1e-10
    assert kernel(distances(cutoff, 2.0 * cutoff))[0].tolist() == [0.0, 0.0]
    assert kernel(distances(cutoff, 2.0 * cutoff))[1].tolist() == [0.0, 0.0]


def test_reaction_field_tends_to_one_over_r():
    """The difference to 1/r is about 1/R."""
    r = distances(1.0, 3.0, 10.0)
    for cutoff in (1e2, 1e4, 1e6):
        value, slope = ReactionField(cutoff)(r)
        torch.testing.assert_close(value, 1.0 / r, rtol=0, atol=3.0 / cutoff)
        torch.testing.assert_close(slope, -1.0 / r**2, rtol=0, atol=100.0 / cutoff**2)


def test_reaction_field_falls_monotonically_and_repels():
    value, slope = ReactionField(CUTOFF)(torch.linspace(0.5, CUTOFF - 0.01, 200, dtype=torch.float64))
    assert (value > 0).all() and (slope < 0).all()


def test_kernels_by_name():
    assert isinstance(coulomb_kernel("bare", None), BareCoulomb)
    assert coulomb_kernel("reaction-field", 9.0).cutoff == 9.0
    for arguments in (
        ("bare", 9.0),
        ("reaction-field", None),
        ("ewald", 9.0),
        ("reaction-field", 0.0),
        ("reaction-field", -9.0),
    ):
        with pytest.raises(InputError, match="electrostatics: expected"):
            coulomb_kernel(*arguments)


@KERNELS
def test_potential_and_its_pair_gradients(kernel):
    random = torch.Generator().manual_seed(0)
    qm, mm = (6.0 * torch.rand(n, 3, dtype=torch.float64, generator=random) for n in (3, 8))
    charges = torch.randn(8, dtype=torch.float64, generator=random)
    pairs = pairs_between(qm, mm, float("inf"), None)
    vectors = pairs.vectors.clone().requires_grad_()
    terms = ElectrostaticPotential(kernel)(pairs._replace(vectors=vectors), charges, 3)
    r = torch.cdist(qm, mm)
    expected = COULOMB_CONSTANT * (kernel(r)[0] * charges).sum(1)
    torch.testing.assert_close(terms.potential, expected)
    (gradients,) = torch.autograd.grad(terms.potential.sum(), vectors)
    torch.testing.assert_close(terms.pair_gradients, gradients)


def test_two_elementary_charges_one_angstrom_apart():
    """k_e e²/Å: 1389.35 kJ/mol, the constant of the OpenMM force fields."""
    pairs = pairs_between(torch.zeros(1, 3).double(), torch.tensor([[1.0, 0.0, 0.0]]).double(), 5.0, None)
    terms = ElectrostaticPotential(BareCoulomb())(pairs, distances(1.0), 1)
    assert terms.potential.item() == pytest.approx(1389.35457644382, rel=1e-14)
    assert terms.pair_gradients.tolist()[0] == pytest.approx([-1389.35457644382, 0.0, 0.0])


def test_no_charges_make_no_potential():
    pairs = pairs_between(torch.zeros(2, 3).double(), torch.zeros(0, 3).double(), 5.0, None)
    assert ElectrostaticPotential(BareCoulomb())(pairs, distances(), 2).potential.tolist() == [0.0, 0.0]
