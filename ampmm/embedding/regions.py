"""Which atoms are the QM region: indices, a residue name, or an MDTraj selection."""

import re
from collections.abc import Sequence

import numpy as np
from openmm import System
from openmm.app import Topology

from ampmm.errors import InputError


def select_qm_atoms(topology: Topology, qm_atoms: str | Sequence[int] | np.ndarray) -> np.ndarray:
    """The indices of the QM atoms, ascending.

    Args:
        topology: the whole system, MM atoms included.
        qm_atoms: atom indices from 0, a residue name (``"URA"``: every residue of that name), or any MDTraj
            selection (``"resname URA"``, ``"resid 0 and not name M"``).

    Returns:
        (N,) int64.

    Raises:
        InputError: the selection is empty, has an index twice or out of range, takes the whole system, takes a
            particle without an element (a virtual site), or is no selection MDTraj can read.
    """
    indices = _from_selection(topology, qm_atoms) if isinstance(qm_atoms, str) else _from_indices(qm_atoms)
    _check(topology, indices, qm_atoms)
    return np.sort(indices)


def atom_label(topology: Topology | None, index: int) -> str:
    """An atom as a chemist would name it in a message: ``"URA1-N1 (atom 0)"``."""
    if topology is None:
        return f"atom {index}"
    atom = list(topology.atoms())[index]
    return f"{atom.residue.name}{atom.residue.id}-{atom.name} (atom {index})"


def boundary_bonds(topology: Topology, qm_indices: np.ndarray) -> list[tuple[int, int]]:
    """The Topology's bonds that join a QM atom and an MM atom, as (QM, MM) index pairs."""
    qm = set(map(int, qm_indices))
    crossing = []
    for bond in topology.bonds():
        i, j = bond[0].index, bond[1].index
        if (i in qm) != (j in qm):
            crossing.append((i, j) if i in qm else (j, i))
    return crossing


def check_system_matches(topology: Topology, system: System) -> None:
    """Raise `InputError` unless they are a Topology and a System of the same number of particles."""
    for name, value, kind in (("topology", topology, Topology), ("system", system, System)):
        if not isinstance(value, kind):
            raise InputError(
                f"{name}: expected an OpenMM {kind.__name__}, got {type(value).__name__}; create_mixed_system takes (topology, "
                "system, …), add_force (system, topology, …); readers such as AmberPrmtopFile have a .topology"
            )
    n_topology, n_system = topology.getNumAtoms(), system.getNumParticles()
    if n_topology != n_system:
        raise InputError(
            f"topology, system: expected the same particles in both, got {n_topology} atoms in the Topology and "
            f"{n_system} particles in the System; make both from the same files (virtual sites belong in both)"
        )


def _from_indices(qm_atoms: Sequence[int] | np.ndarray) -> np.ndarray:
    try:
        indices = np.asarray(qm_atoms)
    except ValueError:
        indices = np.empty((0, 0))
    if indices.size == 0 and indices.ndim == 1:
        return np.empty(0, dtype=np.int64)
    if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
        raise InputError(
            "qm_atoms: expected a flat sequence of integer atom indices, a residue name or an MDTraj selection, "
            f"got {type(qm_atoms).__name__} of shape {indices.shape} and dtype {indices.dtype}; of a mask take "
            "numpy.flatnonzero(mask), of atoms [atom.index for atom in atoms]"
        )
    return indices.astype(np.int64)


def _from_selection(topology: Topology, selection: str) -> np.ndarray:
    word = selection.strip()
    by_name = [atom.index for atom in topology.atoms() if atom.residue.name == word]
    if by_name:
        return np.asarray(by_name, dtype=np.int64)
    if not word:
        return np.empty(0, dtype=np.int64)
    import mdtraj  # a second to import, and indices or a residue name do not need it

    try:
        chosen = mdtraj.Topology.from_openmm(topology).select(word)
    except Exception as error:  # MDTraj raises whatever its parser and its eval raise
        raise InputError(
            f"qm_atoms: {selection!r} is neither a residue name nor a selection MDTraj can read "
            f"({_reason(error)}); {_residue_names(topology)}"
        ) from error
    return np.asarray(chosen, dtype=np.int64)


def _reason(error: Exception) -> str:
    """What MDTraj stumbled over, without the whole grammar that it expected there."""
    found = re.search(r"found .*?\(at char \d+\)", str(error))
    return found.group() if found else type(error).__name__


def _check(topology: Topology, indices: np.ndarray, asked: object) -> None:
    n_atoms = topology.getNumAtoms()
    if indices.size == 0:
        raise InputError(
            f"qm_atoms: expected at least one atom, got none from {asked!r}; {_residue_names(topology)} (OpenMM's own readers "
            "rename some residues: URA becomes U)"
        )
    outside = indices[(indices < 0) | (indices >= n_atoms)]
    if outside.size:
        raise InputError(
            f"qm_atoms: expected indices from 0 to {n_atoms - 1}, got {outside[:5].tolist()}; indices count from 0"
        )
    unique, counts = np.unique(indices, return_counts=True)
    if unique.size < indices.size:
        raise InputError(
            f"qm_atoms: expected every index once, got {unique[counts > 1][:5].tolist()} more than once; leave the repeats out"
        )
    if indices.size == n_atoms:
        raise InputError(
            f"qm_atoms: expected a part of the system, got all {n_atoms} atoms; a model of this package needs MM "
            "surroundings, so leave some molecules out of the selection"
        )
    atoms = list(topology.atoms())
    elementless = [int(i) for i in indices if atoms[i].element is None]
    if elementless:
        raise InputError(
            f"qm_atoms: expected atoms with an element, got {atom_label(topology, elementless[0])} without one (a "
            "virtual site or a dummy); a QM molecule must come from a force field without extra sites"
        )


def _residue_names(topology: Topology) -> str:
    names = sorted({residue.name for residue in topology.residues()})
    shown = ", ".join(names[:30]) + (" …" if len(names) > 30 else "")
    return f"residue names in this topology: {shown}"
