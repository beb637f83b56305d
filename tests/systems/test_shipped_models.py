"""The models that ship: their errors are below the limits, their systems name them, and they agree with the reference."""

from pathlib import Path

import numpy as np
import openmm
import pytest
import yaml
from openmm import unit

import ampmm
from ampmm.export import shipped_models
from ampmm.reference import get_labeller
from ampmm.simulation.droplet_files import load_droplet

SYSTEMS = Path(__file__).resolve().parents[2] / "systems"
# Mean absolute errors that none may exceed: energy, kJ/mol, and forces on QM atoms and MM charges, kJ/mol/Å.
LIMITS = {
    "uracil": (0.35, 0.8, 0.03),
    "uracil-fields": (0.35, 0.8, 0.03),
    "ra": (1.2, 2.2, 0.08),
    "sam": (3.3, 3.5, 0.15),
}
SHIPPED = [name for name in LIMITS if name in shipped_models()]
SYSTEM_OF = {name: name.removesuffix("-fields") for name in LIMITS}


def droplet_frame(name):
    """Numbers, QM and MM positions (Å) and charges (e) of the droplet's own coordinates."""
    droplet = load_droplet(SYSTEM_OF[name])
    nonbonded = next(force for force in droplet.system.getForces() if isinstance(force, openmm.NonbondedForce))
    particles = [nonbonded.getParticleParameters(i) for i in range(nonbonded.getNumParticles())]
    charges = np.array([charge.value_in_unit(unit.elementary_charge) for charge, *_ in particles])
    atoms, qm = list(droplet.topology.atoms()), np.asarray(droplet.qm_indices)
    mm = np.setdiff1d(np.arange(len(atoms)), qm)
    positions = 10.0 * np.asarray(droplet.positions)
    return np.array([atoms[i].element.atomic_number for i in qm]), positions[qm], positions[mm], charges[mm]


def test_every_shipped_model_has_limits_and_a_system():
    assert set(SHIPPED) == set(shipped_models())
    for system in set(SYSTEM_OF.values()):
        assert yaml.safe_load((SYSTEMS / system / "system.yaml").read_text())["model"] == system


@pytest.mark.parametrize("name", SHIPPED)
def test_errors_on_test_and_independent_frames_are_below_the_limits(name):
    errors = ampmm.load_model(name).card.errors
    unseen = [part for part in errors if part not in ("train", "validation")]
    assert "test" in unseen and len(unseen) > 1
    for part in unseen:
        found = [errors[part][key]["mae"] for key in ("energy", "forces_qm", "forces_mm")]
        assert (np.array(found) < LIMITS[name]).all(), part


@pytest.mark.parametrize("name", SHIPPED)
def test_forces_in_the_droplet_are_those_of_the_reference(name):
    pytest.importorskip("xtb", reason="its wheels are for Python 3.11")
    arrays = droplet_frame(name)
    own = ampmm.load_model(name).evaluate(*arrays)
    reference = get_labeller("gfn2-xtb").evaluate(*arrays, qm_charge=0)
    _, qm, mm = LIMITS[name]
    # One frame, not equilibrated with the reference: thrice the limits; the forces themselves are a hundred times as large.
    assert np.abs(own.forces_qm - reference.forces_qm).mean() < 3.0 * qm
    assert np.abs(own.forces_mm - reference.forces_mm).mean() < 3.0 * mm
    assert own.charges_qm.sum() == pytest.approx(0.0, abs=1e-3)
