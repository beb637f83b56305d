"""Energy and forces of a model in the field of MM charges.

Models are functions of pair vectors and of the potential, so three gradients suffice; they are summed onto the atoms
here. The same module serves training (with `create_graph`), single frames and, scripted, OpenMM.
"""

from typing import List, NamedTuple, Optional

import torch
from torch import Tensor, nn

from ampmm.nn.scatter import scatter_sum
from ampmm.physics.coulomb import ElectrostaticPotential
from ampmm.types import Energies, Frame, Pairs, PointCharges


class EnergiesAndForces(NamedTuple):
    """A model's energies with the forces on all atoms."""

    energies: Energies
    forces_qm: Tensor  # (N, 3) kJ/mol/Å
    forces_mm: Tensor  # (M, 3) kJ/mol/Å


class ForceEvaluator(nn.Module):
    """A model `(Frame, PointCharges) -> Energies`, scripted or not, together with a Coulomb kernel."""

    def __init__(self, model: nn.Module, kernel: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.potential = ElectrostaticPotential(kernel)

    def forward(
        self,
        frame: Frame,
        charges: Tensor,
        polarization: Pairs,
        coulomb: Pairs,
        create_graph: bool = False,
        long_range: Optional[Pairs] = None,
    ) -> EnergiesAndForces:
        """Forces are -∂V/∂r of Σ_B total.

        `charges` (M,) e of the MM sites; `polarization` and `coulomb` are the QM–MM pairs of the two sums.
        Gradient mode has to be on, as it is by default. `create_graph` keeps the graph for derivatives of the forces by the
        model's parameters. `long_range` is not used: these models have no QM–QM pairs beyond their graph.
        """
        n_atoms, n_charges = frame.numbers.shape[0], charges.shape[0]
        terms = self.potential(coulomb, charges, n_atoms)
        edge_vectors = frame.edges.vectors.detach().requires_grad_()
        pair_vectors = polarization.vectors.detach().requires_grad_()
        potential = terms.potential.detach().requires_grad_()
        edges = Pairs(frame.edges.centers, frame.edges.neighbors, edge_vectors)
        pairs = Pairs(polarization.centers, polarization.neighbors, pair_vectors)
        energies: Energies = self.model(
            Frame(frame.numbers, frame.batch, frame.charge, edges), PointCharges(charges, pairs, potential)
        )
        gradients: List[Optional[Tensor]] = torch.autograd.grad(
            [energies.total.sum()],
            [edge_vectors, pair_vectors, potential],
            create_graph=create_graph,
            allow_unused=True,
        )
        forces = no_forces(edge_vectors, n_atoms, n_charges)
        by_edge, by_pair, by_potential = gradients[0], gradients[1], gradients[2]
        if by_edge is not None:
            forces = with_qm_pairs(forces, by_edge, edges)
        if by_pair is not None:
            forces = with_mm_pairs(forces, by_pair, pairs)
        if by_potential is not None:
            forces = with_mm_pairs(forces, by_potential[coulomb.centers].unsqueeze(-1) * terms.pair_gradients, coulomb)
        return EnergiesAndForces(energies, forces.qm, forces.mm)


class Forces(NamedTuple):
    """Forces on QM atoms (N, 3) and MM charges (M, 3), kJ/mol/Å."""

    qm: Tensor
    mm: Tensor


def no_forces(like: Tensor, n_atoms: int, n_charges: int) -> Forces:
    """Zeros to begin with, of the type and device of a tensor."""
    return Forces(like.new_zeros([n_atoms, 3]), like.new_zeros([n_charges, 3]))


# A pair's vector points from center to neighbor: the center feels +∂V/∂vector, the neighbor the opposite.


def with_qm_pairs(forces: Forces, gradient: Tensor, pairs: Pairs) -> Forces:
    """Add the forces of QM–QM pairs, from ∂V/∂vector (n_pairs, 3)."""
    n_atoms = forces.qm.shape[0]
    qm = forces.qm + scatter_sum(gradient, pairs.centers, n_atoms) - scatter_sum(gradient, pairs.neighbors, n_atoms)
    return Forces(qm, forces.mm)


def with_mm_pairs(forces: Forces, gradient: Tensor, pairs: Pairs) -> Forces:
    """Add the forces of QM–MM pairs, from ∂V/∂vector (n_pairs, 3)."""
    qm = forces.qm + scatter_sum(gradient, pairs.centers, forces.qm.shape[0])
    return Forces(qm, forces.mm - scatter_sum(gradient, pairs.neighbors, forces.mm.shape[0]))
