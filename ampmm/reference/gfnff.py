"""GFN-FF with mechanical embedding: a cheap driver of dynamics, whose frames another method labels.

S. Spicher, S. Grimme, Angew. Chem. Int. Ed. 2020, 59, 15665. libxtb's GFN-FF takes no external charges, so the QM region is
not polarized: its atoms carry the fixed charges of the classical force field, which meet the MM charges by Coulomb's law.
"""

import ctypes
import os
import tempfile
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import ArrayLike

from ampmm.elements import symbol
from ampmm.errors import InputError, LabellingError
from ampmm.reference.base import validated
from ampmm.reference.libxtb import check, doubles, load_libxtb, new_molecule
from ampmm.types import Evaluation
from ampmm.units import (
    ANGSTROM_PER_BOHR,
    COULOMB_CONSTANT,
    KJ_PER_MOL_PER_ANGSTROM_PER_ATOMIC_UNIT,
    KJ_PER_MOL_PER_HARTREE,
)


class GFNFFDriver:
    """GFN-FF energy of the QM region plus the Coulomb energy of its fixed charges among the MM charges.

    Bonds, angles and torsions are found once, at the starting structure, and kept: no bond forms or breaks. It satisfies the
    evaluator protocol of ampmm, and refuses to label. One thread; one object per process.

    Args:
        numbers: (N,) atomic numbers.
        positions: (N, 3) Å; the structure in which the bonds are found.
        charges: (N,) e; the classical charges of the QM atoms. Their sum is the net charge.
        bonds: pairs of atom indices that the classical topology holds for bonded. GFN-FF must find the same; bonds between
            two hydrogens, which stand in topologies of rigid water, are not compared. None compares nothing.

    Raises:
        InputError: arrays of the wrong shape, a sum of charges that is no whole number, or GFN-FF finds other bonds.
        LabellingError: libxtb cannot set up the force field.
        BackendError: libxtb is not installed or does not load.
    """

    fixed_charges = True  # what the MM charges cannot polarize

    def __init__(
        self, numbers: ArrayLike, positions: ArrayLike, charges: ArrayLike, bonds: Iterable[tuple[int, int]] | None = None
    ) -> None:
        numbers, positions, _, charges = validated(numbers, positions, positions, charges)
        self._qm_charge = round(float(charges.sum()))
        if abs(charges.sum() - self._qm_charge) > 1e-3:
            raise InputError(
                f"charges: expected a sum that is a whole number of e, got {charges.sum():.4f} e; "
                "give the classical charges of all QM atoms, which must be whole molecules"
            )
        self._numbers, self._charges = numbers, charges
        self._lib = load_libxtb().library
        self._environment = ctypes.c_void_p(self._lib.xtb_newEnvironment())
        self._lib.xtb_setVerbosity(self._environment, 0)
        self._molecule = new_molecule(self._lib, self._environment, numbers, positions / ANGSTROM_PER_BOHR, self._qm_charge)
        self._calculator = ctypes.c_void_p(self._lib.xtb_newCalculator())
        self._results = ctypes.c_void_p(self._lib.xtb_newResults())
        self._check("set up the molecule")
        found = self._load()
        if bonds is not None:
            _compare_bonds(numbers, found, {(min(pair), max(pair)) for pair in bonds})

    def _load(self) -> set[tuple[int, int]]:
        """Set up the force field; the bonds it found."""
        with _empty_folder() as folder:
            # Written to a file, because libxtb reports the set-up whatever its verbosity.
            self._lib.xtb_setOutput(self._environment, str(folder / "report").encode())
            self._lib.xtb_loadGFNFF(self._environment, self._molecule, self._calculator, None)
            self._lib.xtb_releaseOutput(self._environment)
            self._check("set up the force field")
            adjacency = folder / "gfnff_adjacency"
            if not adjacency.is_file():
                raise LabellingError("GFN-FF did not write the bonds it found; use libxtb 6.4 to 6.6")
            return _read_adjacency(adjacency.read_text())

    def evaluate(
        self,
        numbers: ArrayLike,
        positions_qm: ArrayLike,
        positions_mm: ArrayLike,
        charges_mm: ArrayLike,
        box: ArrayLike | None = None,
        qm_charge: int | None = None,
    ) -> Evaluation:
        """Energy, forces and the fixed charges of one frame; arguments as in `Labeller.evaluate`.

        Raises:
            InputError: other atoms or another net charge than at the start, wrong shapes, or a box.
            LabellingError: GFN-FF failed.
        """
        if box is not None:
            raise InputError("box: expected None, because GFN-FF knows no periodic images here; got a box. Use a droplet")
        numbers, positions_qm, positions_mm, charges_mm = validated(numbers, positions_qm, positions_mm, charges_mm)
        if not np.array_equal(numbers, self._numbers) or qm_charge not in (None, self._qm_charge):
            raise InputError(
                f"numbers, qm_charge: expected the atoms and the net charge ({self._qm_charge} e) that GFN-FF was set up "
                f"with, got {len(numbers)} atoms and {qm_charge} e; make another GFNFFDriver"
            )
        energy, forces = self._force_field(positions_qm)
        coulomb, forces_qm, forces_mm = _coulomb(positions_qm, self._charges, positions_mm, charges_mm)
        if not np.isfinite(energy + coulomb) or not np.isfinite(forces).all():
            raise LabellingError("GFN-FF returned numbers that are not finite; check the geometry for overlapping atoms")
        dipole = self._charges @ (positions_qm - positions_qm.mean(axis=0))
        return Evaluation(energy + coulomb, forces + forces_qm, forces_mm, self._charges.copy(), dipole)

    def label(self, *arguments: object, **keywords: object) -> NoReturn:
        """Refused."""
        refuse_to_label()

    def _force_field(self, positions: np.ndarray) -> tuple[float, np.ndarray]:
        """GFN-FF's own energy (kJ/mol) and forces (kJ/mol/Å)."""
        energy, gradient, bohr = np.zeros(1), np.zeros_like(positions), positions / ANGSTROM_PER_BOHR
        self._lib.xtb_updateMolecule(self._environment, self._molecule, doubles(bohr), None)
        self._lib.xtb_singlepoint(self._environment, self._molecule, self._calculator, self._results)
        self._lib.xtb_getEnergy(self._environment, self._results, doubles(energy))
        self._lib.xtb_getGradient(self._environment, self._results, doubles(gradient))
        self._check("return an energy")
        return float(energy[0]) * KJ_PER_MOL_PER_HARTREE, -gradient * KJ_PER_MOL_PER_ANGSTROM_PER_ATOMIC_UNIT

    def _check(self, action: str) -> None:
        check(self._lib, self._environment, "GFN-FF", action)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a GFNFFDriver belongs to its process and cannot be pickled; make another one there")

    def __del__(self) -> None:
        for kind in ("results", "calculator", "molecule", "environment"):
            handle = getattr(self, f"_{kind}", None)
            if handle:
                getattr(self._lib, f"xtb_del{kind.title()}")(ctypes.byref(handle))


def refuse_to_label() -> NoReturn:
    """Raise the `InputError` that says what GFN-FF is for."""
    raise InputError(
        "labeller: gfn-ff drives dynamics (`ampmm sample --driver gfn-ff`) and labels nothing, because libxtb's GFN-FF takes "
        "no external charges: its QM region feels no polarization by the MM charges. Label its frames with gfn2-xtb or pyscf"
    )


@contextmanager
def _empty_folder():
    """Work in an empty temporary folder: libxtb writes gfnff_topo and gfnff_adjacency where it stands, and reads old ones."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="ampmm-gfnff-") as folder:
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)


def _read_adjacency(text: str) -> set[tuple[int, int]]:
    """Bonds from libxtb's gfnff_adjacency: a comment, then the neighbours (from 1) of every atom, one atom a line."""
    bonds = set()
    for atom, line in enumerate(text.splitlines()[1:]):
        for word in line.split():
            bonds.add((min(atom, int(word) - 1), max(atom, int(word) - 1)))
    return bonds


def _compare_bonds(numbers: np.ndarray, found: set[tuple[int, int]], expected: set[tuple[int, int]]) -> None:
    differing = sorted(pair for pair in found ^ expected if tuple(numbers[list(pair)]) != (1, 1))
    if not differing:
        return
    names = [
        "–".join(f"{symbol(int(numbers[atom]))}{atom}" for atom in pair) + (" (too many)" if pair in found else " (missing)")
        for pair in differing
    ]
    raise InputError(
        f"positions: expected a structure in which GFN-FF finds the topology's bonds, got other ones: {', '.join(names[:8])}; "
        "atoms are counted within the QM region. Start from a relaxed structure"
    )


def _coulomb(
    qm: np.ndarray, charges_qm: np.ndarray, mm: np.ndarray, charges_mm: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """Coulomb energy (kJ/mol) between two sets of charges (e), and the forces on both (kJ/mol/Å)."""
    center = qm.mean(axis=0)
    qm, mm = qm - center, mm - center
    squared = (qm**2).sum(1)[:, None] + (mm**2).sum(1)[None] - 2.0 * qm @ mm.T  # (N, M) Å²
    pairs = COULOMB_CONSTANT * charges_qm[:, None] * charges_mm[None] / np.sqrt(squared)  # (N, M)
    push = pairs / squared
    forces_qm = push.sum(1)[:, None] * qm - push @ mm
    forces_mm = push.sum(0)[:, None] * mm - push.T @ qm
    return float(pairs.sum()), forces_qm, forces_mm
