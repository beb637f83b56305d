"""The parts of AMP and AMP-BMS that do work for every pair, each a module without parameters.

They are the specification and the fallback of the native operators, which `ampmm.nn.native` puts in their place.
"""

from typing import Optional, Tuple

import torch
from torch import Tensor, nn

from ampmm.nn.activation import silu
from ampmm.nn.multipoles import Multipoles, PackedTensors, packed_size
from ampmm.nn.packed_rows import CartesianRows, PackedRows
from ampmm.nn.radial import RadialBasis, radial_rows
from ampmm.nn.scatter import scatter_sum


class PairGeometry(nn.Module):
    """What depends on a pair's vector alone."""

    def __init__(self, n_radial: int, cutoff: float, envelope_exponent: int, order: int) -> None:
        super().__init__()
        self.radial = RadialBasis(n_radial, cutoff, envelope_exponent)
        self.tensors = PackedTensors(order)

    def forward(self, vectors: Tensor) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
        """(n, 3) Å to r̂ (n, 3), packed R^0..R^K (n, (K+1)²), radial functions (n, n_radial) and envelope (n,)."""
        by_component = vectors.t()  # over the columns of a matrix torch's norm takes several times as long
        distances = (by_component * by_component).sum(dim=0).sqrt()
        unit = vectors / distances.unsqueeze(-1)
        radial, envelope = self.radial(distances)
        return unit, self.tensors(unit), radial, envelope


class WithNorms(nn.Module):
    """What atoms give to the networks: their hidden features and the norms of their multipoles."""

    def __init__(self, order: int) -> None:
        super().__init__()
        self.multipoles = Multipoles(order)

    def forward(self, hidden: Tensor, multipoles: Tensor) -> Tensor:
        """(N, width) and packed multipoles (N, (K+1)²) to (N, width + K + 1)."""
        return torch.cat([hidden, self.multipoles.norms(multipoles)], dim=1)


class AnisotropicFeatures(nn.Module):
    """φ_b ∘ G_ij (Eqs. 6 and 7) of QM–QM pairs."""

    def __init__(self, order: int) -> None:
        super().__init__()
        self.multipoles = Multipoles(order)

    def forward(
        self,
        multipoles: Tensor,
        unit: Tensor,
        radial: Tensor,
        by_center: Tensor,
        by_neighbor: Tensor,
        matrix: Tensor,
        centers: Tensor,
        neighbors: Tensor,
    ) -> Tensor:
        """Packed multipoles (N, (K+1)²), geometry of n pairs and φ_b in parts, to (n, n_weights·n_scalars).

        The radial weights are by_center[i] + by_neighbor[j] + radial @ matrix.T: (N, n_weights) twice, (n_weights, n_radial).
        """
        tensors = self.multipoles.cartesian(multipoles)
        # On a GPU the derivative of index_select adds, that of tensors[centers] sorts and then takes turns.
        left, right = tensors.index_select(0, centers), tensors.index_select(0, neighbors)
        scalars = self.multipoles.interactions(left, right, unit)  # (n, n_scalars)
        of_atoms = by_center.index_select(0, centers) + by_neighbor.index_select(0, neighbors)
        weights = torch.addmm(of_atoms, radial, matrix.t())
        return (weights.unsqueeze(-1) * scalars.unsqueeze(1)).flatten(1)  # every weight times every scalar


class PolarizedFeatures(nn.Module):
    """a_im of QM–MM pairs (Eq. 10): M_i^l·R_im^l q_m, each times radial weights, and the radial functions."""

    def __init__(self, order: int) -> None:
        super().__init__()
        self.multipoles = Multipoles(order)

    def forward(
        self,
        multipoles: Tensor,
        tensors: Tensor,
        radial: Tensor,
        charges: Tensor,
        by_center: Tensor,
        matrix: Tensor,
        centers: Tensor,
    ) -> Tensor:
        """Packed multipoles (N, (K+1)²), tensors, radial functions and charge of n pairs, to (n, (K+1)·n_weights + n_radial).

        The radial weights are by_center[i] + radial @ matrix.T: (N, n_weights) and (n_weights, n_radial).
        """
        scalars = self.multipoles.dot(multipoles.index_select(0, centers), tensors) * charges.unsqueeze(-1)  # (n, K+1)
        weights = torch.addmm(by_center.index_select(0, centers), radial, matrix.t())  # (n, n_weights)
        return torch.cat([(scalars.unsqueeze(-1) * weights.unsqueeze(1)).flatten(1), radial], dim=1)


class PairSum(nn.Module):
    """A pair network, its result times a factor and summed onto the centers.

    Linear, SiLU, Linear, SiLU. With a last Linear, its outputs are coefficients of the tensors R^k from k = `lowest_order`
    on, `n_channels` of them for each order, and the sum is one of multipoles (Eqs. 3, 8, 10), else of messages (Eq. 1).
    """

    def __init__(self, order: int, lowest_order: int = 0, n_channels: int = 1) -> None:
        super().__init__()
        self.lowest_order = lowest_order
        self.n_channels = n_channels
        self.n_leading_zeros = packed_size(lowest_order - 1)
        orders = [k - lowest_order for k in range(lowest_order, order + 1) for _ in range(2 * k + 1)]
        self.register_buffer("coefficient_of_component", torch.tensor(orders, dtype=torch.long), persistent=False)

    def forward(
        self,
        features: Tensor,
        leading: Optional[Tensor],
        center_part: Tensor,
        neighbor_part: Optional[Tensor],
        centers: Tensor,
        neighbors: Tensor,
        scale: Tensor,
        tensors: Optional[Tensor],
        w1: Tensor,
        w2: Tensor,
        b2: Tensor,
        w3: Optional[Tensor],
    ) -> Tensor:
        """To (N, width) messages, or (N, (K+1)²·n_channels) packed multipoles, the channels of a component together.

        Args:
            features: (n, ·) of the pairs. `leading` are further ones that come first, given apart so that nobody has to
                join them: the derivatives would be as many copies. Without them their columns of w1 count as zero.
            center_part, neighbor_part: (N, width) the first Linear of the atoms.
            centers, neighbors: (n,) indices.
            scale: (n,) factor.
            tensors: (n, (K+1)²) packed R^k; None for messages.
            w1, w2, b2: (width, ·), (width, width), (width,).
            w3: ((K+1-lowest_order)·n_channels, width), the channels of an order together; None for messages.
        """
        n_leading = w1.shape[1] - features.shape[1]
        first = center_part.index_select(0, centers)
        if neighbor_part is not None:
            first = first + neighbor_part.index_select(0, neighbors)
        first = torch.addmm(first, features, w1[:, n_leading:].t())
        if leading is not None:
            first = torch.addmm(first, leading, w1[:, :n_leading].t())
        out = silu(torch.nn.functional.linear(silu(first), w2, b2))
        if w3 is None or tensors is None:
            return scatter_sum(out * scale.unsqueeze(-1), centers, center_part.shape[0])
        coefficients = torch.nn.functional.linear(out, w3) * scale.unsqueeze(-1)
        components = tensors[:, self.n_leading_zeros :]
        if self.n_channels == 1:
            terms = coefficients.index_select(1, self.coefficient_of_component) * components
        else:  # component by component: each product then runs along all pairs
            of_orders = coefficients.t().reshape(w3.shape[0] // self.n_channels, self.n_channels, coefficients.shape[0])
            terms = (of_orders[self.coefficient_of_component] * components.t().unsqueeze(1)).flatten(0, 1).t().contiguous()
        total = scatter_sum(terms, centers, center_part.shape[0])
        return torch.nn.functional.pad(total, [self.n_leading_zeros * self.n_channels, 0])


class PolarizedMultipoles(nn.Module):
    """What the MM charges add to the multipoles (Eq. 10), chunk by chunk of their pairs.

    The chunks bound the (n_pairs, width) temporaries; what the derivatives need of them is kept all the same. Natively it is
    computed again, chunk by chunk, where there is more than one of them: memory then grows by the lists of pairs alone.

    Args:
        scale: of the coefficients.
        pairs_per_chunk: QM–MM pairs handled at once.
    """

    def __init__(
        self, order: int, n_radial: int, cutoff: float, envelope_exponent: int, scale: float, pairs_per_chunk: int
    ) -> None:
        super().__init__()
        self.scale = scale
        self.pairs_per_chunk = pairs_per_chunk
        self.geometry = PairGeometry(n_radial, cutoff, envelope_exponent, order)
        self.features = PolarizedFeatures(order)
        self.sum = PairSum(order, lowest_order=1)  # no contribution to the monopole

    def forward(
        self,
        vectors: Tensor,
        charges: Tensor,
        centers: Tensor,
        multipoles: Tensor,
        by_atom: Tensor,
        weights_by_atom: Tensor,
        matrix: Tensor,
        w1: Tensor,
        w2: Tensor,
        b2: Tensor,
        w3: Tensor,
    ) -> Tensor:
        """Vectors (n, 3), charges (n,) and centers (n,) of the pairs, packed multipoles (N, (K+1)²), to (N, (K+1)²).

        Args:
            by_atom: (N, width) the first Linear of the pair network for the atoms; w1, w2, b2, w3 as in `PairSum`.
            weights_by_atom, matrix: (N, n_weights), (n_weights, n_radial) the radial weights as in `PolarizedFeatures`.
        """
        total = torch.zeros_like(multipoles)
        for start in range(0, centers.shape[0], self.pairs_per_chunk):
            some = slice(start, start + self.pairs_per_chunk)
            own, q = centers[some], charges[some]
            _, tensors, radial, envelope = self.geometry(vectors[some])
            features = self.features(multipoles, tensors, radial, q, weights_by_atom, matrix, own)
            scale = self.scale * q * envelope
            total = total + self.sum(features, None, by_atom, None, own, own, scale, tensors, w1, w2, b2, w3)
        return total


class ChannelFeatures(nn.Module):
    """The nine scalars of two atoms' dipoles and quadrupoles, for every channel of AMP-BMS."""

    def __init__(self) -> None:
        super().__init__()
        self.cartesian_rows = CartesianRows()

    def forward(self, moments: Tensor, unit: Tensor, receivers: Tensor, senders: Tensor) -> Tensor:
        """Packed moments (N, 8, C) of the atoms and r̂ (n, 3) of n pairs to (n, C·9), a channel's nine together.

        With the sender 1 and the receiver 2: D1·r̂, D2·r̂, D1·D2, Q1:R², Q2:R², (Q1r̂)·D2, (Q2r̂)·D1, Q1:Q2, (Q1r̂)·(Q2r̂).
        """
        rows = self.cartesian_rows(moments)  # (N, 12·C)
        n_channels = moments.shape[2]
        dipole_1, tensor_1 = _components(rows, senders, n_channels)  # (3, C, n) and (3, 3, C, n)
        dipole_2, tensor_2 = _components(rows, receivers, n_channels)
        along = unit.t().unsqueeze(1)  # (3, 1, n)
        turned_1, turned_2 = (tensor_1 * along).sum(1), (tensor_2 * along).sum(1)  # (3, C, n) Qr̂
        features = [
            (dipole_1 * along).sum(0),
            (dipole_2 * along).sum(0),
            (dipole_1 * dipole_2).sum(0),
            (turned_1 * along).sum(0),
            (turned_2 * along).sum(0),
            (turned_1 * dipole_2).sum(0),
            (turned_2 * dipole_1).sum(0),
            (tensor_1 * tensor_2).flatten(0, 1).sum(0),
            (turned_1 * turned_2).sum(0),
        ]
        return torch.stack(features, dim=1).flatten(0, 1).t()


def _components(rows: Tensor, index: Tensor, n_channels: int) -> Tuple[Tensor, Tensor]:
    """Dipoles (3, C, n) and tensors (3, 3, C, n) from the atoms' `CartesianRows`, at one end of n pairs."""
    dipole, tensor = rows.index_select(0, index).t().contiguous().split([3 * n_channels, 9 * n_channels])
    n = index.shape[0]
    return dipole.reshape(3, n_channels, n), tensor.reshape(3, 3, n_channels, n)


class InducedMoments(nn.Module):
    """Σ_m q_m/r² (B_0 r̂ | B_1 R²) of AMP-BMS, B = `scale` u(d) φ(radial functions); r̂ points from a QM atom to an MM site."""

    def __init__(self, cutoff: float, envelope_exponent: int, scale: float) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.envelope_exponent = envelope_exponent
        self.scale = scale
        self.packed_rows = PackedRows()

    def forward(
        self,
        vectors: Tensor,
        charges: Tensor,
        centers: Tensor,
        n_atoms: int,
        frequencies: Tensor,
        w1: Tensor,
        b1: Tensor,
        w2: Tensor,
    ) -> Tensor:
        """Vectors (n, 3), charges (n,) and centers (n,) of the pairs, to packed moments at unit polarizability, (n_atoms, 8).

        φ is Linear (w1, b1), SiLU, Linear (w2, two outputs); `frequencies` are those of the radial functions (`RadialBasis`).
        """
        rows = vectors.t().contiguous()  # (3, n)
        distances = (rows * rows).sum(0).sqrt()
        radial, envelope = radial_rows(distances, frequencies, self.cutoff, self.envelope_exponent)
        source = charges * envelope * (self.scale * self.cutoff) / distances**3
        dipole, quadrupole = (w2 @ silu(torch.addmm(b1.unsqueeze(1), w1, radial)) * source).split([1, 1])  # (1, n)
        unit = rows / distances
        parts = torch.cat([dipole * unit, quadrupole * self.packed_rows(unit)])  # (8, n)
        return scatter_sum(parts.t().contiguous(), centers, n_atoms)
