"""Mean bond lengths of a QM molecule: an ML/MM trajectory beside reference QM/MM frames. Prints a Markdown table.

python docs/figures/bond_lengths.py runs/nvt reference_300K.h5 --skip 5

Errors are standard errors from block averages; a difference of less than two of them is none that was measured.
"""

import argparse
from pathlib import Path

import mdtraj
import numpy as np

from ampmm.data import FrameSet, read_frames
from ampmm.elements import symbol
from ampmm.geometry.bonds import bonded_pairs
from ampmm.units import ANGSTROM_PER_NM

N_BLOCKS = 10


def reference_lengths(frames: FrameSet, bonds: np.ndarray) -> np.ndarray:
    """Bond lengths of stored frames, (F, n_bonds) Å."""
    positions = frames.positions_qm
    return np.linalg.norm(positions[:, bonds[:, 1]] - positions[:, bonds[:, 0]], axis=-1)


def trajectory_lengths(run: Path, selection: str, bonds: np.ndarray, skip_ps: float) -> tuple[np.ndarray, list[str]]:
    """Bond lengths of a run's trajectory after `skip_ps`, (F, n_bonds) Å, and the QM atoms' names."""
    # MDTraj would otherwise rename residues it takes for nucleotides: URA to U.
    topology = mdtraj.load_topology(str(run / "initial.pdb"), standard_names=False)
    trajectory = mdtraj.load(run / "trajectory.dcd", top=topology)
    qm = topology.select(selection)
    if len(qm) <= bonds.max():
        raise SystemExit(f"--qm: {selection!r} selects {len(qm)} atoms, fewer than the frames have; check the selection")
    # A DCD file's own times are not read by MDTraj: take those of the table written with it.
    times = np.loadtxt(run / "state.csv", delimiter=",", skiprows=1, usecols=1, ndmin=1)
    trajectory = trajectory[times[: trajectory.n_frames] > skip_ps]
    lengths = ANGSTROM_PER_NM * mdtraj.compute_distances(trajectory, qm[bonds], periodic=True)
    return lengths, [topology.atom(index).name for index in qm]


def mean_and_error(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard errors over blocks in time, each (n_bonds,)."""
    means = np.array([block.mean(axis=0) for block in np.array_split(lengths, N_BLOCKS)])
    return lengths.mean(axis=0), means.std(axis=0, ddof=1) / np.sqrt(N_BLOCKS)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of `ampmm simulate`")
    parser.add_argument("frames", type=Path, help="HDF5 file of reference frames at the same temperature")
    parser.add_argument("--qm", default="resname URA", help="the QM atoms, an MDTraj selection")
    parser.add_argument("--skip", type=float, default=5.0, help="ps at the start of the run left out")
    parser.add_argument("--temperature", type=float, help="K; of the reference frames, if the file has several")
    arguments = parser.parse_args()
    frames = read_frames(arguments.frames)
    bonds = bonded_pairs(frames.numbers, frames.positions_qm[0])
    chosen = np.ones(frames.n_frames, dtype=bool)
    if arguments.temperature is not None:
        chosen = np.abs(frames.temperature - arguments.temperature) < 0.5
    expected = reference_lengths(frames, bonds)[chosen]
    found, names = trajectory_lengths(arguments.run, arguments.qm, bonds, arguments.skip)
    (mean, error), (reference, reference_error) = mean_and_error(found), mean_and_error(expected)
    print(f"{len(found)} frames of {arguments.run}, {len(expected)} reference frames of {arguments.frames.name}\n")
    print("| bond | elements | ML/MM, Å | reference, Å | difference, Å | standard deviations, Å |\n|---|---|---|---|---|---|")
    for b, (i, j) in enumerate(bonds):
        elements = "–".join(symbol(int(frames.numbers[atom])) for atom in (i, j))
        both = np.hypot(error[b], reference_error[b])
        print(f"| {names[i]}–{names[j]} | {elements} | {mean[b]:.4f} ± {error[b]:.4f} | {reference[b]:.4f} ± "
              f"{reference_error[b]:.4f} | {mean[b] - reference[b]:+.4f} ± {both:.4f} | "
              f"{found[:, b].std():.4f}, {expected[:, b].std():.4f} |")  # fmt: skip
    print(f"\nlargest difference: {np.abs(mean - reference).max():.4f} Å")


if __name__ == "__main__":
    main()
