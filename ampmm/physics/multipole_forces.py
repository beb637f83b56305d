"""Energy and forces of a model of atomic multipoles in the field of MM charges.

As `ampmm.physics.forces`, with two more inputs of the model: the packed fields of orders 0 to 2 stand in the place of the
potential, and the QM–QM long-range pairs are given.
"""

from typing import List, NamedTuple, Optional

import torch
from torch import Tensor, nn

from ampmm.physics.forces import PairForces, no_forces
from ampmm.physics.multipole_coulomb import MultipoleField
from ampmm.types import Frame, MultipoleEnergies, Pairs, PointCharges


class MultipoleEnergiesAndForces(NamedTuple):
    """A model's energies and multipoles with the forces on all atoms."""

    energies: MultipoleEnergies
    forces_qm: Tensor  # (N, 3) kJ/mol/Å
    forces_mm: Tensor  # (M, 3) kJ/mol/Å


class MultipoleForceEvaluator(nn.Module):
    """A model `(Frame, PointCharges, Pairs) -> MultipoleEnergies`, scripted or not, together with a Coulomb kernel."""

    def __init__(self, model: nn.Module, kernel: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.field = MultipoleField(kernel)
        self.pair_forces = PairForces()

    def forward(
        self,
        frame: Frame,
        charges: Tensor,
        polarization: Pairs,
        coulomb: Pairs,
        create_graph: bool = False,
        long_range: Optional[Pairs] = None,
    ) -> MultipoleEnergiesAndForces:
        """Forces are -∂V/∂r of Σ_B total; the arguments are those of `ForceEvaluator` and `long_range`.

        `long_range` are the QM–QM pairs closer than the model's long-range cutoff, each once.
        """
        if long_range is None:
            raise ValueError("long_range: this model needs the QM–QM pairs within its long-range cutoff, got None")
        n_atoms, n_charges = frame.numbers.shape[0], charges.shape[0]
        terms = self.field(coulomb, charges, n_atoms, differentiable=create_graph)
        edge_vectors = frame.edges.vectors.detach().requires_grad_()
        pair_vectors = polarization.vectors.detach().requires_grad_()
        far_vectors = long_range.vectors.detach().requires_grad_()
        fields = terms.fields.detach().requires_grad_()
        edges = Pairs(frame.edges.centers, frame.edges.neighbors, edge_vectors)
        pairs = Pairs(polarization.centers, polarization.neighbors, pair_vectors)
        energies: MultipoleEnergies = self.model(
            Frame(frame.numbers, frame.batch, frame.charge, edges),
            PointCharges(charges, pairs, fields),
            Pairs(long_range.centers, long_range.neighbors, far_vectors),
        )
        gradients: List[Optional[Tensor]] = torch.autograd.grad(
            [energies.total.sum()],
            [edge_vectors, pair_vectors, far_vectors, fields],
            create_graph=create_graph,
            allow_unused=True,
        )
        forces = no_forces(edge_vectors, n_atoms, n_charges)
        by_edge, by_pair, by_far, by_field = gradients[0], gradients[1], gradients[2], gradients[3]
        if by_edge is not None:
            forces = self.pair_forces(forces, by_edge, edges, False)
        if by_far is not None:
            forces = self.pair_forces(forces, by_far, long_range, False)
        if by_pair is not None:
            forces = self.pair_forces(forces, by_pair, pairs, True)
        if by_field is not None:  # the derivatives of V by the fields are the atomic moments
            by_vector = self.field.pair_gradients(terms, coulomb, charges, by_field)
            forces = self.pair_forces(forces, by_vector, coulomb, True)
        return MultipoleEnergiesAndForces(energies, forces.qm, forces.mm)
