"""A model of atomic multipoles, for any net charge, among classical molecules in orthorhombic and triclinic boxes."""

import numpy as np
import pytest
import torch
from embedding_systems import context, energy, forces, solvated
from openmm import unit
from support.bms_models import write_small_bms

from ampmm.embedding import create_mixed_system, strip_qm_terms
from ampmm.errors import InputError
from ampmm.export import LoadedModel, load_model

ML_GROUP = 7
BOXES = {"orthorhombic": None, "triclinic": ((2.2, 0.0, 0.0), (0.6, 2.1, 0.0), (-0.7, 0.8, 2.0))}


@pytest.fixture(scope="module")
def bms(tmp_path_factory) -> LoadedModel:
    return load_model(write_small_bms(tmp_path_factory.mktemp("bms") / "small.pt"))


@pytest.mark.parametrize("box", BOXES)
def test_formate_and_a_water_are_one_qm_region(bms, box):
    """The charge is that of the classical molecules, the reaction field the model's own, in the order of the Context."""
    case = solvated(box=BOXES[box])
    water = next(residue for residue in list(case.topology.residues())[5:] if residue.name == "HOH")
    qm = [0, 1, 2, 3, *(atom.index for atom in water.atoms())]
    system, chosen = create_mixed_system(
        case.topology, case.system, qm[::-1], bms, force_group=ML_GROUP, backend="python", dtype=torch.float64
    )
    assert chosen.tolist() == qm
    charges = strip_qm_terms(case.system, qm, case.topology).charges
    mm = np.setdiff1d(np.flatnonzero(charges), qm)
    vectors = np.array([list(v.value_in_unit(unit.angstrom)) for v in case.system.getDefaultPeriodicBoxVectors()])
    result = bms.evaluate(
        [6, 8, 8, 1, 8, 1, 1], 10 * case.positions[qm], 10 * case.positions[mm], charges[mm], box=vectors, qm_charge=-1,
        dtype=torch.float64,
    )  # fmt: skip
    mixed = context(system, case.positions)
    assert energy(mixed, 1 << ML_GROUP) == pytest.approx(result.energy, abs=1e-5)
    wanted = np.zeros_like(case.positions)
    wanted[qm], wanted[mm] = 10 * result.forces_qm, 10 * result.forces_mm
    np.testing.assert_allclose(forces(mixed, 1 << ML_GROUP), wanted, atol=1e-6 * np.abs(wanted).max())


def test_the_net_charge_can_be_given_and_small_boxes_are_refused(bms):
    case = solvated()
    for asked, expected in ((None, -1), (-1, -1), (1, 1)):
        system, _ = create_mixed_system(
            case.topology, case.system, "FOR", bms, qm_charge=asked, force_group=ML_GROUP, dtype=torch.float64
        )
        charges = strip_qm_terms(case.system, range(4)).charges
        mm = np.flatnonzero(charges)[4:]
        result = bms.evaluate([6, 8, 8, 1], 10 * case.positions[:4], 10 * case.positions[mm], charges[mm],
                              box=np.full(3, 21.0), qm_charge=expected, dtype=torch.float64)  # fmt: skip
        assert energy(context(system, case.positions), 1 << ML_GROUP) == pytest.approx(result.energy, abs=1e-5)
    with pytest.raises(InputError, match="coulomb_cutoff: expected at most half the box"):
        create_mixed_system(case.topology, case.system, "FOR", bms, coulomb_cutoff=11.0)
