"""The shipped systems: composition, charge, stereochemistry, size and a classical energy that a relaxed system has."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import openmm
import parmed
import pytest
import yaml
from openmm import app, unit

from ampmm.embedding import load_structure, select_qm_atoms
from ampmm.simulation.droplet import add_droplet_restraints

SYSTEMS = Path(__file__).resolve().parents[2] / "systems"


class Solute(NamedTuple):
    residue: str
    formula: dict[str, int]
    n_bonds: int


SOLUTES = {
    "uracil": [Solute("URA", {"C": 4, "H": 4, "N": 2, "O": 2}, 12)],
    "ra": [Solute("RTA", {"C": 20, "H": 28, "O": 2}, 50)],
    "sam": [
        Solute("SAM", {"C": 15, "H": 22, "N": 6, "O": 5, "S": 1}, 51),
        Solute("CYN", {"C": 3, "H": 7, "N": 1, "O": 2, "S": 1}, 13),
    ],
}


class Loaded(NamedTuple):
    name: str
    form: str
    settings: dict  # system.yaml
    structure: parmed.Structure

    @property
    def n_qm(self) -> int:
        return sum(sum(solute.formula.values()) for solute in SOLUTES[self.name])

    @property
    def qm(self) -> list[parmed.Atom]:
        return self.structure.atoms[: self.n_qm]

    @property
    def waters(self) -> list[parmed.Residue]:
        return self.structure.residues[len(SOLUTES[self.name]) :]

    def position(self, name: str, residue: int = 0) -> np.ndarray:
        atom = next(atom for atom in self.structure.residues[residue].atoms if atom.name == name)
        return self.structure.coordinates[atom.idx]


def load(name: str, form: str) -> Loaded:
    folder = SYSTEMS / name
    settings = yaml.safe_load((folder / "system.yaml").read_text())
    entry = settings[form]
    return Loaded(name, form, settings, parmed.load_file(str(folder / entry["topology"]), str(folder / entry["coordinates"])))


@pytest.fixture(scope="module", params=[(name, form) for name in SOLUTES for form in ("box", "droplet")], ids="-".join)
def loaded(request):
    return load(*request.param)


def chirality(center, *neighbours) -> float:
    """The triple product of three neighbours, highest priority first: above zero is S, below is R (of C and S⁺)."""
    a, b, c = (neighbour - center for neighbour in neighbours)
    return float(np.dot(np.cross(a, b), c))


def torsion(a, b, c, d) -> float:
    """Degrees, -180 to 180; 180 is trans."""
    along = (c - b) / np.linalg.norm(c - b)
    first, second = ((v - np.dot(v, along) * along) for v in (a - b, d - c))
    return float(np.degrees(np.arctan2(np.dot(np.cross(along, first), second), np.dot(first, second))))


def test_composition_and_charge(loaded):
    structure, solutes = loaded.structure, SOLUTES[loaded.name]
    for residue, solute in zip(structure.residues, solutes, strict=False):
        assert residue.name == solute.residue
        assert Counter(atom.element_name for atom in residue.atoms) == solute.formula
        assert sum(atom.charge for atom in residue.atoms) == pytest.approx(0.0, abs=1e-5)
    assert {residue.name for residue in loaded.waters} == {"WAT"}
    assert [atom.element_name for atom in loaded.waters[0].atoms] == ["O", "H", "H"]
    assert sum(atom.charge for atom in loaded.qm) == pytest.approx(loaded.settings["qm_charge"], abs=1e-5)
    assert sum(atom.charge for atom in structure.atoms) == pytest.approx(0.0, abs=1e-4)


def test_the_selection_is_the_solutes(loaded):
    entry = loaded.settings[loaded.form]
    amber = load_structure(SYSTEMS / loaded.name / entry["topology"], SYSTEMS / loaded.name / entry["coordinates"])
    assert list(select_qm_atoms(amber.topology, loaded.settings["qm_atoms"])) == list(range(loaded.n_qm))


def test_bonds_are_the_solutes_own(loaded):
    x, solutes = loaded.structure.coordinates, SOLUTES[loaded.name]
    bonds = [(b.atom1, b.atom2) for b in loaded.structure.bonds if b.atom1.idx < loaded.n_qm]
    assert len(bonds) == sum(solute.n_bonds for solute in solutes)
    for first, second in bonds:
        assert first.residue is second.residue
        longest = 1.95 if "S" in (first.element_name, second.element_name) else 1.6 if loaded.name == "uracil" else 1.65
        assert 0.9 < np.linalg.norm(x[first.idx] - x[second.idx]) < longest


def test_padding_or_centre(loaded):
    coordinates = loaded.structure.coordinates
    qm = coordinates[: loaded.n_qm]
    if loaded.form == "box":
        box = loaded.structure.box
        assert np.allclose(box[3:], 90.0) and np.ptp(box[:3]) < 1e-6
        assert (np.minimum(qm.min(axis=0), box[:3] - qm.max(axis=0)) > 12.0).all()
        mass = sum(atom.mass for atom in loaded.structure.atoms)
        assert mass / 0.602214076 / np.prod(box[:3]) == pytest.approx(1.0, abs=0.03)  # g/mL
    else:
        assert np.linalg.norm(np.average(qm, axis=0, weights=[atom.mass for atom in loaded.qm])) < 0.01
        wall = 10 * loaded.settings["droplet"]["wall_radius"]
        distances = np.linalg.norm(coordinates[[water.atoms[0].idx for water in loaded.waters]], axis=1)
        assert distances.max() < wall + 1.5
        inside = (distances < wall - 2.5).sum() * 29.9 + len(qm) * 9.0  # Å³ of water and solute, below the surface's own layer
        assert inside / (4 / 3 * np.pi * (wall - 2.5) ** 3) == pytest.approx(1.0, abs=0.06)  # no bubbles, not squeezed


def test_fourteen_angstrom_of_water_around_each_heavy_atom(loaded):
    """What a data set stores around the QM region is there: droplet surface, or half a box edge, beyond 14 Å."""
    if loaded.form == "box":
        assert loaded.structure.box[0] / 2 > 14.0
        return
    heavy = loaded.structure.coordinates[[atom.idx for atom in loaded.qm if atom.atomic_number > 1]]
    assert 10 * loaded.settings["droplet"]["wall_radius"] - np.linalg.norm(heavy, axis=1).max() > 13.3


def test_relaxed_classical_energy(loaded):
    structure = loaded.structure
    method = app.PME if loaded.form == "box" else app.NoCutoff
    system = structure.createSystem(nonbondedMethod=method, nonbondedCutoff=1.0 * unit.nanometer, removeCMMotion=False)
    if loaded.form == "droplet":
        add_droplet_restraints(system, structure.topology, range(loaded.n_qm), loaded.settings["droplet"]["wall_radius"])
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("CPU"))
    context.setPositions(structure.positions)
    state = context.getState(energy=True, forces=True)
    per_water = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole) / len(loaded.waters)
    assert -44.0 < per_water < -30.0  # liquid TIP3P: about -40 kJ/mol a molecule; less at a surface
    assert np.isfinite(state.getForces(asNumpy=True)._value).all()


@pytest.mark.parametrize("form", ["box", "droplet"])
def test_retinoic_acid_is_all_trans(form):
    ra = load("ra", form)
    for double_bond in ("C3 C10 C11 C12", "C11 C12 C14 C15", "C14 C15 C16 C17", "C16 C17 C19 C20"):
        assert abs(torsion(*(ra.position(atom) for atom in double_bond.split()))) > 140.0


@pytest.mark.parametrize("form", ["box", "droplet"])
def test_sam_is_the_natural_isomer_and_cysteine_is_l(form):
    """(S) at sulphur and at the amino acid's carbon, (R) at C1' and C2' of the ribose, (R) at cysteine's carbon."""
    at = load("sam", form).position
    assert chirality(at("S1"), at("C6"), at("C2"), at("C1")) > 0.0
    assert chirality(at("C4"), at("N1"), at("C5"), at("C3")) > 0.0
    assert chirality(at("C10"), at("O3"), at("N2"), at("C9")) < 0.0
    assert chirality(at("C9"), at("O4"), at("C10"), at("C8")) < 0.0
    assert chirality(at("C1", 1), at("N1", 1), at("C2", 1), at("C3", 1)) < 0.0


@pytest.mark.parametrize("form", ["box", "droplet"])
def test_cysteine_is_in_line_behind_the_methyl(form):
    sam = load("sam", form)
    carbon, leaving, sulfur = sam.position("C1"), sam.position("S1"), sam.position("S1", 1)
    to_leaving, to_sulfur = leaving - carbon, sulfur - carbon
    distance = np.linalg.norm(to_sulfur)
    angle = np.degrees(np.arccos(np.dot(to_leaving, to_sulfur) / np.linalg.norm(to_leaving) / distance))
    assert 3.3 < distance < 3.8 and angle > 160.0
    (restraint,) = sam.settings["restraints"]
    first, second = (sam.structure.atoms[index] for index in restraint["distance"])
    assert (first.residue.name, first.name, second.residue.name, second.name) == ("CYN", "S1", "SAM", "C1")
    assert distance < 10 * restraint["upper"]
