"""Models of atomic multipoles as files and at run time: cards for any charge, their own cutoffs, long-range pairs."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from support.amp_models import random_region
from support.bms_models import SYSTEMS, WEIGHTS, evaluate, needs_reference, reference_frame, small_bms, write_small_bms

from ampmm.errors import InputError, ModelFileError
from ampmm.export import LoadedModel, Potential, load_model
from ampmm.export.metadata import Card
from ampmm.units import COULOMB_CONSTANT

TRICLINIC = np.array([[16.0, 0.0, 0.0], [2.0, 15.0, 0.0], [-3.0, 1.0, 17.0]])  # Å
BOXES = {"orthorhombic": np.diag([14.0, 15.0, 16.0]), "triclinic": TRICLINIC}
REGION = random_region(7, 12)
NUMBERS, QM, MM, CHARGES = (REGION[i].numpy() for i in range(4))


@pytest.fixture(scope="module")
def bms(tmp_path_factory) -> LoadedModel:
    return load_model(write_small_bms(tmp_path_factory.mktemp("bms") / "small.pt"))


def single(model: LoadedModel, qm=QM, mm=MM, charges=CHARGES, **options):
    options = {"qm_charge": 0, "dtype": torch.float64, **options}
    return model.evaluate(NUMBERS, qm, mm, charges, **options)


@pytest.mark.parametrize("box", [None, *BOXES.values()])
def test_evaluate_is_the_model_with_its_own_cutoff(bms, box):
    got = single(bms, box=box, qm_charge=1)
    tensor = None if box is None else torch.as_tensor(box)
    model = small_bms(torch.float32).double()  # the file has single precision
    expected = evaluate(model, REGION._replace(charge=1.0), box=tensor, coulomb_cutoff=None if box is None else 6.5)
    assert got.energy == pytest.approx(expected.energies.total.item(), abs=1e-8)
    np.testing.assert_allclose(got.forces_qm, expected.forces_qm, atol=1e-8)
    np.testing.assert_allclose(got.forces_mm, expected.forces_mm, atol=1e-8)
    assert got.charges_qm.sum() == pytest.approx(1.0)


def test_the_dipole_is_what_a_far_charge_feels(bms):
    """Charges and atomic dipoles of a neutral region: E → k_e q μ·r/r³, without polarization at this distance."""
    r, q = 3000.0, 0.5
    nothing = single(bms, mm=np.zeros((0, 3)), charges=np.zeros(0))
    centre = QM.mean(axis=0)
    for axis in np.eye(3):
        energies = [single(bms, mm=centre[None] + sign * r * axis[None], charges=np.array([q])).energy for sign in (1.0, -1.0)]
        expected = COULOMB_CONSTANT * q * (nothing.dipole @ axis) / r**2
        assert 0.5 * (energies[0] - energies[1]) == pytest.approx(expected, rel=1e-4, abs=1e-8)
    assert np.linalg.norm(nothing.dipole - nothing.charges_qm @ (QM - centre)) > 1e-3


def test_a_model_for_any_charge_has_to_be_told_which(bms):
    assert bms.card.qm_charge is None
    assert single(bms, qm_charge=-1).charges_qm.sum() == pytest.approx(-1.0)
    with pytest.raises(InputError, match="takes any net charge; give that of the QM region"):
        single(bms, qm_charge=None)
    for wrong in (0.5, float("nan"), "one"):
        with pytest.raises(InputError, match="expected a whole number"):
            single(bms, qm_charge=wrong)


def test_a_card_says_any_charge_with_null(bms):
    text = bms.card.to_json()
    assert json.loads(text)["qm_charge"] is None and Card.from_json(text, "here") == bms.card
    with pytest.raises(ModelFileError, match="qm_charge as a whole number or null"):
        Card.from_json(text.replace('"qm_charge": null', '"qm_charge": "any"'), "here")


def test_cutoffs_on_the_card_are_those_of_the_model(bms, tmp_path):
    cutoffs = bms.card.cutoffs
    for name, value in (("long_range", 7.0), ("coulomb", 9.0)):
        path = write_small_bms(tmp_path / f"{name}.pt", cutoffs={**cutoffs, name: value})
        with pytest.raises(ModelFileError, match=f"card gives a {name} cutoff of {value}"):
            load_model(path)
    path = write_small_bms(tmp_path / "short.pt", cutoffs={"qm": cutoffs["qm"], "polarization": cutoffs["polarization"]})
    with pytest.raises(ModelFileError, match="card gives a long_range cutoff of None"):
        load_model(path)
    with pytest.raises(ModelFileError, match="also long_range and coulomb"):
        Card.from_json(dataclasses.replace(bms.card, cutoffs={**cutoffs, "other": 1.0}).to_json(), "here")


def test_the_models_own_cutoff_is_not_shortened_for_a_small_box(bms):
    with pytest.raises(InputError, match=r"coulomb_cutoff of 6.5 Å is over half the box \(6.00 Å\)"):
        single(bms, box=np.array([12.0, 15.0, 15.0]))
    assert np.isfinite(single(bms, box=np.array([12.0, 15.0, 15.0]), coulomb_cutoff=6.0).energy)


def test_images_that_a_triclinic_box_hides_are_refused(bms):
    """OpenMM's nearest image is beyond the long-range cutoff of 6 Å, another one within it."""
    box = 12.8 * np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.5, 0.5, 0.5**0.5]])
    positions = np.array([[0.0, 0.0, 0.0], [1.3, 0.0, 0.0], [6.3, 6.3, 4.4]])
    with pytest.raises(InputError, match="nearest images are ambiguous"):
        bms.evaluate(NUMBERS[:3], positions, MM, CHARGES, box=box, coulomb_cutoff=4.5, qm_charge=0)
    with pytest.raises(torch.jit.Error, match="nearest images are ambiguous"):
        make_potential(bms, 3, box=box, coulomb_cutoff=4.5)(positions, MM)


def test_ambiguous_images_of_qm_atoms_are_refused(bms):
    """The long-range cutoff of 6 Å may be over half the box as long as the QM region is not."""
    box = np.array([11.0, 14.0, 14.0])
    together = np.array([[0.0, 0.0, 0.0], [1.3, 0.0, 0.0], [0.0, 1.2, 0.0]])
    apart = np.array([[0.0, 0.0, 0.0], [1.3, 0.0, 0.0], [5.5, 1.5, 0.0]])
    for positions, refused in ((together, False), (apart, True)):
        call = make_potential(bms, len(positions), box=np.diag(box), coulomb_cutoff=5.0)
        options = {"box": box, "coulomb_cutoff": 5.0, "qm_charge": 0}
        if refused:
            with pytest.raises(InputError, match="nearest images are ambiguous"):
                bms.evaluate(NUMBERS[:3], positions, MM, CHARGES, **options)
            with pytest.raises(torch.jit.Error, match="nearest images are ambiguous"):
                call(positions, MM)
        else:
            expected = bms.evaluate(NUMBERS[:3], positions, MM, CHARGES, dtype=torch.float64, **options)
            assert call(positions, MM)[0] == pytest.approx(expected.energy, abs=1e-7)


def make_potential(
    model: LoadedModel, n_qm: int, box: np.ndarray | None, coulomb_cutoff: float | None = 6.5, skin: float = 0.5
):
    """A scripted `Potential` in double precision as a function of QM and MM positions in Å."""
    module = load_model(model.path).module.to(torch.float64)
    cutoffs, n_mm = model.card.cutoffs, len(MM)
    order = torch.randperm(n_qm + n_mm, generator=torch.Generator().manual_seed(2))  # QM atoms anywhere in the Context
    potential = torch.jit.script(
        Potential(
            module, torch.as_tensor(NUMBERS[:n_qm]), order[:n_qm], order[n_qm:], torch.as_tensor(CHARGES), 0.0,
            cutoff=cutoffs["qm"], polarization_cutoff=cutoffs["polarization"], long_range_cutoff=cutoffs["long_range"],
            periodic=box is not None, electrostatics="bare" if box is None else "reaction-field",
            coulomb_cutoff=None if box is None else coulomb_cutoff, skin=skin, dtype=torch.float64,
        )
    )  # fmt: skip

    def call(qm: np.ndarray, mm: np.ndarray) -> tuple[float, np.ndarray]:
        positions = torch.zeros(n_qm + n_mm, 3, dtype=torch.float64)
        positions[order] = torch.as_tensor(np.concatenate([qm, mm]) / 10.0)
        energy, forces = potential(positions, None if box is None else torch.as_tensor(box / 10.0))
        return energy.item(), forces[order].numpy() / 10.0

    return call


@pytest.mark.parametrize("name", ["none", *BOXES])
def test_the_potential_is_evaluate_while_lists_are_made_again(bms, name):
    box, random = BOXES.get(name), np.random.default_rng(4)
    call = make_potential(bms, len(QM), box)
    qm, mm = QM.copy(), MM.copy()
    for _ in range(25):
        qm, mm = qm + random.normal(scale=0.04, size=qm.shape), mm + random.normal(scale=0.15, size=mm.shape)
        expected = single(bms, qm, mm, box=box)
        energy, forces = call(qm, mm)
        assert energy == pytest.approx(expected.energy, abs=1e-6)
        wanted = np.concatenate([expected.forces_qm, expected.forces_mm])
        np.testing.assert_allclose(forces, wanted, atol=1e-8 * np.abs(wanted).max())


@needs_reference
@pytest.mark.parametrize("system", SYSTEMS)
def test_the_imported_file_gives_the_published_numbers(system, tmp_path):
    from ampmm.cli.import_weights import import_file

    unused = import_file(WEIGHTS, tmp_path / "amp_bms.pt", {}, "amp-bms", "a test")
    assert set(unused) == {"mu.MASSES", "theta.MASSES"}
    model = load_model(tmp_path / "amp_bms.pt")
    region, box, values = reference_frame(system)
    arrays = [each.numpy() for each in region[:4]]
    exact = model.evaluate(*arrays, box=box.diagonal().numpy(), qm_charge=0, dtype=torch.float64)
    assert exact.energy == pytest.approx(float(values["energy"]), rel=0, abs=1e-4)
    np.testing.assert_allclose(exact.forces_qm, values["forces_qm"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(exact.forces_mm, values["forces_mm"], rtol=0, atol=1e-5)
    quick = model.evaluate(*arrays, box=box.numpy(), qm_charge=0)
    assert quick.energy == pytest.approx(exact.energy, rel=1e-6)
