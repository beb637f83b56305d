"""Relaxing the surroundings leaves the QM region, and the System, as they were."""

import numpy as np
import openmm
import pytest
from openmm import unit

from ampmm.simulation.minimization import minimize_around


@pytest.fixture
def context():
    """A chain of four particles, its springs stretched."""
    system = openmm.System()
    springs = openmm.HarmonicBondForce()
    for _ in range(4):
        system.addParticle(12.0)
    for i in range(3):
        springs.addBond(i, i + 1, 0.15, 1.0e5)
    system.addForce(springs)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(np.array([[0.2 * i, 0.0, 0.0] for i in range(4)]))
    return context


def positions(context):
    return context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer)


def test_held_atoms_stay_and_the_others_relax(context):
    before = positions(context)
    minimize_around(context, [0, 1], 200)
    after = positions(context)
    # The spring between the held atoms pulls with 5000 kJ/mol/nm.
    np.testing.assert_allclose(after[:2], before[:2], atol=0.006)
    np.testing.assert_allclose(np.linalg.norm(np.diff(after[1:], axis=0), axis=1), 0.15, atol=1e-4)


def test_held_atoms_in_another_periodic_image_stay_there():
    """Where a platform has wrapped a molecule, the springs hold its atoms in the image where they are."""
    system = openmm.System()
    system.addParticle(12.0)
    system.setDefaultPeriodicBoxVectors(*np.eye(3).tolist())
    pull = openmm.CustomExternalForce("0*periodicdistance(x,y,z,0,0,0)")  # makes the System periodic
    system.addForce(pull)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(np.array([[1.2, 0.0, 0.0]]))

    def moved_by_the_platform(context, *_):
        context.setPositions(np.array([[0.2, 0.0, 0.0]]))
        assert context.getState(energy=True).getPotentialEnergy()._value == pytest.approx(0.0, abs=1e-6)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openmm.LocalEnergyMinimizer, "minimize", moved_by_the_platform)
        assert minimize_around(context, [0], 1)


def test_the_system_is_left_as_it_was(context):
    before = openmm.XmlSerializer.serialize(context.getSystem())
    minimize_around(context, [0, 1], 5)
    assert openmm.XmlSerializer.serialize(context.getSystem()) == before
    at_rest = context.getState(energy=True).getPotentialEnergy()._value
    context.setPositions(positions(context) + 0.5)
    assert context.getState(energy=True).getPotentialEnergy()._value == pytest.approx(at_rest)


def test_what_ends_in_no_number_is_undone(context, monkeypatch):
    """A minimiser that flies off, as OpenMM's does where a charge falls onto another."""
    before = positions(context)
    monkeypatch.setattr(openmm.LocalEnergyMinimizer, "minimize", lambda c, *_: c.setPositions(np.nan * before))
    assert not minimize_around(context, [0, 1], 50)
    np.testing.assert_array_equal(positions(context), before)
    assert context.getSystem().getNumForces() == 1
    monkeypatch.undo()
    assert minimize_around(context, [0, 1], 50)


def test_a_caller_says_what_its_engine_refuses(context, monkeypatch):
    def refused(*_):
        raise openmm.OpenMMException("GFN2-xTB did not converge")

    monkeypatch.setattr(openmm.LocalEnergyMinimizer, "minimize", refused)
    assert not minimize_around(context, [0, 1], 50, lambda: True)
    with pytest.raises(openmm.OpenMMException, match="did not converge"):
        minimize_around(context, [0, 1], 50)


@pytest.mark.parametrize("message", ["Particle coordinate is NaN", "the energy or the forces are not finite here"])
def test_an_engine_that_refuses_a_trial_step_is_no_failure(context, monkeypatch, message):
    before = positions(context)

    def refused(context, *_):
        context.setPositions(2.0 * before)
        raise openmm.OpenMMException(message)

    monkeypatch.setattr(openmm.LocalEnergyMinimizer, "minimize", refused)
    assert not minimize_around(context, [0, 1], 50)
    np.testing.assert_array_equal(positions(context), before)
