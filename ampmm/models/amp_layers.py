"""The layers of AMP: plain message passing (Eq. 1), with multipoles (Eq. 8), and polarized by MM charges (Eq. 10)."""

from typing import ClassVar, NamedTuple, Optional

import torch
from torch import Tensor, nn

from ampmm.models.amp_config import AMPConfig
from ampmm.models.field_polarization import FieldPolarization
from ampmm.nn import native
from ampmm.nn.kernels import AnisotropicFeatures, PolarizedMultipoles, WithNorms
from ampmm.nn.mlp import Network, NodeNetwork, OneSidedPairLinear, PairLinear, PairNetwork
from ampmm.nn.multipoles import contraction_table
from ampmm.types import PointCharges

# QM–MM pairs handled at once: bounds the (n_pairs, width) temporaries at 16 MB, which also stay in a CPU's cache.
PAIRS_PER_CHUNK = 32768


class Edges(NamedTuple):
    """The QM graph with what depends on geometry alone."""

    centers: Tensor  # (E,)
    neighbors: Tensor  # (E,)
    unit: Tensor  # (E, 3) r̂_ij
    radial: Tensor  # (E, n_radial)
    envelope: Tensor  # (E,)
    tensors: Tensor  # (E, (K+1)²) packed R_ij^k


class NodeState(NamedTuple):
    """What a layer takes and gives back."""

    hidden: Tensor  # (N, width) h_i
    multipoles: Tensor  # (N, (K+1)²) packed M_i^k; no columns for the plain GNN
    anisotropic: Optional[Tensor]  # (E, n_radial_weights·n_scalars) φ_b ∘ G_ij, which with the radial functions is a_ij


class MessageLayer(nn.Module):
    """Plain message passing (Eq. 1): h_i ← h_i + φ_h(h_i, Σ_j φ_e(h_i, h_j, a_ij)), a_ij the radial functions."""

    def __init__(self, config: AMPConfig) -> None:
        super().__init__()
        n_node = config.width + (0 if config.order is None else config.order + 1)  # h and norms
        self.message = PairNetwork(n_node, config.n_features, config.width)  # φ_e
        self.update = NodeNetwork(n_node + config.width, config.width)  # φ_h

    def forward(self, state: NodeState, one_hot: Tensor, edges: Edges, surroundings: PointCharges) -> NodeState:
        """One layer; `one_hot` (N, n_elements) are the atoms' elements."""
        hidden = self.pass_messages(state.hidden, state.hidden, state.anisotropic, edges)
        return NodeState(hidden, state.multipoles, state.anisotropic)

    def pass_messages(self, hidden: Tensor, nodes: Tensor, anisotropic: Optional[Tensor], edges: Edges) -> Tensor:
        """The update of h (N, width) from node inputs (N, n_node) and the edges."""
        summed = self.message(nodes, edges.radial, anisotropic, edges.centers, edges.neighbors, edges.envelope)
        return hidden + self.update(torch.cat([nodes, summed], dim=1))


class AMPLayer(MessageLayer):
    """Anisotropic message passing (Eq. 8): new multipoles from the incoming a_ij, messages with the new a_ij."""

    def __init__(self, config: AMPConfig) -> None:
        super().__init__(config)
        order = int(config.order or 0)
        n_elements = len(config.elements)
        self.scale = config.multipole_scale
        self.with_norms = WithNorms(order)
        self.coefficients = PairNetwork(config.width + order + 1, config.n_features, config.width, (0, order))  # φ_M
        self.radial_weights = PairLinear(n_elements, n_elements, config.n_radial, config.n_radial_weights)  # φ_b
        self.anisotropic_features = AnisotropicFeatures(order)

    def forward(self, state: NodeState, one_hot: Tensor, edges: Edges, surroundings: PointCharges) -> NodeState:
        """One layer; `one_hot` (N, n_elements) are the atoms' elements."""
        return self.interact(state.hidden, self.expand(state, edges), one_hot, edges)

    def expand(self, state: NodeState, edges: Edges) -> Tensor:
        """M_i^k = Σ_j c_ij^k R_ij^k (Eqs. 3 and 4), packed: (N, (K+1)²)."""
        return self.expand_in_parts(state, edges)

    def expand_in_parts(self, state: NodeState, edges: Edges) -> Tensor:
        """What `expand` does, part by part."""
        nodes = self.with_norms(state.hidden, state.multipoles)
        scale = self.scale * edges.envelope
        return self.coefficients(nodes, edges.radial, state.anisotropic, edges.centers, edges.neighbors, scale, edges.tensors)

    def interact(self, hidden: Tensor, multipoles: Tensor, one_hot: Tensor, edges: Edges) -> NodeState:
        """New edge features (Eq. 7) and the messages they carry."""
        return self.interact_in_parts(hidden, multipoles, one_hot, edges)

    def interact_in_parts(self, hidden: Tensor, multipoles: Tensor, one_hot: Tensor, edges: Edges) -> NodeState:
        """What `interact` does, part by part."""
        anisotropic = self.anisotropic(multipoles, one_hot, edges)
        nodes = self.with_norms(hidden, multipoles)
        return NodeState(self.pass_messages(hidden, nodes, anisotropic, edges), multipoles, anisotropic)

    def anisotropic(self, multipoles: Tensor, one_hot: Tensor, edges: Edges) -> Tensor:
        """φ_b ∘ G_ij (Eq. 7): (E, n_radial_weights·n_scalars)."""
        return self.anisotropic_features(
            multipoles,
            edges.unit,
            edges.radial,
            self.radial_weights.center(one_hot),
            self.radial_weights.neighbor(one_hot),
            self.radial_weights.pair.weight,
            edges.centers,
            edges.neighbors,
        )


class Polarization(nn.Module):
    """What the MM charges add to the multipoles of order 1..K: Σ_m c_im^k R_im^k, c_im = φ_MM(h_i, a_im) (Eq. 10).

    a_im: M_i^l·R_im^l q_m for l = 0..K, each times radial weights, and the radial functions. c_im is also multiplied by
    q_m, so an uncharged site contributes nothing.
    """

    def __init__(self, config: AMPConfig) -> None:
        super().__init__()
        order = int(config.order or 0)
        n_pair = config.n_radial_weights_mm * (order + 1) + config.n_radial
        self.sum = PolarizedMultipoles(
            order,
            config.n_radial,
            config.polarization_cutoff,
            config.envelope_exponent,
            config.multipole_scale,
            PAIRS_PER_CHUNK,
        )
        self.radial_weights = OneSidedPairLinear(len(config.elements), config.n_radial, config.n_radial_weights_mm)
        self.first = OneSidedPairLinear(config.width + order + 1, n_pair, config.width, "relu")
        self.rest = Network(config.width, order)

    def forward(self, nodes: Tensor, multipoles: Tensor, one_hot: Tensor, surroundings: PointCharges) -> Tensor:
        """Node inputs (N, width+K+1), multipoles (N, (K+1)²), elements (N, n_elements) to (N, (K+1)²)."""
        centers, neighbors, vectors = surroundings.pairs
        return self.sum(
            vectors,
            surroundings.charges.index_select(0, neighbors),
            centers,
            multipoles,
            self.first.center(nodes),
            self.radial_weights.center(one_hot),
            self.radial_weights.pair.weight,
            self.first.pair.weight,
            self.rest.second.weight,
            self.rest.second.bias,
            self.rest.last.weight,
        )


class PolarizedAMPLayer(AMPLayer):
    """The last layer of a -D or -F model: MM charges add to the multipoles before the messages (Eq. 10)."""

    def __init__(self, config: AMPConfig) -> None:
        super().__init__(config)
        self.polarization = FieldPolarization(config) if config.polarization_kind == "fields" else Polarization(config)

    def forward(self, state: NodeState, one_hot: Tensor, edges: Edges, surroundings: PointCharges) -> NodeState:
        """One layer; `one_hot` (N, n_elements) are the atoms' elements."""
        multipoles = self.expand(state, edges)
        nodes = self.with_norms(state.hidden, multipoles)
        multipoles = multipoles + self.polarization(nodes, multipoles, one_hot, surroundings)
        return self.interact(state.hidden, multipoles, one_hot, edges)


class NativeAMPLayer(AMPLayer):
    """Native `AMPLayer` on the CPU: two operators in the place of some hundred operations. It has the twin's parts."""

    __jit_unused_properties__: ClassVar = ["twin"]
    exchanges_parts: ClassVar = True  # by native ones, which take over where the two operators do not

    def __init__(self, twin: AMPLayer) -> None:
        nn.Module.__init__(self)
        _share_parts(twin, self)
        like = twin.radial_weights.pair.weight
        self.register_buffer("table", contraction_table(twin.with_norms.multipoles.order).to(like), persistent=False)
        self.gpu = native.gpu_device()

    @property
    def twin(self) -> AMPLayer:
        """With the same parts."""
        kind = PolarizedAMPLayer if isinstance(self, PolarizedAMPLayer) else AMPLayer
        layer = kind.__new__(kind)
        nn.Module.__init__(layer)
        return _share_parts(self, layer)

    def expand(self, state: NodeState, edges: Edges) -> Tensor:
        """As the twin."""
        if not self._takes(state.hidden):
            return self.expand_in_parts(state, edges)
        return torch.ops.ampmm.layer_multipoles(
            state.hidden, state.multipoles, edges.radial, edges.envelope, edges.tensors, state.anisotropic, edges.centers,
            edges.neighbors, self.coefficients.weights(), self.scale,
        )  # fmt: skip

    def interact(self, hidden: Tensor, multipoles: Tensor, one_hot: Tensor, edges: Edges) -> NodeState:
        """As the twin."""
        if not self._takes(hidden):
            return self.interact_in_parts(hidden, multipoles, one_hot, edges)
        radial, update = self.radial_weights, self.update
        weights = [radial.center.weight, radial.center.bias, radial.neighbor.weight, radial.pair.weight]
        weights.extend(self.message.weights())
        weights.extend([update.first.weight, update.first.bias, update.rest.second.weight, update.rest.second.bias])
        hidden, anisotropic = torch.ops.ampmm.layer_messages(
            hidden, multipoles, edges.unit, edges.radial, edges.envelope, one_hot, edges.centers, edges.neighbors, self.table,
            weights,
        )  # fmt: skip
        return NodeState(hidden, multipoles, anisotropic)

    def _takes(self, x: Tensor) -> bool:
        return x.device.type == "cpu" and self.gpu != "cpu"  # there tests emulate the GPU's kernels


class NativePolarizedAMPLayer(NativeAMPLayer, PolarizedAMPLayer):
    """Native `PolarizedAMPLayer`."""


def _share_parts(source: AMPLayer, target: AMPLayer) -> AMPLayer:
    for name, part in source.named_children():
        target.add_module(name, part)
    target.scale = source.scale
    return target.train(source.training)


native.register(AMPLayer, NativeAMPLayer)
native.register(PolarizedAMPLayer, NativePolarizedAMPLayer)
