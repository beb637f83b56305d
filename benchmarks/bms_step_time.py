"""What an MD step with AMP-BMS costs, and where its time goes, for the three reference boxes or any PDB.

python benchmarks/bms_step_time.py amp_bms.pt --reference FOLDER         uracil.npz, ra.npz and sam.npz are in FOLDER/amp_bms
python benchmarks/bms_step_time.py amp_bms.pt --pdb runs/protein/initial.pdb

One process, processor time of all threads, float32, CPU platform, NVE at 0.5 fs. In every round each system takes `steps`
- steps of the ML/MM System;
- steps of the classical System alone: the same particles, the shifted reaction field between all charges;
- calls of `ampmm.export.Potential` on a still frame, and the same with new lists at every call;
- calls of the scripted model with its gradients on given lists.
Medians of the rounds, ms. In a run, lists are made anew when an atom has moved by half the skin.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ampmm.threads import spin_briefly

LENNARD_JONES = {1: (2.6, 0.066), 6: (3.4, 0.36), 7: (3.25, 0.71), 8: (3.0, 0.88), 16: (3.56, 1.05)}  # Å, kJ/mol
TIP3P = (3.15075, 0.635968)
NAMES = ("uracil", "ra", "sam")
COLUMNS = ("step", "classical step", "potential", "model")


class Case(NamedTuple):
    """A System with the model, the same without it, and where everything is."""

    name: str
    mixed: object
    classical: object
    positions: object  # (n, 3) nm
    qm: list[int]
    numbers: list[int]
    charges: list[float]  # e


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a .pt file of `ampmm import-weights`")
    parser.add_argument("--reference", type=Path, help="the folder that holds amp_bms/*.npz")
    parser.add_argument("--pdb", type=Path, nargs="*", default=[], help="solvated PDBs; all that is not water or an ion is QM")
    parser.add_argument("--threads", type=int, default=1, help="of torch and of OpenMM's CPU platform")
    parser.add_argument("--torch-threads", type=int, help="of torch alone")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--wall", action="store_true", help="wall-clock time; for an idle machine")
    return parser.parse_args()


def main() -> None:
    """Build everything, time it, print a table."""
    given = arguments()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENMM_CPU_THREADS"):
        os.environ[name] = str(given.threads)  # before torch and OpenMM are loaded
    spin_briefly()
    import torch

    import ampmm

    torch.set_num_threads(given.torch_threads or given.threads)
    model = ampmm.load_model(given.model)
    cases = [reference_case(given.reference / "amp_bms" / f"{name}.npz", model) for name in NAMES if given.reference]
    cases += [pdb_case(path, model) for path in given.pdb]
    clock = time.perf_counter if given.wall else time.process_time
    print(f"| system | QM atoms | particles | {' | '.join(COLUMNS)} | of it pair vectors, fields, forces | new lists |")
    print("|---" * (len(COLUMNS) + 5) + "|")
    for case in cases:
        times = measure(case, model, given.rounds, given.steps, clock)
        values = [statistics.median(times[name]) for name in COLUMNS]
        anew = statistics.median(times["anew"])
        shown = [*values, values[2] - values[3], anew - values[2]]
        row = " | ".join(f"{value:.1f}" for value in shown)
        print(f"| {case.name} | {len(case.qm)} | {case.mixed.getNumParticles()} | {row} |", flush=True)


def reference_case(path: Path, model) -> Case:
    """A reference box: QM atoms with Lennard-Jones by element, and TIP3P water."""
    import numpy as np
    import openmm
    from openmm import app

    with np.load(path) as file:
        numbers, qm, mm, charges = (file[key] for key in ("numbers", "positions_qm", "positions_mm", "charges_mm"))
        box, qm_charge = file["box"], float(file["qm_charge"])
    topology, system, nonbonded = app.Topology(), openmm.System(), openmm.NonbondedForce()
    chain = topology.addChain()
    residue = topology.addResidue("QM", chain)
    for i, number in enumerate(numbers):
        element = app.Element.getByAtomicNumber(int(number))
        topology.addAtom(f"{element.symbol}{i}", element, residue)
        system.addParticle(element.mass)
        sigma, epsilon = LENNARD_JONES[int(number)]
        nonbonded.addParticle(qm_charge / len(numbers), 0.1 * sigma, epsilon)
        for j in range(i):
            nonbonded.addException(i, j, 0.0, 1.0, 0.0)
    for first in range(len(numbers), len(numbers) + len(mm), 3):
        residue = topology.addResidue("HOH", chain)
        for i, symbol in enumerate("OHH"):
            element = app.Element.getBySymbol(symbol)
            topology.addAtom(f"{symbol}{i}", element, residue)
            system.addParticle(element.mass)
            sigma, epsilon = TIP3P if symbol == "O" else (1.0, 0.0)
            nonbonded.addParticle(charges[first + i - len(numbers)], 0.1 * sigma, epsilon)
        for i, j, distance in ((0, 1, 0.09572), (0, 2, 0.09572), (1, 2, 0.15139)):
            nonbonded.addException(first + i, first + j, 0.0, 1.0, 0.0)
            system.addConstraint(first + i, first + j, distance)
    vectors = np.diag(0.1 * box)
    topology.setPeriodicBoxVectors(vectors)
    system.setDefaultPeriodicBoxVectors(*vectors)
    nonbonded.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    nonbonded.setCutoffDistance(0.9)
    system.addForce(nonbonded)
    positions, qm_atoms = 0.1 * np.concatenate([qm, mm]), list(range(len(numbers)))
    return _case(path.stem, topology, system, qm_atoms, model, positions, round(qm_charge))


def pdb_case(path: Path, model) -> Case:
    """A solvated PDB in the preset of TIP3P."""
    import numpy as np
    from openmm import app, unit

    from ampmm.embedding import get_preset

    pdb = app.PDBFile(str(path))
    solvent = {"HOH", "WAT", "NA", "CL", "Na+", "Cl-"}
    qm = [atom.index for atom in pdb.topology.atoms() if atom.residue.name not in solvent]
    system = app.ForceField(*get_preset("tip3p").force_fields).createSystem(
        pdb.topology, nonbondedMethod=app.CutoffPeriodic, nonbondedCutoff=0.9, constraints=None, rigidWater=True
    )
    positions = np.asarray(pdb.positions.value_in_unit(unit.nanometer))
    return _case(path.parent.name or path.stem, pdb.topology, system, qm, model, positions, None)


def _case(name, topology, system, qm, model, positions, qm_charge) -> Case:
    import openmm

    import ampmm
    from ampmm.embedding import use_shifted_reaction_field

    mixed, _ = ampmm.create_mixed_system(topology, system, qm, model, qm_charge=qm_charge)
    classical = openmm.XmlSerializer.clone(system)
    nonbonded = next(force for force in system.getForces() if isinstance(force, openmm.NonbondedForce))
    charges = [nonbonded.getParticleParameters(i)[0]._value for i in range(system.getNumParticles())]
    for each in (mixed, classical):
        use_shifted_reaction_field(each, 9.0)
    numbers = [atom.element.atomic_number if atom.element else 0 for atom in topology.atoms()]
    return Case(name, mixed, classical, positions, qm, numbers, charges)


def measure(case: Case, model, rounds: int, steps: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Milliseconds a step or call, one value a round; the first two rounds warm up and are not counted."""
    import openmm

    timed: dict[str, Callable[[], object]] = calls(case, model)
    contexts = []
    for name, system in (("step", case.mixed), ("classical step", case.classical)):
        integrator = openmm.VerletIntegrator(0.0005)
        context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("CPU"))
        context.setPositions(case.positions)
        context.computeVirtualSites()
        context.applyConstraints(1e-6)
        context.setVelocitiesToTemperature(300.0, 1)
        contexts.append(context)
        timed[name] = lambda integrator=integrator: integrator.step(1)
    times: dict[str, list[float]] = {name: [] for name in timed}
    for each in range(rounds + 2):
        for name, call in timed.items():
            began = clock()
            for _ in range(steps):
                call()
            if each >= 2:
                times[name].append(1000.0 * (clock() - began) / steps)
    return times


def calls(case: Case, model) -> dict[str, Callable[[], object]]:
    """The potential as OpenMM calls it, with kept and with new lists, and the model alone with its gradients."""
    import numpy as np
    import torch

    from ampmm.export import Potential
    from ampmm.geometry.neighbors import edges_within, pairs_between, unordered_pairs_within
    from ampmm.physics.coulomb import ReactionField
    from ampmm.physics.multipole_coulomb import MultipoleField
    from ampmm.types import Frame, Pairs, PointCharges

    charges, cutoffs = np.array(case.charges), model.card.cutoffs
    mm = np.setdiff1d(np.flatnonzero(charges), case.qm)
    numbers, net_charge = torch.tensor([case.numbers[i] for i in case.qm]), float(round(charges[case.qm].sum()))
    values = torch.as_tensor(charges[mm])
    vectors = case.mixed.getDefaultPeriodicBoxVectors()
    box = torch.tensor([list(vector._value) for vector in vectors], dtype=torch.float64)
    positions = torch.as_tensor(np.asarray(case.positions, dtype=float))
    potential = torch.jit.script(
        Potential(model.module, numbers, torch.as_tensor(case.qm), torch.as_tensor(mm), values, net_charge,
                  cutoff=cutoffs["qm"], polarization_cutoff=cutoffs["polarization"], long_range_cutoff=cutoffs["long_range"],
                  periodic=True, electrostatics="reaction-field", coulomb_cutoff=9.0)
    )  # fmt: skip

    def anew() -> object:
        potential.listed_positions = torch.zeros(0, 3, dtype=torch.float64)
        return potential(positions, box)

    qm, sites, vectors = 10.0 * positions[case.qm], 10.0 * positions[mm], 10.0 * box
    lists = [edges_within(qm, cutoffs["qm"], vectors), pairs_between(qm, sites, cutoffs["polarization"], vectors),
             unordered_pairs_within(qm, cutoffs["long_range"], vectors), pairs_between(qm, sites, 9.0, vectors)]  # fmt: skip
    lists = [Pairs(each.centers, each.neighbors, each.vectors.float()) for each in lists]
    values = values.float()
    fields = MultipoleField(ReactionField(9.0))(lists.pop(), values, len(numbers)).fields
    leaves = [*(each.vectors.requires_grad_() for each in lists), fields.detach().requires_grad_()]
    frame = Frame(numbers, torch.zeros_like(numbers), torch.tensor([net_charge]), lists[0])
    surroundings = PointCharges(values, lists[1], leaves[3])

    def bare() -> object:
        return torch.autograd.grad(model.module(frame, surroundings, lists[2]).total.sum(), leaves, allow_unused=True)

    return {"potential": lambda: potential(positions, box), "anew": anew, "model": bare}


if __name__ == "__main__":
    main()
