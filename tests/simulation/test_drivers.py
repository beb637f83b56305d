"""Drivers by name: energies are conserved, and the classical one is the System's own force field."""

import hashlib

import numpy as np
import openmm
import pytest

from ampmm.errors import BackendError, InputError
from ampmm.simulation.drivers import make_driver
from ampmm.simulation.droplet_files import load_droplet
from ampmm.simulation.sampling import Sampler, SamplingSettings

SETTINGS = SamplingSettings(time=0.06, interval=2.0, timestep=0.5, equilibration=0.1, seed=3)


@pytest.fixture(scope="module")
def droplet():
    return load_droplet("uracil")


@pytest.mark.parametrize("name", ["gfn-ff", "classical"])
def test_energy_is_conserved(droplet, name):
    """With Newton's equations after a short equilibration; flexible uracil, 0.25 fs."""
    try:
        evaluator, _ = make_driver(name, droplet)
    except BackendError as missing:
        pytest.skip(str(missing))
    sampler = Sampler(droplet, evaluator, SETTINGS)
    sampler.equilibrate(lambda text: None)
    integrator = openmm.VerletIntegrator(0.00025)
    context = openmm.Context(sampler.context.getSystem(), integrator, openmm.Platform.getPlatformByName("Reference"))
    start = sampler.context.getState(positions=True, velocities=True)
    context.setPositions(start.getPositions())
    context.setVelocities(start.getVelocities())
    potentials, totals = [], []
    for _ in range(40):
        integrator.step(1)
        state = context.getState(energy=True)
        potentials.append(state.getPotentialEnergy()._value)
        totals.append(potentials[-1] + state.getKineticEnergy()._value)
    assert np.ptp(potentials) > 10.0  # kJ/mol: it does move
    assert np.ptp(totals) < 0.05 * np.ptp(potentials)


def test_the_classical_driver_is_the_systems_force_field(droplet):
    evaluator, name = make_driver("Classical", droplet)
    assert evaluator is None and name == "classical force field"
    sampler = Sampler(droplet, None, SETTINGS)
    names = [force.getName() for force in sampler.context.getSystem().getForces()]
    assert names == [*(force.getName() for force in droplet.system.getForces()), "DropletWall", "DropletCenter"]
    assert not any(force.getName() == "DropletWall" for force in droplet.system.getForces())


def test_a_model_is_named_with_a_digest_of_its_file(droplet):
    """Every training leaves a model.pt; a resumed trajectory has to notice another one."""
    evaluator, name = make_driver("uracil", droplet)
    digest = hashlib.sha256(evaluator.path.read_bytes()).hexdigest()
    assert name == f"model uracil.pt, {digest[:8]}"


def test_an_unknown_name_is_refused(droplet):
    with pytest.raises(InputError, match=r"driver: expected one of gfn2-xtb, .*got 'gfn-fff'"):
        make_driver("gfn-fff", droplet)
