"""systems/solutes.py: where a nucleophile is placed, and that the shipped solutes are what the recipes say."""

import sys
from pathlib import Path

import numpy as np
import parmed
import pytest
import yaml

SYSTEMS = Path(__file__).resolve().parents[2] / "systems"
sys.path.insert(0, str(SYSTEMS))
import solutes  # noqa: E402

RECIPES = {path.parent.name: yaml.safe_load(path.read_text()) for path in sorted(SYSTEMS.glob("*/recipe.yaml"))}


def test_rotations_are_rotations_and_differ():
    generator = np.random.default_rng(3)
    drawn = np.array([solutes.random_rotation(generator) for _ in range(500)])
    assert np.allclose(drawn @ drawn.transpose(0, 2, 1), np.eye(3), atol=1e-12)
    assert np.allclose(np.linalg.det(drawn), 1.0)
    assert np.abs(drawn.mean(axis=0)).max() < 4 * np.sqrt(1 / 3 / 500)  # even: each entry has mean 0, variance 1/3


def test_the_nucleophile_is_in_line_and_touches_nothing():
    target, attacker = solutes.placed(RECIPES["sam"], SYSTEMS / "sam")
    carbon, leaving = (target.coordinates[solutes.named(target, name)] for name in ("C1", "S1"))
    sulfur = attacker.coordinates[solutes.named(attacker, "S1")]
    assert np.linalg.norm(sulfur - carbon) == pytest.approx(3.5, abs=1e-6)
    assert np.linalg.norm(sulfur - leaving) == pytest.approx(3.5 + np.linalg.norm(carbon - leaving), abs=1e-6)
    apart = np.linalg.norm(target.coordinates[:, None] - attacker.coordinates[None], axis=-1)
    assert apart.min() > solutes.CLOSEST_CONTACT
    before = parmed.load_file(str(SYSTEMS / "sam" / "cysteine.mol2"), structure=True).coordinates
    inner = [np.linalg.norm(x[:, None] - x[None], axis=-1) for x in (before, attacker.coordinates)]
    assert np.allclose(*inner, atol=1e-9)  # moved, not bent


def test_no_room_is_said(monkeypatch):
    monkeypatch.setattr(solutes, "CLOSEST_CONTACT", 50.0)
    with pytest.raises(SystemExit, match="room for the second solute"):
        solutes.placed(RECIPES["sam"], SYSTEMS / "sam")


def test_charges_are_moved_and_rounding_is_spread(tmp_path):
    molecule = parmed.load_file(str(SYSTEMS / "sam" / "sam.mol2"), structure=True)
    before = [atom.charge for atom in molecule.atoms]
    molecule.atoms[10].charge += 0.0049  # what antechamber's rounding leaves
    molecule.save(str(tmp_path / "sam.mol2"))
    move = [{"from": "C1", "to": "S1", "charge": 0.25}]
    solutes.correct_charges(tmp_path / "sam.mol2", {"charge": 0, "move_charge": move})
    after = [atom.charge for atom in parmed.load_file(str(tmp_path / "sam.mol2"), structure=True).atoms]
    assert sum(after) == pytest.approx(0.0, abs=1e-6)
    assert after[0] - before[0] == pytest.approx(-0.25, abs=2e-4)
    assert after[1] - before[1] == pytest.approx(0.25, abs=2e-4)
    assert after[5] - before[5] == pytest.approx(-0.0001, abs=1e-5)


@pytest.mark.parametrize("name", RECIPES)
def test_files_carry_the_parameters_of_the_mol2(name):
    """Types and charges of the box and the droplet are those of the solutes' mol2 files, in the recipe's order."""
    recipe = RECIPES[name]
    wanted = [atom for s in recipe["solutes"] for atom in parmed.load_file(str(SYSTEMS / name / f"{s['name']}.mol2")).atoms]
    for form in ("box", "droplet"):
        atoms = parmed.load_file(str(SYSTEMS / name / f"{name}_{form}.prmtop")).atoms
        assert [atom.name for atom in atoms[: len(wanted)]] == [atom.name for atom in wanted]
        assert [atom.type for atom in atoms[: len(wanted)]] == [atom.type for atom in wanted]
        assert np.allclose([a.charge for a in atoms[: len(wanted)]], [a.charge for a in wanted], atol=2e-6)
    assert (len(atoms) - len(wanted)) // 3 == recipe["droplet"]["waters"]
