"""The layers of AMP-BMS: anisotropic message passing with channels of dipoles and quadrupoles.

A pair's receiver is its center, its sender its neighbor, and r̂ points from the sender to the receiver. Moments are packed:
(N, 8, C) holds a dipole and the five components of a quadrupole (`ampmm.nn.multipoles`) for each of C channels. What belongs to
an edge lies component by component in memory, so that each operation runs along all edges.
"""

from typing import NamedTuple, Optional

import torch
from torch import Tensor, nn

from ampmm.models.amp_bms_config import AMPBMSConfig
from ampmm.nn import native
from ampmm.nn.activation import silu
from ampmm.nn.kernels import ChannelFeatures, InducedMoments
from ampmm.nn.mlp import NodeNetwork, PairLinear, PairNetwork
from ampmm.nn.radial import RadialBasis
from ampmm.types import PointCharges


class Edges(NamedTuple):
    """The QM graph with what depends on geometry and elements alone."""

    receivers: Tensor  # (E,)
    senders: Tensor  # (E,)
    unit: Tensor  # (E, 3) r̂
    tensors: Tensor  # (E, 9) packed R⁰, R¹ = r̂ and R² = r̂r̂ - I/3
    envelope: Tensor  # (E,) u(d), with its 1/d
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


class EdgeEmbedding(nn.Module):
    """f = Linear(SiLU(Linear([h_receiver, h_sender, radial functions]))), no bias in the second."""

    def __init__(self, config: AMPBMSConfig) -> None:
        super().__init__()
        self.first = PairLinear(config.width, config.width, config.n_radial, config.edge_width, "relu")
        self.last = nn.Linear(config.edge_width, config.edge_width, bias=False)

    def forward(self, hidden: Tensor, radial: Tensor, receivers: Tensor, senders: Tensor) -> Tensor:
        """Atoms (N, width) and radial functions (E, n_radial) to (E, edge_width)."""
        inner = silu(self.first(hidden, radial, receivers, senders))
        return torch.mm(self.last.weight, inner.t()).t()  # component by component in memory


class BMSLayer(nn.Module):
    """New moments from the edge features, anisotropic features from the moments, messages from those."""

    def __init__(self, config: AMPBMSConfig, n_features: int, n_channels: int) -> None:
        super().__init__()
        self.n_channels = config.n_channels
        n_message = config.n_scalars * n_channels + config.edge_width
        self.coefficients = PairNetwork(config.width, n_features, config.width, (1, 2), config.n_channels)
        self.message = PairNetwork(config.width, n_message, config.width)
        self.update = NodeNetwork(2 * config.width, config.width)
        self.features = ChannelFeatures()

    def expand(self, state: State, edges: Edges) -> Tensor:
        """D_i = Σ_j c_d r̂ and Q_i = Σ_j c_q R², (N, 8, C)."""
        summed = self.coefficients(
            state.hidden, edges.features, state.anisotropic, edges.receivers, edges.senders, edges.envelope, edges.tensors
        )
        return summed.reshape(-1, 9, self.n_channels)[:, 1:]  # without the monopole, which is zero

    def interact(self, hidden: Tensor, moments: Tensor, edges: Edges) -> State:
        """The anisotropic features of the moments (N, 8, C), and the messages they carry."""
        anisotropic = self.features(moments, edges.unit, edges.receivers, edges.senders)
        summed = self.message(hidden, edges.features, anisotropic, edges.receivers, edges.senders, edges.envelope)
        return State(hidden + self.update(torch.cat([hidden, summed], dim=1)), anisotropic)


class MMPolarization(nn.Module):
    """What the MM charges induce at unit polarizability: `InducedMoments` and the network in it."""

    def __init__(self, config: AMPBMSConfig) -> None:
        super().__init__()
        cutoff, exponent = config.polarization_cutoff, config.envelope_exponent
        self.radial = RadialBasis(config.n_radial_mm, cutoff, exponent)
        self.coefficients = Head(config.n_radial_mm, config.n_radial_mm, 2)
        self.sum = InducedMoments(cutoff, exponent, config.polarization_scale)

    def forward(self, surroundings: PointCharges, n_atoms: int) -> Tensor:
        """Packed dipoles and quadrupoles, (N, 8)."""
        centers, neighbors, vectors = surroundings.pairs
        return self.sum(
            vectors,
            surroundings.charges.index_select(0, neighbors),
            centers,
            n_atoms,
            self.radial.frequencies,
            self.coefficients.first.weight,
            self.coefficients.first.bias,
            self.coefficients.last.weight,
        )


class NativeChannelFeatures(nn.Module):
    """Native `ChannelFeatures`, for evaluations: training differentiates twice, with the twin."""

    def __init__(self, twin: ChannelFeatures) -> None:
        super().__init__()
        self.twin = twin
        self.train(twin.training)

    def forward(self, moments: Tensor, unit: Tensor, receivers: Tensor, senders: Tensor) -> Tensor:
        """As the twin."""
        if unit.device.type != "cpu" or self.training:
            return self.twin(moments, unit, receivers, senders)
        return torch.ops.ampmm.channel_features(moments, unit, receivers, senders)


class NativeInducedMoments(nn.Module):
    """Native `InducedMoments`, for evaluations: training differentiates twice, with the twin."""

    def __init__(self, twin: InducedMoments) -> None:
        super().__init__()
        self.twin = twin
        self.cutoff = twin.cutoff
        self.envelope_exponent = twin.envelope_exponent
        self.scale = twin.scale
        self.train(twin.training)

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
        """As the twin."""
        weights_too = torch.is_grad_enabled() and (w1.requires_grad or b1.requires_grad or w2.requires_grad)
        if vectors.device.type != "cpu" or self.training or weights_too:
            return self.twin(vectors, charges, centers, n_atoms, frequencies, w1, b1, w2)
        return torch.ops.ampmm.induced_moments(
            vectors, charges, centers, n_atoms, frequencies, w1, b1, w2, self.cutoff, self.envelope_exponent, self.scale
        )


native.register(ChannelFeatures, NativeChannelFeatures)
native.register(InducedMoments, NativeInducedMoments)
