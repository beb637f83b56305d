"""The potential for CUDA graphs: arrays of fixed shapes, and nothing in a step that waits for the GPU."""

import math
from typing import Optional, Tuple

import torch
from torch import Tensor

from ampmm.errors import InputError
from ampmm.export.near_pairs import PaddedPairs
from ampmm.export.runtime import Potential
from ampmm.geometry.neighbors import all_pairs, is_near
from ampmm.types import Pairs


class FixedShapePotential(Potential):
    """`Potential` without neighbour lists: every pair's distance is taken at every call.

    The pairs in range are put together in arrays of a fixed length, filled up with pairs that are out of range and count for
    nothing. The first call finds the lengths, `headroom` times what is in range then. Where they do not suffice any more, and
    where `Potential` would refuse positions or box, energy and forces are NaN: a raised error would have to wait for the GPU.

    Args:
        args, options: as for `Potential`; `skin` is not used.
        headroom: at least 1.

    Raises:
        InputError: the model has long-range pairs of QM atoms, or `headroom` is less than 1.
    """

    def __init__(self, *args: object, headroom: float = 1.5, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        if self.long_range_cutoff > 0.0:
            raise InputError("model: fixed shapes are for AMP models; one with long-range QM–QM pairs (AMP-BMS) has none")
        if not 1.0 <= headroom < math.inf:
            raise InputError(f"headroom: expected a number of at least 1, got {headroom!r}")
        self.headroom = headroom
        # Lengths of the arrays; 0 until the first call.
        self.n_edges = 0
        self.n_pairs = 0
        self.n_polarization = 0
        self.padded = PaddedPairs(self.charges)
        # One more charge, of 0 e, for the pairs that fill up.
        self.register_buffer("charges", torch.cat([self.charges, self.charges.new_zeros(1)]))

    def forward(self, positions: Tensor, boxvectors: Optional[Tensor] = None) -> Tuple[Tensor, Tensor]:
        """Positions (n, 3) of all particles and box vectors (3, 3), nm, to energy (), kJ/mol, and forces (n, 3), kJ/mol/nm."""
        own = 10.0 * positions.detach()[self.indices].double()  # (N + M, 3) Å
        valid = torch.isfinite(own).all()
        box: Optional[Tensor] = None
        if self.periodic:
            if boxvectors is None:
                raise ValueError("boxvectors: this potential is periodic and needs them")
            box = 10.0 * boxvectors.detach().to(own.device).double()
            valid = valid & (torch.diagonal(box).min() >= self.narrowest)
        qm, mm = own[: self.n_qm], own[self.n_qm :]
        if self.n_edges == 0:
            self._size(qm, mm, box)
        edges, n_edges = self.padded(qm, qm, box, self.cutoff, self.n_edges, 0, True)
        pairs, n_pairs = self.padded(qm, mm, box, self.reach, self.n_pairs, mm.shape[0], False)
        polarization, n_polarization = self.padded(
            qm, mm, box, self.polarization_cutoff, self.n_polarization, mm.shape[0], False
        )
        valid = valid & (n_edges <= self.n_edges) & (n_pairs <= self.n_pairs) & (n_polarization <= self.n_polarization)
        energy, forces = self._energy_and_forces(positions, own, box, edges, polarization, pairs, None)
        nan = float("nan")
        return torch.where(valid, energy, nan), torch.where(valid, forces, nan)

    def _size(self, qm: Tensor, mm: Tensor, box: Optional[Tensor]) -> None:
        """Find the arrays' lengths from what is near now."""
        n = self.n_qm
        self.n_edges = self._length(self._n_near(all_pairs(qm, qm, box), self.cutoff) - n, n * (n - 1))
        every = all_pairs(qm, mm, box)
        n_pairs = n * mm.shape[0]
        self.n_pairs = self._length(self._n_near(every, self.reach), n_pairs)
        self.n_polarization = self._length(self._n_near(every, self.polarization_cutoff), n_pairs)

    def _n_near(self, pairs: Pairs, cutoff: float) -> int:
        return int(is_near(pairs, cutoff).sum())

    def _length(self, n_near: int, n_all: int) -> int:
        """At most all; one at the least, which 0 is not."""
        return max(1, min(n_all, int(self.headroom * n_near) + 32))
