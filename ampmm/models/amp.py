"""AMP(k) and its -D, -P and -DP variants; without an order, the plain message-passing network (GNN).

Equation numbers: *Anisotropic message passing*, ICLR 2023. The QM region is a graph; each atom carries hidden features
h and traceless Cartesian multipoles M^0..M^K. -D lets the MM charges polarize the multipoles of the last layer (Eq. 10), -P
adds atomic charges in the electrostatic potential of the MM charges (Eq. 11).
"""

import torch
from torch import nn

from ampmm.models.amp_config import AMPConfig
from ampmm.models.amp_layers import AMPLayer, Edges, MessageLayer, NodeState, PolarizedAMPLayer
from ampmm.models.base import ElementSlots, Model
from ampmm.nn.kernels import PairGeometry
from ampmm.nn.mlp import NodeNetwork
from ampmm.nn.multipoles import packed_size
from ampmm.nn.scatter import scatter_sum
from ampmm.physics.charges import conserve_charge
from ampmm.types import Energies, Frame, Pairs, PointCharges


class AMP(Model):
    """AMP(k), AMP(k)-D, AMP(k)-P, AMP(k)-DP or GNN(-P), as its configuration says."""

    architecture = "amp"

    def __init__(self, config: AMPConfig) -> None:
        super().__init__()
        self._config = config
        self.cutoff = config.cutoff
        self.polarization_cutoff = config.polarization_cutoff if config.polarization else 0.0
        self.order = -1 if config.order is None else config.order
        self.long_range = config.long_range
        self.energy_scale = config.energy_scale
        self.charge_scale = config.charge_scale
        self.n_multipole_components = packed_size(self.order)

        self.slots = ElementSlots(config.elements)
        self.embedding = nn.Linear(len(config.elements), config.width)
        self.geometry = PairGeometry(config.n_radial, config.cutoff, config.envelope_exponent, max(self.order, 0))
        layer = MessageLayer if config.order is None else AMPLayer
        last = PolarizedAMPLayer if config.polarization else layer
        self.layers = nn.ModuleList([layer(config) for _ in range(config.n_layers - 1)] + [last(config)])
        self.energy = NodeNetwork(config.width, config.width, 1)  # φ_V
        self.atomic_charge = NodeNetwork(config.width, config.width, 1) if config.long_range else nn.Identity()  # φ_ρ
        # Energies of the free atoms, added in float64: they are 10³ times what the networks have to resolve.
        self.register_buffer("element_energies", torch.zeros(len(config.elements), dtype=torch.float64))

    @property
    def hyperparameters(self) -> AMPConfig:
        return self._config

    def forward(self, frame: Frame, surroundings: PointCharges) -> Energies:
        """Energies of B frames (Eq. 11); `coulomb` and `charges` are zero without -P."""
        n_frames = frame.charge.shape[0]
        slots = self.slots(frame.numbers)
        one_hot = torch.nn.functional.one_hot(slots, self.element_energies.shape[0]).to(frame.edges.vectors.dtype)
        edges = self._edges(frame.edges)
        state = NodeState(
            self.embedding(one_hot),
            edges.radial.new_zeros(slots.shape[0], self.n_multipole_components),
            None,  # the first layer sees no anisotropic part
        )
        for layer in self.layers:
            state = layer(state, one_hot, edges, surroundings)

        node_energies = self.energy_scale * self.energy(state.hidden).squeeze(-1)
        offset = scatter_sum(self.element_energies[slots], frame.batch, n_frames)
        nodes = offset + scatter_sum(node_energies, frame.batch, n_frames)
        charges = torch.zeros_like(node_energies)
        if self.long_range:
            charges = self.charge_scale * self.atomic_charge(state.hidden).squeeze(-1)
            charges = conserve_charge(charges, frame.batch, frame.charge)
        coulomb = scatter_sum(charges * surroundings.potential, frame.batch, n_frames)
        return Energies(nodes + coulomb, nodes, coulomb, charges)

    def _edges(self, pairs: Pairs) -> Edges:
        unit, tensors, radial, envelope = self.geometry(pairs.vectors)
        return Edges(pairs.centers, pairs.neighbors, unit, radial, envelope, tensors)
