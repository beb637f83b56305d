"""GFN2-xTB among point charges: a published energy, finite differences, the point-charge limit, bad input."""

import pickle

import numpy as np
import pytest

from ampmm.errors import BackendError, InputError, LabellingError
from ampmm.units import ANGSTROM_PER_BOHR, COULOMB_CONSTANT, KJ_PER_MOL_PER_HARTREE

xtb = pytest.importorskip("ampmm.reference.xtb")
try:
    xtb.load_libxtb()
except BackendError as missing:
    pytest.skip(str(missing), allow_module_level=True)

WATER = np.array([8, 1, 1])
# Å. Two atoms share y exactly, where xtb's own QM gradient is wrong (grimme-lab/xtb issue 986).
WATER_POSITIONS = np.array([[0.0, 0.0, 0.1], [0.76, 0.0, 0.69], [-0.76, 0.1, 0.69]])
SITES = np.array([[0.0, 0.3, -2.5], [2.5, 1.0, 1.2], [0.0, 3.0, 0.0], [-5.0, 4.0, 2.0]])  # Å
CHARGES = np.array([0.4, -0.8, 0.3, 0.2])

# Caffeine: geometry (Bohr) and GFN2-xTB energy of the tutorial in tblite's documentation (tblite.readthedocs.io).
CAFFEINE = np.array([6, 7, 6, 7, 6, 6, 6, 8, 7, 6, 8, 7, 6, 6] + [1] * 10)
CAFFEINE_ENERGY = -42.14746316  # Hartree
CAFFEINE_POSITIONS = np.array(
    [
        [2.02799738646442, 0.09231312124713, -0.14310895950963],
        [4.75011007621000, 0.02373496014051, -0.14324124033844],
        [6.33434307654413, 2.07098865582721, -0.14235306905930],
        [8.72860718071825, 1.38002919517619, -0.14265542523943],
        [8.65318821103610, -1.19324866489847, -0.14231527453678],
        [6.23857175648671, -2.08353643730276, -0.14218299370797],
        [5.63266886875962, -4.69950321056008, -0.13940509630299],
        [3.44931709749015, -5.48092386085491, -0.14318454855466],
        [7.77508917214346, -6.24427872938674, -0.13107140408805],
        [10.30229550927022, -5.39739796609292, -0.13672168520430],
        [12.07410272485492, -6.91573621641911, -0.13666499342053],
        [10.70038521493902, -2.79078533715849, -0.14148379504141],
        [13.24597858727017, -1.76969072232377, -0.14218299370797],
        [7.40891694074004, -8.95905928176407, -0.11636933482904],
        [1.38702118184179, 2.05575746325296, -0.14178615122154],
        [1.34622199478497, -0.86356704498496, 1.55590600570783],
        [1.34624089204623, -0.86133716815647, -1.84340893849267],
        [5.65596919189118, 4.00172183859480, -0.14131371969009],
        [14.67430918222276, -3.26230980007732, -0.14344911021228],
        [13.50897177220290, -0.60815166181684, 1.54898960808727],
        [13.50780014200488, -0.60614855212345, -1.83214617078268],
        [5.41408424778406, -9.49239668625902, -0.11022772492007],
        [8.31919801555568, -9.74947502841788, 1.56539243085954],
        [8.31511620712388, -9.76854236502758, -1.79108242206824],
    ]
)


@pytest.fixture(scope="module")
def labeller():
    return xtb.XTBLabeller(accuracy=0.001)


def label_water(labeller, positions=WATER_POSITIONS, sites=SITES, charges=CHARGES):
    return labeller.label(WATER, positions, sites, charges)


def finite_difference(energy, positions, step):
    """Forces from energies, central differences of fourth order."""
    forces = np.zeros_like(positions)
    for index in np.ndindex(positions.shape):
        shift = np.zeros_like(positions)
        shift[index] = step
        near = energy(positions + shift) - energy(positions - shift)
        far = energy(positions + 2 * shift) - energy(positions - 2 * shift)
        forces[index] = -(8 * near - far) / (12 * step)
    return forces


def test_the_published_energy_of_caffeine(labeller):
    """Without charges, our parameter file and settings are GFN2-xTB."""
    result = labeller.label(CAFFEINE, CAFFEINE_POSITIONS * ANGSTROM_PER_BOHR, np.zeros((0, 3)), np.zeros(0))
    assert result.energy / KJ_PER_MOL_PER_HARTREE == pytest.approx(CAFFEINE_ENERGY, abs=1e-6)
    assert result.forces_mm.shape == (0, 3)


def test_qm_forces_are_the_energy_gradient(labeller):
    expected = finite_difference(lambda positions: label_water(labeller, positions).energy, WATER_POSITIONS, 0.004)
    np.testing.assert_allclose(label_water(labeller).forces_qm, expected, atol=5e-3)


def test_mm_forces_are_the_energy_gradient(labeller):
    expected = finite_difference(lambda sites: label_water(labeller, sites=sites).energy, SITES, 0.01)
    np.testing.assert_allclose(label_water(labeller).forces_mm, expected, atol=2e-4)


def test_moving_everything_costs_nothing(labeller):
    """No net force and no net torque on molecule and charges together; the same energy after a rotation."""
    result = label_water(labeller)
    forces = np.concatenate([result.forces_qm, result.forces_mm])
    positions = np.concatenate([WATER_POSITIONS, SITES])
    np.testing.assert_allclose(forces.sum(axis=0), 0.0, atol=1e-3)
    np.testing.assert_allclose(np.cross(positions, forces).sum(axis=0), 0.0, atol=1e-2)
    rotation = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    turned = label_water(labeller, WATER_POSITIONS @ rotation + 5.0, SITES @ rotation + 5.0)
    assert turned.energy == pytest.approx(result.energy, abs=1e-3)
    np.testing.assert_allclose(turned.forces_mm, result.forces_mm @ rotation, atol=1e-3)


def slope_with_charge(labeller, site):
    """dE/dq of one probe charge at q = 0: the potential that the molecule makes there."""
    energies = [label_water(labeller, sites=site[None], charges=np.array([q])).energy for q in (0.01, -0.01)]
    return (energies[0] - energies[1]) / 0.02


def test_charges_are_point_like(labeller):
    """A probe 2.5 Å away feels Σ qᵢ/r of the molecule's charges; with an element's own hardness it does not."""
    site = np.array([0.0, 0.0, -2.4])
    alone = label_water(labeller, sites=np.zeros((0, 3)), charges=np.zeros(0))
    distances = np.linalg.norm(WATER_POSITIONS - site, axis=1)
    coulomb = COULOMB_CONSTANT * (alone.charges_qm / distances).sum()
    assert slope_with_charge(labeller, site) == pytest.approx(coulomb, rel=5e-3)
    smeared = xtb.XTBLabeller(accuracy=0.001, hardness=0.4)
    assert abs(slope_with_charge(smeared, site) / coulomb - 1.0) > 0.03


def test_the_hardness_is_converged(labeller):
    harder = xtb.XTBLabeller(accuracy=0.001, hardness=990.0)
    assert label_water(harder).energy == pytest.approx(label_water(labeller).energy, abs=0.1)


def test_calls_do_not_remember_each_other(labeller):
    """Gradients on the charges do not pile up, and a number of charges that changes leaves no trace."""
    first = label_water(labeller)
    label_water(labeller, sites=SITES[:2] + 1.0, charges=CHARGES[:2])
    labeller.label(CAFFEINE, CAFFEINE_POSITIONS * ANGSTROM_PER_BOHR, SITES * 6, CHARGES)
    again = label_water(labeller)
    assert again.energy == first.energy
    np.testing.assert_array_equal(again.forces_mm, first.forces_mm)


def test_a_warm_start_finds_the_same_state(labeller):
    warm = xtb.XTBLabeller(accuracy=0.001, warm_start=True)
    for shift in (0.0, 0.02, 0.05):
        expected = label_water(labeller, WATER_POSITIONS * (1 + shift))
        result = label_water(warm, WATER_POSITIONS * (1 + shift))
        assert result.energy == pytest.approx(expected.energy, abs=1e-4)
        np.testing.assert_allclose(result.forces_qm, expected.forces_qm, atol=1e-2)


def test_default_accuracy_is_far_below_the_wanted_errors(labeller):
    """The label's own noise on MM forces is ≪ 0.05 kJ/mol/Å."""
    default = label_water(xtb.XTBLabeller())
    exact = label_water(labeller)
    np.testing.assert_allclose(default.forces_mm, exact.forces_mm, atol=2e-3)
    np.testing.assert_allclose(default.forces_qm, exact.forces_qm, atol=2e-2)


def test_an_ion_keeps_its_charge_and_its_dipole_ignores_the_origin(labeller):
    hydroxide = labeller.label([8, 1], [[0, 0, 0], [0, 0, 0.97]], SITES, CHARGES, qm_charge=-1)
    shifted = labeller.label([8, 1], [[9, 9, 9], [9, 9, 9.97]], SITES + 9.0, CHARGES, qm_charge=-1)
    assert hydroxide.charges_qm.sum() == pytest.approx(-1.0, abs=1e-6)
    np.testing.assert_allclose(shifted.dipole, hydroxide.dipole, atol=1e-4)
    assert np.linalg.norm(hydroxide.dipole) > 0.1


def test_a_copy_in_another_process_is_a_labeller_with_the_same_settings(labeller):
    copied = pickle.loads(pickle.dumps(labeller))
    assert copied.settings == labeller.settings
    assert label_water(copied).energy == label_water(labeller).energy


def test_without_convergence_there_are_no_numbers():
    impatient = xtb.XTBLabeller(max_iterations=1)
    with pytest.raises(LabellingError, match="did not converge"):
        label_water(impatient)
    with pytest.raises(LabellingError, match="did not converge"):
        label_water(impatient)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"numbers": [8, 1]}, r"positions_qm: expected shape \(2, 3\)"),
        ({"numbers": [8.0, 1.0, 1.0]}, "numbers: expected .* integers"),
        ({"numbers": [8, 1, 0]}, "atomic number"),
        ({"numbers": []}, "numbers: expected"),
        ({"positions_qm": WATER_POSITIONS * np.nan}, "positions_qm: expected finite"),
        ({"positions_mm": SITES[:2]}, r"positions_mm: expected shape \(4, 3\)"),
        ({"charges_mm": CHARGES[:, None]}, r"charges_mm: expected shape \(M,\)"),
        ({"charges_mm": [np.inf, 0, 0, 0]}, "charges_mm: expected finite"),
        ({"qm_charge": 1}, "qm_charge: 1 e leaves 9 electrons"),
        ({"qm_charge": 0.5}, "qm_charge: expected a whole number"),
        ({"box": np.eye(3) * 30}, "box: expected None"),
    ],
)
def test_bad_input_is_named(labeller, change, message):
    good = {"numbers": WATER, "positions_qm": WATER_POSITIONS, "positions_mm": SITES, "charges_mm": CHARGES}
    with pytest.raises(InputError, match=message):
        labeller.evaluate(**{**good, **change})


def test_settings_are_checked():
    with pytest.raises(InputError, match="accurracy"):
        xtb.XTBLabeller(accurracy=1.0)
    with pytest.raises(InputError, match="accuracy: expected a positive number"):
        xtb.XTBLabeller(accuracy=0.0)


def test_a_missing_library_says_how_to_get_it(monkeypatch):
    monkeypatch.setenv("AMPMM_LIBXTB", "/nowhere/libxtb.so")
    with pytest.raises(BackendError, match="AMPMM_LIBXTB"):
        xtb.load_libxtb.__wrapped__()
