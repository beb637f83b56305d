"""What a PythonForce calls: State in, energy and forces out. Both can be pickled, so that a System serialises."""

import io
import threading
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
import openmm
import torch
from openmm import unit

from ampmm.errors import SimulationStopped
from ampmm.export import Evaluator, capture, load_scripted, use_simple_executor
from ampmm.units import ANGSTROM_PER_NM

BLOWN_UP: Final = (
    "positions: a QM atom or MM charge is at NaN or infinity; the simulation has blown up, try a shorter time step"
)


class PotentialComputation:
    """Calls a scripted potential over all particles of the Context.

    Args:
        module: ``forward(positions (n, 3) nm, boxvectors (3, 3) nm or None) -> (energy kJ/mol, forces (n, 3) kJ/mol/nm)``.
        periodic: whether it gets box vectors.
    """

    def __init__(self, module: torch.jit.ScriptModule, periodic: bool) -> None:
        self.module = module
        self.periodic = periodic
        # Contexts of one System share the module and its neighbour lists, which are buffers: to look for the device at a call,
        # while another thread's call exchanges them, would read freed memory.
        self.one_at_a_time = threading.Lock()
        self.device = next((each.device for each in module.buffers()), torch.device("cpu"))

    def __call__(self, state: openmm.State) -> tuple[float, np.ndarray]:
        positions = torch.from_numpy(_in_nm(state.getPositions(asNumpy=True))).to(self.device)  # (n, 3)
        box = None
        if self.periodic:
            box = torch.from_numpy(_in_nm(state.getPeriodicBoxVectors(asNumpy=True))).to(self.device)  # (3, 3)
        with self.one_at_a_time, torch.enable_grad():  # also in a script that switched gradients off
            return self.evaluate(positions, box)

    def evaluate(self, positions: torch.Tensor, box: torch.Tensor | None) -> tuple[float, np.ndarray]:
        """Positions (n, 3) and box (3, 3) in nm, on the module's device, to energy and forces."""
        energy, forces = self.module(positions, box)
        return float(energy), forces.double().cpu().numpy()

    def __getstate__(self) -> dict[str, Any]:
        archive = io.BytesIO()
        torch.jit.save(self.module, archive)
        return {"archive": archive.getvalue(), "periodic": self.periodic}

    def __setstate__(self, state: dict[str, Any]) -> None:
        use_simple_executor()
        self.__init__(load_scripted(state["archive"]), state["periodic"])


class GraphComputation(PotentialComputation):
    """The same by a CUDA graph.

    Args:
        module: a scripted `FixedShapePotential` on a GPU.
        periodic: whether it gets box vectors.
    """

    def __init__(self, module: torch.jit.ScriptModule, periodic: bool) -> None:
        super().__init__(module, periodic)
        self.captured: Captured | None = None

    def evaluate(self, positions: torch.Tensor, box: torch.Tensor | None) -> tuple[float, np.ndarray]:
        """As `PotentialComputation`. Where the arrays have become too short they are made anew, and the graph with them."""
        if self.captured is not None:
            result = self._replayed(self.captured, positions, box)
            if np.isfinite(result[0]):
                return result
        for name in ("n_edges", "n_pairs", "n_polarization"):
            setattr(self.module, name, 0)  # the next call finds it; an archive, or a call that failed, may have left other ones
        inputs = positions.clone(), None if box is None else box.clone()
        self.captured = Captured(*inputs, *capture(lambda: self.module(*inputs), positions.device))
        result = self._replayed(self.captured, positions, box)
        if np.isfinite(result[0]):
            return result
        self.captured = None
        raise SimulationStopped(self._reason(positions, box))

    def _reason(self, positions: torch.Tensor, box: torch.Tensor | None) -> str:
        """Why energy or forces are NaN where the arrays suffice."""
        if not bool(torch.isfinite(positions.index_select(0, self.module.indices)).all()):
            return BLOWN_UP
        if box is not None and not float(10.0 * torch.diagonal(box).min()) >= self.module.narrowest:
            return "box: a cutoff of the model is now over half the box; use a larger box or a smaller cutoff"
        return "positions: the model's energy is not finite here; are two atoms, or an atom and an MM charge, at one place?"

    def _replayed(self, captured: "Captured", positions: torch.Tensor, box: torch.Tensor | None) -> tuple[float, np.ndarray]:
        captured.positions.copy_(positions)
        if box is not None and captured.box is not None:
            captured.box.copy_(box)
        captured.replay()
        energy, forces = captured.result
        return float(energy), forces.double().cpu().numpy()


class Captured(NamedTuple):
    """A captured call of a potential: the tensors it reads, what calls it, the energy and forces it writes."""

    positions: torch.Tensor  # (n, 3)
    box: torch.Tensor | None  # (3, 3)
    replay: Callable[[], None]
    result: tuple[torch.Tensor, torch.Tensor]


class EvaluatorComputation:
    """Calls an `Evaluator` on the particles of its force: the QM atoms, then the MM charges of a droplet.

    Args:
        evaluator: see `Evaluator`; the System serialises if it can be pickled.
        numbers: (N,) atomic numbers of the QM atoms.
        charges_mm: (M,) e.
        qm_charge: net charge of the QM region, e.
        options: further arguments of `evaluate`.
    """

    def __init__(
        self, evaluator: Evaluator, numbers: np.ndarray, charges_mm: np.ndarray, qm_charge: int, **options: Any
    ) -> None:
        self.evaluator = evaluator
        self.numbers = numbers
        self.charges_mm = charges_mm
        self.qm_charge = qm_charge
        self.options = options
        self.error: BaseException | None = None  # OpenMM passes on an exception's text, but not its type

    def __call__(self, state: openmm.State) -> tuple[float, np.ndarray]:
        try:
            return self._evaluate(ANGSTROM_PER_NM * _in_nm(state.getPositions(asNumpy=True)))
        except BaseException as error:  # Ctrl-C, too
            self.error = error
            raise

    def _evaluate(self, positions: np.ndarray) -> tuple[float, np.ndarray]:
        if not np.isfinite(positions).all():
            raise SimulationStopped(BLOWN_UP)
        qm, mm = np.split(positions, [len(self.numbers)])
        result = self.evaluator.evaluate(self.numbers, qm, mm, self.charges_mm, qm_charge=self.qm_charge, **self.options)
        return float(result.energy), ANGSTROM_PER_NM * np.concatenate([result.forces_qm, result.forces_mm])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "error": None}  # a traceback cannot be pickled


def make_evaluator_force(
    computation: EvaluatorComputation, qm_indices: np.ndarray, mm_indices: np.ndarray
) -> openmm.PythonForce:
    """The computation as a force on the particles (N,) and (M,)."""
    force = openmm.PythonForce(computation)
    force.setParticles([*map(int, qm_indices), *map(int, mm_indices)])
    return force


def _in_nm(values: unit.Quantity) -> np.ndarray:
    # The copy keeps torch from holding on to memory that belongs to the State.
    return np.array(values.value_in_unit(unit.nanometer), dtype=np.float64)
