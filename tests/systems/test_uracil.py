"""The shipped uracil files: composition, charge, size and a finite classical energy that a relaxed system has."""

from pathlib import Path

import numpy as np
import parmed
import pytest
import yaml
from openmm import app, unit

from ampmm.simulation.droplet import add_droplet_restraints

FOLDER = Path(__file__).resolve().parents[2] / "systems" / "uracil"
SYSTEM = yaml.safe_load((FOLDER / "system.yaml").read_text())
SYMBOLS = ["O", "C", "C", "C", "N", "C", "O", "N", "H", "H", "H", "H"]


@pytest.fixture(scope="module", params=["box", "droplet"])
def loaded(request):
    entry = SYSTEM[request.param]
    structure = parmed.load_file(str(FOLDER / entry["topology"]), str(FOLDER / entry["coordinates"]))
    return request.param, structure


def qm_indices(structure):
    return [atom.idx for atom in structure.atoms if atom.residue.name == "URA"]


def test_composition_and_charge(loaded):
    _, structure = loaded
    assert qm_indices(structure) == list(range(12))
    assert [structure.atoms[i].element_name for i in range(12)] == SYMBOLS
    assert {residue.name for residue in structure.residues[1:]} == {"WAT"}
    assert [atom.element_name for atom in structure.residues[1].atoms] == ["O", "H", "H"]
    assert sum(structure.atoms[i].charge for i in range(12)) == pytest.approx(SYSTEM["qm_charge"], abs=1e-5)
    assert sum(atom.charge for atom in structure.atoms) == pytest.approx(0.0, abs=1e-4)


def test_bonds_are_uracils(loaded):
    _, structure = loaded
    x = structure.coordinates
    bonds = [(b.atom1, b.atom2) for b in structure.bonds if b.atom1.idx < 12]
    assert len(bonds) == 12
    for first, second in bonds:
        assert 0.9 < np.linalg.norm(x[first.idx] - x[second.idx]) < 1.6


def test_padding_or_centre(loaded):
    form, structure = loaded
    qm = structure.coordinates[qm_indices(structure)]
    if form == "box":
        assert np.allclose(structure.box[3:], 90.0) and np.ptp(structure.box[:3]) < 1e-6
        assert (np.minimum(qm.min(axis=0), structure.box[:3] - qm.max(axis=0)) > 12.0).all()
        mass = sum(atom.mass for atom in structure.atoms)
        assert mass / 0.602214076 / np.prod(structure.box[:3]) == pytest.approx(1.0, abs=0.03)  # g/mL
    else:
        masses = [structure.atoms[i].mass for i in qm_indices(structure)]
        assert np.linalg.norm(np.average(qm, axis=0, weights=masses)) < 0.01
        oxygens = np.array([structure.coordinates[r.atoms[0].idx] for r in structure.residues[1:]])
        distances = np.linalg.norm(oxygens, axis=1)
        assert 560 <= len(oxygens) <= 620
        assert distances.max() < 10 * SYSTEM["droplet"]["wall_radius"] + 1.5
        assert (distances < 14.0).sum() > 330  # the region a data set stores is full of water


def test_relaxed_classical_energy(loaded):
    form, structure = loaded
    method = app.PME if form == "box" else app.NoCutoff
    system = structure.createSystem(nonbondedMethod=method, nonbondedCutoff=1.0 * unit.nanometer, removeCMMotion=False)
    if form == "droplet":
        add_droplet_restraints(system, structure.topology, range(12), SYSTEM["droplet"]["wall_radius"])
    context = _context(system, structure)
    state = context.getState(energy=True, forces=True)
    per_water = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole) / (len(structure.residues) - 1)
    assert -44.0 < per_water < -30.0  # liquid TIP3P: about -40 kJ/mol a molecule; less at a surface
    assert np.isfinite(state.getForces(asNumpy=True)._value).all()


def _context(system, structure):
    import openmm

    platform = openmm.Platform.getPlatformByName("CPU")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    context.setPositions(structure.positions)
    return context
