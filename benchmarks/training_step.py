"""What an optimiser step costs and where its time goes: frames in, weights out.

Toy frames with the numbers of atoms of the three systems: a molecule's atoms packed on a cubic lattice, MM charges of water
around them, labels drawn at random, on which the cost of a step does not depend. On the number of pairs it does: packed like
this, the atoms of ra and sam have more than twice as many neighbours within 5 Å as in the real molecules, and a step takes
about twice as long as on real frames. In one process, for each size, milliseconds a step of
- making the batch: frames to tensors, distances, pair lists;
- the forward pass with forces, whose graph is kept for the second derivative;
- the backward pass to the gradients of the weights;
- the optimiser: clipping, Muon (with Adam for what it leaves), schedule, average of the weights.

Medians over rounds. `--profile` prints the operations that take the longest, `--compile` tries `torch.compile`.
"""

import argparse
import dataclasses
import itertools
import os
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

SIZES = {"uracil": ("C4H4N2O2", 1500), "ra": ("C20H28O2", 2400), "sam": ("C18H29N7O7S2", 2490)}  # QM region, MM charges
NUMBERS = {"H": 1, "C": 6, "N": 7, "O": 8, "S": 16}
SPACING = 1.4  # Å, between neighbouring QM atoms
WATERS_PER_VOLUME = 0.0334  # 1/Å³
CLEARANCE = 2.0  # Å, of MM charges from QM atoms


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--systems", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--polarization-cutoff", type=float, default=8.0, help="Å")
    parser.add_argument("--rounds", type=int, default=7, help="steps timed")
    parser.add_argument("--cpu-time", action="store_true", help="processor time instead of wall-clock time; for a busy machine")
    parser.add_argument("--profile", action="store_true", help="print the ten operations that take the longest")
    parser.add_argument("--compile", action="store_true", help="also try a model through torch.compile")
    return parser.parse_args()


def main() -> None:
    """Time each size and print a row for it."""
    given = arguments()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(given.threads)  # before torch is loaded

    import torch

    torch.set_num_threads(given.threads)
    print(
        f"torch {torch.__version__}, {given.device}, {given.threads} thread(s) of {os.cpu_count()}; batches of "
        f"{given.batch_size}, polarization cutoff {given.polarization_cutoff:g} Å; medians of {given.rounds} steps, "
        f"{'processor' if given.cpu_time else 'wall-clock'} time\n"
    )
    print("| system | QM atoms | MM charges | batch, ms | forward, ms | backward, ms | optimiser, ms | samples/s |")
    print("|---|---|---|---|---|---|---|---|")
    for name in given.systems:
        formula, n_charges = SIZES[name]
        frames = toy_frames(formula, n_charges, 2 * given.batch_size + 2)
        with TemporaryDirectory() as folder:
            trainer = make_trainer(frames, Path(folder), given)
            times = measure(trainer, given)
            parts = " | ".join(f"{statistics.median(part):.1f}" for part in times)
            step = statistics.median(map(sum, zip(*times, strict=True)))
            rate = 1000.0 * given.batch_size / step
            print(f"| {name} | {len(frames.numbers)} | {n_charges} | {parts} | {rate:.2f} |", flush=True)
            if given.profile:
                print_profile(trainer, given)
            if given.compile:
                try_compile(trainer, given)


def toy_frames(formula: str, n_charges: int, n_frames: int):
    """Labelled frames: a compact blob of atoms, three-point waters around it, random labels."""
    import re

    import numpy as np

    from ampmm.data import FrameSet, Header

    random = np.random.default_rng(1)
    counts = re.findall(r"([A-Z][a-z]?)(\d*)", formula)
    numbers = np.array([NUMBERS[symbol] for symbol, count in counts for _ in range(int(count or 1))])
    qm = random.permutation(_lattice(len(numbers), SPACING))[None] + random.normal(scale=0.05, size=(n_frames, len(numbers), 3))
    mm = np.concatenate([_waters(frame, n_charges // 3, random) for frame in qm])
    n_atoms = len(numbers)
    return FrameSet(
        header=Header("toy", 0, "all charges", "droplet", level_of_theory="random numbers"),
        numbers=numbers,
        positions_qm=qm,
        mm_offsets=np.arange(n_frames + 1) * n_charges,
        positions_mm=mm.astype(np.float32),
        charges_mm=np.tile([-0.834, 0.417, 0.417], n_frames * n_charges // 3).astype(np.float32),
        time=np.arange(n_frames) * 0.01,
        temperature=np.full(n_frames, 300.0),
        trajectory=np.zeros(n_frames, dtype=np.int32),
        source_index=np.arange(n_frames),
        energy=random.normal(scale=30.0, size=n_frames),
        forces_qm=random.normal(scale=60.0, size=(n_frames, n_atoms, 3)),
        forces_mm=random.normal(scale=1.0, size=(len(mm), 3)).astype(np.float32),
        charges_qm=np.zeros((n_frames, n_atoms)),
        dipole=np.zeros((n_frames, 3)),
    )


def _lattice(n_points: int, spacing: float):
    """The `n_points` sites of a cubic lattice that are nearest to its centre, (n_points, 3) Å."""
    import numpy as np

    width = np.arange(-5, 6) * spacing
    sites = np.stack(np.meshgrid(width, width, width, indexing="ij"), axis=-1).reshape(-1, 3)
    return sites[np.argsort(np.linalg.norm(sites, axis=1), kind="stable")[:n_points]]


def _waters(qm, n_waters: int, random):
    """Charge positions of the `n_waters` molecules nearest to the QM atoms, at liquid density, (3·n_waters, 3) Å."""
    import numpy as np

    reach = 4.0 + (3.0 * (n_waters / WATERS_PER_VOLUME + len(qm) * SPACING**3) / (4.0 * np.pi)) ** (1 / 3)
    oxygen = random.uniform(-reach, reach, size=(round(WATERS_PER_VOLUME * (2.0 * reach) ** 3), 3))
    nearest = np.linalg.norm(oxygen[:, None] - qm[None], axis=-1).min(axis=1)
    order = np.argsort(nearest)
    oxygen = oxygen[order[nearest[order] > CLEARANCE][:n_waters]]
    hydrogens = oxygen[:, None] + random.normal(scale=0.55, size=(n_waters, 2, 3))
    return np.concatenate([oxygen[:, None], hydrogens], axis=1).reshape(-1, 3)


def make_trainer(frames, folder: Path, given: argparse.Namespace):
    """A trainer of the three-layer AMP(3)-DP with the settings of systems/uracil/train_quick.yaml."""
    from ampmm.training import Trainer, TrainingConfig

    config = TrainingConfig.from_yaml(Path(__file__).resolve().parents[1] / "systems" / "uracil" / "train_quick.yaml")
    config = dataclasses.replace(
        config,
        hyperparameters={**config.hyperparameters, "polarization_cutoff": given.polarization_cutoff},
        n_train=frames.n_frames - 2,
        n_validation=1,
        n_test=1,
        batch_size=given.batch_size,
    )
    return Trainer(config, frames, folder, given.device)


def measure(trainer, given: argparse.Namespace) -> list[list[float]]:
    """Milliseconds of the four parts of a step, one value a round; the first two rounds warm up."""
    import torch

    from ampmm.physics.coulomb import BareCoulomb
    from ampmm.physics.evaluators import force_evaluator
    from ampmm.training.loss import weighted_loss

    evaluator = force_evaluator(trainer.model, BareCoulomb())
    parameters = list(trainer.model.parameters())
    clock = time.process_time if given.cpu_time else time.perf_counter

    def now() -> float:
        if given.device != "cpu":
            torch.cuda.synchronize()
        return clock()

    times: list[list[float]] = [[], [], [], []]
    for each in range(given.rounds + 2):
        marks = [now()]
        batch = trainer.batcher.batch(range(given.batch_size))
        marks.append(now())
        predicted = evaluator(
            batch.frame, batch.charges, batch.polarization, batch.coulomb, create_graph=True, long_range=batch.long_range
        )
        loss = weighted_loss(predicted, batch, 0.8, 100.0)
        marks.append(now())
        trainer.optimizer.zero_grad(set_to_none=True)
        loss.total.backward(inputs=parameters)
        marks.append(now())
        torch.nn.utils.clip_grad_norm_(parameters, 100.0)
        trainer.optimizer.step()
        trainer.scheduler.step()
        trainer.average.update_parameters(trainer.model)
        marks.append(now())
        if each >= 2:
            for part, (start, end) in enumerate(itertools.pairwise(marks)):
                times[part].append(1000.0 * (end - start))
    return times


def print_profile(trainer, given: argparse.Namespace) -> None:
    """The ten operations with the most time of their own, of three whole steps."""
    from torch.profiler import ProfilerActivity, profile

    from ampmm.physics.coulomb import BareCoulomb
    from ampmm.physics.evaluators import force_evaluator

    evaluator = force_evaluator(trainer.model, BareCoulomb())
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if given.device != "cpu" else [])
    with profile(activities=activities) as profiler:
        for _ in range(3):
            trainer._train_step(evaluator, trainer.batcher.batch(range(given.batch_size)))
    column = "self_cpu_time_total" if given.device == "cpu" else "self_cuda_time_total"
    print(profiler.key_averages().table(sort_by=column, row_limit=10, max_name_column_width=40))


def try_compile(trainer, given: argparse.Namespace) -> None:
    """The same step with the model through torch.compile; says why not where it does not work."""
    import torch

    eager = trainer.model
    try:
        trainer.model = torch.compile(eager, dynamic=True)
        times = measure(trainer, given)
    except Exception as error:  # whatever the compiler raises is the result
        print(f"  torch.compile: {type(error).__name__}: {str(error).strip().splitlines()[0][:200]}")
        return
    finally:
        trainer.model = eager
    step = statistics.median(map(sum, zip(*times, strict=True)))
    print(f"  torch.compile: {1000.0 * given.batch_size / step:.2f} samples/s")


if __name__ == "__main__":
    main()
