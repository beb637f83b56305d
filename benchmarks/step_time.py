"""What an MD step costs, and how much of it is ampmm's own: run `make benchmark`.

In one process, on the same frame of a system's water box (uracil, ra, sam) or droplet, milliseconds of
- an MD step of the whole ML/MM System, for each backend;
- an MD step of the classical System alone;
- one call of `ampmm.export.Potential`: pairs, Coulomb sums, model, forces;
- one bare call of the scripted model on that frame's pair lists: energy and its three gradients, nothing else.

Every round times all of them, one after the other; medians over the rounds, and ratios formed within each round, so
that a slow spell of the machine falls on all alike. Overhead = (whole step - classical step) / bare call - 1.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from ampmm.threads import spin_briefly

SYSTEMS = Path(__file__).resolve().parents[1] / "systems"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--system", default="uracil", help="a folder of systems/")
    parser.add_argument("--model", help="a shipped model or a .pt file; without it the system's")
    parser.add_argument("--droplet", action="store_true", help="without a box, all charges in range of the Coulomb sums")
    parser.add_argument(
        "--polarization-cutoff",
        type=float,
        help="Å, another than the model's: for times alone, without forces to speak of, with the QM atoms held",
    )
    parser.add_argument("--platform", default="CPU", help="of OpenMM")
    parser.add_argument("--cuda-graphs", action="store_true", help="replay the model's calls as CUDA graphs")
    parser.add_argument("--threads", type=int, default=1, help="of torch and of OpenMM's CPU platform")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=20, help="steps, or calls, timed in a round")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64"])
    parser.add_argument(
        "--cpu-time", action="store_true", help="processor time instead of wall-clock time; for a busy machine and one thread"
    )
    return parser.parse_args()


def main() -> None:
    """Build everything, time it, print the table."""
    given = arguments()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENMM_CPU_THREADS"):
        os.environ[name] = str(given.threads)  # before torch and OpenMM are loaded
    spin_briefly()

    import openmm
    import torch
    from openmm import app, unit

    import ampmm
    from ampmm.embedding import BACKENDS
    from ampmm.simulation.system_files import read_system

    torch.set_num_threads(given.threads)
    files = read_system(SYSTEMS / given.system, "droplet" if given.droplet else "box")
    amber = ampmm.load_structure(files.topology, files.coordinates)
    method = app.NoCutoff if given.droplet else app.PME
    classical = amber.create_system(nonbondedMethod=method, nonbondedCutoff=1.0 * unit.nanometer, rigidWater=True)
    model = ampmm.load_model(given.model or files.model, device="cuda" if given.platform == "CUDA" else "cpu")
    if model.card.qm_charge is None or "long_range" in model.card.cutoffs:
        raise SystemExit("--model: expected one of AMP(k) for its own molecule; for AMP-BMS take benchmarks/bms_step_time.py")
    if given.polarization_cutoff:
        model = with_polarization_cutoff(model, given.polarization_cutoff)
    names = [name for name, backend in BACKENDS.items() if not backend.missing()]
    dtype = getattr(torch, given.dtype)
    systems = {"classical": classical}
    for name in names:
        systems[name], qm = ampmm.create_mixed_system(
            amber.topology, classical, files.qm_atoms, model, backend=name, dtype=dtype, cuda_graphs=given.cuda_graphs
        )
    if given.polarization_cutoff:
        for system in systems.values():
            for atom in qm:
                system.setParticleMass(int(atom), 0.0)
    contexts = {name: make_context(system, amber, given) for name, system in systems.items()}
    potential, bare = make_calls(amber, classical, qm, model, dtype)
    timed: dict[str, Callable[[], None]] = {
        **{name: stepper(context, given.steps) for name, context in contexts.items()},
        "potential": repeated(potential, given.steps),
        "bare": repeated(bare, given.steps),
    }
    clock = time.process_time if given.cpu_time else time.perf_counter
    times = measure(timed, given.rounds, given.steps, clock)
    print(f"{model.card.name} ({model.card.variant}, {given.dtype}), {len(qm)} QM of {classical.getNumParticles()} atoms, "
          f"{'droplet' if given.droplet else 'box'}, polarization within {model.card.cutoffs['polarization']} Å")  # fmt: skip
    print(f"OpenMM {openmm.version.short_version}, platform {given.platform}; torch {torch.__version__}")
    print(f"{given.threads} thread(s) on a machine of {os.cpu_count()} cores; {given.rounds} rounds of {given.steps}; "
          f"{'processor' if given.cpu_time else 'wall-clock'} time\n")  # fmt: skip
    print(table(times, names))


def with_polarization_cutoff(model, cutoff: float):
    """The model's weights in a model of another cutoff, whose energies are scaled down: they mean nothing with that."""
    import dataclasses
    import tempfile

    from ampmm.export import load_model, save_model
    from ampmm.models import build_model

    card = dataclasses.replace(
        model.card,
        hyperparameters={
            **model.card.hyperparameters,
            "polarization_cutoff": cutoff,
            "energy_scale": 1e-6,
            "charge_scale": 1e-6,
        },
        cutoffs={**model.card.cutoffs, "polarization": cutoff},
    )
    other = build_model(card.architecture, {**card.hyperparameters, "elements": card.elements})
    weights = model.module.state_dict()
    other.load_state_dict({name: weights[name] for name in other.state_dict()})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt"
        save_model(path, other, card)
        return load_model(path, device=next(model.module.buffers()).device)


def make_context(system, amber, given: argparse.Namespace):
    """NVT at 300 K from the box's own coordinates. Half-femtosecond steps, so that lists are rebuilt as in real runs."""
    import openmm
    from openmm import unit

    integrator = openmm.LangevinMiddleIntegrator(300 * unit.kelvin, 1 / unit.picosecond, 0.5 * unit.femtoseconds)
    properties = {"Threads": str(given.threads)} if given.platform == "CPU" else {}
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName(given.platform), properties)
    context.setPositions(amber.positions)
    context.setVelocitiesToTemperature(300 * unit.kelvin, 1)
    return context


def make_calls(amber, classical, qm, model, dtype) -> tuple[Callable[[], object], Callable[[], object]]:
    """The potential as a backend calls it, and the scripted model alone on the pair lists of the same frame."""
    import copy

    import numpy as np
    import torch
    from openmm import NonbondedForce, unit

    from ampmm.export import Potential
    from ampmm.geometry.neighbors import edges_within, pairs_between, pairs_closer_than
    from ampmm.physics.coulomb import DEFAULT_CUTOFF, ElectrostaticPotential, coulomb_kernel
    from ampmm.types import Frame, Pairs, PointCharges

    nonbonded = next(force for force in classical.getForces() if isinstance(force, NonbondedForce))
    charges = np.array([nonbonded.getParticleParameters(i)[0]._value for i in range(nonbonded.getNumParticles())])
    mm = np.setdiff1d(np.flatnonzero(charges), qm)
    atomic_numbers = [atom.element.atomic_number for atom in amber.topology.atoms()]
    device = next(model.module.buffers()).device
    numbers = torch.tensor([atomic_numbers[i] for i in qm], device=device)
    cutoff, polarization_cutoff = model.card.cutoffs["qm"], model.card.cutoffs["polarization"]
    periodic = amber.box_vectors is not None
    box = torch.tensor(np.array(amber.box_vectors.value_in_unit(unit.nanometer)), device=device) if periodic else None
    electrostatics, coulomb_cutoff = ("reaction-field", DEFAULT_CUTOFF) if periodic else ("bare", None)
    with torch.no_grad():  # converted on a copy: the loaded one stays as it is
        module = copy.deepcopy(model.module).to(dtype)
    potential = torch.jit.script(
        Potential(module, numbers, torch.as_tensor(qm), torch.as_tensor(mm), torch.as_tensor(charges[mm]),
                  float(model.card.qm_charge), cutoff=cutoff, polarization_cutoff=polarization_cutoff, periodic=periodic,
                  electrostatics=electrostatics, coulomb_cutoff=coulomb_cutoff, dtype=dtype).to(device)
    )  # fmt: skip
    positions = torch.tensor(amber.positions.value_in_unit(unit.nanometer), device=device)

    x, y = 10.0 * positions[torch.as_tensor(qm)], 10.0 * positions[torch.as_tensor(mm)]
    cell = 10.0 * box if periodic else None
    edges = edges_within(x, cutoff, cell)
    pairs = pairs_between(x, y, coulomb_cutoff or float("inf"), cell)
    near = pairs_closer_than(pairs, polarization_cutoff)
    values = torch.as_tensor(charges[mm], device=device).to(dtype)
    kernel = ElectrostaticPotential(coulomb_kernel(electrostatics, coulomb_cutoff))
    far = Pairs(pairs[0], pairs[1], pairs[2].to(dtype))
    leaves = [edges[2].to(dtype), near[2].to(dtype), kernel(far, values, len(qm)).potential.detach()]
    for leaf in leaves:
        leaf.requires_grad_()
    frame = Frame(numbers, torch.zeros_like(numbers), torch.tensor([float(model.card.qm_charge)], device=device, dtype=dtype),
                  Pairs(edges[0], edges[1], leaves[0]))  # fmt: skip
    surroundings = PointCharges(values, Pairs(near[0], near[1], leaves[1]), leaves[2])

    def bare() -> object:
        return torch.autograd.grad(module(frame, surroundings).total.sum(), leaves, allow_unused=True)

    return (lambda: potential(positions, box)), bare


def stepper(context, steps: int) -> Callable[[], None]:
    """Takes `steps` steps; asking for the positions waits for a GPU to finish and computes no forces."""

    def run() -> None:
        context.getIntegrator().step(steps)
        context.getState(positions=True)

    return run


def repeated(call: Callable[[], object], times: int) -> Callable[[], None]:
    """Calls `times` times."""
    import torch

    def run() -> None:
        for _ in range(times):
            call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return run


def measure(
    timed: dict[str, Callable[[], None]], rounds: int, steps: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Milliseconds a step or call, one value a round. The first two rounds warm up TorchScript and are not counted."""
    times: dict[str, list[float]] = {name: [] for name in timed}
    for each in range(rounds + 2):
        for name, run in timed.items():
            began = clock()
            run()
            if each >= 2:
                times[name].append(1000.0 * (clock() - began) / steps)
    return times


def table(times: dict[str, list[float]], backends: list[str]) -> str:
    """Medians and ratios in Markdown."""
    lines = ["| what | ms | of the bare call |", "|---|---|---|"]

    def row(what: str, values: list[float]) -> None:
        ratios = [value / bare for value, bare in zip(values, times["bare"], strict=True)]
        lines.append(f"| {what} | {statistics.median(values):.2f} | {statistics.median(ratios):.2f} |")

    for name in backends:
        row(f"MD step, ML/MM System, {name}", times[name])
    row("MD step, classical System alone", times["classical"])
    row("Potential.forward", times["potential"])
    row("bare call of the scripted model, with gradients", times["bare"])
    lines += ["", "| backend | ampmm's overhead over the bare call | ns/day at 0.5 fs |", "|---|---|---|"]
    for name in backends:
        overheads = [
            (whole - classical) / bare - 1.0
            for whole, classical, bare in zip(times[name], times["classical"], times["bare"], strict=True)
        ]
        rate = 0.5e-6 * 86400.0 / (statistics.median(times[name]) / 1000.0)
        lines.append(f"| {name} | {100.0 * statistics.median(overheads):+.1f} % | {rate:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
