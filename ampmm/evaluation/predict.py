"""A model's predictions beside the labels of the same frames."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from ampmm.data.batching import Batcher
from ampmm.data.schema import FrameSet
from ampmm.errors import InputError
from ampmm.memory import keep_freed_memory
from ampmm.physics.coulomb import BareCoulomb
from ampmm.physics.evaluators import force_evaluator


class Predictions(NamedTuple):
    """Predicted and reference values of F frames, M MM charges in all; kJ/mol and kJ/mol/Å."""

    energy: np.ndarray  # (F,)
    forces_qm: np.ndarray  # (F·N, 3)
    forces_mm: np.ndarray  # (M, 3)
    energy_reference: np.ndarray  # (F,)
    forces_qm_reference: np.ndarray  # (F·N, 3)
    forces_mm_reference: np.ndarray  # (M, 3)

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self.energy)

    def relative(self) -> "Predictions":
        """The same with energies whose mean error is zero: two levels of theory have two zeros of energy."""
        return self._replace(energy=self.energy - np.mean(self.energy - self.energy_reference, dtype=np.float64))


def predict(
    model: nn.Module,
    frames: FrameSet,
    indices: np.ndarray,
    *,
    cutoff: float,
    polarization_cutoff: float,
    batch_size: int = 4,
    progress: Callable[[int], object] | None = None,
) -> Predictions:
    """Energies and forces of labelled frames, with bare Coulomb over all stored charges, as in training.

    Args:
        model: scripted or not, with a buffer.
        indices: which frames.
        cutoff, polarization_cutoff: the model's, Å.
        progress: called with the number of frames just done.
    """
    if frames.energy is None:
        raise InputError("data: the frames have no labels to compare with; run `ampmm label` on them first")
    keep_freed_memory()
    device = next(model.buffers()).device
    far = getattr(model, "long_range_cutoff", 0.0)
    batcher = Batcher(frames, cutoff, polarization_cutoff, device, long_range_cutoff=far)
    evaluator = force_evaluator(model, BareCoulomb())
    columns: list[list[np.ndarray]] = []
    with torch.enable_grad():
        for batch in batcher.batches(np.asarray(indices), batch_size):
            result = evaluator(batch.frame, batch.charges, batch.polarization, batch.coulomb, long_range=batch.long_range)
            values = (result.energies.total, result.forces_qm, result.forces_mm, batch.energy, batch.forces_qm, batch.forces_mm)
            columns.append([value.detach().cpu().numpy() for value in values])
            if progress is not None:
                progress(len(batch.energy))
    return Predictions(*(np.concatenate(column) for column in zip(*columns, strict=True)))
