"""The protein example at a small size, and the chain it builds where there is no structure."""

from pathlib import Path

import numpy as np
import pytest
from openmm import NonbondedForce, Platform, app, unit
from support.bms_models import WEIGHTS, write_small_bms
from test_examples import rows, run

from ampmm.cli.import_weights import import_file

ROOT = Path(__file__).resolve().parents[1]


def test_protein(tmp_path):
    """Three residues with random weights; with the published ones, if at hand, the temperature stays sane."""
    model, more = write_small_bms(tmp_path / "small.pt", quiet=True), ("--minimize", 1, "--steps", 2, "--interval", 1)
    if WEIGHTS.is_file():
        model, more = tmp_path / "amp_bms.pt", ("--minimize", 20, "--steps", 40, "--interval", 20)
        import_file(WEIGHTS, model, {}, "amp-bms", "a test")
    text = run("05_protein.py", model, "--sequence", "ATG", "--output", tmp_path / "run", *more)
    assert "GiB at most" in text.splitlines()[-1]
    state = rows(tmp_path / "run" / "state.csv")
    assert len(state) == 2
    if WEIGHTS.is_file():
        assert all(row["temperature_K"] < 450.0 for row in state)


def test_a_protein_built_from_its_sequence_is_gb1(tmp_path, monkeypatch):
    """855 atoms, net charge -4, L-amino acids, within 50 Å."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    from build_protein import write_protein

    sequence = "MTYKLILNGKTLKGETTTEAVDAATAEKVFKQYANDNGVDGEWTYDDATKTFTVTE"
    write_protein(sequence, tmp_path / "gb1.pdb")
    pdb = app.PDBFile(str(tmp_path / "gb1.pdb"))
    positions = np.array(pdb.positions.value_in_unit(unit.angstrom))
    assert np.linalg.norm(positions[:, None] - positions[None], axis=-1).max() < 50.0
    for residue in pdb.topology.residues():
        atoms = {atom.name: positions[atom.index] for atom in residue.atoms()}
        if residue.name != "GLY":
            n, c, cb = (atoms[name] - atoms["CA"] for name in ("N", "C", "CB"))
            assert np.cross(n, c) @ cb > 1.0
    lengths = [np.linalg.norm(positions[a.index] - positions[b.index]) for a, b in pdb.topology.bonds()]
    assert min(lengths) > 1.2 and max(lengths) < 1.85
    field = app.ForceField("amber14-all.xml")
    modeller = app.Modeller(pdb.topology, pdb.positions)
    modeller.addHydrogens(field, platform=Platform.getPlatformByName("CPU"))
    system = field.createSystem(modeller.topology)
    nonbonded = next(force for force in system.getForces() if isinstance(force, NonbondedForce))
    charges = [
        nonbonded.getParticleParameters(i)[0].value_in_unit(unit.elementary_charge) for i in range(system.getNumParticles())
    ]
    assert len(charges) == 855 and sum(charges) == pytest.approx(-4.0, abs=1e-6)
