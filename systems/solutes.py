"""A solute's geometry and classical parameters: RDKit, xtb, antechamber; and where a second solute goes.

Used by prepare.py beside it; not part of the package.
"""

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import parmed

N_ORIENTATIONS = 2000
CLOSEST_CONTACT = 2.4  # Å between two solutes


def run(command: str, folder: Path, amberhome: Path | None = None) -> None:
    """Run one program in `folder`; its output is shown only when it fails."""
    environment = dict(os.environ)
    if amberhome is not None:
        environment["AMBERHOME"] = str(amberhome)
        environment["PATH"] = f"{amberhome / 'bin'}:{environment['PATH']}"
        environment["LD_LIBRARY_PATH"] = f"{amberhome / 'lib'}:{environment.get('LD_LIBRARY_PATH', '')}"
    result = subprocess.run(shlex.split(command), cwd=folder, env=environment, text=True, capture_output=True)
    if result.returncode != 0:
        sys.exit(f"{command} failed:\n{result.stdout}\n{result.stderr}")


def write_structure(solute: dict[str, Any], seed: int, path: Path) -> None:
    """Write a solute's geometry as an MDL molfile: ETKDG, then MMFF94, then, if asked for, GFN2-xTB in ALPB water."""
    from rdkit import Chem
    from rdkit.Chem import AllChem

    molecule = Chem.AddHs(Chem.MolFromSmiles(solute["smiles"]))
    AllChem.EmbedMolecule(molecule, randomSeed=seed)
    AllChem.MMFFOptimizeMolecule(molecule, maxIters=2000)
    start = solute.get("start", "mmff94")
    if start == "gfn2-alpb":
        Chem.MolToXYZFile(molecule, str(path.with_suffix(".xyz")))
        run(f"xtb {path.stem}.xyz --opt tight --alpb water --chrg {solute['charge']}", path.parent)
        optimised = np.loadtxt(path.parent / "xtbopt.xyz", skiprows=2, usecols=(1, 2, 3))
        for index, position in enumerate(optimised.tolist()):
            molecule.GetConformer().SetAtomPosition(index, position)
    elif start != "mmff94":
        sys.exit(f"recipe.yaml: start: expected mmff94 or gfn2-alpb, got {start!r}")
    path.write_text(Chem.MolToMolBlock(molecule))


def make_parameters(solute: dict[str, Any], seed: int, target: Path, amberhome: Path) -> None:
    """Write NAME.mol2 (GAFF2 types, AM1-BCC charges) and NAME.frcmod (what gaff2.dat lacks) into `target`.

    `am1: minimised` takes the charges, and the geometry, at the minimum of AM1 without water; `am1: fixed` at the
    geometry that `write_structure` left.
    """
    name = solute["name"]
    fixed = {"minimised": "", "fixed": """-ek "maxcyc=0, qm_theory='AM1', grms_tol=0.0005, scfconv=1.d-10" """}[solute["am1"]]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_structure(solute, seed, folder / f"{name}.mdl")
        run(
            f"antechamber -i {name}.mdl -fi mdl -o {name}.mol2 -fo mol2 -at gaff2 -c bcc -nc {solute['charge']} -pf y -dr n "
            f"-rn {solute['residue']} {fixed}",
            folder,
            amberhome,
        )
        run(f"parmchk2 -i {name}.mol2 -f mol2 -o {name}.frcmod -s gaff2", folder, amberhome)
        correct_charges(folder / f"{name}.mol2", solute)
        for file in (f"{name}.mol2", f"{name}.frcmod"):
            (target / file).write_bytes((folder / file).read_bytes())


def correct_charges(mol2: Path, solute: dict[str, Any]) -> None:
    """Move the charges that the recipe says, and spread what antechamber's rounding leaves (a few 0.001 e) evenly."""
    molecule = parmed.load_file(str(mol2))
    by_name = {atom.name: atom for atom in molecule.atoms}
    for move in solute.get("move_charge", ()):
        by_name[move["from"]].charge -= move["charge"]
        by_name[move["to"]].charge += move["charge"]
    excess = round(sum(atom.charge for atom in molecule.atoms) - solute["charge"], 6)
    charges = [round(atom.charge - excess / len(molecule.atoms), 6) for atom in molecule.atoms]
    charges[0] -= sum(charges) - solute["charge"]
    for atom, charge in zip(molecule.atoms, charges, strict=True):
        atom.charge = charge
    molecule.save(str(mol2), overwrite=True)


def placed(recipe: dict[str, Any], folder: Path) -> list[parmed.Structure]:
    """The solutes of a recipe as they start: the first as its mol2 file has it, the second where `attack` says."""
    structures = [parmed.load_file(str(folder / f"{s['name']}.mol2"), structure=True) for s in recipe["solutes"]]
    for structure, solute in zip(structures[1:], recipe["solutes"][1:], strict=True):
        place_attacker(structures[0], structure, solute["attack"], recipe["seed"])
    return structures


def named(structure: parmed.Structure, name: str, residue: int = 0) -> int:
    """The index of an atom, by its name in one residue."""
    return next(atom.idx for atom in structure.residues[residue].atoms if atom.name == name)


def place_attacker(target: parmed.Structure, attacker: parmed.Structure, attack: dict[str, Any], seed: int) -> None:
    """Move a nucleophile in line behind the carbon it attacks, in the most compact orientation without contacts, in place.

    Its atom goes `distance` Å from the carbon, opposite to the leaving atom. Of N_ORIENTATIONS random orientations,
    and none that comes closer than CLOSEST_CONTACT, the one with the smallest radius of both solutes is taken.
    """
    fixed = target.coordinates
    carbon = fixed[named(target, attack["carbon"])]
    axis = carbon - fixed[named(target, attack["leaving"])]
    place = carbon + attack["distance"] * axis / np.linalg.norm(axis)
    free = attacker.coordinates - attacker.coordinates[named(attacker, attack["atom"])]
    best, smallest = None, np.inf
    generator = np.random.default_rng(seed)
    for _ in range(N_ORIENTATIONS):
        moved = free @ random_rotation(generator).T + place
        contact = np.linalg.norm(moved[:, None] - fixed[None], axis=-1).min()
        both = np.concatenate([fixed, moved])
        radius = np.linalg.norm(both - both.mean(axis=0), axis=1).max()
        if contact > CLOSEST_CONTACT and radius < smallest:
            best, smallest = moved, radius
    if best is None:
        sys.exit(f"attack: expected room for the second solute, every orientation comes closer than {CLOSEST_CONTACT} Å")
    attacker.coordinates = best


def random_rotation(generator: np.random.Generator) -> np.ndarray:
    """A rotation matrix drawn evenly, (3, 3): from a random unit quaternion."""
    w, x, y, z = (q := generator.normal(size=4)) / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
