"""Energy and forces of a model in the field of MM charges.

Models are functions of pair vectors and of the potential, so three gradients suffice; they are summed onto the atoms
here. The same module serves training (with `create_graph`), single frames and, scripted, OpenMM.
"""

from typing import List, NamedTuple, Optional

import torch
from torch import Tensor, nn

from ampmm.nn import native
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
        self.pair_forces = PairForces()

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
            forces = self.pair_forces(forces, by_edge, edges, False)
        if by_pair is not None:
            forces = self.pair_forces(forces, by_pair, pairs, True)
        if by_potential is not None:
            by_vector = by_potential.index_select(0, coulomb.centers).unsqueeze(-1) * terms.pair_gradients
            forces = self.pair_forces(forces, by_vector, coulomb, True)
        return EnergiesAndForces(energies, forces.qm, forces.mm)


class Forces(NamedTuple):
    """Forces on QM atoms (N, 3) and MM charges (M, 3), kJ/mol/Å."""

    qm: Tensor
    mm: Tensor


def no_forces(like: Tensor, n_atoms: int, n_charges: int) -> Forces:
    """Zeros to begin with, of the type and device of a tensor."""
    return Forces(like.new_zeros([n_atoms, 3]), like.new_zeros([n_charges, 3]))


class PairForces(nn.Module):
    """Adds the forces of pairs to those on atoms and charges; natively on the CPU where the library is built.

    A pair's vector points from center to neighbor: the center feels +∂V/∂vector, the neighbor the opposite.
    """

    native: torch.jit.Final[bool]

    def __init__(self) -> None:
        super().__init__()
        self.native = native.available()
        self.gpu = native.gpu_device()

    def forward(self, forces: Forces, gradient: Tensor, pairs: Pairs, to_charges: bool) -> Forces:
        """From ∂V/∂vector (n_pairs, 3) of QM–MM pairs with `to_charges`, else of QM–QM pairs."""
        n_atoms = forces.qm.shape[0]
        n_neighbors = forces.mm.shape[0] if to_charges else n_atoms
        device = gradient.device.type
        if self.native and not gradient.requires_grad and (device == "cpu" or device == self.gpu):
            by_center, by_neighbor = torch.ops.ampmm.sums_over_pairs(
                gradient, pairs.centers, pairs.neighbors, n_atoms, n_neighbors
            )
        else:
            by_center = scatter_sum(gradient, pairs.centers, n_atoms)
            by_neighbor = scatter_sum(gradient, pairs.neighbors, n_neighbors)
        if to_charges:
            return Forces(forces.qm + by_center, forces.mm - by_neighbor)
        return Forces(forces.qm + by_center - by_neighbor, forces.mm)
