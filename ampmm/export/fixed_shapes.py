"""The potential for CUDA graphs: arrays of fixed shapes, and nothing in a step that waits for the GPU."""

import math
from typing import Optional, Tuple

import torch
from torch import Tensor

from ampmm.errors import InputError
from ampmm.export.runtime import Potential
from ampmm.geometry.neighbors import all_pairs, padded_pairs
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
            valid = valid & (torch.diagonal(box).min() >= 2.0 * max(self.reach, self.cutoff))
        qm, mm = own[: self.n_qm], own[self.n_qm :]
        every_edge, every_pair = all_pairs(qm, qm, box), all_pairs(qm, mm, box)
        edge_is_near = self._near(every_edge, self.cutoff) & (every_edge.centers != every_edge.neighbors)
        pair_is_near = self._near(every_pair, self.reach)
        if self.n_edges == 0:
            self._size(edge_is_near, pair_is_near, self._near(every_pair, self.polarization_cutoff))
        edges, n_edges = padded_pairs(every_edge, edge_is_near, self.n_edges, self._filling(0, self.cutoff))
        pairs, n_pairs = padded_pairs(every_pair, pair_is_near, self.n_pairs, self._filling(mm.shape[0], self.reach))
        # Among `pairs` those that fill up are in nobody's range.
        polarization, n_polarization = padded_pairs(
            pairs,
            self._near(pairs, self.polarization_cutoff),
            self.n_polarization,
            self._filling(mm.shape[0], self.polarization_cutoff),
        )
        valid = valid & (n_edges <= self.n_edges) & (n_pairs <= self.n_pairs) & (n_polarization <= self.n_polarization)
        energy, forces = self._energy_and_forces(
            positions, own, box, self._cast(edges), self._cast(polarization), self._cast(pairs), None
        )
        nan = float("nan")
        return torch.where(valid, energy, nan), torch.where(valid, forces, nan)

    def _near(self, pairs: Pairs, cutoff: float) -> Tensor:
        components = pairs.vectors.t()
        return (components * components).sum(dim=0) < cutoff * cutoff

    def _size(self, edges: Tensor, pairs: Tensor, polarization: Tensor) -> None:
        """Find the arrays' lengths from what is near now."""
        self.n_edges = self._length(edges)
        self.n_pairs = self._length(pairs)
        self.n_polarization = min(self.n_pairs, self._length(polarization))

    def _length(self, near: Tensor) -> int:
        """At most all; one at the least, which 0 is not."""
        return max(1, min(near.shape[0], int(self.headroom * float(near.sum())) + 32))

    def _filling(self, neighbor: int, cutoff: float) -> Pairs:
        """One pair of the last QM atom, so that centers stay in order, out of range."""
        last = torch.full([1], self.n_qm - 1, device=self.indices.device)
        away = 2.0 * cutoff if cutoff < float("inf") and cutoff > 0.0 else 1.0
        vector = torch.full([1, 3], away, dtype=torch.float64, device=self.indices.device)
        return Pairs(last, torch.full_like(last, neighbor), vector)

    def _cast(self, pairs: Pairs) -> Pairs:
        return Pairs(pairs.centers, pairs.neighbors, pairs.vectors.to(self.charges.dtype))
