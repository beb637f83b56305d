"""DFT among point charges: finite differences of energy and dipole, bad input. Tiny basis sets: seconds, not accuracy."""

import numpy as np
import pytest

from ampmm.errors import InputError, LabellingError
from ampmm.reference import get_labeller
from ampmm.reference.core_potentials import core_potentials, holds_core
from ampmm.units import COULOMB_CONSTANT, KJ_PER_MOL_PER_HARTREE

pytest.importorskip("pyscf")

WATER = np.array([8, 1, 1])
POSITIONS = np.array([[0.0, 0.0, 0.1], [0.76, 0.0, 0.69], [-0.76, 0.1, 0.69]])  # Å
SITES = np.array([[0.0, 0.3, -2.5], [2.5, 1.0, 1.2]])  # Å
CHARGES = np.array([0.4, -0.8])
TIGHT = {"basis": "sto-3g", "convergence": 1e-11, "grid_response": True, "grid_level": 1}


def finite_difference(energy, positions, rows, step=0.004):
    forces = np.zeros((len(rows), 3))
    for i, row in enumerate(rows):
        for axis in range(3):
            shift = np.zeros_like(positions)
            shift[row, axis] = step
            near = energy(positions + shift) - energy(positions - shift)
            far = energy(positions + 2 * shift) - energy(positions - 2 * shift)
            forces[i, axis] = -(8 * near - far) / (12 * step)
    return forces


def test_a_calculation_that_fails_is_a_failed_frame(monkeypatch):
    """Near-singular overlaps end in an error of linear algebra, not in an SCF that did not converge."""
    labeller = get_labeller("pyscf", basis="sto-3g")

    def singular(*arguments):
        raise np.linalg.LinAlgError("eigenvalues did not converge")

    monkeypatch.setattr(labeller, "_field", singular)
    with pytest.raises(LabellingError, match=r"failed \(LinAlgError: eigenvalues did not converge\)"):
        labeller.label(WATER, POSITIONS, SITES, CHARGES, 0)


@pytest.mark.parametrize(
    ("settings", "charge"),
    [
        ({"xc": "pbe", "density_fit": True}, 0),
        ({"xc": "hf", "density_fit": False}, 0),
        ({"xc": "hf", "density_fit": True, "unpaired": 1}, 1),
    ],
)
def test_forces_are_the_energy_gradient(settings, charge):
    labeller = get_labeller("pyscf", **TIGHT, **settings)
    result = labeller.label(WATER, POSITIONS, SITES, CHARGES, charge)
    qm = finite_difference(lambda x: labeller.label(WATER, x, SITES, CHARGES, charge).energy, POSITIONS, [0])
    mm = finite_difference(lambda x: labeller.label(WATER, POSITIONS, x, CHARGES, charge).energy, SITES, [0, 1])
    np.testing.assert_allclose(result.forces_qm[:1], qm, atol=2e-3)
    np.testing.assert_allclose(result.forces_mm, mm, atol=1e-4)
    np.testing.assert_allclose(result.forces_mm.sum(0) + result.forces_qm.sum(0), 0.0, atol=2e-3)
    assert result.charges_qm.sum() == pytest.approx(charge, abs=1e-6)


@pytest.mark.parametrize(
    ("numbers", "length", "basis", "density_fit", "n_core"),
    [([16, 1, 1], 1.336, "lanl2dz", False, 10), ([53, 1], 1.609, "def2-svp", True, 28)],
)
def test_core_electrons_that_the_basis_leaves_out_are_in_its_potential(numbers, length, basis, density_fit, n_core):
    """H2S and HI: energies as PySCF's own with `ecp=basis`, forces as their gradient, also of the effective charges."""
    from pyscf import gto, qmmm, scf

    positions = length * np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.999, -0.04]])[: len(numbers)]
    sites = SITES + [0.0, 0.0, -1.0]
    settings = {"xc": "hf", "basis": basis, "convergence": 1e-11, "density_fit": density_fit}
    labeller = get_labeller("pyscf", **settings)
    result = labeller.label(numbers, positions, sites, CHARGES)
    atoms = [(number, position) for number, position in zip(numbers, positions, strict=True)]
    molecule = gto.M(atom=atoms, basis=basis, ecp=basis, verbose=0)
    assert molecule.nelectron == sum(numbers) - n_core
    field = scf.RHF(molecule).density_fit() if density_fit else scf.RHF(molecule)
    energy = qmmm.mm_charge(field, sites, CHARGES).run(conv_tol=1e-11).e_tot * KJ_PER_MOL_PER_HARTREE
    assert result.energy == pytest.approx(energy, rel=1e-7)
    assert labeller.settings["core_potentials"] == "of the basis"
    qm = finite_difference(lambda x: labeller.label(numbers, x, sites, CHARGES).energy, positions, [0])
    mm = finite_difference(lambda x: labeller.label(numbers, positions, x, CHARGES).energy, sites, [1])
    np.testing.assert_allclose(result.forces_qm[:1], qm, atol=2e-3)
    np.testing.assert_allclose(result.forces_mm[1:], mm, atol=1e-4)
    np.testing.assert_allclose(result.forces_mm.sum(0) + result.forces_qm.sum(0), 0.0, atol=2e-3)
    assert result.charges_qm.sum() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("basis", ["gth-dzvp", "ccecp-cc-pvdz"])
def test_a_basis_without_core_and_without_potential_is_refused(basis):
    with pytest.raises(InputError, match="basis: expected one that holds the core electrons of S, or whose"):
        get_labeller("pyscf", xc="hf", basis=basis).label([16, 1, 1], POSITIONS * 1.4, SITES, CHARGES)


@pytest.mark.parametrize(
    ("basis", "symbol", "n_core"),
    [("def2-svp", "Br", 0), ("6-31g*", "S", 0), ("unc-def2-svp", "I", 28), ("lanl2dz@2s2p", "Cl", 10)]
    + [("aug-cc-pvdz-pp", "Ag", 28), ("sto-3g", "I", 0)],
)
def test_potentials_are_those_of_the_basis(basis, symbol, n_core):
    found = core_potentials(basis, [symbol])
    assert (found[symbol][0] if found else 0) == n_core
    assert holds_core(basis, symbol) or found


def test_the_dipole_is_the_response_to_a_field():
    """dE/dF = −μ; the field comes from two far charges of opposite sign."""
    labeller = get_labeller("pyscf", xc="hf", basis="sto-3g", convergence=1e-12, density_fit=False)
    alone = labeller.label(WATER, POSITIONS, np.zeros((0, 3)), np.zeros(0))
    distance, charge = 200.0, 20.0  # Å, e
    for axis in range(3):
        sites = np.zeros((2, 3))
        sites[:, axis] = (-distance, distance)
        sites += POSITIONS.mean(axis=0)
        energies = [labeller.label(WATER, POSITIONS, sites, [q, -q]).energy for q in (charge, -charge)]
        field = 2 * COULOMB_CONSTANT * charge / distance**2  # kJ/mol/e/Å, along +axis
        assert -(energies[0] - energies[1]) / (2 * field) == pytest.approx(alone.dipole[axis], abs=2e-4)


def test_without_convergence_there_are_no_numbers():
    with pytest.raises(LabellingError, match="did not converge in 1 cycles"):
        get_labeller("pyscf", xc="hf", basis="sto-3g", max_cycles=1).label(WATER, POSITIONS, SITES, CHARGES)


@pytest.mark.parametrize(
    ("settings", "charge", "message"),
    [
        ({"basis": "no-such-basis"}, 0, "no-such-basis"),
        ({"xc": "no-such-functional"}, 0, "no-such-functional"),
        ({}, 1, "unpaired"),
    ],
)
def test_bad_input_is_named(settings, charge, message):
    with pytest.raises(InputError, match=message):
        get_labeller("pyscf", **{"basis": "sto-3g", **settings}).label(WATER, POSITIONS, SITES, CHARGES, charge)


def test_unknown_names_are_listed():
    with pytest.raises(InputError, match="gfn2-xtb, pyscf"):
        get_labeller("gaussian")
    with pytest.raises(InputError, match="functional"):
        get_labeller("pyscf", functional="pbe")
