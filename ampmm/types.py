"""The values that flow through the house: NamedTuples of tensors, readable by TorchScript.

N QM atoms and M MM charges, of one frame or of B frames laid one after another. Å, kJ/mol, e.
"""

from typing import NamedTuple

import numpy as np
from torch import Tensor


class Pairs(NamedTuple):
    """Directed pairs; `vectors[p]` points from `centers[p]` to `neighbors[p]` (minimum image already taken)."""

    centers: Tensor  # (n_pairs,) int64
    neighbors: Tensor  # (n_pairs,) int64
    vectors: Tensor  # (n_pairs, 3) Å


class Frame(NamedTuple):
    """The QM region of B frames as a graph."""

    numbers: Tensor  # (N,) int64 atomic numbers
    batch: Tensor  # (N,) int64 the frame an atom belongs to, ascending from 0
    charge: Tensor  # (B,) net charge of the QM region, e
    edges: Pairs  # QM–QM, both directions, closer than the model's cutoff


class PointCharges(NamedTuple):
    """What the QM region sees of its MM surroundings."""

    charges: Tensor  # (M,) e
    pairs: Pairs  # center QM, neighbor MM, closer than the model's polarization cutoff
    # What the MM charges make at the QM atoms: (N,) potential, kJ/mol/e; for models of atomic multipoles (N, 9), the packed
    # fields of orders 0, 1 and 2 (`ampmm.physics.multipole_coulomb`), kJ/mol/e/Å^order.
    potential: Tensor


class Energies(NamedTuple):
    """What a model returns for B frames."""

    total: Tensor  # (B,) kJ/mol
    nodes: Tensor  # (B,) sum of the atomic contributions, kJ/mol
    coulomb: Tensor  # (B,) QM–MM electrostatics of the atomic charges, kJ/mol
    charges: Tensor  # (N,) atomic charges that sum to the net charge, e


class MultipoleEnergies(NamedTuple):
    """What a model of atomic multipoles and dispersion returns for B frames."""

    total: Tensor  # (B,) kJ/mol
    nodes: Tensor  # (B,) sum of the atomic contributions, kJ/mol
    coulomb: Tensor  # (B,) QM–QM and QM–MM electrostatics, kJ/mol
    dispersion: Tensor  # (B,) kJ/mol
    repulsion: Tensor  # (B,) of the nuclei at short range, kJ/mol
    charges: Tensor  # (N,) atomic charges that sum to the net charge, e
    dipoles: Tensor  # (N, 3) atomic dipoles, e·Å
    quadrupoles: Tensor  # (N, 3, 3) traceless atomic quadrupoles, e·Å²
    c6_factors: Tensor  # (N,) C6 coefficients relative to those of the free atoms


class Evaluation(NamedTuple):
    """One frame's energy, forces and charges; from a model or from a reference calculation."""

    energy: float  # kJ/mol
    forces_qm: np.ndarray  # (N, 3) kJ/mol/Å
    forces_mm: np.ndarray  # (M, 3) kJ/mol/Å
    charges_qm: np.ndarray  # (N,) e
    dipole: np.ndarray  # (3,) e·Å, about the centre of the nuclear positions' mean
