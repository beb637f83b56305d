"""Batches: frames with differing numbers of MM charges laid one after another, with their pairs and targets."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ampmm.data.schema import FrameSet
from ampmm.geometry.neighbors import edges_within, pairs_between, pairs_closer_than, unordered_pairs_within
from ampmm.types import Frame, Pairs


class Batch(NamedTuple):
    """B labelled frames as a model and its loss take them. Å, kJ/mol, e."""

    frame: Frame
    charges: Tensor  # (M,) of the MM sites of all frames
    polarization: Pairs  # QM–MM pairs within the model's polarization cutoff
    coulomb: Pairs  # all QM–MM pairs
    energy: Tensor  # (B,) float64
    forces_qm: Tensor  # (N, 3)
    forces_mm: Tensor  # (M, 3)
    long_range: Pairs | None = None  # QM–QM pairs within the model's long-range cutoff, each once, if it has one


class Batcher:
    """Makes batches from the labelled frames of one system, for a model's cutoffs; `long_range_cutoff` 0 is none."""

    def __init__(
        self,
        frames: FrameSet,
        cutoff: float,
        polarization_cutoff: float,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        long_range_cutoff: float = 0.0,
    ) -> None:
        self._frames = frames
        self._cutoff = cutoff
        self._polarization_cutoff = polarization_cutoff
        self._long_range_cutoff = long_range_cutoff
        self._device = torch.device(device)
        self._dtype = dtype
        self._numbers = torch.as_tensor(frames.numbers, device=self._device)

    def batch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """The frames with these indices as one batch."""
        n_atoms = len(self._numbers)
        edges, polarization, coulomb, long_range, charges, forces_mm = [], [], [], [], [], []
        first_mm = 0
        records = [self._frames.record(int(index)) for index in indices]
        for position, record in enumerate(records):
            first_qm = position * n_atoms
            qm, mm = self._tensor(record.positions_qm), self._tensor(record.positions_mm)
            everything = pairs_between(qm, mm, float("inf"), None)
            near = pairs_closer_than(everything, self._polarization_cutoff)
            edges.append(_shifted(edges_within(qm, self._cutoff, None), first_qm, first_qm))
            coulomb.append(_shifted(everything, first_qm, first_mm))
            if self._long_range_cutoff > 0.0:
                far = unordered_pairs_within(qm, self._long_range_cutoff, None)
                long_range.append(_shifted(far, first_qm, first_qm))
            polarization.append(_shifted(near, first_qm, first_mm))
            charges.append(self._tensor(record.charges_mm))
            forces_mm.append(self._tensor(record.forces_mm))
            first_mm += len(mm)
        n_frames = len(records)
        frame = Frame(
            self._numbers.repeat(n_frames),
            torch.arange(n_frames, device=self._device).repeat_interleave(n_atoms),
            torch.full((n_frames,), float(self._frames.qm_charge), device=self._device, dtype=self._dtype),
            _joined(edges),
        )
        return Batch(
            frame,
            torch.cat(charges),
            _joined(polarization),
            _joined(coulomb),
            torch.tensor([record.energy for record in records], dtype=torch.float64, device=self._device),
            torch.cat([self._tensor(record.forces_qm) for record in records]),
            torch.cat(forces_mm),
            _joined(long_range) if long_range else None,
        )

    def batches(self, indices: np.ndarray, batch_size: int) -> Iterator[Batch]:
        """All frames with these indices, in order."""
        for start in range(0, len(indices), batch_size):
            yield self.batch(indices[start : start + batch_size])

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.as_tensor(array, device=self._device).to(self._dtype)


def _shifted(pairs: Pairs, centers: int, neighbors: int) -> Pairs:
    return Pairs(pairs.centers + centers, pairs.neighbors + neighbors, pairs.vectors)


def _joined(parts: list[Pairs]) -> Pairs:
    return Pairs(*(torch.cat(column) for column in zip(*parts, strict=True)))
