"""Polarization by fields: what -F models have in the place of -D's pair network.

The MM charges are summed into a few fields at each QM atom, and the atom responds to them. A pair costs some hundred operations
instead of twenty thousand, so that the charges of a whole box can polarize; what an atom cannot know any more is
where a single charge sits, except through its fields. The second generation of AMP polarizes alike.
"""

import torch
from torch import Tensor, nn

from ampmm.models.amp_config import AMPConfig
from ampmm.nn.kernels import PairGeometry
from ampmm.nn.mlp import NodeNetwork
from ampmm.nn.multipoles import Multipoles
from ampmm.nn.scatter import scatter_sum
from ampmm.types import PointCharges


class FieldPolarization(nn.Module):
    """ΔM_i^k = Σ_b c_ib^k F_ib^k for k = 1..K, with fields F_ib^k = Σ_m q_m w_b(r_im) R_im^k.

    The responses c_i = φ_F(h_i, F_i^0, M_i^k·F_i^k, ‖F_i^k‖) come from a network of the atom. An uncharged site contributes
    nothing, and the fields of a charge vanish with two derivatives at the cutoff.
    """

    def __init__(self, config: AMPConfig) -> None:
        super().__init__()
        order = int(config.order or 0)
        self.order = order
        self.n_fields = config.n_radial_weights_mm
        self.scale = config.multipole_scale
        self.geometry = PairGeometry(config.n_radial, config.polarization_cutoff, config.envelope_exponent, order)
        self.radial_weights = nn.Linear(config.n_radial, self.n_fields)
        self.multipoles = Multipoles(order)
        n_invariants = self.n_fields * (1 + 2 * order)
        self.response = NodeNetwork(config.width + order + 1 + n_invariants, config.width, self.n_fields * order)  # φ_F

    def forward(self, nodes: Tensor, multipoles: Tensor, one_hot: Tensor, surroundings: PointCharges) -> Tensor:
        """Node inputs (N, width+K+1), multipoles (N, (K+1)²), elements (N, n_elements) to (N, (K+1)²)."""
        n = nodes.shape[0]
        fields = self.fields(surroundings, n)  # (N, n_fields, (K+1)²)
        flat = fields.flatten(0, 1)
        repeated = multipoles.repeat_interleave(self.n_fields, 0)
        along = self.multipoles.dot(repeated, flat)[:, 1:].reshape(n, self.n_fields * self.order)
        norms = self.multipoles.norms(flat)[:, 1:].reshape(n, self.n_fields * self.order)
        responses = self.scale * self.response(torch.cat([nodes, fields[:, :, 0], along, norms], dim=1))
        # No response of order 0: the monopole stays as it is.
        padded = torch.nn.functional.pad(responses.reshape(-1, self.order), [1, 0])
        return self.multipoles.weighted(padded, flat).reshape(n, self.n_fields, -1).sum(1)

    def fields(self, surroundings: PointCharges, n_atoms: int) -> Tensor:
        """F of Σ_m: (N, n_fields, (K+1)²), packed."""
        centers, neighbors, vectors = surroundings.pairs
        _, tensors, radial, envelope = self.geometry(vectors)
        sources = self.radial_weights(radial) * (surroundings.charges.index_select(0, neighbors) * envelope).unsqueeze(-1)
        # Each atom's pairs in a row of their own, padded with zeros: the sums are then matrix products, and nothing of the
        # size pairs × fields × components has to be stored.
        counts = torch.bincount(centers, minlength=n_atoms)
        longest = 0 if centers.shape[0] == 0 else int(counts.max())
        order = torch.argsort(centers)
        place = torch.empty_like(centers)
        place[order] = torch.arange(centers.shape[0], device=centers.device) - (counts.cumsum(0) - counts)[centers[order]]
        slots = centers * longest + place
        rows = scatter_sum(sources, slots, n_atoms * longest).reshape(n_atoms, longest, self.n_fields)
        columns = scatter_sum(tensors, slots, n_atoms * longest).reshape(n_atoms, longest, tensors.shape[1])
        return rows.transpose(1, 2) @ columns
