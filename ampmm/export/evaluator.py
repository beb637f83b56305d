"""What evaluates a frame: the protocol that models, labellers and users' own objects share."""

from typing import Protocol

import numpy as np

from ampmm.types import Evaluation


class Evaluator(Protocol):
    """Anything that evaluates one QM frame among MM charges: a labeller, a loaded model, a user's own object."""

    def evaluate(
        self,
        numbers: np.ndarray,
        positions_qm: np.ndarray,
        positions_mm: np.ndarray,
        charges_mm: np.ndarray,
        box: np.ndarray | None = None,
        qm_charge: int | None = None,
    ) -> Evaluation:
        """Positions in Å, charges in e; energy in kJ/mol, forces in kJ/mol/Å."""
        ...
