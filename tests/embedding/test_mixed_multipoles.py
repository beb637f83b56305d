"""A model of atomic multipoles, for any net charge, among classical molecules in orthorhombic and triclinic boxes."""

import dataclasses

import numpy as np
import openmm
import pytest
import torch
from embedding_systems import context, energy, forces, solvated
from openmm import unit
from support.bms_models import small_bms, write_small_bms

from ampmm.embedding import BACKENDS, add_force, create_mixed_system, strip_qm_terms
from ampmm.errors import InputError
from ampmm.export import LoadedModel, load_model, save_model

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


def test_a_system_that_is_stripped_already_does_not_know_the_net_charge(bms):
    case = solvated()
    stripped = strip_qm_terms(case.system, range(4), case.topology).system
    with pytest.raises(InputError, match="qm_charge: model 'small-bms' takes any net charge"):
        add_force(stripped, case.topology, "FOR", bms)
    add_force(stripped, case.topology, "FOR", bms, qm_charge=-1, force_group=ML_GROUP, dtype=torch.float64)
    mixed, _ = create_mixed_system(case.topology, case.system, "FOR", bms, force_group=ML_GROUP, dtype=torch.float64)
    energies = [energy(context(each, case.positions), 1 << ML_GROUP) for each in (stripped, mixed)]
    assert energies[0] == pytest.approx(energies[1], abs=1e-6)


@pytest.mark.parametrize("backend", [name for name, each in BACKENDS.items() if not each.missing()])
def test_ambiguous_images_stop_a_simulation_with_a_message(bms, tmp_path, backend):
    """Also below a TorchForce, where an error from deeper inside would end the process."""
    network = small_bms(torch.float32, long_range_cutoff=14.0)
    settings = {"hyperparameters": network.hyperparameters.to_dict(), "cutoffs": network.cutoffs}
    save_model(tmp_path / "far.pt", network, dataclasses.replace(bms.card, **settings))
    far = load_model(tmp_path / "far.pt")
    case = solvated()
    oxygens = [atom.index for atom in case.topology.atoms() if atom.residue.name == "HOH" and atom.name == "O"]
    vectors = case.positions[oxygens] - case.positions[0]
    distances = np.linalg.norm(vectors - 2.1 * np.round(vectors / 2.1), axis=-1)
    water = oxygens[int(np.argmin(np.abs(distances - 1.25)))]
    system, _ = create_mixed_system(
        case.topology, case.system, [0, 1, 2, 3, water, water + 1, water + 2], far, coulomb_cutoff=9.0, backend=backend
    )
    here = context(system, case.positions)
    with pytest.raises(openmm.OpenMMException, match="nearest images are ambiguous"):
        energy(here)


def test_the_default_cutoff_fits_any_small_box(model):
    """Half the box, and not that rounded up to single precision."""
    for width in (2.11, 2.17, 2.23):
        case = solvated(box=tuple(width * np.eye(3)))
        system, _ = create_mixed_system(case.topology, case.system, "FOR", model, force_group=ML_GROUP, backend="python")
        assert np.isfinite(energy(context(system, case.positions), 1 << ML_GROUP))
