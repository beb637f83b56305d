"""GFN2-xTB in a field of point charges, through libxtb's C interface.

C. Bannwarth, S. Ehlert, S. Grimme, J. Chem. Theory Comput. 2019, 15, 1652.
"""

import ctypes
import os
import re
import tempfile
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any, Final, NamedTuple

import numpy as np

from ampmm.errors import InputError, LabellingError
from ampmm.reference.base import Labeller, settings_from
from ampmm.reference.libxtb import check, doubles, ints, load_libxtb, new_molecule
from ampmm.types import Evaluation
from ampmm.units import ANGSTROM_PER_BOHR, KJ_PER_MOL_PER_ANGSTROM_PER_ATOMIC_UNIT, KJ_PER_MOL_PER_HARTREE

# libxtb reads a point charge's hardness from an element. Radon is in no QM region of ours: its hardness is set instead.
_CHARGE_ELEMENT: Final = 86


def _rotation(angles: tuple[float, float, float]) -> np.ndarray:
    """Turns about x, y and z, one after another; (3, 3)."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


# xtb 6.5's QM gradient is wrong by several kJ/mol/Å where two atoms share a coordinate to 1e-10 Bohr (its issue 986), as
# molecules drawn in a plane or along an axis do. Every calculation is therefore done in this turned frame.
_FRAME: Final = _rotation((0.7, 1.1, 0.4))  # (3, 3), positions in libxtb are positions @ _FRAME


@dataclass(frozen=True)
class XTBSettings:
    """Settings of `XTBLabeller`.

    accuracy: xtb's accuracy factor; thresholds of the self-consistent charges scale with it (1 is xtb's default).
    max_iterations: of the self-consistent charges.
    electronic_temperature: K.
    unpaired: number of unpaired electrons.
    hardness: chemical hardness of the MM charges, Hartree/e². 99 is a point charge to 0.2 kJ/mol; an element's own
        hardness (below 1) smears the charges and shifts the embedding energy of uracil in water by 15 kJ/mol.
    warm_start: begin from the last frame's charges. Saves time in dynamics; labels then depend on the frame before,
        within the accuracy, so labelling leaves it off.
    """

    accuracy: float = 0.1
    max_iterations: int = 250
    electronic_temperature: float = 300.0
    unpaired: int = 0
    hardness: float = 99.0
    warm_start: bool = False

    def __post_init__(self) -> None:
        for name in ("accuracy", "max_iterations", "electronic_temperature", "hardness"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name}: expected a positive number, got {getattr(self, name)!r}")
        if self.unpaired < 0:
            raise InputError(f"unpaired: expected 0 or more electrons, got {self.unpaired!r}")


class _Handles(NamedTuple):
    """What libxtb holds for one molecule (elements and net charge)."""

    molecule: ctypes.c_void_p
    calculator: ctypes.c_void_p
    results: ctypes.c_void_p


class XTBLabeller(Labeller):
    """GFN2-xTB labels. One thread; one object per process.

    Args:
        settings: see `XTBSettings`; its fields may be given as keywords instead.

    Raises:
        BackendError: libxtb is not installed or does not load.
    """

    def __init__(self, settings: XTBSettings | None = None, **fields: Any) -> None:
        self._settings = settings_from(XTBSettings, settings, fields)
        self._xtb = load_libxtb()
        self._environment = ctypes.c_void_p(self._xtb.library.xtb_newEnvironment())
        self._xtb.library.xtb_setVerbosity(self._environment, 0)
        self._key: tuple | None = None
        self._handles: _Handles | None = None

    @property
    def level_of_theory(self) -> str:
        return "GFN2-xTB"

    @property
    def settings(self) -> dict[str, Any]:
        return {"engine": "libxtb", "version": self._xtb.version, **asdict(self._settings)}

    def _label(self, numbers, positions_qm, positions_mm, charges_mm, qm_charge) -> Evaluation:
        warm = self._prepare(numbers, positions_qm, qm_charge)
        try:
            self._singlepoint(positions_qm, positions_mm, charges_mm)
        except LabellingError:
            self._release()
            if not warm:
                raise
            # The old charges may be a bad guess after a jump; one attempt from scratch before giving up.
            self._prepare(numbers, positions_qm, qm_charge)
            self._singlepoint(positions_qm, positions_mm, charges_mm)
        return self._collect(positions_qm, len(charges_mm), qm_charge)

    def _prepare(self, numbers: np.ndarray, positions: np.ndarray, qm_charge: int) -> bool:
        """Molecule, calculator and results for these atoms; True where the results of another frame are reused."""
        lib = self._xtb.library
        key = (numbers.tobytes(), qm_charge)
        if self._handles is not None and key == self._key:
            if self._settings.warm_start:
                return True
            lib.xtb_delResults(ctypes.byref(self._handles.results))
            self._handles = self._handles._replace(results=ctypes.c_void_p(lib.xtb_newResults()))
            return False
        self._release()
        _check_spin(numbers, qm_charge, self._settings.unpaired)
        molecule = new_molecule(lib, self._environment, numbers, _to_bohr(positions), qm_charge, self._settings.unpaired)
        self._check("set up the molecule")
        self._handles = _Handles(molecule, ctypes.c_void_p(lib.xtb_newCalculator()), ctypes.c_void_p(lib.xtb_newResults()))
        self._load_parameters()
        calculator = self._handles.calculator
        lib.xtb_setAccuracy(self._environment, calculator, self._settings.accuracy)
        lib.xtb_setMaxIter(self._environment, calculator, self._settings.max_iterations)
        lib.xtb_setElectronicTemp(self._environment, calculator, self._settings.electronic_temperature)
        self._check("take the settings")
        self._key = key
        return False

    def _load_parameters(self) -> None:
        text = (files("ampmm.reference") / "parameters" / "param_gfn2-xtb.txt").read_text()
        # A file of its own per labeller: parallel workers never read each other's half-written copy.
        descriptor, path = tempfile.mkstemp(prefix="ampmm-gfn2-", suffix=".txt")
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(_with_hardness(text, _CHARGE_ELEMENT, self._settings.hardness))
            self._xtb.library.xtb_loadGFN2xTB(
                self._environment, self._handles.molecule, self._handles.calculator, path.encode()
            )
            self._check("load the GFN2-xTB parameters")
        finally:
            os.unlink(path)

    def _singlepoint(self, positions_qm: np.ndarray, positions_mm: np.ndarray, charges_mm: np.ndarray) -> None:
        lib, (molecule, calculator, results) = self._xtb.library, self._handles
        lib.xtb_updateMolecule(self._environment, molecule, doubles(_to_bohr(positions_qm)), None)
        # libxtb accumulates the gradients on the charges: setting them anew each time starts from zero.
        lib.xtb_releaseExternalCharges(self._environment, calculator)
        if len(charges_mm):
            lib.xtb_setExternalCharges(
                self._environment,
                calculator,
                ctypes.byref(ctypes.c_int(len(charges_mm))),
                ints(np.full(len(charges_mm), _CHARGE_ELEMENT, dtype=np.int32)),
                doubles(charges_mm),
                doubles(_to_bohr(positions_mm)),
            )
        self._check("take the MM charges")
        lib.xtb_singlepoint(self._environment, molecule, calculator, results)
        self._check("converge")

    def _collect(self, positions_qm: np.ndarray, n_mm: int, qm_charge: int) -> Evaluation:
        lib, results, n_qm = self._xtb.library, self._handles.results, len(positions_qm)
        energy, dipole = np.zeros(1), np.zeros(3)
        gradient, charges, gradient_mm = np.zeros((n_qm, 3)), np.zeros(n_qm), np.zeros((n_mm, 3))
        lib.xtb_getEnergy(self._environment, results, doubles(energy))
        lib.xtb_getGradient(self._environment, results, doubles(gradient))
        lib.xtb_getCharges(self._environment, results, doubles(charges))
        lib.xtb_getDipole(self._environment, results, doubles(dipole))
        if n_mm:
            lib.xtb_getPCGradient(self._environment, results, doubles(gradient_mm))
        self._check("return its results")
        if not all(np.isfinite(array).all() for array in (energy, gradient, gradient_mm)):
            raise LabellingError("GFN2-xTB returned numbers that are not finite; check the geometry for overlapping atoms")
        # libxtb's dipole is about the origin; of a charged molecule it depends on that choice.
        centred = _FRAME @ dipole * ANGSTROM_PER_BOHR - qm_charge * positions_qm.mean(axis=0)
        return Evaluation(
            energy=float(energy[0]) * KJ_PER_MOL_PER_HARTREE,
            forces_qm=-gradient @ _FRAME.T * KJ_PER_MOL_PER_ANGSTROM_PER_ATOMIC_UNIT,
            forces_mm=-gradient_mm @ _FRAME.T * KJ_PER_MOL_PER_ANGSTROM_PER_ATOMIC_UNIT,
            charges_qm=charges,
            dipole=centred,
        )

    def _check(self, action: str) -> None:
        check(self._xtb.library, self._environment, "GFN2-xTB", action)

    def _release(self) -> None:
        if self._handles is None:
            return
        lib = self._xtb.library
        lib.xtb_delResults(ctypes.byref(self._handles.results))
        lib.xtb_delCalculator(ctypes.byref(self._handles.calculator))
        lib.xtb_delMolecule(ctypes.byref(self._handles.molecule))
        self._handles, self._key = None, None

    def __reduce__(self):
        # libxtb's objects belong to their process: a copy elsewhere is a new labeller with the same settings.
        return (type(self), (self._settings,))

    def __del__(self) -> None:
        if getattr(self, "_environment", None):
            self._release()
            self._xtb.library.xtb_delEnvironment(ctypes.byref(self._environment))


def _with_hardness(parameters: str, element: int, hardness: float) -> str:
    """The text of a parameter file with GAM of one element replaced."""
    block = re.compile(rf"(^\$Z=\s*{element}\b.*?^\s*GAM=)\s*\S+", re.MULTILINE | re.DOTALL)
    changed, count = block.subn(rf"\g<1>{hardness:12.6f}", parameters, count=1)
    if count != 1:
        raise LabellingError(f"the GFN2-xTB parameter file holds no GAM for element {element}; reinstall ampmm")
    return changed


def _to_bohr(positions: np.ndarray) -> np.ndarray:
    """Å to Bohr, in the turned frame."""
    return np.ascontiguousarray(positions @ _FRAME / ANGSTROM_PER_BOHR)


def _check_spin(numbers: np.ndarray, qm_charge: int, unpaired: int) -> None:
    if (int(numbers.sum()) - qm_charge - unpaired) % 2:
        raise InputError(
            f"qm_charge: {qm_charge} e leaves {int(numbers.sum()) - qm_charge} electrons, which cannot have {unpaired} "
            "unpaired; correct qm_charge, or set `unpaired`"
        )
