"""The layers of AMP-BMS: anisotropic message passing with channels of dipoles and quadrupoles.

A pair's receiver is its center, its sender its neighbor, and r̂ points from the sender to the receiver. Moments are packed:
(N, 8, C) holds a dipole and the five components of a quadrupole (`ampmm.nn.multipoles`) for each of C channels. What belongs to
an edge is kept component by component, edges last, so that each operation runs along all edges.
"""

from typing import NamedTuple, Optional

import torch
from torch import Tensor, nn

from ampmm.models.amp_bms_config import AMPBMSConfig
from ampmm.nn.activation import silu
from ampmm.nn.mlp import NodeNetwork, PairLinear, PairNetwork
from ampmm.nn.packed_rows import CartesianRows, PackedRows
from ampmm.nn.radial import RadialBasis
from ampmm.nn.scatter import scatter_sum
from ampmm.types import PointCharges


class Edges(NamedTuple):
    """The QM graph with what depends on geometry and elements alone."""

    receivers: Tensor  # (E,)
    senders: Tensor  # (E,)
    unit: Tensor  # (3, E) r̂
    packed: Tensor  # (5, E) packed R² = r̂r̂ - I/3
    envelope: Tensor  # (E, 1) u(d), with its 1/d
    features: Tensor  # (E, edge_width) f


class State(NamedTuple):
    """What a layer takes and gives back."""

    hidden: Tensor  # (N, width) h
    anisotropic: Optional[Tensor]  # (E, 9·C) the anisotropic features of the layer before; the first layer has none


class Head(nn.Module):
    """Linear, SiLU, Linear without bias."""

    def __init__(self, n_in: int, width: int, n_out: int) -> None:
        super().__init__()
        self.first = nn.Linear(n_in, width)
        self.last = nn.Linear(width, n_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, n_in) to (n, n_out)."""
        return self.last(silu(self.first(x)))

    def rows(self, x: Tensor) -> Tensor:
        """The same for (n_in, n), to (n_out, n)."""
        return self.last.weight @ silu(torch.addmm(self.first.bias.unsqueeze(1), self.first.weight, x))


class EdgeEmbedding(nn.Module):
    """f = Linear(SiLU(Linear([h_receiver, h_sender, radial functions]))), no bias in the second."""

    def __init__(self, config: AMPBMSConfig) -> None:
        super().__init__()
        self.first = PairLinear(config.width, config.width, config.n_radial, config.edge_width, "relu")
        self.last = nn.Linear(config.edge_width, config.edge_width, bias=False)

    def forward(self, hidden: Tensor, radial: Tensor, receivers: Tensor, senders: Tensor) -> Tensor:
        """Atoms (N, width) and radial functions (E, n_radial) to (E, edge_width)."""
        return self.last(silu(self.first(hidden, radial, receivers, senders)))


class BMSLayer(nn.Module):
    """New moments from the edge features, anisotropic features from the moments, messages from those."""

    def __init__(self, config: AMPBMSConfig, n_features: int, n_channels: int) -> None:
        super().__init__()
        self.n_channels = config.n_channels
        n_message = config.n_scalars * n_channels + config.edge_width
        self.coefficients = PairNetwork(config.width, n_features, config.width, 2 * config.n_channels)
        self.message = PairNetwork(config.width, n_message, config.width)
        self.update = NodeNetwork(2 * config.width, config.width)
        self.cartesian_rows = CartesianRows()

    def expand(self, state: State, edges: Edges) -> Tensor:
        """D_i = Σ_j c_d r̂ and Q_i = Σ_j c_q R², (N, 8, C)."""
        c = self.coefficients(state.hidden, edges.features, edges.receivers, edges.senders, state.anisotropic) * edges.envelope
        dipole, quadrupole = c.t().contiguous().split([self.n_channels, self.n_channels])  # (C, E)
        parts = torch.cat([edges.unit.unsqueeze(1) * dipole, edges.packed.unsqueeze(1) * quadrupole])  # (8, C, E)
        summed = scatter_sum(parts.flatten(0, 1).t().contiguous(), edges.receivers, state.hidden.shape[0])
        return summed.reshape(-1, 8, self.n_channels)

    def interact(self, hidden: Tensor, moments: Tensor, edges: Edges) -> State:
        """The anisotropic features of the moments (N, 8, C), and the messages they carry."""
        anisotropic = self.anisotropic(moments, edges)
        messages = self.message(hidden, edges.features, edges.receivers, edges.senders, anisotropic) * edges.envelope
        summed = scatter_sum(messages, edges.receivers, hidden.shape[0])
        return State(hidden + self.update(torch.cat([hidden, summed], dim=1)), anisotropic)

    def anisotropic(self, moments: Tensor, edges: Edges) -> Tensor:
        """The nine scalars of sender 1 and receiver 2 for each channel, (E, C·9), a channel's nine together.

        D1·r̂, D2·r̂, D1·D2, Q1:R², Q2:R², (Q1r̂)·D2, (Q2r̂)·D1, Q1:Q2, (Q1r̂)·(Q2r̂).
        """
        rows = self.cartesian_rows(moments)  # (N, 12·C)
        n_channels = moments.shape[2]
        dipole_1, tensor_1 = _components(rows, edges.senders, n_channels)  # (3, C, E) and (3, 3, C, E)
        dipole_2, tensor_2 = _components(rows, edges.receivers, n_channels)
        unit = edges.unit.unsqueeze(1)  # (3, 1, E)
        turned_1, turned_2 = (tensor_1 * unit).sum(1), (tensor_2 * unit).sum(1)  # (3, C, E) Qr̂
        features = [
            (dipole_1 * unit).sum(0),
            (dipole_2 * unit).sum(0),
            (dipole_1 * dipole_2).sum(0),
            (turned_1 * unit).sum(0),
            (turned_2 * unit).sum(0),
            (turned_1 * dipole_2).sum(0),
            (turned_2 * dipole_1).sum(0),
            (tensor_1 * tensor_2).flatten(0, 1).sum(0),
            (turned_1 * turned_2).sum(0),
        ]
        return torch.stack(features, dim=1).flatten(0, 1).t()


def _components(rows: Tensor, index: Tensor, n_channels: int) -> tuple[Tensor, Tensor]:
    """Dipoles (3, C, E) and tensors (3, 3, C, E) from the atoms' `CartesianRows`, at one end of the edges."""
    n_edges = index.shape[0]
    dipole, tensor = rows.index_select(0, index).t().contiguous().split([3 * n_channels, 9 * n_channels])
    return dipole.reshape(3, n_channels, n_edges), tensor.reshape(3, 3, n_channels, n_edges)


class MMPolarization(nn.Module):
    """Σ_m q_m/r² (B_0 r̂ | B_1 R²), B functions of the distance alone; r̂ points from the QM atom to the MM site."""

    def __init__(self, config: AMPBMSConfig) -> None:
        super().__init__()
        self.cutoff = config.polarization_cutoff
        self.scale = config.polarization_scale
        self.radial = RadialBasis(config.n_radial_mm, config.polarization_cutoff, config.envelope_exponent)
        self.coefficients = Head(config.n_radial_mm, config.n_radial_mm, 2)
        self.packed_rows = PackedRows()

    def forward(self, surroundings: PointCharges, n_atoms: int) -> Tensor:
        """The induced moments at unit polarizability, (N, 8)."""
        centers, neighbors, vectors = surroundings.pairs
        vectors = vectors.t().contiguous()  # (3, n_pairs)
        distances = (vectors * vectors).sum(0).sqrt()
        radial, envelope = self.radial.rows(distances)
        source = surroundings.charges.index_select(0, neighbors) * envelope * (self.scale * self.cutoff) / distances**3
        dipole, quadrupole = (self.coefficients.rows(radial) * source).split([1, 1])  # (1, n_pairs)
        unit = vectors / distances
        parts = torch.cat([dipole * unit, quadrupole * self.packed_rows(unit)])  # (8, n_pairs)
        return scatter_sum(parts.t().contiguous(), centers, n_atoms)
