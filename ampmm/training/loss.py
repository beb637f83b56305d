"""The loss of Eq. 12, with the MM forces beside the QM forces."""

from typing import NamedTuple

from torch import Tensor

from ampmm.data.batching import Batch
from ampmm.physics.forces import EnergiesAndForces


class Loss(NamedTuple):
    """Mean squared errors and their weighted sum."""

    total: Tensor
    energy: Tensor  # (kJ/mol)²
    forces_qm: Tensor  # (kJ/mol/Å)²
    forces_mm: Tensor  # (kJ/mol/Å)²


def weighted_loss(predicted: EnergiesAndForces, batch: Batch, force_weight: float, mm_force_weight: float) -> Loss:
    """(1-λ)·⟨ΔE²⟩ + λ·(⟨ΔF_QM²⟩ + w·⟨ΔF_MM²⟩); force errors are means over Cartesian components."""
    # The difference of two large energies is taken in float64 and is small enough for float32 afterwards.
    energy = (predicted.energies.total - batch.energy).to(predicted.forces_qm.dtype).square().mean()
    forces_qm = (predicted.forces_qm - batch.forces_qm).square().mean()
    # Not `mean`, which is NaN for a batch without MM charges.
    forces_mm = (predicted.forces_mm - batch.forces_mm).square().sum() / max(1, batch.forces_mm.numel())
    total = (1.0 - force_weight) * energy + force_weight * (forces_qm + mm_force_weight * forces_mm)
    return Loss(total, energy, forces_qm, forces_mm)
