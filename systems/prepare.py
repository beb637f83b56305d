"""Makes the files of a system folder: its solutes in a periodic TIP3P box and in a TIP3P droplet.

    python systems/prepare.py NAME parameters --amberhome PATH   # mol2 and frcmod of each solute, once
    python systems/prepare.py NAME droplet --amberhome PATH
    python systems/prepare.py NAME box --amberhome PATH

NAME is a folder beside this file with a recipe.yaml; PATH is an AmberTools installation with antechamber, sqm,
parmchk2 and tleap. `parameters` needs RDKit beside ampmm's own requirements, and the xtb program where a recipe says
`start: gfn2-alpb`. The equilibrations are classical; their random numbers come from the recipe's seed.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import openmm
import parmed
import yaml
from openmm import app, unit
from solutes import make_parameters, named, placed, run

from ampmm.simulation.droplet import add_droplet_restraints

HERE = Path(__file__).resolve().parent
TIMESTEP = 4 * unit.femtoseconds  # with bonds to hydrogen constrained and HYDROGEN_MASS, here only
HYDROGEN_MASS = 3 * unit.dalton  # taken from the atom it is bonded to; configurations are distributed as before
TEMPERATURE = 300 * unit.kelvin
START_DENSITY = 0.98  # g/mL, TIP3P's at 300 K and 1 bar: LEaP's box is 15-25 % too thin
A3_PER_ML_MOL = 1 / 0.602214076  # Å³ in 1 mL/mol
HOLD_DISTANCE = 1.0e5  # kJ/mol/nm², on the distance of an attack while equilibrating
HOLD_ANGLE = 500.0  # kJ/mol/rad², on its angle


class Job(NamedTuple):
    """What to make, where, and with which programs."""

    name: str
    folder: Path
    recipe: dict[str, Any]
    settings: dict[str, Any]  # system.yaml
    amberhome: Path

    @property
    def residues(self) -> list[str]:
        """The solutes' residue names, in the order of their atoms."""
        return [solute["residue"] for solute in self.recipe["solutes"]]


def solvate(job: Job, buffer: float) -> parmed.Structure:
    """The solutes in a cubic TIP3P box with `buffer` Å of water around them, by LEaP."""
    names = [solute["name"] for solute in job.recipe["solutes"]]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        lines = ["source leaprc.gaff2", "source leaprc.water.tip3p"]
        for name, structure in zip(names, placed(job.recipe, job.folder), strict=True):
            structure.save(str(folder / f"{name}.mol2"))
            (folder / f"{name}.frcmod").write_bytes((job.folder / f"{name}.frcmod").read_bytes())
            lines += [f"loadAmberParams {name}.frcmod", f"{name}_unit = loadMol2 {name}.mol2"]
        units = " ".join(f"{name}_unit" for name in names)
        lines += [f"mol = combine {{ {units} }}", f"solvateBox mol TIP3PBOX {buffer} iso"]
        lines += ["saveAmberParm mol out.prmtop out.inpcrd", "quit", ""]
        (folder / "leap.in").write_text("\n".join(lines))
        run("tleap -f leap.in", folder, job.amberhome)
        return parmed.load_file(str(folder / "out.prmtop"), str(folder / "out.inpcrd"))


def qm_atoms(job: Job, structure: parmed.Structure) -> list[int]:
    """The atoms of the solutes."""
    return [atom.idx for atom in structure.atoms if atom.residue.name in job.residues]


def cut_sphere(job: Job, structure: parmed.Structure) -> parmed.Structure:
    """Keep the waters nearest to the solutes' centre, which becomes the origin; no box."""
    solute = qm_atoms(job, structure)
    structure.coordinates = structure.coordinates - structure.coordinates[solute].mean(axis=0)
    waters = [residue for residue in structure.residues if residue.name not in job.residues]
    distances = [float(np.linalg.norm(structure.coordinates[water.atoms[0].idx])) for water in waters]
    dropped = np.argsort(distances, kind="stable")[job.recipe["droplet"]["waters"] :]
    mask = np.zeros(len(structure.atoms), dtype=int)
    for index in dropped:
        for atom in waters[index].atoms:
            mask[atom.idx] = 1
    structure.strip(mask.tolist())
    structure.box = None
    return structure


def hold_attack(job: Job, structure: parmed.Structure, system: openmm.System) -> None:
    """Hold the line and the distance of an attack while equilibrating, so that the files start from it."""
    for index, solute in enumerate(job.recipe["solutes"][1:], start=1):
        attack = solute["attack"]
        atom = named(structure, attack["atom"], index)
        carbon, leaving = (named(structure, attack[name]) for name in ("carbon", "leaving"))
        distance = openmm.CustomBondForce(f"0.5*{HOLD_DISTANCE}*(r-{attack['distance'] / 10})^2")
        distance.addBond(atom, carbon, [])
        angle = openmm.CustomAngleForce(f"0.5*{HOLD_ANGLE}*(theta-{np.pi})^2")
        angle.addAngle(atom, carbon, leaving, [])
        for force in (distance, angle):
            force.setUsesPeriodicBoundaryConditions(structure.box is not None)
            system.addForce(force)


def save(job: Job, structure: parmed.Structure, form: str) -> None:
    """Write the prmtop and the inpcrd."""
    structure.save(str(job.folder / f"{job.name}_{form}.prmtop"), overwrite=True)
    structure.save(str(job.folder / f"{job.name}_{form}.inpcrd"), format="rst7", overwrite=True)


def simulation(job: Job, structure: parmed.Structure, system: openmm.System) -> app.Simulation:
    """A minimised simulation at 300 K."""
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 2 / unit.picosecond, TIMESTEP)
    integrator.setRandomNumberSeed(job.recipe["seed"])
    simulation = app.Simulation(structure.topology, system, integrator, openmm.Platform.getPlatformByName("CPU"))
    simulation.context.setPositions(structure.positions)
    simulation.minimizeEnergy(maxIterations=200)
    simulation.context.setVelocitiesToTemperature(TEMPERATURE, job.recipe["seed"])
    return simulation


def steps(picoseconds: float) -> int:
    """How many time steps make up a time in ps."""
    return round(picoseconds * unit.picoseconds / TIMESTEP)


def make_droplet(job: Job, picoseconds: float) -> None:
    """The droplet, equilibrated with its wall; saved with the solutes' centre of mass at the origin."""
    structure = cut_sphere(job, solvate(job, job.recipe["droplet"]["buffer"]))
    system = structure.createSystem(
        nonbondedMethod=app.NoCutoff,
        constraints=app.HBonds,
        rigidWater=True,
        removeCMMotion=False,
        hydrogenMass=HYDROGEN_MASS,
    )
    # A stiff spring while preparing, so that the solutes end where the wall's centre is.
    solute = qm_atoms(job, structure)
    wall_radius = job.settings["droplet"]["wall_radius"]
    add_droplet_restraints(system, structure.topology, solute, wall_radius, center_force_constant=1e5)
    hold_attack(job, structure, system)
    droplet = simulation(job, structure, system)
    droplet.step(steps(picoseconds))
    positions = droplet.context.getState(getPositions=True).getPositions(asNumpy=True).value_in_unit(unit.angstrom)
    masses = np.array([structure.atoms[index].mass for index in solute])
    structure.coordinates = positions - np.average(positions[solute], axis=0, weights=masses)
    save(job, structure, "droplet")


def periodic_system(job: Job, structure: parmed.Structure) -> openmm.System:
    """The box's System: PME, 10 Å, rigid bonds to hydrogen."""
    system = structure.createSystem(
        nonbondedMethod=app.PME,
        nonbondedCutoff=1.0 * unit.nanometer,
        constraints=app.HBonds,
        rigidWater=True,
        removeCMMotion=True,
        hydrogenMass=HYDROGEN_MASS,
    )
    hold_attack(job, structure, system)
    return system


def make_box(job: Job, picoseconds_npt: float, picoseconds_nvt: float) -> None:
    """The periodic box: NPT at 1 bar, then NVT in the mean cube of the second half of the NPT run."""
    structure = solvate(job, job.recipe["box"]["buffer"])
    edge = (sum(atom.mass for atom in structure.atoms) * A3_PER_ML_MOL / START_DENSITY) ** (1 / 3)
    structure.coordinates = scaled_molecules(job, structure, structure.coordinates, edge / max(structure.box[:3]))
    structure.box = [edge, edge, edge, 90.0, 90.0, 90.0]
    system = periodic_system(job, structure)
    barostat = openmm.MonteCarloBarostat(1 * unit.bar, TEMPERATURE)
    barostat.setRandomNumberSeed(job.recipe["seed"])
    system.addForce(barostat)
    box = simulation(job, structure, system)
    edges = []
    for block in range(20):
        box.step(steps(picoseconds_npt / 20))
        vectors = box.context.getState().getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.angstrom)
        edges.append(vectors[0, 0])
        print(f"NPT block {block + 1}/20: edge {edges[-1]:.3f} Å", flush=True)
    mean_edge = float(np.mean(edges[10:]))
    state = box.context.getState(getPositions=True)
    positions = state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)
    structure.coordinates = scaled_molecules(job, structure, positions, mean_edge / edges[-1])
    structure.box = [mean_edge, mean_edge, mean_edge, 90.0, 90.0, 90.0]
    box = simulation(job, structure, periodic_system(job, structure))
    box.step(steps(picoseconds_nvt))
    state = box.context.getState(getPositions=True, enforcePeriodicBox=False)
    positions = state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)
    structure.coordinates = wrapped_around_solutes(job, structure, positions, mean_edge)
    save(job, structure, "box")


def molecules(job: Job, structure: parmed.Structure) -> list[list[int]]:
    """The atoms of the solutes, taken as one, and of each water."""
    waters = [residue for residue in structure.residues if residue.name not in job.residues]
    return [qm_atoms(job, structure)] + [[atom.idx for atom in water.atoms] for water in waters]


def scaled_molecules(job: Job, structure: parmed.Structure, positions: np.ndarray, factor: float) -> np.ndarray:
    """Move every molecule's centre by `factor`, its inner geometry kept."""
    moved = positions.copy()
    for indices in molecules(job, structure):
        moved[indices] += (factor - 1.0) * positions[indices].mean(axis=0)
    return moved


def wrapped_around_solutes(job: Job, structure: parmed.Structure, positions: np.ndarray, edge: float) -> np.ndarray:
    """The middle of the solutes' extent to the middle of the box, every water whole in the image nearest to it."""
    solute, *waters = molecules(job, structure)
    positions = positions - (positions[solute].min(axis=0) + positions[solute].max(axis=0)) / 2
    for indices in waters:
        positions[indices] -= edge * np.round(positions[indices[0]] / edge)
    return positions + edge / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(path.parent.name for path in HERE.glob("*/recipe.yaml")))
    parser.add_argument("part", choices=("parameters", "droplet", "box"))
    parser.add_argument("--amberhome", type=Path, required=True, help="an AmberTools installation")
    parser.add_argument("--droplet-ps", type=float, default=20.0)
    parser.add_argument("--npt-ps", type=float, default=50.0)
    parser.add_argument("--nvt-ps", type=float, default=5.0)
    arguments = parser.parse_args()
    folder = HERE / arguments.name
    recipe, settings = (yaml.safe_load((folder / f"{file}.yaml").read_text()) for file in ("recipe", "system"))
    job = Job(arguments.name, folder, recipe, settings, arguments.amberhome.resolve())
    if arguments.part == "parameters":
        for solute in recipe["solutes"]:
            make_parameters(solute, recipe["seed"], folder, job.amberhome)
    elif arguments.part == "droplet":
        make_droplet(job, arguments.droplet_ps)
    else:
        make_box(job, arguments.npt_ps, arguments.nvt_ps)


if __name__ == "__main__":
    main()
