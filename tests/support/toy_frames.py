"""Labelled frames of a toy: a triatomic with harmonic bonds and fixed charges among a few MM charges, labels analytic."""

import numpy as np

from ampmm.data import FrameSet, Header
from ampmm.units import COULOMB_CONSTANT

NUMBERS = np.array([8, 1, 1])
CHARGES = np.array([-0.6, 0.3, 0.3])  # e
BONDS = ((0, 1, 0.96), (0, 2, 0.96), (1, 2, 1.51))  # atoms and rest length, Å
FORCE_CONSTANT = 400.0  # kJ/mol/Å²
REFERENCE = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])  # Å
LEVEL = "harmonic bonds and point charges"


def toy_energy_and_forces(qm: np.ndarray, mm: np.ndarray, charges_mm: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Energy (kJ/mol) and forces on QM atoms and MM charges (kJ/mol/Å)."""
    energy, forces_qm, forces_mm = -2000.0, np.zeros_like(qm), np.zeros_like(mm)
    for i, j, rest in BONDS:
        vector = qm[j] - qm[i]
        distance = np.linalg.norm(vector)
        energy += 0.5 * FORCE_CONSTANT * (distance - rest) ** 2
        pull = FORCE_CONSTANT * (distance - rest) * vector / distance
        forces_qm[i] += pull
        forces_qm[j] -= pull
    vectors = mm[None] - qm[:, None]  # (N, M, 3)
    distances = np.linalg.norm(vectors, axis=-1)
    pairs = COULOMB_CONSTANT * CHARGES[:, None] * charges_mm[None] / distances
    push = (pairs / distances**2)[..., None] * vectors
    return energy + pairs.sum(), forces_qm - push.sum(1), forces_mm + push.sum(0)


def toy_frames(
    n_frames: int = 24, *, seed: int = 0, charge_counts: tuple[int, ...] = (8, 0, 5, 10), level: str = LEVEL
) -> FrameSet:
    """Frames with `charge_counts` MM charges in turn, 2.5 to 6 Å away; two trajectories, stored one after the other."""
    random = np.random.default_rng(seed)
    positions_qm = REFERENCE + random.normal(scale=0.05, size=(n_frames, 3, 3))
    counts = np.array([charge_counts[frame % len(charge_counts)] for frame in range(n_frames)])
    offsets = np.concatenate([[0], np.cumsum(counts)])
    directions = random.normal(size=(offsets[-1], 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    positions_mm = directions * random.uniform(2.5, 6.0, size=(offsets[-1], 1))
    charges_mm = random.uniform(-0.8, 0.8, size=offsets[-1])
    energy, forces_qm, forces_mm = np.zeros(n_frames), np.zeros((n_frames, 3, 3)), np.zeros((offsets[-1], 3))
    for frame in range(n_frames):
        mm = slice(offsets[frame], offsets[frame + 1])
        energy[frame], forces_qm[frame], forces_mm[mm] = toy_energy_and_forces(
            positions_qm[frame], positions_mm[mm], charges_mm[mm]
        )
    first = np.arange(n_frames) < n_frames // 2
    return FrameSet(
        header=Header("toy", 0, "all charges", "droplet", level_of_theory=level, level_settings={"k": FORCE_CONSTANT}),
        numbers=NUMBERS,
        positions_qm=positions_qm,
        mm_offsets=offsets,
        positions_mm=positions_mm.astype(np.float32),
        charges_mm=charges_mm.astype(np.float32),
        time=np.where(first, np.arange(n_frames), np.arange(n_frames) - n_frames // 2) * 0.01,
        temperature=np.where(first, 300.0, 350.0),
        trajectory=np.where(first, 0, 1).astype(np.int32),
        source_index=np.arange(n_frames),
        energy=energy,
        forces_qm=forces_qm,
        forces_mm=forces_mm.astype(np.float32),
        charges_qm=np.tile(CHARGES, (n_frames, 1)),
        dipole=np.einsum("n,fnx->fx", CHARGES, positions_qm - positions_qm.mean(1, keepdims=True)),
    )


def write_frames(path, frames: FrameSet) -> None:
    """Store frames as an HDF5 file of the schema."""
    from ampmm.data import FrameWriter

    with FrameWriter(path, frames.header, frames.numbers) as writer:
        writer.append(*(frames.record(index) for index in range(frames.n_frames)))
