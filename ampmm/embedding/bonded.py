"""Bonded terms of a classical System: whose atoms they are, and a force without those of the QM region."""

import copy
import re
import xml.etree.ElementTree as ElementTree
from typing import Final

import openmm

# Force-field terms over a few bonded atoms; the XML tag of one term.
BONDED: Final = {
    "HarmonicBondForce": "Bond",
    "HarmonicAngleForce": "Angle",
    "PeriodicTorsionForce": "Torsion",
    "RBTorsionForce": "Torsion",
    "CMAPTorsionForce": "Torsion",
    "CustomBondForce": "Bond",
    "CustomAngleForce": "Angle",
    "CustomTorsionForce": "Torsion",
    "CustomCompoundBondForce": "Bond",
}

# The atoms of one term, as attributes of its XML element: p1…; CMAP's a1…a4, b1…b4.
_ATOM_ATTRIBUTE: Final = re.compile(r"(p|a|b)\d+")


def bonded_atoms(force: openmm.Force) -> list[tuple[int, ...]]:
    """The atoms of every term of a force of a class in `BONDED`."""
    return [_atoms(term) for term in _terms(ElementTree.fromstring(openmm.XmlSerializer.serialize(force)), force)]


def strip_bonded(force: openmm.Force, qm: set[int]) -> tuple[openmm.Force, int]:
    """A copy without the terms wholly inside the QM region, and their number."""
    root = ElementTree.fromstring(openmm.XmlSerializer.serialize(force))
    inside = {id(term) for term in _terms(root, force) if qm.issuperset(_atoms(term))}
    if not inside:
        return copy.deepcopy(force), 0
    parent = root.find(BONDED[type(force).__name__] + "s")
    for term in list(parent):
        if id(term) in inside:
            parent.remove(term)
    return openmm.XmlSerializer.deserialize(ElementTree.tostring(root, encoding="unicode")), len(inside)


def energetic_terms_within(force: openmm.Force, qm: set[int]) -> int:
    """How many terms lie wholly inside the QM region; bonds of zero strength (`molecule_force`) do not count."""
    root = ElementTree.fromstring(openmm.XmlSerializer.serialize(force))
    inside = [term for term in _terms(root, force) if qm.issuperset(_atoms(term))]
    if isinstance(force, openmm.HarmonicBondForce):
        inside = [term for term in inside if float(term.get("k")) != 0.0]
    return len(inside)


def molecule_force(bonds: list[tuple[int, ...]]) -> openmm.HarmonicBondForce:
    """Bonds of zero strength: barostats scale, and OpenMM wraps, whole molecules, which it finds by their bonds.

    Without them every QM atom would be a molecule of its own, and each barostat move would stretch the QM molecules.
    """
    force = openmm.HarmonicBondForce()
    force.setName("QM molecules (zero energy)")
    for i, j in sorted({(min(pair), max(pair)) for pair in bonds}):
        force.addBond(i, j, 0.1, 0.0)
    return force


def constraints_within(system: openmm.System, qm: set[int]) -> list[tuple[int, ...]]:
    """The pairs of QM atoms joined by a constraint."""
    pairs = [system.getConstraintParameters(k)[:2] for k in range(system.getNumConstraints())]
    return [(i, j) for i, j in pairs if i in qm and j in qm]


def _terms(root: ElementTree.Element, force: openmm.Force) -> list[ElementTree.Element]:
    tag = BONDED[type(force).__name__]
    parent = root.find(tag + "s")
    return [] if parent is None else parent.findall(tag)


def _atoms(term: ElementTree.Element) -> tuple[int, ...]:
    return tuple(int(value) for name, value in sorted(term.attrib.items()) if _ATOM_ATTRIBUTE.fullmatch(name))
