"""Runs from a structure file and a preset: what becomes QM, what is added, what is refused."""

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from openmm import NonbondedForce, app, unit
from support.bms_models import write_small_bms

from ampmm.embedding import get_preset
from ampmm.errors import InputError, ModelFileError
from ampmm.simulation import config_from, resume, start
from ampmm.simulation.assemble import assemble
from ampmm.simulation.structure_source import read_structure, solvate_if_needed

# A capped glycine.
HEAVY_ATOMS = (  # Å
    ("CH3", "ACE", 2.000, 2.090, 0.000), ("C", "ACE", 3.427, 2.641, 0.000), ("O", "ACE", 4.391, 1.877, 0.000),
    ("N", "GLY", 3.555, 3.970, 0.000), ("CA", "GLY", 4.853, 4.614, 0.000),
    ("C", "GLY", 4.713, 6.129, 0.000), ("O", "GLY", 3.601, 6.653, 0.000),
    ("N", "NME", 5.846, 6.835, 0.000), ("C", "NME", 5.846, 8.284, 0.000),
)  # fmt: skip
N_QM = 19
OLD_WATER = "HETATM   10  O   HOH B   1      12.000  12.000  12.000  1.00  0.00           O\n"


@pytest.fixture(scope="module")
def solute(tmp_path_factory):
    """A PDB as a crystallographer leaves it: no hydrogens, a water's oxygen, a unit cell of no use."""
    lines = ["CRYST1   10.000   10.000   10.000  90.00  90.00  90.00 P 1           1\n"]
    for i, (name, residue, x, y, z) in enumerate(HEAVY_ATOMS, start=1):
        place = ("ACE", "GLY", "NME").index(residue) + 1
        lines.append(f"ATOM  {i:5d}  {name:<3s} {residue} A{place:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00"
                     f"           {name[0]}\n")  # fmt: skip
    path = tmp_path_factory.mktemp("solute") / "peptide.pdb"
    path.write_text("".join([*lines, OLD_WATER, "END\n"]))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_small_bms(tmp_path_factory.mktemp("model") / "small.pt", quiet=True)


def settings(solute, model, folder, preset="tip3p", **changes):
    values = {"system": str(solute), "preset": preset, "model": str(model), "output": str(folder), "padding": 10.0,
              "steps": 2, "report_interval": 1, "checkpoint_interval": 1, "minimize": 1, "timestep": 0.1}  # fmt: skip
    return config_from(values | changes)


def test_a_bare_solute_gets_hydrogens_and_water_once_and_runs_on(solute, model, tmp_path):
    folder = tmp_path / "run"
    result = start(settings(solute, model, folder), progress=False)
    assert result.step == 2
    solvated = app.PDBFile(str(folder / "solvated.pdb"))
    waters = [residue for residue in solvated.topology.residues() if residue.name == "HOH"]
    assert solvated.topology.getNumAtoms() == N_QM + 3 * len(waters) and len(waters) > 200
    assert solvated.topology.getUnitCellDimensions()[0].value_in_unit(unit.angstrom) == pytest.approx(20.0)
    written = (folder / "solvated.pdb").read_bytes()
    assert resume(folder, steps=3, progress=False).step == 3
    assert (folder / "solvated.pdb").read_bytes() == written
    folder = folder.rename(tmp_path / "moved")
    assert resume(folder, steps=4, progress=False).step == 4
    with (folder / "ml.csv").open() as file:
        rows = list(csv.DictReader(file))
    charges = [float(value) for name, value in rows[-1].items() if name.startswith("charge_")]
    assert len(charges) == N_QM and sum(charges) == pytest.approx(0.0, abs=1e-3)


def test_force_and_evaluation_share_the_presets_cutoff(solute, model, tmp_path):
    """The model's own reaction field would end at 6.5 Å."""
    config = solvate_if_needed(settings(solute, model, tmp_path / "run", minimize=0, backend="python"))
    assembled = assemble(config)
    region = assembled.region
    assert region.options["coulomb_cutoff"] == get_preset("tip3p").cutoff == 9.0
    assert (len(region.indices), region.qm_charge, len(region.mm_charges) % 3) == (N_QM, 0, 0)
    names = [force.getName() for force in assembled.system.getForces()]
    assert names.count("shifted reaction field") == 1


@pytest.mark.parametrize(("preset", "sites"), [("tip3p", 3), ("tip4p-fb", 4)])
def test_a_solvated_pdb_is_taken_as_it_is_and_gets_virtual_sites(solute, model, tmp_path, preset, sites):
    three_sites = solvate_if_needed(settings(solute, model, tmp_path / "run", minimize=0))
    config = settings(three_sites.system, model, tmp_path / "again", preset, padding=15.0)
    assert solvate_if_needed(config) is config
    files, structure = read_structure(config)
    assert len(files.qm_atoms) == N_QM
    waters = [residue for residue in structure.topology.residues() if residue.name == "HOH"]
    assert {len(list(water.atoms())) for water in waters} == {sites}
    assert np.asarray(structure.positions._value).shape == (structure.topology.getNumAtoms(), 3)


def test_a_unit_cell_with_a_few_whole_waters_is_not_taken_for_water_in_silence(solute, model, tmp_path):
    three_sites = solvate_if_needed(settings(solute, model, tmp_path / "run", minimize=0))
    lines = Path(three_sites.system).read_text().splitlines(keepends=True)
    first_water = next(i for i, line in enumerate(lines) if "HOH" in line)
    almost_empty = tmp_path / "crystal.pdb"
    almost_empty.write_text("".join([*lines[: first_water + 3], "END\n"]))
    with pytest.warns(UserWarning, match=r"crystal.pdb has a density of 0\.\d\d g/mL"):
        read_structure(settings(almost_empty, model, tmp_path / "again", padding=15.0))


def test_an_amber_topology_brings_its_own_force_field(model, tmp_path):
    uracil = Path(__file__).resolve().parents[2] / "systems" / "uracil"
    coordinates = str(uracil / "uracil_box.inpcrd")
    given = {"coordinates": coordinates, "padding": 15.0}
    config = settings(uracil / "uracil_box.prmtop", model, tmp_path / "run", **given)
    assert solvate_if_needed(config) is config
    with pytest.raises(InputError, match=r"padding: expected with a solute to solvate, got 10 Å with .*box\.prmtop"):
        solvate_if_needed(dataclasses.replace(config, padding=10.0))
    assembled = assemble(config)
    names = {list(assembled.topology.atoms())[i].residue.name for i in assembled.region.indices}
    assert names == {"URA"} and assembled.region.qm_charge == 0
    nonbonded = next(force for force in assembled.system.getForces() if isinstance(force, NonbondedForce))
    assert nonbonded.getCutoffDistance().value_in_unit(unit.angstrom) == pytest.approx(9.0)
    with pytest.raises(InputError, match="tip4p-fb has water of 4 sites"):
        assemble(settings(uracil / "uracil_box.prmtop", model, tmp_path / "run", "tip4p-fb", **given))
    with pytest.raises(InputError, match="expected the coordinates"):
        assemble(settings(uracil / "uracil_box.prmtop", model, tmp_path / "run"))


def test_a_folder_with_the_water_of_another_preset_is_refused(small_system, model, tmp_path):
    with pytest.raises(InputError, match=r"preset: tip4p-fb has water of 4 sites, got .*box\.prmtop with water of 3 sites"):
        start(settings(small_system, model, tmp_path / "a", preset="tip4p-fb", padding=15.0), progress=False)


def test_what_cannot_be_run_is_refused(solute, model, tmp_path):
    with pytest.raises(InputError, match='preset: expected "tip3p" or "tip4p-fb" with the structure file'):
        start(settings(solute, model, tmp_path / "a", preset=""), progress=False)
    with pytest.raises(InputError, match="expected one of tip3p, tip4p-fb, got 'spc'"):
        start(settings(solute, model, tmp_path / "b", preset="spc"), progress=False)
    with pytest.raises(InputError, match="expected box for the preset"):
        settings(solute, model, tmp_path / "c", form="droplet")
    for given, message in (("", "no model ships for peptide.pdb; give --model"), ("no-such.pt", "no-such.pt")):
        with pytest.raises((InputError, ModelFileError), match=message):
            start(settings(solute, given, tmp_path / "f"), progress=False)  # leaves no solvated.pdb
    broken = tmp_path / "broken.pdb"
    broken.write_text("".join(line for line in solute.read_text().splitlines(True) if " CA  GLY" not in line))
    with pytest.raises(InputError, match="Amber14 cannot describe it"):
        start(settings(broken, model, tmp_path / "d"), progress=False)
    water = tmp_path / "water.pdb"
    water.write_text("".join(
        f"HETATM{i:5d}  {name:<3s} HOH A   1    {x:8.3f}   0.000   0.000  1.00  0.00           {name[0]}\n"
        for i, (name, x) in enumerate((("O", 0.0), ("H1", 0.957), ("H2", -0.9)), start=1)
    ))  # fmt: skip
    with pytest.raises(InputError, match="expected a periodic box"):
        start(settings(water, model, tmp_path / "e", padding=15.0), progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.pdb", "water.pdb"]
