"""What a PythonForce calls: State in, energy and forces out. Both can be pickled, so that a System serialises."""

import io
import threading
from typing import Any

import numpy as np
import openmm
import torch
from openmm import unit

from ampmm.errors import InputError
from ampmm.export import Evaluator, load_scripted, use_simple_executor
from ampmm.units import ANGSTROM_PER_NM


class PotentialComputation:
    """Calls a scripted potential over all particles of the Context.

    Args:
        module: ``forward(positions (n, 3) nm, boxvectors (3, 3) nm or None) -> (energy kJ/mol, forces (n, 3) kJ/mol/nm)``.
        periodic: whether it gets box vectors.
    """

    def __init__(self, module: torch.jit.ScriptModule, periodic: bool) -> None:
        self.module = module
        self.periodic = periodic
        self.one_at_a_time = threading.Lock()  # Contexts of one System share the module and its neighbour lists

    def __call__(self, state: openmm.State) -> tuple[float, np.ndarray]:
        device = next((each.device for each in self.module.buffers()), torch.device("cpu"))
        positions = torch.from_numpy(_in_nm(state.getPositions(asNumpy=True))).to(device)  # (n, 3)
        box = None
        if self.periodic:
            box = torch.from_numpy(_in_nm(state.getPeriodicBoxVectors(asNumpy=True))).to(device)  # (3, 3)
        with self.one_at_a_time, torch.enable_grad():  # also in a script that switched gradients off
            energy, forces = self.module(positions, box)
        return float(energy), forces.double().cpu().numpy()

    def __getstate__(self) -> dict[str, Any]:
        archive = io.BytesIO()
        torch.jit.save(self.module, archive)
        return {"archive": archive.getvalue(), "periodic": self.periodic}

    def __setstate__(self, state: dict[str, Any]) -> None:
        use_simple_executor()
        self.__init__(load_scripted(state["archive"]), state["periodic"])


class EvaluatorComputation:
    """Calls an `Evaluator` on the QM atoms and the MM charges of a droplet.

    Args:
        evaluator: see `Evaluator`; the System serialises if it can be pickled.
        numbers: (N,) atomic numbers of the QM atoms.
        qm_indices, mm_indices: (N,) and (M,) particle indices.
        charges_mm: (M,) e.
        qm_charge: net charge of the QM region, e.
        options: further arguments of `evaluate`.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        numbers: np.ndarray,
        qm_indices: np.ndarray,
        mm_indices: np.ndarray,
        charges_mm: np.ndarray,
        qm_charge: int,
        **options: Any,
    ) -> None:
        self.evaluator = evaluator
        self.numbers = numbers
        self.qm_indices = qm_indices
        self.mm_indices = mm_indices
        self.charges_mm = charges_mm
        self.qm_charge = qm_charge
        self.options = options

    def __call__(self, state: openmm.State) -> tuple[float, np.ndarray]:
        positions = ANGSTROM_PER_NM * _in_nm(state.getPositions(asNumpy=True))
        qm, mm = positions[self.qm_indices], positions[self.mm_indices]
        if not (np.isfinite(qm).all() and np.isfinite(mm).all()):
            raise InputError("positions: a QM atom or MM charge is at NaN or infinity; the simulation has blown up")
        result = self.evaluator.evaluate(self.numbers, qm, mm, self.charges_mm, qm_charge=self.qm_charge, **self.options)
        forces = np.zeros_like(positions)
        forces[self.qm_indices] = result.forces_qm
        forces[self.mm_indices] = result.forces_mm
        return float(result.energy), ANGSTROM_PER_NM * forces


def _in_nm(values: unit.Quantity) -> np.ndarray:
    # The copy keeps torch from holding on to memory that belongs to the State.
    return np.array(values.value_in_unit(unit.nanometer), dtype=np.float64)
