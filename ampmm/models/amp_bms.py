"""AMP-BMS: anisotropic message passing for biomolecules in water (J. Am. Chem. Soc. 2026, 148, 28133).

Two layers of message passing on a short graph give atomic energies, charges, dipoles, quadrupoles and C6 factors; the MM
charges polarize dipoles and quadrupoles in the last layer. Coulomb and dispersion energies of all QM pairs within a long
cutoff, the repulsion of nuclei, and the multipoles' energy in the fields of the MM charges are added.
"""

import torch
from torch import Tensor, nn

from ampmm.models.amp_bms_config import AMPBMSConfig
from ampmm.models.amp_bms_layers import BMSLayer, EdgeEmbedding, Edges, Head, MMPolarization, State
from ampmm.models.base import ElementSlots, Model
from ampmm.nn.kernels import PairGeometry
from ampmm.nn.mlp import NodeNetwork
from ampmm.nn.multipoles import quadrupole_tensors
from ampmm.nn.scatter import scatter_sum
from ampmm.physics.charges import conserve_charge
from ampmm.physics.long_range import LongRangeEnergies
from ampmm.physics.zbl import ZBLRepulsion
from ampmm.types import Frame, MultipoleEnergies, Pairs, PointCharges


class AMPBMS(Model):
    """AMP-BMS; `long_range` of its forward are the QM–QM pairs closer than `long_range_cutoff`, each once."""

    architecture = "amp-bms"

    def __init__(self, config: AMPBMSConfig) -> None:
        super().__init__()
        self._config = config
        self.cutoff = config.cutoff
        self.polarization_cutoff = config.polarization_cutoff
        self.long_range_cutoff = config.long_range_cutoff
        self.coulomb_cutoff = config.coulomb_cutoff
        self.moment_divisor = config.moment_divisor
        self.n_hidden_layers = config.n_layers - 1

        n_first, n_later = config.edge_width, config.edge_width + config.n_scalars * config.n_channels
        self.slots = ElementSlots(config.elements)
        self.embedding = nn.Embedding(len(config.elements), config.width)
        self.geometry = PairGeometry(config.n_radial, config.cutoff, config.envelope_exponent, 2)
        self.edge_embedding = EdgeEmbedding(config)
        self.hidden_layers = nn.ModuleList(
            [BMSLayer(config, n_first if i == 0 else n_later, config.n_channels) for i in range(config.n_layers - 1)]
        )
        self.last_layer = BMSLayer(config, n_first if config.n_layers == 1 else n_later, config.n_channels + 1)
        self.polarization = MMPolarization(config)
        self.energy = NodeNetwork(config.width, config.width, 1)
        self.atomic_charge = Head(config.width, config.head_width, 1)
        self.response = Head(config.width, config.head_width, 3)  # C6 factor and polarizabilities
        self.long_range = LongRangeEnergies(config.long_range_cutoff, config.cutoff)
        self.repulsion = ZBLRepulsion(config.cutoff)
        # Of the free atoms, atomic units: part of the published weights, and zero (no dispersion) in a fresh model.
        self.register_buffer("free_c6", torch.zeros(len(config.elements)))
        self.register_buffer("sqrt_r4r2", torch.zeros(len(config.elements)))
        self.register_buffer("element_energies", torch.zeros(len(config.elements), dtype=torch.float64))

    @property
    def hyperparameters(self) -> AMPBMSConfig:
        return self._config

    @property
    def cutoffs(self) -> dict[str, float]:
        """All cutoffs by name, Å, as a card stores them."""
        return {
            "qm": self.cutoff,
            "polarization": self.polarization_cutoff,
            "long_range": self.long_range_cutoff,
            "coulomb": self.coulomb_cutoff,
        }

    def forward(  # type: ignore[override]
        self, frame: Frame, surroundings: PointCharges, long_range: Pairs
    ) -> MultipoleEnergies:
        """Energies of B frames; `surroundings.potential` are the packed fields of orders 0 to 2."""
        n_atoms, n_frames = frame.numbers.shape[0], frame.charge.shape[0]
        slots = self.slots(frame.numbers)
        hidden = self.embedding(slots)
        edges, distances = self._edges(frame.edges, hidden)
        state = State(hidden, None)
        for layer in self.hidden_layers:
            state = layer.interact(state.hidden, layer.expand(state, edges), edges)

        response = torch.nn.functional.softplus(self.response(state.hidden))  # (N, 3)
        c6_factors = response[:, 0]
        polarizabilities = torch.cat([response[:, 1:2].expand(-1, 3), response[:, 2:3].expand(-1, 5)], dim=1)
        induced = self.polarization(surroundings, n_atoms) * polarizabilities  # (N, 8)
        permanent = self.last_layer.expand(state, edges)  # (N, 8, C)
        moments = torch.cat([permanent, induced.unsqueeze(2)], dim=2)
        state = self.last_layer.interact(state.hidden, moments, edges)

        charges = conserve_charge(self.atomic_charge(state.hidden).squeeze(-1) / self.moment_divisor, frame.batch, frame.charge)
        higher = (permanent[:, :, 0] + induced) / self.moment_divisor  # (N, 8)
        multipoles = torch.cat([charges.unsqueeze(-1), higher], dim=1)  # (N, 9)

        node_energies = self.energy(state.hidden).squeeze(-1).double() + self.element_energies[slots].double()
        nodes = scatter_sum(node_energies, frame.batch, n_frames)
        embedding = scatter_sum((multipoles * surroundings.potential).sum(-1), frame.batch, n_frames)
        # The root of the product would have no finite slope where a fresh model's free C6 is zero.
        sqrt_c6 = torch.sqrt(c6_factors) * torch.sqrt(self.free_c6[slots])
        pair_coulomb, pair_dispersion = self.long_range(
            long_range.vectors, charges, sqrt_c6, self.sqrt_r4r2[slots], long_range.centers, long_range.neighbors
        )
        frame_of_pair = frame.batch.index_select(0, long_range.centers)
        coulomb = embedding + scatter_sum(pair_coulomb, frame_of_pair, n_frames)
        dispersion = scatter_sum(pair_dispersion, frame_of_pair, n_frames)
        # Every edge is there in both directions.
        nuclei = 0.5 * self.repulsion(distances, frame.numbers[edges.receivers], frame.numbers[edges.senders])
        repulsion = scatter_sum(nuclei.double(), frame.batch[edges.receivers], n_frames)
        return MultipoleEnergies(
            nodes + coulomb + dispersion + repulsion,
            nodes,
            coulomb,
            dispersion,
            repulsion,
            charges,
            higher[:, :3],
            quadrupole_tensors(higher[:, 3:]),
            c6_factors,
        )

    def _edges(self, pairs: Pairs, hidden: Tensor) -> tuple[Edges, Tensor]:
        vectors = -pairs.vectors  # from the sender to the receiver
        unit, tensors, radial, envelope = self.geometry(vectors)
        distances = (unit * vectors).sum(1)
        features = self.edge_embedding(hidden, radial, pairs.centers, pairs.neighbors)
        envelope = envelope * self.cutoff / distances
        return Edges(pairs.centers, pairs.neighbors, unit, tensors, envelope, features), distances
