"""Makes the files of this folder: uracil in a periodic TIP3P box, and uracil in a TIP3P droplet.

    python systems/uracil/prepare.py parameters --amberhome PATH   # uracil.mol2 and uracil.frcmod, once
    python systems/uracil/prepare.py droplet --amberhome PATH
    python systems/uracil/prepare.py box --amberhome PATH

PATH is an AmberTools installation with antechamber, sqm, parmchk2 and tleap. Needs RDKit beside ampmm's own
requirements. The equilibrations are classical; their random numbers come from SEED.
"""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import openmm
import parmed
from openmm import app, unit

from ampmm.simulation.droplet import add_droplet_restraints

HERE = Path(__file__).resolve().parent
SMILES = "O=C1C=CNC(=O)N1"
RESIDUE = "URA"
SEED = 20240117
N_WATERS_DROPLET = 590
WALL_RADIUS_NM = 1.65
BUFFER_BOX = 12.5  # Å beyond the van der Waals radii, before the barostat compresses the loosely packed water
BUFFER_DROPLET = 18.0  # Å, cut down to the sphere afterwards
TIMESTEP = 2 * unit.femtoseconds  # with bonds to hydrogen constrained, here only
TEMPERATURE = 300 * unit.kelvin


def run(command: str, folder: Path, amberhome: Path) -> None:
    """Run one AmberTools program in `folder`; its output is shown only when it fails."""
    environment = dict(os.environ, AMBERHOME=str(amberhome))
    environment["PATH"] = f"{amberhome / 'bin'}:{environment['PATH']}"
    library_path = environment.get("LD_LIBRARY_PATH", "")
    environment["LD_LIBRARY_PATH"] = f"{amberhome / 'lib'}:{library_path}"
    result = subprocess.run(shlex.split(command), cwd=folder, env=environment, text=True, capture_output=True)
    if result.returncode != 0:
        sys.exit(f"{command} failed:\n{result.stdout}\n{result.stderr}")


def structure_from_smiles(path: Path) -> None:
    """Write uracil's geometry (RDKit ETKDGv3, then MMFF94) as an MDL molfile."""
    from rdkit import Chem
    from rdkit.Chem import AllChem

    molecule = Chem.AddHs(Chem.MolFromSmiles(SMILES))
    AllChem.EmbedMolecule(molecule, randomSeed=SEED)
    AllChem.MMFFOptimizeMolecule(molecule)
    path.write_text(Chem.MolToMolBlock(molecule))


def make_parameters(amberhome: Path) -> None:
    """Write uracil.mol2 (GAFF2 types, AM1-BCC charges) and uracil.frcmod (what gaff2.dat lacks)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        structure_from_smiles(folder / "uracil.mdl")
        run(
            f"antechamber -i uracil.mdl -fi mdl -o uracil.mol2 -fo mol2 -at gaff2 -c bcc -nc 0 -pf y -dr n -rn {RESIDUE}",
            folder,
            amberhome,
        )
        run("parmchk2 -i uracil.mol2 -f mol2 -o uracil.frcmod -s gaff2", folder, amberhome)
        neutralise(folder / "uracil.mol2")
        for file in ("uracil.mol2", "uracil.frcmod"):
            (HERE / file).write_bytes((folder / file).read_bytes())


def neutralise(mol2: Path) -> None:
    """Spread the net charge that antechamber's rounding leaves (-0.002 e here) evenly over the atoms of a mol2 file."""
    molecule = parmed.load_file(str(mol2))
    excess = round(sum(atom.charge for atom in molecule.atoms), 6)
    charges = [round(atom.charge - excess / len(molecule.atoms), 6) for atom in molecule.atoms]
    charges[0] -= sum(charges)
    for atom, charge in zip(molecule.atoms, charges, strict=True):
        atom.charge = charge
    molecule.save(str(mol2), overwrite=True)


def solvate(buffer: float, amberhome: Path) -> parmed.Structure:
    """Uracil in a cubic TIP3P box with `buffer` Å of water around it, by LEaP."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in ("uracil.mol2", "uracil.frcmod"):
            (folder / file).write_bytes((HERE / file).read_bytes())
        script = (
            "source leaprc.gaff2\nsource leaprc.water.tip3p\nloadAmberParams uracil.frcmod\n"
            f"mol = loadMol2 uracil.mol2\nsolvateBox mol TIP3PBOX {buffer} iso\n"
            "saveAmberParm mol out.prmtop out.inpcrd\nquit\n"
        )
        (folder / "leap.in").write_text(script)
        run("tleap -f leap.in", folder, amberhome)
        return parmed.load_file(str(folder / "out.prmtop"), str(folder / "out.inpcrd"))


def qm_atoms(structure: parmed.Structure) -> list[int]:
    """The atoms of the uracil residue."""
    return [atom.idx for atom in structure.atoms if atom.residue.name == RESIDUE]


def cut_sphere(structure: parmed.Structure) -> parmed.Structure:
    """Keep the waters nearest to uracil's centre, which becomes the origin; no box."""
    solute = qm_atoms(structure)
    structure.coordinates = structure.coordinates - structure.coordinates[solute].mean(axis=0)
    waters = [residue for residue in structure.residues if residue.name != RESIDUE]
    distances = [float(np.linalg.norm(structure.coordinates[water.atoms[0].idx])) for water in waters]
    dropped = np.argsort(distances, kind="stable")[N_WATERS_DROPLET:]
    mask = np.zeros(len(structure.atoms), dtype=int)
    for index in dropped:
        for atom in waters[index].atoms:
            mask[atom.idx] = 1
    structure.strip(mask.tolist())
    structure.box = None
    return structure


def save(structure: parmed.Structure, name: str) -> None:
    """Write the prmtop and the inpcrd."""
    structure.save(str(HERE / f"{name}.prmtop"), overwrite=True)
    structure.save(str(HERE / f"{name}.inpcrd"), format="rst7", overwrite=True)


def simulation(structure: parmed.Structure, system: openmm.System) -> app.Simulation:
    """A minimised simulation at 300 K."""
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 2 / unit.picosecond, TIMESTEP)
    integrator.setRandomNumberSeed(SEED)
    simulation = app.Simulation(structure.topology, system, integrator, openmm.Platform.getPlatformByName("CPU"))
    simulation.context.setPositions(structure.positions)
    simulation.minimizeEnergy(maxIterations=500)
    simulation.context.setVelocitiesToTemperature(TEMPERATURE, SEED)
    return simulation


def steps(picoseconds: float) -> int:
    """How many time steps make up a time in ps."""
    return round(picoseconds * unit.picoseconds / TIMESTEP)


def make_droplet(amberhome: Path, picoseconds: float) -> None:
    """The droplet, equilibrated with its wall; saved with uracil's centre at the origin."""
    structure = cut_sphere(solvate(BUFFER_DROPLET, amberhome))
    system = structure.createSystem(nonbondedMethod=app.NoCutoff, constraints=app.HBonds, rigidWater=True, removeCMMotion=False)
    # A stiff spring while preparing, so that uracil ends where the wall's centre is.
    solute = qm_atoms(structure)
    add_droplet_restraints(system, structure.topology, solute, WALL_RADIUS_NM, center_force_constant=1e5)
    droplet = simulation(structure, system)
    droplet.step(steps(picoseconds))
    positions = droplet.context.getState(getPositions=True).getPositions(asNumpy=True).value_in_unit(unit.angstrom)
    masses = np.array([structure.atoms[index].mass for index in solute])
    structure.coordinates = positions - np.average(positions[solute], axis=0, weights=masses)
    save(structure, "uracil_droplet")


def make_box(amberhome: Path, picoseconds_npt: float, picoseconds_nvt: float) -> None:
    """The periodic box: NPT at 1 bar, then NVT in the mean cube of the second half of the NPT run."""
    structure = solvate(BUFFER_BOX, amberhome)
    edge = max(structure.box[:3])
    structure.box = [edge, edge, edge, 90.0, 90.0, 90.0]
    system = structure.createSystem(
        nonbondedMethod=app.PME,
        nonbondedCutoff=1.0 * unit.nanometer,
        constraints=app.HBonds,
        rigidWater=True,
        removeCMMotion=True,
    )
    barostat = openmm.MonteCarloBarostat(1 * unit.bar, TEMPERATURE)
    barostat.setRandomNumberSeed(SEED)
    system.addForce(barostat)
    box = simulation(structure, system)
    edges = []
    for block in range(20):
        box.step(steps(picoseconds_npt / 20))
        vectors = box.context.getState().getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.angstrom)
        edges.append(vectors[0, 0])
        print(f"NPT block {block + 1}/20: edge {edges[-1]:.3f} Å", flush=True)
    mean_edge = float(np.mean(edges[10:]))
    state = box.context.getState(getPositions=True)
    positions = state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)
    structure.coordinates = scaled_molecules(structure, positions, mean_edge / edges[-1])
    structure.box = [mean_edge, mean_edge, mean_edge, 90.0, 90.0, 90.0]
    system = structure.createSystem(
        nonbondedMethod=app.PME,
        nonbondedCutoff=1.0 * unit.nanometer,
        constraints=app.HBonds,
        rigidWater=True,
        removeCMMotion=True,
    )
    box = simulation(structure, system)
    box.step(steps(picoseconds_nvt))
    state = box.context.getState(getPositions=True, enforcePeriodicBox=False)
    positions = state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)
    structure.coordinates = wrapped_around_solute(structure, positions, mean_edge)
    save(structure, "uracil_box")


def scaled_molecules(structure: parmed.Structure, positions: np.ndarray, factor: float) -> np.ndarray:
    """Move every molecule's centre by `factor`, its inner geometry kept."""
    moved = positions.copy()
    for residue in structure.residues:
        indices = [atom.idx for atom in residue.atoms]
        moved[indices] += (factor - 1.0) * positions[indices].mean(axis=0)
    return moved


def wrapped_around_solute(structure: parmed.Structure, positions: np.ndarray, edge: float) -> np.ndarray:
    """Uracil's centre to the middle of the box, every water whole in the image nearest to it."""
    positions = positions - positions[qm_atoms(structure)].mean(axis=0)
    for residue in structure.residues:
        indices = [atom.idx for atom in residue.atoms]
        positions[indices] -= edge * np.round(positions[indices[0]] / edge)
    return positions + edge / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("parameters", "droplet", "box"))
    parser.add_argument("--amberhome", type=Path, required=True, help="an AmberTools installation")
    parser.add_argument("--droplet-ps", type=float, default=10.0)
    parser.add_argument("--npt-ps", type=float, default=50.0)
    parser.add_argument("--nvt-ps", type=float, default=5.0)
    arguments = parser.parse_args()
    amberhome = arguments.amberhome.resolve()
    if arguments.part == "parameters":
        make_parameters(amberhome)
    elif arguments.part == "droplet":
        make_droplet(amberhome, arguments.droplet_ps)
    else:
        make_box(amberhome, arguments.npt_ps, arguments.nvt_ps)


if __name__ == "__main__":
    main()
