"""The loss of Eq. 12, with the MM forces beside the QM forces."""

from typing import NamedTuple

import torch
from torch import Tensor

from ampmm.data.batching import Batch
from ampmm.physics.forces import EnergiesAndForces


class Loss(NamedTuple):
    """Mean squared errors and their weighted sum."""

    total: Tensor
    energy: Tensor  # (kJ/mol)²
    forces_qm: Tensor  # (kJ/mol/Å)²
    forces_mm: Tensor  # (kJ/mol/Å)²


class Sizes(NamedTuple):
    """How many values the means of a batch are taken over."""

    frames: int
    forces_qm: int  # Cartesian components
    forces_mm: int


def sizes_of(batch: Batch) -> Sizes:
    """The sizes of a whole batch."""
    return Sizes(batch.energy.numel(), batch.forces_qm.numel(), batch.forces_mm.numel())


def weighted_loss(
    predicted: EnergiesAndForces, batch: Batch, force_weight: float, mm_force_weight: float, sizes: Sizes | None = None
) -> Loss:
    """(1-λ)·⟨ΔE²⟩ + λ·(⟨ΔF_QM²⟩ + w·⟨ΔF_MM²⟩); force errors are means over Cartesian components.

    Where `batch` is one process's share of a larger batch, `sizes` are the larger one's: the losses of all shares add up to
    the loss of the whole.
    """
    sizes = sizes_of(batch) if sizes is None else sizes
    # The difference of two large energies is taken in float64 and is small enough for float32 afterwards.
    energy = _sum_of_squares((predicted.energies.total - batch.energy).to(predicted.forces_qm.dtype)) / sizes.frames
    forces_qm = _sum_of_squares(predicted.forces_qm - batch.forces_qm) / sizes.forces_qm
    # A batch without MM charges has no MM forces.
    forces_mm = _sum_of_squares(predicted.forces_mm - batch.forces_mm) / max(1, sizes.forces_mm)
    total = (1.0 - force_weight) * energy + force_weight * (forces_qm + mm_force_weight * forces_mm)
    return Loss(total, energy, forces_qm, forces_mm)


def _sum_of_squares(differences: Tensor) -> Tensor:
    return torch.square(differences).sum()
