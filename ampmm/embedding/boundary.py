"""The boundary between QM and MM: no bond, bonded term, constraint or virtual site may cross it."""

from collections.abc import Sequence

import numpy as np
import openmm
from openmm.app import Topology

from ampmm.embedding.bonded import BONDED, bonded_atoms
from ampmm.embedding.regions import atom_label, boundary_bonds
from ampmm.errors import EmbeddingError


def refuse_boundary(system: openmm.System, qm: set[int], topology: Topology | None, kept: frozenset[str]) -> None:
    """Raise `EmbeddingError` if a bond, bonded term or constraint joins QM and MM atoms."""
    crossing = [] if topology is None else boundary_bonds(topology, np.asarray(sorted(qm)))
    if crossing:
        _raise_boundary("a bond of the Topology", crossing[0], qm, topology)
    for k in range(system.getNumConstraints()):
        i, j, _ = system.getConstraintParameters(k)
        if (i in qm) != (j in qm):
            _raise_boundary("a constraint", (i, j), qm, topology)
    for force in system.getForces():
        if type(force).__name__ not in BONDED or force.getName() in kept:
            continue
        for atoms in bonded_atoms(force):
            if not qm.isdisjoint(atoms) and not qm.issuperset(atoms):
                _raise_boundary(f"a term of the {force.getName()}", atoms, qm, topology)


def refuse_virtual_sites(system: openmm.System, qm: set[int], topology: Topology | None) -> None:
    """Raise `EmbeddingError` if a QM atom is a virtual site or the parent of one."""
    for i in range(system.getNumParticles()):
        if not system.isVirtualSite(i):
            continue
        site = system.getVirtualSite(i)
        parents = [site.getParticle(k) for k in range(site.getNumParticles())]
        if i in qm or not qm.isdisjoint(parents):
            raise EmbeddingError(
                f"qm_atoms: expected molecules without virtual sites, got {atom_label(topology, i)} with the parents "
                f"{', '.join(atom_label(topology, p) for p in parents)}; take this molecule from a force field without "
                "extra sites, or leave it in the MM region"
            )


def _raise_boundary(what: str, atoms: Sequence[int], qm: set[int], topology: Topology | None) -> None:
    inside = ", ".join(atom_label(topology, i) for i in atoms if i in qm)
    outside = ", ".join(atom_label(topology, i) for i in atoms if i not in qm)
    raise EmbeddingError(
        f"qm_atoms: expected whole molecules, got {what} that joins QM {inside} and MM {outside}; cut bonds are not "
        "supported, so take the whole molecule into the QM region (or, if this is a restraint written as a bonded "
        "force, give the force's name in `keep`)"
    )
