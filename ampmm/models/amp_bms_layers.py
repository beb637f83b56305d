"""The layers of AMP-BMS: anisotropic message passing with channels of dipoles and quadrupoles.

A pair's receiver is its center, its sender its neighbor, and r̂ points from the sender to the receiver. Moments are packed:
(N, C, 8) holds a dipole and the five components of a quadrupole (`ampmm.nn.multipoles`) for each channel.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ampmm.models.amp_bms_config import AMPBMSConfig
from ampmm.nn.activation import silu
from ampmm.nn.mlp import NodeNetwork, PairLinear, PairNetwork
from ampmm.nn.multipoles import packed_tensors, quadrupole_tensors
from ampmm.nn.radial import RadialBasis
from ampmm.nn.scatter import scatter_sum
from ampmm.types import PointCharges


class Edges(NamedTuple):
    """The QM graph with what depends on geometry and elements alone."""

    receivers: Tensor  # (E,)
    senders: Tensor  # (E,)
    unit: Tensor  # (E, 3) r̂
    tensors: Tensor  # (E, 8) r̂ and packed R² = r̂r̂ - I/3
    envelope: Tensor  # (E, 1) u(d), with its 1/d
    features: Tensor  # (E, edge_width) f


class State(NamedTuple):
    """What a layer takes and gives back."""

    hidden: Tensor  # (N, width) h
    moments: Tensor  # (N, C, 8)
    features: Tensor  # (E, n) f, and before it the anisotropic features of the layer before


class Head(nn.Module):
    """Linear, SiLU, Linear without bias."""

    def __init__(self, n_in: int, width: int, n_out: int) -> None:
        super().__init__()
        self.first = nn.Linear(n_in, width)
        self.last = nn.Linear(width, n_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, n_in) to (n, n_out)."""
        return self.last(silu(self.first(x)))


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

    def expand(self, state: State, edges: Edges) -> Tensor:
        """D_i = Σ_j c_d r̂ and Q_i = Σ_j c_q R², (N, C, 8)."""
        c = self.coefficients(state.hidden, state.features, edges.receivers, edges.senders) * edges.envelope
        dipole, quadrupole = c[:, : self.n_channels], c[:, self.n_channels :]  # (E, C)
        first, second = edges.tensors[:, None, :3], edges.tensors[:, None, 3:]
        parts = torch.cat([dipole.unsqueeze(-1) * first, quadrupole.unsqueeze(-1) * second], dim=-1)  # (E, C, 8)
        return scatter_sum(parts, edges.receivers, state.hidden.shape[0])

    def interact(self, hidden: Tensor, moments: Tensor, edges: Edges) -> State:
        """The anisotropic features of the moments, and the messages they carry."""
        features = torch.cat([self.anisotropic(moments, edges).flatten(1), edges.features], dim=1)
        messages = self.message(hidden, features, edges.receivers, edges.senders) * edges.envelope
        summed = scatter_sum(messages, edges.receivers, hidden.shape[0])
        return State(hidden + self.update(torch.cat([hidden, summed], dim=1)), moments, features)

    def anisotropic(self, moments: Tensor, edges: Edges) -> Tensor:
        """The nine scalars of sender 1 and receiver 2 for each channel, (E, C, 9).

        D1·r̂, D2·r̂, D1·D2, Q1:R², Q2:R², (Q1r̂)·D2, (Q2r̂)·D1, Q1:Q2, (Q1r̂)·(Q2r̂).
        """
        unit = edges.unit.unsqueeze(1)  # (E, 1, 3)
        # Dipole and Cartesian quadrupole as four rows, so that one product contracts all of them with r̂.
        rows = torch.cat([moments[..., :3].unsqueeze(2), quadrupole_tensors(moments[..., 3:])], dim=2)  # (N, C, 4, 3)
        along_1 = (rows[edges.senders] * unit.unsqueeze(1)).sum(-1)  # (E, C, 4): D1·r̂ and Q1r̂
        along_2 = (rows[edges.receivers] * unit.unsqueeze(1)).sum(-1)
        one, two = moments[edges.senders], moments[edges.receivers]  # (E, C, 8)
        turned_1, turned_2, dipole_1, dipole_2 = along_1[..., 1:], along_2[..., 1:], one[..., :3], two[..., :3]
        products = one * two
        return torch.stack(
            [
                along_1[..., 0],
                along_2[..., 0],
                products[..., :3].sum(-1),
                (turned_1 * unit).sum(-1),
                (turned_2 * unit).sum(-1),
                (turned_1 * dipole_2).sum(-1),
                (turned_2 * dipole_1).sum(-1),
                products[..., 3:].sum(-1),
                (turned_1 * turned_2).sum(-1),
            ],
            dim=-1,
        )


class MMPolarization(nn.Module):
    """Σ_m q_m/r² (B_0 r̂ | B_1 R²), B functions of the distance alone; r̂ points from the QM atom to the MM site."""

    def __init__(self, config: AMPBMSConfig) -> None:
        super().__init__()
        self.cutoff = config.polarization_cutoff
        self.scale = config.polarization_scale
        self.radial = RadialBasis(config.n_radial_mm, config.polarization_cutoff, config.envelope_exponent)
        self.coefficients = Head(config.n_radial_mm, config.n_radial_mm, 2)

    def forward(self, surroundings: PointCharges, n_atoms: int) -> Tensor:
        """The induced moments at unit polarizability, (N, 8)."""
        centers, neighbors, vectors = surroundings.pairs
        distances = torch.linalg.vector_norm(vectors, dim=-1)
        radial, envelope = self.radial(distances)
        source = surroundings.charges[neighbors] * envelope * (self.scale * self.cutoff) / distances**3
        weights = self.coefficients(radial) * source.unsqueeze(-1)  # (n_pairs, 2)
        tensors = packed_tensors(vectors / distances.unsqueeze(-1), 2)[:, 1:]  # (n_pairs, 8)
        parts = torch.cat([weights[:, :1] * tensors[:, :3], weights[:, 1:] * tensors[:, 3:]], dim=1)
        return scatter_sum(parts, centers, n_atoms)
