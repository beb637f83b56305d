"""The dynamics of one droplet under one driver of its QM region.

The QM region feels every MM charge of the droplet, without a cutoff; the rest is the classical System without its QM
terms. Configurational averages do not depend on masses, so the QM hydrogens may be made heavy to allow 1 fs steps.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import openmm
from openmm import app, unit

from ampmm.data import Record
from ampmm.embedding import EvaluatorComputation, make_evaluator_force, strip_qm_terms
from ampmm.errors import DataFileError, InputError, LabellingError, SimulationStopped
from ampmm.export import Evaluator
from ampmm.interrupt import keeping_interrupts
from ampmm.simulation.config import check_timestep
from ampmm.simulation.droplet import add_droplet_restraints
from ampmm.simulation.minimization import minimize_around
from ampmm.simulation.restraints import Restraint, add_restraints
from ampmm.units import ANGSTROM_PER_NM


@dataclass(frozen=True)
class SamplingSettings:
    """Settings of `sample`.

    temperature: K. time, equilibration: ps. interval, timestep: fs. friction: 1/ps, ten times that while equilibrating.
    minimize: iterations at most, of the MM atoms around the QM region, before equilibration; 0 for none.
    hydrogen_mass: of QM hydrogens, amu. mm_region: molecules with an atom closer than this to a QM atom are stored, Å.
    mm_cutoff: of the classical non-bonded terms, with a reaction field, Å; 0 is none. The driver sees all MM charges, so
        it is for drivers of fixed charges alone: water that does not see all of the other water's field answers a
        polarizable solute too strongly, and each draws the other further (retinoic acid's GFN2-xTB energy fell by
        hundreds of kJ/mol within picoseconds at 10 Å).
    round: of learning; 0 before any model, stored with every frame.
    flush: frames between two writes at most; a kill loses less than that many, and what came within a minute.
    """

    temperature: float = 300.0
    time: float = 10.0
    interval: float = 10.0
    timestep: float = 1.0
    minimize: int = 200
    equilibration: float = 3.0
    friction: float = 1.0
    hydrogen_mass: float = 3.0
    mm_region: float = 14.0
    mm_cutoff: float = 0.0
    seed: int = 1
    trajectory_id: int = 0
    round: int = 0
    flush: int = 50

    def __post_init__(self) -> None:
        for name in ("temperature", "time", "interval", "timestep", "friction", "hydrogen_mass", "mm_region", "flush"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name}: expected a positive number, got {getattr(self, name)!r}")
        check_timestep(self.timestep)
        # OpenMM takes 0 for "choose one yourself", which no second run repeats; above 2³¹−1 it fails without a message.
        if not 1 <= self.seed < 2**31:
            raise InputError(f"seed: expected 1 to {2**31 - 1}, got {self.seed}")
        for name, unit_name in (("equilibration", "ps"), ("mm_cutoff", "Å")):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name}: expected 0 {unit_name} or more, got {getattr(self, name)!r}")
        for name in ("round", "trajectory_id", "minimize"):
            if not 0 <= getattr(self, name) < 2**31:
                raise InputError(f"{name}: expected 0 to {2**31 - 1}, got {getattr(self, name)}")
        steps = self.interval / self.timestep
        if abs(steps - round(steps)) > 1e-6 or round(steps) < 1:
            raise InputError(f"interval: expected a multiple of the time step {self.timestep} fs, got {self.interval} fs")
        if self.n_frames < 1:
            raise InputError(f"time: expected at least one interval of {self.interval} fs, got {self.time} ps")

    @property
    def steps_per_frame(self) -> int:
        """Time steps between two stored frames."""
        return round(self.interval / self.timestep)

    @property
    def n_frames(self) -> int:
        """Frames of the whole trajectory."""
        return int(self.time * 1000.0 / self.interval + 1e-6)


class Droplet(NamedTuple):
    """A classical droplet and its QM region."""

    name: str
    topology: app.Topology
    system: openmm.System  # no periodic boundaries, no cutoff
    positions: np.ndarray  # (n_atoms, 3) nm
    qm_indices: np.ndarray  # (N,) int
    qm_charge: int
    wall_radius: float  # nm
    wall_force_constant: float  # kJ/mol/nm²
    center_force_constant: float  # kJ/mol/nm²
    restraints: tuple[Restraint, ...] = ()
    digest: str = ""  # of the files, see `SystemFiles.digest`


class Sampler:
    """The dynamics of one droplet under one evaluator.

    Args:
        droplet: the classical droplet.
        evaluator: what drives the QM region; None leaves it to the classical force field, without constraints.
        settings: see `SamplingSettings`.
    """

    def __init__(self, droplet: Droplet, evaluator: Evaluator | None, settings: SamplingSettings) -> None:
        self._settings = settings
        stripped = strip_qm_terms(droplet.system, droplet.qm_indices, droplet.topology)
        qm = droplet.qm_indices
        numbers = np.array([atom.element.atomic_number if atom.element else 0 for atom in droplet.topology.atoms()])
        is_mm = np.ones(len(numbers), dtype=bool)
        is_mm[qm] = False
        self._mm = np.flatnonzero(is_mm)
        self._charged = stripped.charges[self._mm] != 0.0  # (n_mm,)
        charged = self._mm[self._charged]
        self._qm, self.numbers, self.charges_mm = qm, numbers[qm], stripped.charges[charged]
        self._computation: EvaluatorComputation | None = None
        if evaluator is None:
            system = copy.deepcopy(droplet.system)
        else:
            system = stripped.system
            self._computation = EvaluatorComputation(evaluator, self.numbers, self.charges_mm, droplet.qm_charge)
            system.addForce(make_evaluator_force(self._computation, qm, charged))
        add_droplet_restraints(
            system,
            droplet.topology,
            qm,
            droplet.wall_radius,
            droplet.wall_force_constant,
            droplet.center_force_constant,
        )
        add_restraints(system, droplet.restraints)
        if settings.mm_cutoff:
            if evaluator is not None and not getattr(evaluator, "fixed_charges", False):
                raise InputError(
                    f"mm_cutoff: expected 0 with a driver that the MM charges polarize, got {settings.mm_cutoff:g} Å; "
                    "only gfn-ff and classical may sample with a cutoff"
                )
            _cut_off(system, settings.mm_cutoff / ANGSTROM_PER_NM)
        for index in qm[self.numbers == 1]:
            system.setParticleMass(int(index), settings.hydrogen_mass)
        self._integrator = openmm.LangevinMiddleIntegrator(settings.temperature, settings.friction, settings.timestep * 0.001)
        self._integrator.setRandomNumberSeed(settings.seed)
        platform = openmm.Platform.getPlatformByName("CPU")
        # The QM step is serial; more threads would take the cores of the other walkers.
        self.context = openmm.Context(system, self._integrator, platform, {"Threads": "1"})
        self.context.setPositions(droplet.positions)
        self._molecule = _molecules(self.context, self._mm)

    def equilibrate(self, report: Callable[[str], None]) -> None:
        """Minimise, then heat and equilibrate; afterwards time and step count are 0."""
        settings = self._settings
        if settings.minimize:
            report(f"minimising (at most {settings.minimize} iterations)")
            if not self._minimized(settings.minimize):
                report("the minimisation met a structure that the driver refuses, and was undone")
                self.context.applyConstraints(self._integrator.getConstraintTolerance())
        self.context.setVelocitiesToTemperature(settings.temperature, settings.seed)
        report(f"equilibrating for {settings.equilibration:g} ps at {settings.temperature:g} K")
        self._integrator.setFriction(10.0 * settings.friction)
        self._guarded(self._integrator.step, round(settings.equilibration * 1000.0 / settings.timestep))
        self._integrator.setFriction(settings.friction)
        self.context.setTime(0.0)
        self.context.setStepCount(0)

    def restore(self, path: Path) -> None:
        """Positions, velocities, time and step count of a `state` in an XML file."""
        try:
            state = openmm.XmlSerializer.deserialize(path.read_text())
        except (openmm.OpenMMException, ValueError) as error:
            raise DataFileError(
                f"{path}: expected the state that the trajectory goes on from, cannot read it ({error}); start another "
                "trajectory, with another --output and --seed; the frames stored so far stay good"
            ) from None
        # The same random numbers again would repeat the start of the trajectory's noise. The seed counts when a context begins;
        # preserveState would bring the old generator back.
        self._integrator.setRandomNumberSeed(1 + (self._settings.seed + state.getStepCount()) % (2**31 - 1))
        self.context.reinitialize()
        self.context.setState(state)

    def state(self) -> openmm.State:
        """What a trajectory goes on from, see `restore`."""
        return self.context.getState(positions=True, velocities=True)

    def step(self, n_steps: int) -> None:
        """Take time steps.

        Raises:
            LabellingError: the driver failed.
            SimulationStopped: the positions turned NaN.
        """
        self._guarded(self._integrator.step, n_steps)

    def go_on_from(self, other: "Sampler") -> None:
        """Take over positions and velocities of another sampler of the same droplet."""
        state = other.state()
        self.context.setPositions(state.getPositions())
        self.context.setVelocities(state.getVelocities())

    def record(self, index: int, time: float, driver: str) -> Record:
        """The present frame, on its way into a file; `time` in ps.

        Raises:
            SimulationStopped: the positions turned NaN.
        """
        positions = self.context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.angstrom)
        if not np.isfinite(positions).all():
            raise SimulationStopped(f"frame {index}: the positions are not finite. The frames before are stored")
        settings = self._settings
        qm, mm = positions[self._qm], positions[self._mm]
        near = molecules_within(qm, mm, self._molecule, settings.mm_region)[self._charged]
        return Record(
            positions_qm=qm,
            positions_mm=mm[self._charged][near],
            charges_mm=self.charges_mm[near],
            time=time,
            temperature=settings.temperature,
            trajectory=settings.trajectory_id,
            source_index=index,
            round=settings.round,
            driver=driver,
        )

    def _minimized(self, iterations: int) -> bool:
        done: list[bool] = []
        computation = self._computation

        def refused() -> bool:
            return computation is not None and isinstance(computation.error, LabellingError | InputError)

        self._guarded(lambda: done.append(minimize_around(self.context, self._qm, iterations, refused)))
        return done[0]

    def _guarded(self, call: Callable[..., None], *arguments: Any) -> None:
        """Call into OpenMM; an error of the evaluator comes back as itself, and so does an interrupt."""
        if self._computation is not None:
            self._computation.error = None
        try:
            with keeping_interrupts():
                call(*arguments)
        except openmm.OpenMMException as error:
            if self._computation is not None and self._computation.error is not None:
                raise self._computation.error from None
            raise SimulationStopped(f"OpenMM stopped the dynamics: {error}. The frames before are stored") from error


def molecules_within(qm: np.ndarray, mm: np.ndarray, molecule: np.ndarray, radius: float) -> np.ndarray:
    """Whether each MM site belongs to a molecule with a site closer than `radius` to a QM atom.

    Args:
        qm: (N, 3) Å. mm: (M, 3) Å. molecule: (M,) the molecule of each MM site. radius: Å.

    Returns:
        (M,) bool.
    """
    distances = np.linalg.norm(mm[:, None, :] - qm[None, :, :], axis=-1).min(axis=1)  # (M,)
    return np.isin(molecule, np.unique(molecule[distances < radius]))


def _cut_off(system: openmm.System, cutoff: float) -> None:
    for force in system.getForces():
        if isinstance(force, openmm.NonbondedForce):
            force.setNonbondedMethod(openmm.NonbondedForce.CutoffNonPeriodic)
            force.setCutoffDistance(cutoff)  # nm


def _molecules(context: openmm.Context, atoms: np.ndarray) -> np.ndarray:
    molecule = np.empty(context.getSystem().getNumParticles(), dtype=np.int64)
    for number, members in enumerate(context.getMolecules()):
        molecule[list(members)] = number
    return molecule[atoms]
