"""Polarization by fields: what -F models have in the place of -D's pair network.

The MM charges are summed into a few fields at each QM atom, and the atom responds to them. A pair costs some hundred operations
instead of twenty thousand, so that the charges of a whole box can polarize; what an atom cannot know any more is
where a single charge sits, except through its fields. The second generation of AMP polarizes alike.
"""

import torch
from torch import Tensor, nn

from ampmm.models.amp_config import AMPConfig
from ampmm.nn import native
from ampmm.nn.kernels import PairGeometry
from ampmm.nn.mlp import NodeNetwork
from ampmm.nn.multipoles import Multipoles
from ampmm.nn.scatter import scatter_sum
from ampmm.types import PointCharges

MOST_AT_ONCE = 2**26  # numbers that sums on a GPU store for a while, 256 MB in single precision


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
        self.sums = FieldSums(order, config.n_radial, config.polarization_cutoff, config.envelope_exponent)
        self.radial_weights = nn.Linear(config.n_radial, self.n_fields)
        self.multipoles = Multipoles(order)
        n_invariants = self.n_fields * (1 + 2 * order)
        self.response = NodeNetwork(config.width + order + 1 + n_invariants, config.width, self.n_fields * order)  # φ_F

    def forward(self, nodes: Tensor, multipoles: Tensor, one_hot: Tensor, surroundings: PointCharges) -> Tensor:
        """Node inputs (N, width+K+1), multipoles (N, (K+1)²), elements (N, n_elements) to (N, (K+1)²)."""
        n = nodes.shape[0]
        centers, neighbors, vectors = surroundings.pairs
        charges = surroundings.charges.index_select(0, neighbors)
        fields = self.sums(vectors, charges, centers, n, self.radial_weights.weight, self.radial_weights.bias)
        flat = fields.flatten(0, 1)  # (N·n_fields, (K+1)²)
        repeated = multipoles.repeat_interleave(self.n_fields, 0)
        along = self.multipoles.dot(repeated, flat)[:, 1:].reshape(n, self.n_fields * self.order)
        norms = self.multipoles.norms(flat)[:, 1:].reshape(n, self.n_fields * self.order)
        responses = self.scale * self.response(torch.cat([nodes, fields[:, :, 0], along, norms], dim=1))
        # No response of order 0: the monopole stays as it is.
        padded = torch.nn.functional.pad(responses.reshape(-1, self.order), [1, 0])
        return self.multipoles.weighted(padded, flat).reshape(n, self.n_fields, -1).sum(1)


class FieldSums(nn.Module):
    """F_ib^k = Σ_m q_m w_b(r_im) R_im^k, where w_b is a Linear of the radial functions times their envelope."""

    def __init__(self, order: int, n_radial: int, cutoff: float, envelope_exponent: int) -> None:
        super().__init__()
        self.geometry = PairGeometry(n_radial, cutoff, envelope_exponent, order)

    def forward(self, vectors: Tensor, charges: Tensor, centers: Tensor, n_atoms: int, matrix: Tensor, bias: Tensor) -> Tensor:
        """Vectors (n, 3) Å, charges (n,) e and centers (n,) of the pairs, to (n_atoms, n_fields, (K+1)²) e, packed.

        Args:
            matrix, bias: (n_fields, n_radial), (n_fields,) of the Linear.
        """
        _, tensors, radial, envelope = self.geometry(vectors)
        sources = torch.addmm(bias, radial, matrix.t()) * (charges * envelope).unsqueeze(-1)
        if sources.device.type == "cpu":
            return sums_in_rows(sources, tensors, centers, n_atoms)
        return masked_sums(sources, tensors, centers, n_atoms)


def sums_in_rows(sources: Tensor, tensors: Tensor, centers: Tensor, n_atoms: int) -> Tensor:
    """Σ of sources (n, n_fields) times tensors (n, (K+1)²) of each atom's pairs, (n_atoms, n_fields, (K+1)²).

    Each atom's pairs come in a row of their own, padded with zeros: the sums are then matrix products, and nothing of the
    size pairs × fields × components has to be stored.
    """
    counts = torch.bincount(centers, minlength=n_atoms)
    longest = 0 if centers.shape[0] == 0 else int(counts.max())
    order = torch.argsort(centers)
    place = torch.empty_like(centers)
    place[order] = torch.arange(centers.shape[0], device=centers.device) - (counts.cumsum(0) - counts)[centers[order]]
    slots = centers * longest + place
    rows = scatter_sum(sources, slots, n_atoms * longest).reshape(n_atoms, longest, sources.shape[1])
    columns = scatter_sum(tensors, slots, n_atoms * longest).reshape(n_atoms, longest, tensors.shape[1])
    return rows.transpose(1, 2) @ columns


def masked_sums(sources: Tensor, tensors: Tensor, centers: Tensor, n_atoms: int, most: int = MOST_AT_ONCE) -> Tensor:
    """The same as products with a matrix that says which pairs are an atom's own, so many pairs at a time as `most` allows.

    Nothing in it waits for a GPU, as a CUDA graph needs it. For the derivative that matrix is kept, pairs × atoms.
    """
    atoms = torch.arange(n_atoms, device=centers.device).unsqueeze(1)
    n_fields, n_components = sources.shape[1], tensors.shape[1]
    each = max(1, most // (n_fields * n_components))
    fields = sources.new_zeros(n_atoms, n_fields * n_components)
    for first in range(0, max(1, centers.shape[0]), each):
        own = (centers[first : first + each] == atoms).to(sources.dtype)  # (n_atoms, n)
        products = sources[first : first + each].unsqueeze(2) * tensors[first : first + each].unsqueeze(1)
        fields = fields + own @ products.flatten(1)
    return fields.reshape(n_atoms, n_fields, n_components)


class NativeFieldSums(nn.Module):
    """Native `FieldSums` on the CPU, for evaluations with fixed weights; else the twin with native parts."""

    def __init__(self, twin: FieldSums) -> None:
        super().__init__()
        self.twin = native.use_native(twin)
        geometry = self.twin.geometry
        self.cutoff = geometry.cutoff
        self.envelope_exponent = geometry.envelope_exponent
        self.order = geometry.order
        self.rounded, self.exact = geometry.rounded, geometry.exact
        self.gpu = native.gpu_device()
        self.train(twin.training)

    def forward(self, vectors: Tensor, charges: Tensor, centers: Tensor, n_atoms: int, matrix: Tensor, bias: Tensor) -> Tensor:
        """As the twin."""
        known = self.rounded if vectors.dtype == torch.float32 else self.exact
        learning = self.training or (torch.is_grad_enabled() and (matrix.requires_grad or bias.requires_grad))
        on_gpu = vectors.device.type != "cpu" or self.gpu == "cpu"  # there tests emulate it
        if on_gpu or learning or not known:
            return self.twin(vectors, charges, centers, n_atoms, matrix, bias)
        return torch.ops.ampmm.field_sums(
            vectors, charges, centers, n_atoms, matrix, bias, self.cutoff, self.envelope_exponent, self.order
        )


native.register(FieldSums, NativeFieldSums)
