"""Amber, GROMACS, CHARMM and PDB files: the same energies as the force field they were written from."""

import io
import warnings
from pathlib import Path

import numpy as np
import parmed
import pytest
from embedding_systems import FORMATE, FORMATE_XML, Solvated, context, energy
from openmm import app, unit

from ampmm.embedding import load_structure
from ampmm.errors import InputError

URACIL = Path(__file__).parents[2] / "systems" / "uracil"


@pytest.fixture(scope="module")
def flexible() -> Solvated:
    """Formate and one flexible water without a box, whose files ParmEd can write in every format."""
    force_field = app.ForceField(io.StringIO(FORMATE_XML), "amber14/tip3p.xml")
    topology = app.Topology()
    chain = topology.addChain()
    for name, atoms, partners in (("FOR", ("C", "O1", "O2", "H"), (1, 2, 3)), ("HOH", ("O", "H1", "H2"), (1, 2))):
        residue = topology.addResidue(name, chain)
        added = [topology.addAtom(atom, app.Element.getBySymbol(atom[0]), residue) for atom in atoms]
        for partner in partners:
            topology.addBond(added[0], added[partner])
    water = [[0.1, 0.3, 0.1], [0.1, 0.2, 0.08], [0.1, 0.3, 0.2]]
    positions = np.concatenate([FORMATE + np.random.default_rng(0).normal(scale=0.005, size=(4, 3)), water])
    return Solvated(topology, positions, force_field.createSystem(topology, rigidWater=False))


@pytest.fixture(scope="module")
def structure(flexible) -> parmed.Structure:
    return parmed.openmm.load_topology(flexible.topology, flexible.system, flexible.positions * unit.nanometer)


def without_impropers(structure: parmed.Structure) -> parmed.Structure:
    """ParmEd cannot write Amber's periodic impropers to CHARMM files."""
    structure = structure.copy(parmed.Structure)
    structure.dihedrals.clear()
    return structure


def write(structure: parmed.Structure, kind: str, folder: Path) -> tuple[Path, Path, list[Path]]:
    topology, coordinates, parameters = {
        "amber": ("a.prmtop", "a.inpcrd", []),
        "gromacs": ("a.top", "a.gro", []),
        "charmm": ("a.psf", "a.pdb", ["a.prm"]),
    }[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "charmm":
            parmed.charmm.CharmmParameterSet.from_structure(structure).write(par=str(folder / "a.prm"))
        structure.save(str(folder / topology), overwrite=True)
        structure.save(str(folder / coordinates), overwrite=True)
    return folder / topology, folder / coordinates, [folder / name for name in parameters]


@pytest.mark.parametrize("kind", ["amber", "gromacs", "charmm"])
def test_files_through_parmed_give_the_force_fields_energy(flexible, structure, kind, tmp_path):
    if kind == "charmm":
        structure = without_impropers(structure)
    topology, coordinates, parameters = write(structure, kind, tmp_path)
    loaded = load_structure(topology, coordinates, parameters)
    assert [atom.element for atom in loaded.topology.atoms()] == [atom.element for atom in flexible.topology.atoms()]
    positions = np.asarray(loaded.positions.value_in_unit(unit.nanometer))
    assert np.allclose(positions, flexible.positions, atol=6e-4)
    system = loaded.create_system(nonbondedMethod=app.NoCutoff, rigidWater=False)
    if kind != "charmm":
        original = energy(context(flexible.system, flexible.positions))
        assert energy(context(structure.createSystem(), flexible.positions)) == pytest.approx(original, abs=0.02)
    expected = energy(context(structure.createSystem(nonbondedMethod=app.NoCutoff), positions))
    # Files hold charges and force constants with few digits; ParmEd's Coulomb constant differs by 1e-5.
    assert energy(context(system, positions)) == pytest.approx(expected, abs=0.2)


def test_charmm_force_field_in_amber_format(structure, tmp_path):
    """As CHARMM-GUI writes it: Urey–Bradley terms and harmonic impropers are in sections of their own."""
    structure = without_impropers(structure)
    for angle in structure.angles:
        structure.urey_bradleys.append(parmed.UreyBradley(angle.atom1, angle.atom3, parmed.BondType(50.0, 2.0)))
        structure.urey_bradley_types.append(structure.urey_bradleys[-1].type)
    structure.urey_bradley_types.claim()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        chamber = parmed.amber.ChamberParm.from_structure(structure)
        chamber.save(str(tmp_path / "a.prmtop"))
        structure.save(str(tmp_path / "a.inpcrd"))
    loaded = load_structure(tmp_path / "a.prmtop", tmp_path / "a.inpcrd")
    positions = np.asarray(loaded.positions.value_in_unit(unit.nanometer))
    options = {"nonbondedMethod": app.NoCutoff, "rigidWater": False}
    expected = app.AmberPrmtopFile(str(tmp_path / "a.prmtop")).createSystem(**options)
    without = parmed.amber.AmberParm(str(tmp_path / "a.prmtop")).createSystem(**options)
    energies = [energy(context(each, positions)) for each in (loaded.create_system(**options), expected, without)]
    assert energies[0] == pytest.approx(energies[1], abs=0.05)
    assert abs(energies[2] - energies[1]) > 1.0


def test_gromacs_coordinates_without_a_box(structure, tmp_path):
    topology, coordinates, _ = write(structure, "gromacs", tmp_path)
    lines = coordinates.read_text().splitlines()
    coordinates.write_text("\n".join([*lines[:-1], "   0.00000   0.00000   0.00000"]) + "\n")
    loaded = load_structure(topology, coordinates)
    assert loaded.box_vectors is None and loaded.topology.getPeriodicBoxVectors() is None


def test_amber_box_of_uracil():
    loaded = load_structure(URACIL / "uracil_box.prmtop", str(URACIL / "uracil_box.inpcrd"))
    assert loaded.topology.getNumAtoms() == len(loaded.positions)
    assert {residue.name for residue in loaded.topology.residues()} >= {"URA"}
    box = np.array(loaded.box_vectors.value_in_unit(unit.nanometer))
    system = loaded.create_system(nonbondedMethod=app.PME, constraints=app.HBonds)
    assert np.allclose(box, [v.value_in_unit(unit.nanometer) for v in system.getDefaultPeriodicBoxVectors()])
    assert np.allclose(box, np.array(loaded.topology.getPeriodicBoxVectors().value_in_unit(unit.nanometer)))
    assert box[0, 0] > 2.5
    assert load_structure(URACIL / "uracil_droplet.prmtop", URACIL / "uracil_droplet.inpcrd").box_vectors is None


@pytest.fixture
def pdb_files(box, tmp_path) -> tuple[Path, Path]:
    (tmp_path / "formate.xml").write_text(FORMATE_XML)
    with open(tmp_path / "box.pdb", "w") as file:
        app.PDBFile.writeFile(box.topology, box.positions * unit.nanometer, file)
    # A PDB file names no bonds of a residue that OpenMM does not know, unless by CONECT, which writeFile adds.
    return tmp_path / "box.pdb", tmp_path / "formate.xml"


def test_pdb_and_force_field_xml(box, pdb_files):
    pdb, xml = pdb_files
    loaded = load_structure(pdb, parameters=[xml, "amber14/tip3p.xml"])
    system = loaded.create_system(nonbondedMethod=app.PME, nonbondedCutoff=0.9 * unit.nanometer)
    positions = np.asarray(loaded.positions.value_in_unit(unit.nanometer))
    assert np.allclose(positions, box.positions, atol=1e-4)
    assert energy(context(system, positions)) == pytest.approx(energy(context(box.system, positions)), rel=1e-4)
    (pdb.parent / "half.pdb").write_text("\n".join(pdb.read_text().splitlines()[:200]) + "\nEND\n")
    with pytest.raises(InputError, match=r"atoms as in .*box\.pdb, got .* in .*half\.pdb"):
        load_structure(pdb, pdb.parent / "half.pdb", [xml, "amber14/tip3p.xml"])
    with pytest.raises(InputError, match=r"box\.pdb.*No template found for residue"):
        load_structure(pdb, parameters=["amber14/tip3p.xml"]).create_system()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.prmtop", "none.inpcrd"), "topology_file: no such file: none.prmtop"),
        ((URACIL / "uracil_box.prmtop",), "coordinates_file: expected the coordinates for .*uracil_box.prmtop"),
        ((URACIL / "uracil_box.prmtop", "none.inpcrd"), "coordinates_file: no such file: none.inpcrd"),
        ((URACIL / "README.md", URACIL / "README.md"), "topology_file: expected one of .prmtop.* got .*README.md"),
        ((URACIL / "uracil_box.prmtop", URACIL / "README.md"), "coordinates_file: cannot read .*README.md"),
        ((URACIL / "uracil_box.prmtop", URACIL / "uracil_droplet.inpcrd"), "atoms as in .*uracil_box.prmtop"),
        ((URACIL / "uracil_box.prmtop", URACIL / "uracil_box.inpcrd", ["a.xml"]), "parameters: expected none"),
    ],
)
def test_errors_name_the_file(arguments, message):
    with pytest.raises(InputError, match=message):
        load_structure(*arguments)


@pytest.mark.parametrize("name", ["bad.prmtop", "bad.top", "bad.psf", "bad.pdb"])
def test_damaged_files(name, tmp_path):
    path = tmp_path / name
    path.write_text("no topology\n" * 3)
    parameters = {"bad.psf": [path], "bad.pdb": ["amber14/tip3p.xml"]}.get(name, [])
    with pytest.raises(InputError, match="bad"):
        load_structure(path, path, parameters)


@pytest.mark.parametrize("name", ["a.psf", "a.pdb"])
def test_missing_parameters(name, tmp_path):
    (tmp_path / name).write_text("")
    with pytest.raises(InputError, match="parameters: expected"):
        load_structure(tmp_path / name, tmp_path / name)
