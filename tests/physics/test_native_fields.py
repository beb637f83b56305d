"""Potentials and fields of MM charges by the native operators, against their twins."""

import pytest
import torch
from support.native_library import library_missing

from ampmm.nn import native
from ampmm.physics.coulomb import BareCoulomb, ElectrostaticPotential, ReactionField
from ampmm.physics.forces import PairForces, no_forces
from ampmm.physics.multipole_coulomb import MultipoleField
from ampmm.types import Pairs

pytestmark = pytest.mark.skipif(bool(library_missing()), reason=library_missing())

N_ATOMS, N_CHARGES = 5, 400


def region(n_pairs: int, dtype: torch.dtype) -> tuple[Pairs, torch.Tensor, torch.Tensor]:
    """Pairs between 1 and 7 Å long, the charges, and moments."""
    generator = torch.Generator().manual_seed(n_pairs)
    directions = torch.nn.functional.normalize(torch.randn(n_pairs, 3, dtype=torch.float64, generator=generator))
    vectors = (1.0 + 6.0 * torch.rand(n_pairs, 1, dtype=torch.float64, generator=generator)) * directions
    centers = torch.randint(N_ATOMS, (n_pairs,), generator=generator)
    neighbors = torch.randint(N_CHARGES, (n_pairs,), generator=generator)
    charges = torch.randn(N_CHARGES, dtype=torch.float64, generator=generator)
    moments = torch.randn(N_ATOMS, 9, dtype=torch.float64, generator=generator)
    return Pairs(centers, neighbors, vectors.to(dtype)), charges.to(dtype), moments.to(dtype)


def native_and_twin(monkeypatch: pytest.MonkeyPatch, make):
    """The module with native operators, and the twin."""
    fast = make()
    monkeypatch.setattr(native, "available", lambda: False)
    twin = make()
    assert fast.native and not twin.native
    return fast, twin


def assert_close(got, wanted, tolerance):
    assert got.shape == wanted.shape
    if wanted.numel():
        assert float((got - wanted).abs().max()) <= tolerance * float(wanted.abs().max().clamp(min=1.0))


@pytest.mark.parametrize("module", [ElectrostaticPotential, MultipoleField])
def test_gradients_by_the_charges_are_not_lost(monkeypatch, module):
    pairs, charges, _ = region(50, torch.float64)
    gradients = []
    for each in native_and_twin(monkeypatch, lambda: module(BareCoulomb())):
        own = charges.clone().requires_grad_()
        each(pairs, own, N_ATOMS)[0].square().sum().backward()
        gradients.append(own.grad)
    assert_close(*gradients, 1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("n_pairs", [0, 1, 700])
@pytest.mark.parametrize("kernel", [BareCoulomb(), ReactionField(5.0)], ids=["bare", "reaction field"])
def test_potential_fields_and_their_derivatives(monkeypatch, kernel, n_pairs, dtype):
    pairs, charges, moments = region(n_pairs, dtype)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    potential, twin = native_and_twin(monkeypatch, lambda: ElectrostaticPotential(kernel))
    for one, other in zip(potential(pairs, charges, N_ATOMS), twin(pairs, charges, N_ATOMS), strict=True):
        assert_close(one, other, tolerance)
    scripted = torch.jit.script(potential)
    assert_close(scripted(pairs, charges, N_ATOMS).potential, twin(pairs, charges, N_ATOMS).potential, tolerance)
    monkeypatch.undo()
    field, twin = native_and_twin(monkeypatch, lambda: MultipoleField(kernel))
    got, wanted = field(pairs, charges, N_ATOMS), twin(pairs, charges, N_ATOMS)
    assert_close(got.fields, wanted.fields, tolerance)
    expected = twin.pair_gradients(wanted, pairs, charges, moments)
    assert_close(field.pair_gradients(got, pairs, charges, moments), expected, tolerance)
    monkeypatch.undo()
    add, twin = native_and_twin(monkeypatch, PairForces)
    before = no_forces(pairs.vectors, N_ATOMS, N_CHARGES)
    among_atoms = pairs._replace(neighbors=pairs.neighbors % N_ATOMS)
    for each in (add, torch.jit.script(add)):
        for one, other in zip(each(before, expected, pairs, True), twin(before, expected, pairs, True), strict=True):
            assert_close(one, other, tolerance)
        for one, other in zip(
            each(before, expected, among_atoms, False), twin(before, expected, among_atoms, False), strict=True
        ):
            assert_close(one, other, tolerance)


def test_what_is_to_be_differentiated_stays_with_the_twins():
    pairs, charges, moments = region(50, torch.float64)
    field = MultipoleField(BareCoulomb())
    terms = field(pairs, charges, N_ATOMS, differentiable=True)
    gradients = field.pair_gradients(terms, pairs, charges, moments.requires_grad_())
    (by_moments,) = torch.autograd.grad(gradients.square().sum(), moments)
    assert by_moments.abs().min() > 0.0
    pairs.vectors.requires_grad_()
    potential = ElectrostaticPotential(BareCoulomb())(pairs, charges, N_ATOMS).potential
    for made in (field(pairs, charges, N_ATOMS).fields, potential):
        (by_vectors,) = torch.autograd.grad(made.sum(), pairs.vectors)
        assert by_vectors.abs().max() > 0.0
