"""Distance restraints: their energy, where they act, and what is refused."""

import numpy as np
import openmm
import pytest
import yaml

from ampmm.errors import InputError
from ampmm.simulation.assemble import assemble
from ampmm.simulation.config import config_from
from ampmm.simulation.droplet_files import load_droplet
from ampmm.simulation.restraints import RESTRAINTS_NAME, add_restraints, read_restraints, restraint, umbrella
from ampmm.simulation.system_files import read_system

ENTRY = {"distance": [0, 4], "upper": 0.25, "force_constant": 5000.0}


def energy(restraints, distance, box=None):
    """Energy (kJ/mol) and the force on the second atom along the bond (kJ/mol/nm)."""
    system = openmm.System()
    for _ in range(2):
        system.addParticle(1.0)
    if box is not None:
        system.setDefaultPeriodicBoxVectors(*np.eye(3) * box)
        periodic = openmm.NonbondedForce()
        periodic.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
        for _ in range(2):
            periodic.addParticle(0.0, 0.1, 0.0)
        system.addForce(periodic)
    add_restraints(system, restraints)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions([[0.0, 0.0, 0.0], [distance, 0.0, 0.0]])
    state = context.getState(energy=True, forces=True)
    return state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value[1, 0]


@pytest.mark.parametrize(
    ("each", "distance", "expected"),
    [
        (restraint([0, 1], 0.0, 0.45, 1000.0, ""), 0.44, (0.0, 0.0)),
        (restraint([0, 1], 0.0, 0.45, 1000.0, ""), 0.55, (5.0, -100.0)),
        (restraint([0, 1], 0.30, float("inf"), 1000.0, ""), 0.20, (5.0, 100.0)),
        (restraint([0, 1], 0.30, float("inf"), 1000.0, ""), 9.0, (0.0, 0.0)),
        (restraint([0, 1], 0.30, 0.40, 1000.0, ""), 0.35, (0.0, 0.0)),
        (umbrella(1, 0, 0.4, 1000.0), 0.5, (5.0, -100.0)),
        (umbrella(1, 0, 0.4, 1000.0), 0.3, (5.0, 100.0)),
    ],
)
def test_the_energy(each, distance, expected):
    np.testing.assert_allclose(energy([each], distance), expected, atol=1e-9)


def test_in_a_box_it_is_the_nearest_image():
    np.testing.assert_allclose(energy([umbrella(0, 1, 0.4, 1000.0)], 2.5, box=3.0), (5.0, 100.0), atol=1e-6)


@pytest.fixture
def restrained(small_system, tmp_path):
    """The small system with a restraint between two of its QM atoms."""
    for file in small_system.iterdir():
        (tmp_path / file.name).symlink_to(file)
    content = yaml.safe_load((small_system / "system.yaml").read_text())
    (tmp_path / "system.yaml").unlink()
    (tmp_path / "system.yaml").write_text(yaml.safe_dump({**content, "restraints": [ENTRY]}))
    return tmp_path


@pytest.mark.parametrize("form", ["box", "droplet"])
def test_simulations_feel_it_and_say_so(restrained, form):
    assembled = assemble(config_from({"system": str(restrained), "form": form, "model": "classical"}))
    forces = [force for force in assembled.system.getForces() if force.getName() == RESTRAINTS_NAME]
    assert len(forces) == 1 and forces[0].getNumBonds() == 1
    assert forces[0].usesPeriodicBoundaryConditions() == (form == "box")
    atoms = list(assembled.topology.atoms())
    name = f"distance URA:{atoms[0].name}–URA:{atoms[4].name} below 0.25 nm, 5000 kJ/mol/nm²"
    assert assembled.restraints == (name,)


def test_a_restraint_of_the_command_takes_the_place_of_the_systems(restrained):
    assert [each.as_entry() for each in load_droplet(restrained).restraints] == [ENTRY]
    other, same = umbrella(1, 5, 0.3, 10.0), umbrella(4, 0, 0.3, 10.0)
    assert load_droplet(restrained, [other]).restraints == (*load_droplet(restrained).restraints, other)
    assert load_droplet(restrained, [same]).restraints == (same,)
    with pytest.raises(InputError, match=r"expected atoms below 132, got \[0, 132\]"):
        load_droplet(restrained, [umbrella(0, 132, 0.3, 10.0)])


def test_entries_come_back_as_they_were_written():
    entries = [ENTRY, {"distance": [3, 1], "lower": 0.2, "force_constant": 5.0}, {**ENTRY, "lower": 0.1}]
    assert [each.as_entry() for each in read_restraints(entries, "here")] == entries
    assert read_restraints(None, "here") == ()
    assert read_restraints(entries, "")[1].describe() == "distance 3–1 above 0.2 nm, 5 kJ/mol/nm²"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"distance": [0, 1]}, "restraints: expected a list, got dict"),
        (["near"], "entry 1: expected names among distance, .* got 'near'"),
        ([ENTRY, {**ENTRY, "uper": 1}], "entry 2: unknown entry 'uper'; did you mean 'upper'"),
        ([{**ENTRY, "upper": 4.5}], "nm, 3 at most, got 4.5; is this in Å"),
        ([{"distance": [0, 1], "upper": 0.4}], "expected distance, force_constant, and upper or lower"),
        ([{"distance": [0, 1], "force_constant": 1.0}], "expected distance, force_constant, and upper or lower"),
        ([{**ENTRY, "distance": "0 1"}], "distance: expected the indices of two atoms, from 0, got '0 1'"),
        ([{**ENTRY, "distance": [0, 0]}], r"two atoms, from 0, got \[0, 0\]"),
        ([{**ENTRY, "distance": [0, -1]}], r"two atoms, from 0, got \[0, -1\]"),
        ([{**ENTRY, "distance": [0, 1, 2]}], "two atoms"),
        ([{**ENTRY, "upper": "0.4 nm"}], "upper: expected a positive number, got '0.4 nm'"),
        ([{**ENTRY, "force_constant": 0}], "force_constant: expected a positive number"),
        ([{**ENTRY, "lower": 0.5}], "lower 0.5 and upper 0.25"),
        ([{**ENTRY, "upper": float("nan")}], "upper: expected a positive number, got nan"),
    ],
)
def test_bad_entries_are_named(small_system, tmp_path, content, message):
    system = yaml.safe_load((small_system / "system.yaml").read_text())
    for form in ("box", "droplet"):
        for name in ("topology", "coordinates"):
            system[form][name] = str(small_system / system[form][name])
    (tmp_path / "system.yaml").write_text(yaml.safe_dump({**system, "restraints": content}))
    for form in ("box", "droplet"):
        with pytest.raises(InputError, match=message):
            read_system(str(tmp_path), form)
