"""How far predictions are from their labels."""

from typing import Any, NamedTuple

import numpy as np

from ampmm.evaluation.predict import Predictions


class ErrorSummary(NamedTuple):
    """Errors of one quantity."""

    mae: float
    rmse: float
    max: float  # largest absolute error


class Errors(NamedTuple):
    """Errors over some frames; of forces, over Cartesian components. A quantity without values (no MM charges) is None."""

    energy: ErrorSummary  # kJ/mol
    forces_qm: ErrorSummary  # kJ/mol/Å
    forces_mm: ErrorSummary | None  # kJ/mol/Å

    def to_dict(self) -> dict[str, Any]:
        """As a card stores them: {quantity: {"mae", "rmse", "max"}}."""
        return {name: summary._asdict() for name, summary in self._asdict().items() if summary is not None}


def errors_of(predictions: Predictions) -> Errors:
    """MAE, RMSE and maximum of energy, QM forces and MM forces."""
    return Errors(
        *(
            _summary(getattr(predictions, name) - getattr(predictions, f"{name}_reference"))
            for name in ("energy", "forces_qm", "forces_mm")
        )
    )


def _summary(differences: np.ndarray) -> ErrorSummary | None:
    if differences.size == 0:
        return None
    absolute = np.abs(differences.astype(np.float64))
    return ErrorSummary(float(absolute.mean()), float(np.sqrt(np.square(absolute).mean())), float(absolute.max()))
