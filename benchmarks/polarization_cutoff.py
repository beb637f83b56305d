"""How far away do MM charges still polarize the QM region? Decides a model's `polarization_cutoff`.

Charges beyond a cutoff are switched off smoothly (with the model's own envelope) in the QM calculation and act on its atomic
charges through bare Coulomb alone, as they do in AMP(k)-DP. What that changes in energy and QM forces (by central
differences) is the error no training can remove.

    python benchmarks/polarization_cutoff.py uracil_gfn2_300K.h5
"""

import argparse

import numpy as np
import torch

from ampmm.data import read_frames
from ampmm.nn.radial import polynomial_envelope
from ampmm.reference import Labeller, get_labeller
from ampmm.units import COULOMB_CONSTANT

STEP = 2.0e-3  # Å, of the central differences


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("frames", help="HDF5 file of frames in droplets")
    parser.add_argument("--n-frames", type=int, default=20)
    parser.add_argument("--coordinates", type=int, default=6, help="of each frame, whose force is computed")
    parser.add_argument("--cutoffs", type=float, nargs="+", default=[6.0, 7.0, 8.0, 10.0, 12.0], metavar="Å")
    arguments = parser.parse_args()

    frames = read_frames(arguments.frames)
    labeller = get_labeller("gfn2-xtb", accuracy=0.01)
    random = np.random.default_rng(0)
    errors: dict[float, list[tuple[float, float]]] = {cutoff: [] for cutoff in arguments.cutoffs}
    for index in np.linspace(0, frames.n_frames - 1, arguments.n_frames).astype(int):
        record = frames.record(index)
        qm, mm = record.positions_qm, record.positions_mm.astype(float)
        charges = record.charges_mm.astype(float)
        full = labeller.evaluate(frames.numbers, qm, mm, charges, qm_charge=frames.qm_charge)
        places = [(random.integers(len(qm)), random.integers(3)) for _ in range(arguments.coordinates)]
        nearest = np.linalg.norm(mm[:, None] - qm[None], axis=-1).min(axis=1)
        for cutoff in arguments.cutoffs:
            kept = polynomial_envelope(torch.as_tensor(nearest / cutoff), 6).numpy()

            near, far = charges * kept, charges * (1.0 - kept)
            energy = energy_of(labeller, frames.numbers, frames.qm_charge, qm, mm, near, far)
            for atom, axis in places:
                shift = np.zeros_like(qm)
                shift[atom, axis] = STEP
                ahead = energy_of(labeller, frames.numbers, frames.qm_charge, qm + shift, mm, near, far)
                behind = energy_of(labeller, frames.numbers, frames.qm_charge, qm - shift, mm, near, far)
                force = (behind - ahead) / (2.0 * STEP)
                errors[cutoff].append((energy - full.energy, force - full.forces_qm[atom, axis]))

    print("| cutoff, Å | energy, mean abs. error, kJ/mol | QM force, mean abs. error, kJ/mol/Å | maximum |")
    print("|---|---|---|---|")
    for cutoff, values in errors.items():
        energy_error, force_error = np.abs(np.array(values)).T
        print(f"| {cutoff:g} | {energy_error.mean():.3f} | {force_error.mean():.4f} | {force_error.max():.4f} |")


def energy_of(
    labeller: Labeller,
    numbers: np.ndarray,
    qm_charge: int,
    qm: np.ndarray,
    mm: np.ndarray,
    near: np.ndarray,
    far: np.ndarray,
) -> float:
    """Energy with `near` charges (M,) in the QM calculation and `far` charges acting on its atomic charges, kJ/mol."""
    result = labeller.evaluate(numbers, qm, mm, near, qm_charge=qm_charge)
    inverse = 1.0 / np.linalg.norm(mm[:, None] - qm[None], axis=-1)  # (M, N)
    return result.energy + COULOMB_CONSTANT * far @ inverse @ result.charges_qm


if __name__ == "__main__":
    main()
