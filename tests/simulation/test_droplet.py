"""The droplet's restraints: zero inside, the written parabola outside, the QM region free to turn."""

import numpy as np
import openmm
import pytest
import yaml
from openmm import app

from ampmm.errors import InputError
from ampmm.simulation.droplet import add_droplet_restraints, wall_atoms
from ampmm.simulation.droplet_files import load_droplet


def water_and_pair():
    """A QM pair C–H and one water: topology and System without forces."""
    topology = app.Topology()
    chain = topology.addChain()
    solute, water = topology.addResidue("LIG", chain), topology.addResidue("HOH", chain)
    system = openmm.System()
    for name, symbol, residue in (
        ("C", "C", solute),
        ("H", "H", solute),
        ("O", "O", water),
        ("H1", "H", water),
        ("H2", "H", water),
    ):
        element = app.Element.getBySymbol(symbol)
        topology.addAtom(name, element, residue)
        system.addParticle(element.mass)
    return topology, system


def energy_and_forces(system, positions):
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(positions)
    state = context.getState(energy=True, forces=True)
    return state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value


def test_wall_acts_on_oxygens_beyond_the_radius_only():
    topology, system = water_and_pair()
    restraints = add_droplet_restraints(system, topology, [0, 1], 1.0, 2000.0, 1000.0)
    assert restraints.held == wall_atoms(topology, [0, 1]) == (2,)
    mass = np.array([12.011, 1.008])
    pair = np.array([[0.01, 0.0, 0.0], [-0.01 * mass[0] / mass[1], 0.0, 0.0]])  # its centre of mass at the origin
    inside = np.vstack([pair, [[0.0, 0.99, 0.0], [0.0, 1.5, 0.0], [0.0, 1.5, 0.1]]])
    energy, forces = energy_and_forces(system, inside)
    assert energy == pytest.approx(0.0, abs=1e-4) and np.abs(forces).max() < 0.1
    outside = inside.copy()
    outside[2] = [0.0, 0.0, -1.2]
    energy, forces = energy_and_forces(system, outside)
    assert energy == pytest.approx(0.5 * 2000.0 * 0.2**2, rel=1e-4)
    assert forces[2] == pytest.approx([0.0, 0.0, 2000.0 * 0.2], rel=1e-4, abs=1e-3)


def test_spring_acts_on_the_centre_of_mass_and_shares_out_by_mass():
    topology, system = water_and_pair()
    add_droplet_restraints(system, topology, [0, 1], 1.0, 2000.0, 1000.0)
    positions = np.array([[0.2, 0.0, 0.0], [0.2, 0.1, 0.0], [0.0, 0.0, 0.5], [0, 0, 0.6], [0, 0, 0.4]])
    center = np.average(positions[:2], axis=0, weights=[12.011, 1.008])
    energy, forces = energy_and_forces(system, positions)
    assert energy == pytest.approx(0.5 * 1000.0 * center @ center, rel=1e-3)
    assert forces[:2].sum(axis=0) == pytest.approx(-1000.0 * center, rel=1e-3, abs=1e-3)
    assert forces[0, 0] / forces[1, 0] == pytest.approx(12.011 / 1.008, rel=1e-3)


def test_oxygen_exactly_at_the_centre_has_finite_forces():
    topology, system = water_and_pair()
    add_droplet_restraints(system, topology, [0, 1], 1.0)
    assert np.isfinite(energy_and_forces(system, np.zeros((5, 3)))[1]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"radius_nm": 0.0}, "radius_nm: expected a positive number, got 0.0"),
        ({"center_force_constant": float("nan")}, "center_force_constant: expected a positive number, got nan"),
        ({"qm_indices": []}, "qm_indices: expected at least one atom"),
        ({"qm_indices": [0, 1, 2, 3, 4]}, "expected heavy MM atoms"),
    ],
)
def test_bad_input(change, message):
    topology, system = water_and_pair()
    arguments = {"qm_indices": [0, 1], "radius_nm": 1.0} | change
    with pytest.raises(InputError, match=message):
        add_droplet_restraints(system, topology, **arguments)
    assert system.getNumForces() == 0


def test_periodic_system_is_refused():
    topology, system = water_and_pair()
    force = openmm.NonbondedForce()
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    system.addForce(force)
    with pytest.raises(InputError, match="periodic System"):
        add_droplet_restraints(system, topology, [0, 1], 1.0)


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [("qm_charge", 1, "given \\+1 e, its classical charges add up to"), ("wall_radius", 8.0, "got 8; is this in Å")],
)
def test_entries_that_do_not_fit_the_files_are_noticed(small_system, tmp_path, entry, value, message):
    """A net charge that the force field does not have, for which labels would be another molecule's; a wall in Å."""
    for file in small_system.iterdir():
        (tmp_path / file.name).symlink_to(file)
    content = yaml.safe_load((small_system / "system.yaml").read_text())
    (content if entry in content else content["droplet"])[entry] = value
    (tmp_path / "system.yaml").unlink()
    (tmp_path / "system.yaml").write_text(yaml.safe_dump(content))
    with pytest.warns(UserWarning, match=message) if entry == "qm_charge" else pytest.raises(InputError, match=message):
        load_droplet(tmp_path)
