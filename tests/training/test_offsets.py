"""The constant energies of elements, fitted to energies."""

import numpy as np

from ampmm.training.offsets import element_energies


def test_one_composition_gives_the_mean_energy_per_atom():
    counts = np.array([[2, 1]] * 5)
    energies = -3000.0 + np.arange(5.0)
    np.testing.assert_array_equal(element_energies(counts, energies), [-2998.0 / 3] * 2)


def test_several_compositions_tell_the_elements_apart():
    counts = np.array([[2, 1, 0], [4, 0, 1], [0, 3, 2], [1, 1, 1], [5, 2, 3]])
    true = np.array([-1.5, -200.0, -90.0])
    np.testing.assert_allclose(element_energies(counts, counts @ true), true, rtol=1e-10)


def test_what_counts_do_not_determine_stays_even():
    counts = np.array([[1, 1, 2], [2, 2, 1], [3, 3, 0]])  # the first two elements always together
    energies = counts @ np.array([-10.0, -30.0, -100.0])
    fitted = element_energies(counts, energies)
    np.testing.assert_allclose(counts @ fitted, energies, rtol=1e-10)
    np.testing.assert_allclose(fitted[0], fitted[1])
