"""GFN-FF as a driver: forces are the gradient, two molecules in one region, kept bonds, and no labels."""

import os
import pickle

import numpy as np
import pytest

from ampmm.errors import BackendError, InputError
from ampmm.reference import GFNFFDriver, get_labeller
from ampmm.reference.libxtb import load_libxtb
from ampmm.units import COULOMB_CONSTANT

try:
    load_libxtb()
except BackendError as missing:
    pytest.skip(str(missing), allow_module_level=True)

# Methanethiol and water, optimised apart with GFN2-xTB and put beside each other; Å.
NUMBERS = np.array([6, 16, 1, 1, 1, 1, 8, 1, 1])
POSITIONS = np.array(
    [
        [-0.0478, 1.1494, 0.0113],
        [-0.0478, -0.6647, 0.0307],
        [1.2803, -0.8252, 0.0124],
        [-1.0923, 1.4574, -0.0209],
        [0.4298, 1.4656, 0.9363],
        [0.4702, 1.4616, -0.8931],
        [3.3000, -1.2000, 0.2000],
        [3.9000, -0.4600, 0.3100],
        [3.8500, -1.9600, 0.0500],
    ]
)
CHARGES = np.array([-0.18, -0.32, 0.20, 0.10, 0.10, 0.10, -0.834, 0.417, 0.417])  # e
BONDS = [(0, 1), (1, 2), (0, 3), (0, 4), (0, 5), (6, 7), (6, 8)]
SITES = np.array([[0.5, 0.3, -4.5], [4.5, 3.0, 1.2], [-5.0, 4.0, 2.0]])  # Å
CHARGES_MM = np.array([0.4, -0.8, 0.3])


@pytest.fixture(scope="module")
def driver():
    return GFNFFDriver(NUMBERS, POSITIONS, CHARGES, BONDS)


def evaluate(driver, positions=POSITIONS, sites=SITES, charges=CHARGES_MM):
    return driver.evaluate(NUMBERS, positions, sites, charges, None, 0)


def test_forces_are_the_energy_gradient(driver):
    shaken = POSITIONS + np.random.default_rng(1).normal(scale=0.05, size=POSITIONS.shape)
    result = evaluate(driver, shaken)
    assert np.abs(result.forces_qm).max() > 100.0
    for arrays, forces in (((shaken, SITES), "forces_qm"), ((SITES, shaken), "forces_mm")):
        moved, expected = arrays[0], np.zeros_like(arrays[0])
        for index in np.ndindex(moved.shape):
            shift = np.zeros_like(moved)
            shift[index] = 5e-4
            if forces == "forces_qm":
                ends = [evaluate(driver, moved + sign * shift).energy for sign in (1, -1)]
            else:
                ends = [evaluate(driver, shaken, moved + sign * shift).energy for sign in (1, -1)]
            expected[index] = -(ends[0] - ends[1]) / 1e-3
        np.testing.assert_allclose(getattr(result, forces), expected, atol=0.01)


def test_the_embedding_is_coulombs_law_of_fixed_charges(driver):
    alone = evaluate(driver, sites=np.zeros((0, 3)), charges=np.zeros(0))
    distances = np.linalg.norm(POSITIONS[:, None] - SITES[None], axis=-1)
    coulomb = COULOMB_CONSTANT * (CHARGES[:, None] * CHARGES_MM / distances).sum()
    result = evaluate(driver)
    assert result.energy - alone.energy == pytest.approx(coulomb, abs=1e-8)
    total = result.forces_qm.sum(0) + result.forces_mm.sum(0)
    np.testing.assert_allclose(total, 0.0, atol=1e-6)
    np.testing.assert_array_equal(result.charges_qm, CHARGES)


def test_bonds_of_the_start_are_kept_whatever_comes_later(driver):
    """Two molecules stay two however near they come; a bond stretched beyond any other force field's stays a bond."""
    near = POSITIONS.copy()
    near[6:] += [-0.9, 0.2, 0.0]  # the thiol's hydrogen 1.2 Å from the water's oxygen
    evaluate(driver, near)
    stretched = POSITIONS.copy()
    stretched[2] += [0.8, 0.0, 0.0]
    pull = evaluate(driver, stretched).forces_qm[2, 0]
    assert pull < -100.0  # kJ/mol/Å, back towards the sulfur
    first = evaluate(driver).energy
    assert first == pytest.approx(evaluate(GFNFFDriver(NUMBERS, POSITIONS, CHARGES)).energy, abs=1e-6)


def test_another_set_of_bonds_than_the_topologys_is_refused():
    broken = POSITIONS.copy()
    broken[2] += [1.2, -0.4, 0.2]
    with pytest.raises(InputError, match=r"S1–H2 \(missing\)"):
        GFNFFDriver(NUMBERS, broken, CHARGES, BONDS)
    with pytest.raises(InputError, match=r"O6–H7 \(too many\)"):
        GFNFFDriver(NUMBERS, POSITIONS, CHARGES, [pair for pair in BONDS if pair != (6, 7)])
    GFNFFDriver(NUMBERS, POSITIONS, CHARGES, [*BONDS, (7, 8)])  # the third side of a rigid water's triangle


def test_nothing_is_printed_and_no_file_left(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    evaluate(GFNFFDriver(NUMBERS, POSITIONS, CHARGES, BONDS))
    assert os.getcwd() == str(tmp_path) and list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_it_labels_nothing_and_says_so(driver):
    with pytest.raises(InputError, match=r"drives dynamics .* labels nothing"):
        get_labeller("GFN-FF")
    with pytest.raises(InputError, match=r"drives dynamics .* labels nothing"):
        driver.label(NUMBERS, POSITIONS, SITES, CHARGES_MM)
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(driver)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"numbers": NUMBERS[::-1]}, "expected the atoms and the net charge"),
        ({"qm_charge": 1}, "expected the atoms and the net charge"),
        ({"positions_qm": POSITIONS[:3]}, r"positions_qm: expected shape \(9, 3\)"),
        ({"charges_mm": CHARGES_MM * np.nan}, "charges_mm: expected finite"),
        ({"box": np.eye(3) * 30}, "box: expected None"),
    ],
)
def test_bad_input_is_named(driver, change, message):
    good = {"numbers": NUMBERS, "positions_qm": POSITIONS, "positions_mm": SITES, "charges_mm": CHARGES_MM}
    with pytest.raises(InputError, match=message):
        driver.evaluate(**{**good, **change})


def test_charges_of_part_of_a_molecule_are_refused():
    with pytest.raises(InputError, match="sum that is a whole number"):
        GFNFFDriver(NUMBERS, POSITIONS, CHARGES + 0.01)
