"""The QM selection: what it takes and what it refuses."""

import numpy as np
import pytest
from openmm import app

from ampmm.embedding import select_qm_atoms
from ampmm.errors import InputError


@pytest.fixture
def topology() -> app.Topology:
    """Two residues URA of two atoms each, and a four-site water."""
    topology = app.Topology()
    chain = topology.addChain()
    for _ in range(2):
        residue = topology.addResidue("URA", chain)
        first = topology.addAtom("C", app.Element.getBySymbol("C"), residue)
        topology.addBond(first, topology.addAtom("O", app.Element.getBySymbol("O"), residue))
    water = topology.addResidue("HOH", chain)
    for name, element in (("O", "O"), ("H1", "H"), ("H2", "H")):
        topology.addAtom(name, app.Element.getBySymbol(element), water)
    topology.addAtom("M", None, water)
    return topology


@pytest.mark.parametrize(
    "selection",
    ["URA", " URA ", "resname URA", "resname URA and (name C or name O)", [0, 1, 2, 3], (3, 1, 2, 0), np.arange(4), range(4)],
)
def test_ways_to_name_the_same_atoms(topology, selection):
    indices = select_qm_atoms(topology, selection)
    assert indices.tolist() == [0, 1, 2, 3]
    assert indices.dtype == np.int64


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ([], "at least one atom"),
        ("", "at least one atom"),
        ("resname XXX", "HOH, URA"),
        ("URACIL", "HOH, URA"),
        ("resname URA and (", "HOH, URA"),
        ([0, 0, 1], r"\[0\] more than once"),
        ([0, 8], r"0 to 7, got \[8\]"),
        ([-1], r"got \[-1\]"),
        (range(8), "all 8 atoms"),
        ("all", "all 8 atoms"),
        ([4, 5, 6, 7], "without one"),
        ([0.0, 1.0], "integer atom indices"),
        ([True, False], "integer atom indices"),
        ([[0, 1]], "integer atom indices"),
        ([[0], [1, 2]], "integer atom indices"),
        (None, "integer atom indices"),
        (3, "integer atom indices"),
    ],
)
def test_bad_selections(topology, selection, message):
    with pytest.raises(InputError, match="qm_atoms") as caught:
        select_qm_atoms(topology, selection)
    caught.match(message)
