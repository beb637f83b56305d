"""The abstract labeller: one frame of QM atoms among MM point charges in, energy, forces and charges out."""

from abc import ABC, abstractmethod
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from ampmm.elements import symbol
from ampmm.errors import InputError
from ampmm.types import Evaluation

Settings = TypeVar("Settings")


class Labeller(ABC):
    """A reference method with electrostatic embedding.

    Subclasses implement `_label` on validated arrays. A labeller satisfies the evaluator protocol of ampmm, so whatever
    takes a trained model (dynamics, evaluation) takes a labeller too.
    """

    @property
    @abstractmethod
    def level_of_theory(self) -> str:
        """The name that travels with the data, e.g. ``"GFN2-xTB"``."""

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Every setting and version that a label depends on; JSON-serialisable."""

    @abstractmethod
    def _label(
        self,
        numbers: np.ndarray,
        positions_qm: np.ndarray,
        positions_mm: np.ndarray,
        charges_mm: np.ndarray,
        qm_charge: int,
    ) -> Evaluation:
        """`label` on arrays that have been checked."""

    def label(
        self,
        numbers: ArrayLike,
        positions_qm: ArrayLike,
        positions_mm: ArrayLike,
        charges_mm: ArrayLike,
        qm_charge: int = 0,
    ) -> Evaluation:
        """Energy, forces, charges and dipole of one frame.

        Args:
            numbers: (N,) atomic numbers of the QM atoms.
            positions_qm: (N, 3) Å.
            positions_mm: (M, 3) Å; M may be 0.
            charges_mm: (M,) e.
            qm_charge: net charge of the QM region, e.

        Returns:
            Energy (kJ/mol; QM energy plus its interaction with the charges, without the charges among themselves),
            forces on QM atoms and MM charges (kJ/mol/Å), atomic charges (e), dipole (e·Å, about the mean position).

        Raises:
            InputError: arrays of the wrong shape, not finite, or an unknown element.
            LabellingError: the calculation failed or did not converge.
        """
        numbers, positions_qm, positions_mm, charges_mm = validated(numbers, positions_qm, positions_mm, charges_mm)
        if int(qm_charge) != qm_charge:
            raise InputError(f"qm_charge: expected a whole number of e, got {qm_charge!r}")
        return self._label(numbers, positions_qm, positions_mm, charges_mm, int(qm_charge))

    def evaluate(
        self,
        numbers: ArrayLike,
        positions_qm: ArrayLike,
        positions_mm: ArrayLike,
        charges_mm: ArrayLike,
        box: ArrayLike | None = None,
        qm_charge: int | None = None,
    ) -> Evaluation:
        """`label` under the evaluator protocol; `qm_charge=None` means neutral, and a box is refused."""
        if box is not None:
            raise InputError(
                "box: expected None, because a reference calculation knows no periodic images; got a box. "
                "Use a droplet, or pass the charges around the QM region in its nearest image"
            )
        return self.label(numbers, positions_qm, positions_mm, charges_mm, 0 if qm_charge is None else qm_charge)


def settings_from(kind: type[Settings], settings: Settings | None, fields: dict[str, Any]) -> Settings:
    """An engine's settings, given whole or as keywords.

    Raises:
        InputError: both were given, or a keyword is not a field, or not of its type.
    """
    if settings is not None:
        if fields:
            raise InputError(f"settings: expected {kind.__name__} or keywords, got both ({', '.join(sorted(fields))})")
        return settings
    unknown = sorted(set(fields) - set(kind.__dataclass_fields__))
    if unknown:
        known = ", ".join(kind.__dataclass_fields__)
        raise InputError(f"{kind.__name__}: expected settings among {known}, got {', '.join(unknown)}")
    for name, value in fields.items():
        expected = kind.__dataclass_fields__[name].type
        fits = isinstance(value, (int, float) if expected is float else expected)
        if not fits or (isinstance(value, bool) and expected is not bool):
            raise InputError(f"{kind.__name__}: expected {name} as {expected.__name__}, got {value!r}")
    return kind(**fields)


def validated(
    numbers: ArrayLike, positions_qm: ArrayLike, positions_mm: ArrayLike, charges_mm: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The arrays of one frame, float64 and contiguous, after their shapes and values were checked.

    Raises:
        InputError: a wrong shape, a number that is not finite, an unknown element.
    """
    numbers = np.asarray(numbers)
    if numbers.ndim != 1 or numbers.size == 0 or not np.issubdtype(numbers.dtype, np.integer):
        raise InputError(
            f"numbers: expected (N,) integers, N ≥ 1, got shape {numbers.shape} of {numbers.dtype}; "
            "pass the atomic numbers of the QM atoms"
        )
    for number in np.unique(numbers):
        symbol(int(number))
    positions_qm = _float_array("positions_qm", positions_qm, (len(numbers), 3), "Å")
    charges_mm = np.asarray(charges_mm, dtype=np.float64)
    if charges_mm.ndim != 1:
        raise InputError(f"charges_mm: expected shape (M,), got {charges_mm.shape}; pass one charge (e) per MM site")
    charges_mm = _float_array("charges_mm", charges_mm, charges_mm.shape, "e")
    positions_mm = np.asarray(positions_mm, dtype=np.float64)
    if len(charges_mm) == 0 and positions_mm.size == 0:
        positions_mm = positions_mm.reshape(0, 3)
    positions_mm = _float_array("positions_mm", positions_mm, (len(charges_mm), 3), "Å")
    return numbers.astype(np.int64), positions_qm, positions_mm, charges_mm


def _float_array(name: str, value: ArrayLike, shape: tuple[int, ...], unit: str) -> np.ndarray:
    array = np.ascontiguousarray(value, dtype=np.float64)
    if array.shape != shape:
        raise InputError(f"{name}: expected shape {shape} in {unit}, got {array.shape}; check that the arrays belong together")
    if not np.isfinite(array).all():
        where = np.argwhere(~np.isfinite(array))[0]
        raise InputError(
            f"{name}: expected finite numbers in {unit}, got {array[tuple(where)]} at index {tuple(map(int, where))}"
        )
    return array
