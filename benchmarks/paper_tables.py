"""The costs in the paper's Tables 4, 5 and 6, on this machine: `python benchmarks/paper_tables.py`.

Table 4: one forward pass (energies) of 100 molecules of 18 random atoms, the mean size in QM9, for 1 to 4 layers and
orders 0 to 3, and relative to plain message passing (GNN). Table 5: energy and QM forces of the isolated molecules of
`systems/`, batches of 60. Table 6: energy and all forces of AMP(3)-DP with the 10, 100 and 1'000 nearest MM charges,
all of which polarize, batches of 10. Milliseconds a call in Table 4, a frame in Tables 5 and 6; medians over rounds in
which all take turns.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

SYSTEMS = Path(__file__).resolve().parents[1] / "systems"
NAMES = ("uracil", "ra", "sam")
VARIANTS = {"GNN": None, "AMP(0)": 0, "AMP(1)": 1, "AMP(2)": 2, "AMP(3)": 3}
ELEMENTS = (1, 6, 7, 8, 16)
# Milliseconds on a Titan V: Tables 5 and 6 of Thürlemann and Riniker, Anisotropic message passing, ICLR 2023.
PAPER_ISOLATED = {
    "uracil": (0.51, 0.65, 0.82, 1.04, 1.52), "ra": (0.76, 1.33, 1.53, 2.07, 2.99), "sam": (0.87, 1.67, 1.95, 2.28, 3.15),
}  # fmt: skip
PAPER_CHARGES = {10: (5.6, 20.1, 20.5), 100: (5.7, 22.3, 22.8), 1000: (8.4, 37.7, 37.4)}
CUTOFF = 5.0  # Å


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=int, nargs="+", default=[4, 5, 6], choices=[4, 5, 6])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--scale", type=float, default=1.0, help="of the batches, to try it")
    parser.add_argument("--cpu-time", action="store_true", help="processor time instead of wall-clock time; for a busy machine")
    return parser.parse_args()


def main() -> None:
    """Time and print the tables asked for."""
    given = arguments()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(given.threads)  # before torch is loaded

    import torch

    from ampmm.export import use_simple_executor
    from ampmm.memory import keep_freed_memory
    from ampmm.nn import native

    torch.set_num_threads(given.threads)
    keep_freed_memory()
    use_simple_executor()
    clock = time.process_time if given.cpu_time else time.perf_counter
    kind = "processor" if given.cpu_time else "wall-clock"
    print(f"torch {torch.__version__}, {given.device}, {given.threads} thread(s), {kind} time; {native.status()}")
    for table in given.tables:
        {4: table_4, 5: table_5, 6: table_6}[table](given, clock)


def table_4(given: argparse.Namespace, clock: Callable[[], float]) -> None:
    """Layers times orders, forward only."""
    import torch

    from ampmm.benchmark import random_region
    from ampmm.types import PointCharges

    count = round(100 * given.scale)
    batch = _batched([random_region(18, 0, seed, ELEMENTS) for seed in range(count)], given.device)
    none = PointCharges(batch.charges, batch.polarization, torch.zeros(len(batch.frame.numbers), device=given.device))
    calls = {}
    for layers in (1, 2, 3, 4):
        for name, order in VARIANTS.items():
            calls[layers, name] = _without_gradients(_model(order, given.device, n_layers=layers), batch.frame, none)
    times = _taking_turns(calls, given.rounds, given.device, clock)
    print(f"\nTable 4: {count} molecules, ms a call (relative to the GNN)\n\n| layers | {' | '.join(VARIANTS)} |")
    print("|---" * (len(VARIANTS) + 1) + "|")
    for layers in (1, 2, 3, 4):
        own = [times[layers, name] for name in VARIANTS]
        print(f"| {layers} | " + " | ".join(f"{each:.1f} ({100 * each / own[0]:.0f} %)" for each in own) + " |")


def table_5(given: argparse.Namespace, clock: Callable[[], float]) -> None:
    """Isolated molecules."""
    count = round(60 * given.scale)
    calls = {}
    for name in NAMES:
        batch = _batched([_molecule(name, 0)] * count, given.device)
        for variant, order in VARIANTS.items():
            calls[name, variant] = _evaluation(_model(order, given.device), batch)
    times = _taking_turns(calls, given.rounds, given.device, clock)
    print(f"\nTable 5: isolated molecules, batches of {count}, ms a frame (paper)\n\n| system | {' | '.join(VARIANTS)} |")
    print("|---" * (len(VARIANTS) + 1) + "|")
    for name in NAMES:
        cells = zip((times[name, each] / count for each in VARIANTS), PAPER_ISOLATED[name], strict=True)
        print(f"| {name} | " + " | ".join(f"{own:.2f} ({theirs})" for own, theirs in cells) + " |")


def table_6(given: argparse.Namespace, clock: Callable[[], float]) -> None:
    """With MM charges."""
    frames = round(10 * given.scale)
    model = _model(3, given.device, polarization=True, long_range=True, polarization_cutoff=50.0)
    calls = {}
    for charges in PAPER_CHARGES:
        for name in NAMES:
            calls[charges, name] = _evaluation(model, _batched([_molecule(name, charges)] * frames, given.device))
    times = _taking_turns(calls, given.rounds, given.device, clock)
    print(f"\nTable 6: AMP(3)-DP, batches of {frames}, ms a frame (paper)\n\n| MM charges | {' | '.join(NAMES)} |")
    print("|---" * (len(NAMES) + 1) + "|")
    for charges, paper in PAPER_CHARGES.items():
        cells = zip((times[charges, name] / frames for name in NAMES), paper, strict=True)
        print(f"| {charges} | " + " | ".join(f"{own:.1f} ({theirs})" for own, theirs in cells) + " |")


def _molecule(name: str, n_charges: int):
    """The QM region of a system's droplet with the charges nearest to it."""
    import numpy as np
    import openmm
    from openmm import unit

    import ampmm
    from ampmm.benchmark import Region
    from ampmm.embedding import select_qm_atoms
    from ampmm.simulation.system_files import read_system

    files = read_system(SYSTEMS / name, "droplet")
    structure = ampmm.load_structure(files.topology, files.coordinates)
    nonbonded = next(force for force in structure.create_system().getForces() if isinstance(force, openmm.NonbondedForce))
    charges = np.array([nonbonded.getParticleParameters(i)[0]._value for i in range(nonbonded.getNumParticles())])
    positions = np.asarray(structure.positions.value_in_unit(unit.angstrom))
    qm = select_qm_atoms(structure.topology, files.qm_atoms)
    mm = np.setdiff1d(np.arange(len(positions)), qm)
    nearest = np.min(np.linalg.norm(positions[mm, None] - positions[None, qm], axis=-1), axis=1)
    mm = mm[np.argsort(nearest)[:n_charges]]
    numbers = np.array([atom.element.atomic_number for atom in structure.topology.atoms()])
    return Region(numbers[qm], positions[qm], positions[mm], charges[mm])


def _batched(regions: list, device: str):
    from ampmm.benchmark.regions import batched

    return batched(regions, CUTOFF, 50.0, device=device)


def _model(order: int | None, device: str, **changes):
    """An untrained model, which costs what a trained one does."""
    from ampmm.models import build_model
    from ampmm.nn.native import use_native

    settings = {"elements": ELEMENTS, "order": order, "polarization": False, "long_range": False, "cutoff": CUTOFF, **changes}
    return use_native(build_model("amp", settings).to(device).eval().requires_grad_(False))


def _evaluation(model, batch) -> Callable[[], object]:
    import torch

    from ampmm.physics.coulomb import BareCoulomb
    from ampmm.physics.evaluators import force_evaluator

    evaluator = torch.jit.script(force_evaluator(model, BareCoulomb()))
    return lambda: evaluator(*batch)


def _without_gradients(model, frame, charges) -> Callable[[], object]:
    import torch

    scripted = torch.jit.script(model)

    def call() -> object:
        with torch.no_grad():
            return scripted(frame, charges)

    return call


def _taking_turns(calls: dict, rounds: int, device: str, clock: Callable[[], float]) -> dict:
    """Medians in milliseconds; the first two rounds warm up."""
    import torch

    times: dict = {name: [] for name in calls}
    for each in range(rounds + 2):
        for name, call in calls.items():
            began = clock()
            call()
            if device != "cpu":
                torch.cuda.synchronize()
            if each >= 2:
                times[name].append(1000.0 * (clock() - began))
    return {name: statistics.median(values) for name, values in times.items()}


if __name__ == "__main__":
    main()
