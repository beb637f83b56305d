"""Density-functional theory in a field of point charges, by PySCF (Q. Sun et al., J. Chem. Phys. 2020, 153, 024109)."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ampmm.elements import symbols
from ampmm.errors import BackendError, InputError, LabellingError
from ampmm.reference.base import Labeller, settings_from
from ampmm.reference.core_potentials import core_potentials, holds_core
from ampmm.types import Evaluation
from ampmm.units import ANGSTROM_PER_BOHR, KJ_PER_MOL_PER_ANGSTROM_PER_ATOMIC_UNIT, KJ_PER_MOL_PER_HARTREE

_MM_SITES_PER_BLOCK = 64  # (3, block, n_ao, n_ao) integrals at a time


@dataclass(frozen=True)
class PySCFSettings:
    """Settings of `PySCFLabeller`.

    xc, basis: names as PySCF knows them; "hf" is Hartree–Fock. Core electrons that are not in the basis (of S in lanl2dz,
        of I in def2-svp) are in its effective core potential.
    grid_level: 0 to 9. At 2 the gradients of uracil have lost nothing yet.
    convergence: of the energy, Hartree.
    max_cycles: of the self-consistent field.
    density_fit: Coulomb and exchange by density fitting, with the basis' default auxiliary basis.
    grid_response: the integration grid's own derivative in the QM forces; finite differences need it, labels do not.
    unpaired: number of unpaired electrons; unrestricted when there are any.
    """

    xc: str = "b3lyp"
    basis: str = "def2-svp"
    grid_level: int = 2
    convergence: float = 1e-8
    max_cycles: int = 100
    density_fit: bool = True
    grid_response: bool = False
    unpaired: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.grid_level <= 9:
            raise InputError(f"grid_level: expected 0 to 9, got {self.grid_level!r}")
        if not self.convergence > 0 or not self.max_cycles > 0:
            raise InputError(
                f"convergence, max_cycles: expected positive numbers, got {self.convergence!r} and {self.max_cycles!r}"
            )


class PySCFLabeller(Labeller):
    """DFT labels, one thread. Atomic charges are Mulliken's.

    Args:
        settings: see `PySCFSettings`; its fields may be given as keywords instead.

    Raises:
        BackendError: PySCF is not installed.
    """

    def __init__(self, settings: PySCFSettings | None = None, **fields: Any) -> None:
        self._settings = settings_from(PySCFSettings, settings, fields)
        try:
            import pyscf
        except ImportError as error:
            raise BackendError(f"PySCF does not load: {error}. Install it with `pip install '.[pyscf]'`") from error
        # Parallelism is over frames, in processes.
        pyscf.lib.num_threads(1)
        self._version = pyscf.__version__
        _check_functional(self._settings.xc)

    @property
    def level_of_theory(self) -> str:
        return f"{self._settings.xc}/{self._settings.basis}"

    @property
    def settings(self) -> dict[str, Any]:
        return {"engine": "pyscf", "version": self._version, **asdict(self._settings), "core_potentials": "of the basis"}

    def _label(self, numbers, positions_qm, positions_mm, charges_mm, qm_charge) -> Evaluation:
        molecule = self._molecule(numbers, positions_qm, qm_charge)
        try:
            return self._solved(molecule, positions_qm, positions_mm, charges_mm)
        except (LabellingError, InputError, BackendError):
            raise
        except (ArithmeticError, ValueError, RuntimeError, np.linalg.LinAlgError) as error:  # of this frame's numbers
            raise LabellingError(
                f"{self.level_of_theory} failed ({type(error).__name__}: {error}); check the geometry"
            ) from error

    def _solved(self, molecule, positions_qm: np.ndarray, positions_mm: np.ndarray, charges_mm: np.ndarray) -> Evaluation:
        field = self._field(molecule, positions_mm, charges_mm)
        energy = field.kernel()
        if not field.converged:
            raise LabellingError(
                f"{self.level_of_theory} did not converge in {self._settings.max_cycles} cycles; "
                "raise max_cycles, or check the geometry"
            )
        density = np.asarray(field.make_rdm1())
        density = density.sum(axis=0) if density.ndim == 3 else density  # (n_ao, n_ao)
        gradient = field.nuc_grad_method()
        gradient.verbose = 0
        if self._settings.xc.lower() != "hf":
            gradient.grid_response = self._settings.grid_response
        gradient_qm = gradient.kernel()
        gradient_mm = mm_gradient(molecule, density, positions_mm / ANGSTROM_PER_BOHR, charges_mm)
        center = positions_qm.mean(axis=0) / ANGSTROM_PER_BOHR
        return Evaluation(
            energy=float(energy) * KJ_PER_MOL_PER_HARTREE,
            forces_qm=-np.asarray(gradient_qm) * KJ_PER_MOL_PER_ANGSTROM_PER_ATOMIC_UNIT,
            forces_mm=-gradient_mm * KJ_PER_MOL_PER_ANGSTROM_PER_ATOMIC_UNIT,
            charges_qm=_mulliken_charges(molecule, density),
            dipole=_dipole(molecule, density, center) * ANGSTROM_PER_BOHR,
        )

    def _molecule(self, numbers: np.ndarray, positions: np.ndarray, qm_charge: int):
        from pyscf import gto

        bohr, elements = positions / ANGSTROM_PER_BOHR, symbols(numbers)
        potentials = core_potentials(self._settings.basis, elements)
        try:
            molecule = gto.M(
                atom=list(zip(elements, bohr, strict=True)),
                unit="Bohr",  # converted here, so that QM and MM share one constant
                basis=self._settings.basis,
                ecp=potentials,
                charge=qm_charge,
                spin=self._settings.unpaired,
                verbose=0,
            )
        except (KeyError, RuntimeError, ValueError) as error:
            raise InputError(
                f"PySCF: expected a known basis and a charge that fits {self._settings.unpaired} unpaired electrons, "
                f"got basis {self._settings.basis!r} and qm_charge {qm_charge}: {error}"
            ) from error
        _check_core(self._settings.basis, set(elements) - set(potentials))
        return molecule

    def _field(self, molecule, positions_mm: np.ndarray, charges_mm: np.ndarray):
        """The self-consistent field object in the field of the charges."""
        from pyscf import dft, qmmm, scf

        settings = self._settings
        if settings.xc.lower() == "hf":
            field = (scf.UHF if settings.unpaired else scf.RHF)(molecule)
        else:
            field = (dft.UKS if settings.unpaired else dft.RKS)(molecule)
            field.xc = settings.xc
            field.grids.level = settings.grid_level
        field = field.density_fit() if settings.density_fit else field
        if len(charges_mm):
            field = qmmm.mm_charge(field, positions_mm / ANGSTROM_PER_BOHR, charges_mm, unit="Bohr")
        field.conv_tol, field.max_cycle, field.verbose = settings.convergence, settings.max_cycles, 0
        return field


def mm_gradient(molecule, density: np.ndarray, positions_mm: np.ndarray, charges_mm: np.ndarray) -> np.ndarray:
    """The energy's gradient with respect to the MM positions: charge times gradient of the molecule's potential.

    ∇_R ∫ρ(r)/|r−R| dr equals ∫∇ρ(r)/|r−R| dr, so one integral with the derivative on the basis functions serves.

    Args:
        molecule: a PySCF molecule. density: (n_ao, n_ao). positions_mm: (M, 3) Bohr. charges_mm: (M,) e.

    Returns:
        (M, 3) Hartree/Bohr.
    """
    nuclei, nuclear_charges = molecule.atom_coords(), molecule.atom_charges()
    gradient = np.empty_like(positions_mm)  # (M, 3)
    for start in range(0, len(charges_mm), _MM_SITES_PER_BLOCK):
        block = slice(start, start + _MM_SITES_PER_BLOCK)
        sites = np.ascontiguousarray(positions_mm[block])
        integrals = molecule.intor("int1e_grids_ip", grids=sites)  # (3, block, n_ao, n_ao)
        electrons = -2.0 * np.einsum("xgij,ij->gx", integrals, density)
        away = sites[:, None] - nuclei[None]  # (block, N, 3)
        distances = np.linalg.norm(away, axis=-1)
        nuclear = -np.einsum("a,gax,ga->gx", nuclear_charges, away, distances**-3)
        gradient[block] = charges_mm[block, None] * (electrons + nuclear)
    return gradient


def _check_core(basis: str, all_electron: set[str]) -> None:
    lacking = sorted(each for each in all_electron if not holds_core(basis, each))
    if lacking:
        raise InputError(
            f"basis: expected one that holds the core electrons of {', '.join(lacking)}, or whose effective core potential "
            f"PySCF has under the same name, got {basis!r}; take another, such as def2-svp or lanl2dz"
        )


def _check_functional(xc: str) -> None:
    from pyscf.dft import libxc

    try:
        libxc.parse_xc(xc)
    except (KeyError, ValueError) as error:
        raise InputError(f"xc: expected a functional PySCF knows (b3lyp, pbe0, …) or hf, got {xc!r} ({error})") from error


def _mulliken_charges(molecule, density: np.ndarray) -> np.ndarray:
    populations = np.einsum("ij,ji->i", density, molecule.intor("int1e_ovlp"))
    owners = np.array([label[0] for label in molecule.ao_labels(fmt=None)])
    return molecule.atom_charges() - np.bincount(owners, weights=populations, minlength=molecule.natm)


def _dipole(molecule, density: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """(3,) e·Bohr, about `origin` (Bohr)."""
    with molecule.with_common_origin(origin):
        electrons = np.einsum("xij,ji->x", molecule.intor("int1e_r"), density)
    return molecule.atom_charges() @ (molecule.atom_coords() - origin) - electrons
