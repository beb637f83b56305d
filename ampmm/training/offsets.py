"""The constant energy of each element: what a model adds to its networks' sum."""

import numpy as np


def element_energies(compositions: np.ndarray, energies: np.ndarray) -> np.ndarray:
    """Least-squares fit of energies by element counts, (n_elements,) kJ/mol.

    Where the compositions cannot tell elements apart, the energy is spread evenly over the atoms. With one composition in
    all frames, which is what a file of frames holds, every element gets the mean energy per atom.

    Args:
        compositions: (F, n_elements) atoms of each element in each frame.
        energies: (F,) kJ/mol.
    """
    n_atoms = compositions.sum(axis=1)
    per_atom = energies.mean() / n_atoms.mean()
    if np.all(compositions == compositions[0]):
        return np.full(compositions.shape[1], per_atom)
    # The solution of least norm about the even spread: what the counts do not determine stays even.
    correction, *_ = np.linalg.lstsq(compositions.astype(np.float64), energies - per_atom * n_atoms, rcond=None)
    return per_atom + correction
