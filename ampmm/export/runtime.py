"""The potential that OpenMM calls each step: nm and kJ/mol outside, Å inside; scriptable, with its own neighbour list."""

from typing import Optional, Tuple

import torch
from torch import Tensor, nn

from ampmm.errors import InputError
from ampmm.export.near_pairs import NearPairs
from ampmm.geometry.cell import has_nearer_image, largest_cutoff, minimum_image
from ampmm.geometry.neighbors import edges_within, pairs_between, pairs_closer_than, unordered_pairs_within
from ampmm.physics.coulomb import coulomb_kernel
from ampmm.physics.evaluators import force_evaluator
from ampmm.physics.walls import DistanceWalls
from ampmm.types import Frame, Pairs

# By how much a cutoff may be over half the box: one of just that comes from a box in double precision, and on CUDA TorchForce
# passes boxes in single precision. All interactions end smoothly at their cutoffs.
_ROUNDING = 1e-6


class Potential(nn.Module):
    """A model between the atoms of a Context: picks the QM atoms and MM charges and returns energy and forces.

    The neighbour lists hold all pairs within their cutoff plus `skin` and are made again when an atom has moved by half the
    skin since they were made, or when the box has changed. Nearest images are taken anew at every call, so atoms may
    arrive in any periodic image.

    Args:
        model: scripted or not, with buffers of one floating-point type; see `ampmm.physics.evaluators`.
        numbers: (N,) atomic numbers of the QM atoms.
        qm_indices, mm_indices: (N,) and (M,) indices into the Context's particles.
        mm_charges: (M,) e.
        qm_charge: net charge of the QM region, e.
        cutoff, polarization_cutoff, long_range_cutoff: the model's, Å; the last one is 0 for models without such pairs.
        periodic: whether boxvectors are used.
        electrostatics, coulomb_cutoff: "reaction-field" with a cutoff in Å, or "bare" with None.
        walls: at the bounds of the model's training, or None.
        skin: Å.
        dtype: of the model's arithmetic.
    """

    def __init__(
        self,
        model: nn.Module,
        numbers: Tensor,
        qm_indices: Tensor,
        mm_indices: Tensor,
        mm_charges: Tensor,
        qm_charge: float,
        *,
        cutoff: float,
        polarization_cutoff: float,
        long_range_cutoff: float = 0.0,
        periodic: bool,
        electrostatics: str,
        coulomb_cutoff: Optional[float],
        walls: Optional[DistanceWalls] = None,
        skin: float = 1.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        if periodic and coulomb_cutoff is None:
            raise InputError("electrostatics: a periodic potential needs 'reaction-field' with a coulomb_cutoff in Å")
        self.evaluator = force_evaluator(model, coulomb_kernel(electrostatics, coulomb_cutoff))
        self.near_pairs = NearPairs(dtype)
        self.cutoff = cutoff
        self.polarization_cutoff = polarization_cutoff
        self.long_range_cutoff = long_range_cutoff
        self.reach = float("inf") if coulomb_cutoff is None else max(coulomb_cutoff, polarization_cutoff)
        self.narrowest = 2.0 * max(self.reach, cutoff) * (1.0 - _ROUNDING)  # Å, of a box
        self.periodic = periodic
        self.skin = skin
        if walls is None:
            none = torch.zeros(len(numbers), len(numbers))
            walls = DistanceWalls(none, none + float("inf"))
        self.walls = walls
        self.register_buffer("numbers", numbers.long())
        self.register_buffer("batch", torch.zeros(len(numbers), dtype=torch.long))
        self.register_buffer("indices", torch.cat([qm_indices.long(), mm_indices.long()]))
        self.n_qm = len(numbers)
        self.register_buffer("charges", mm_charges.to(dtype))
        self.register_buffer("net_charge", torch.tensor([qm_charge], dtype=dtype))
        # The lists and where everything was when they were made; empty until the first call.
        self.register_buffer("listed_positions", torch.zeros(0, 3, dtype=torch.float64))
        self.register_buffer("listed_box", torch.zeros(3, 3, dtype=torch.float64))
        for name in ("edge_centers", "edge_neighbors", "pair_centers", "pair_neighbors", "far_centers", "far_neighbors"):
            self.register_buffer(name, torch.zeros(0, dtype=torch.long))

    def forward(self, positions: Tensor, boxvectors: Optional[Tensor] = None) -> Tuple[Tensor, Tensor]:
        """Positions (n, 3) of all particles and box vectors (3, 3), nm, to energy (), kJ/mol, and forces (n, 3), kJ/mol/nm."""
        own = 10.0 * positions.detach()[self.indices].double()  # (N + M, 3) Å
        if own.is_inference():
            raise ValueError("torch.inference_mode: forces are gradients, which it forbids; use torch.no_grad in its place")
        box: Optional[Tensor] = None
        if self.periodic:
            if boxvectors is None:
                raise ValueError("boxvectors: this potential is periodic and needs them")
            box = 10.0 * boxvectors.detach().to(own.device).double()
            # This and what follows is refused here and not in _make_lists: LibTorch crashes on an error raised so deep below a
            # TorchForce.
            if not float(torch.diagonal(box).min()) >= self.narrowest:  # a NaN in the box ends here too
                raise ValueError("box: a cutoff of the model is now over half the box; use a larger box or a smaller cutoff")
        if self._lists_are_stale(own, box):
            if not bool(torch.isfinite(own).all()):
                raise ValueError("positions: a QM atom or MM charge is at NaN or infinity; the simulation has blown up")
            self._make_lists(own, box)
        qm, mm = own[: self.n_qm], own[self.n_qm :]
        edges = self.near_pairs(qm, qm, self.edge_centers, self.edge_neighbors, box, self.cutoff)
        pairs = self.near_pairs(qm, mm, self.pair_centers, self.pair_neighbors, box, self.reach)
        polarization = pairs_closer_than(pairs, self.polarization_cutoff)
        long_range: Optional[Pairs] = None
        if self.long_range_cutoff > 0.0:
            far = self.near_pairs(qm, qm, self.far_centers, self.far_neighbors, box, self.long_range_cutoff)
            if box is not None and self._ambiguous(qm, far, box):
                raise ValueError(
                    "box: two QM atoms are farther apart than half the box and closer than the model's long-range cutoff, so "
                    "that their nearest images are ambiguous; use a larger box"
                )
            long_range = far
        return self._energy_and_forces(positions, own, box, edges, polarization, pairs, long_range)

    def _energy_and_forces(
        self,
        positions: Tensor,
        own: Tensor,
        box: Optional[Tensor],
        edges: Pairs,
        polarization: Pairs,
        pairs: Pairs,
        long_range: Optional[Pairs],
    ) -> Tuple[Tensor, Tensor]:
        """What `forward` returns: from its positions, those of the QM atoms and MM charges in Å (N + M, 3), and the pairs."""
        with_gradients = torch.is_grad_enabled()
        torch.set_grad_enabled(True)  # also in a script that switched them off: LibTorch crashes without
        result = self.evaluator(
            Frame(self.numbers, self.batch, self.net_charge, edges), self.charges, polarization, pairs, long_range=long_range
        )
        torch.set_grad_enabled(with_gradients)
        forces = torch.zeros_like(positions.detach())
        walls = self.walls(own[: self.n_qm], box)
        forces_mm = result.forces_mm[: own.shape[0] - self.n_qm]
        own_forces = 10.0 * torch.cat([result.forces_qm + walls.forces.to(self.charges.dtype), forces_mm])
        forces = forces.index_add(0, self.indices, own_forces.to(forces.dtype))
        return result.energies.total[0].detach() + walls.energy, forces

    def _lists_are_stale(self, own: Tensor, box: Optional[Tensor]) -> bool:
        if self.listed_positions.shape[0] != own.shape[0]:
            return True
        if box is not None and not bool(torch.equal(box, self.listed_box)):
            return True
        moved = minimum_image(own - self.listed_positions, box)
        # A NaN compares false and so makes the lists stale.
        return not bool((moved * moved).sum(dim=-1).max() <= 0.25 * self.skin * self.skin)

    def _make_lists(self, own: Tensor, box: Optional[Tensor]) -> None:
        qm, mm = own[: self.n_qm], own[self.n_qm :]
        reach, edge_reach = self.reach + self.skin, self.cutoff + self.skin
        if box is not None:
            largest = largest_cutoff(box)
            # Beyond half the box the nearest image is not unique: keep every pair.
            reach = reach if reach <= largest else float("inf")
            edge_reach = edge_reach if edge_reach <= largest else float("inf")
            self.listed_box = box
        if self.long_range_cutoff > 0.0:
            far = self._long_range_list(qm, box)
            self.far_centers, self.far_neighbors = far.centers, far.neighbors
        edges = edges_within(qm, edge_reach, box)
        pairs = pairs_between(qm, mm, reach, box)
        self.edge_centers, self.edge_neighbors = edges.centers, edges.neighbors
        self.pair_centers, self.pair_neighbors = pairs.centers, pairs.neighbors
        self.listed_positions = own

    def _ambiguous(self, qm: Tensor, far: Pairs, box: Tensor) -> bool:
        largest = largest_cutoff(box)
        if self.long_range_cutoff <= largest:
            return False
        if pairs_closer_than(far, largest).vectors.shape[0] != far.vectors.shape[0]:
            return True
        vectors = minimum_image(qm[self.far_neighbors] - qm[self.far_centers], box)  # all pairs, as the list has no reach then
        return has_nearer_image(vectors, box, self.long_range_cutoff)

    def _long_range_list(self, qm: Tensor, box: Optional[Tensor]) -> Pairs:
        reach = self.long_range_cutoff + self.skin
        if box is not None and reach > largest_cutoff(box):
            reach = float("inf")
        return unordered_pairs_within(qm, reach, box)
