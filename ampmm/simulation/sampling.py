"""QM/MM dynamics of a droplet, driven by a labeller or a model, whose frames become a data set.

The QM region feels every MM charge of the droplet, without a cutoff; the rest is the classical System without its QM
terms. Configurational averages do not depend on masses, so the QM hydrogens may be made heavy to allow 1 fs steps.
"""

import copy
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import openmm
from openmm import app, unit

from ampmm.data import FrameWriter, Header, Record, read_frames
from ampmm.embedding import strip_qm_terms
from ampmm.errors import DataFileError, InputError, LabellingError, SimulationStopped
from ampmm.simulation.droplet import add_droplet_restraints
from ampmm.simulation.minimization import minimize_around
from ampmm.types import Evaluation
from ampmm.units import ANGSTROM_PER_NM


class Evaluator(Protocol):
    """A labeller or a loaded model."""

    def evaluate(self, numbers, positions_qm, positions_mm, charges_mm, box=None, qm_charge=None) -> Evaluation:
        """Energy and forces of one frame."""
        ...


@dataclass(frozen=True)
class SamplingSettings:
    """Settings of `sample`.

    temperature: K. time, equilibration: ps. interval, timestep: fs. friction: 1/ps, ten times that while equilibrating.
    hydrogen_mass: of QM hydrogens, amu. mm_region: molecules with an atom closer than this to a QM atom are stored, Å.
    mm_cutoff: of the classical non-bonded terms, with a reaction field, Å; 0 is none. The driver sees all MM charges.
    flush: frames between two writes, so that a kill loses less than that many.
    """

    temperature: float = 300.0
    time: float = 10.0
    interval: float = 10.0
    timestep: float = 1.0
    equilibration: float = 3.0
    friction: float = 1.0
    hydrogen_mass: float = 3.0
    mm_region: float = 14.0
    mm_cutoff: float = 0.0
    seed: int = 1
    trajectory_id: int = 0
    flush: int = 50

    def __post_init__(self) -> None:
        for name in ("temperature", "time", "interval", "timestep", "friction", "hydrogen_mass", "mm_region", "flush"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name}: expected a positive number, got {getattr(self, name)!r}")
        # OpenMM takes 0 for "choose one yourself", which no second run repeats; above 2³¹−1 it fails without a message.
        if not 1 <= self.seed < 2**31:
            raise InputError(f"seed: expected 1 to {2**31 - 1}, got {self.seed}")
        for name, unit_name in (("equilibration", "ps"), ("mm_cutoff", "Å")):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name}: expected 0 {unit_name} or more, got {getattr(self, name)!r}")
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


class EvaluatorForce:
    """The function that OpenMM's PythonForce calls: QM energy, forces on QM atoms and MM charges."""

    def __init__(self, evaluator: Evaluator, numbers: np.ndarray, charges_mm: np.ndarray, qm_charge: int) -> None:
        self._evaluator, self._numbers, self._charges, self._qm_charge = evaluator, numbers, charges_mm, qm_charge
        self.error: BaseException | None = None  # OpenMM passes on an exception's text, but not its type

    def __call__(self, state: openmm.State) -> tuple[float, np.ndarray]:
        """Energy (kJ/mol) and forces (kJ/mol/nm) of the QM atoms followed by the MM charges."""
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer) * ANGSTROM_PER_NM
        n_qm = len(self._numbers)
        try:
            if not np.isfinite(positions).all():
                raise SimulationStopped("positions turned NaN; the frames before are stored. Use a shorter --timestep")
            result = self._evaluator.evaluate(
                self._numbers, positions[:n_qm], positions[n_qm:], self._charges, None, self._qm_charge
            )
        except BaseException as error:  # Ctrl-C, too
            self.error = error
            raise
        return result.energy, np.concatenate([result.forces_qm, result.forces_mm]) * ANGSTROM_PER_NM


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
        self._force: EvaluatorForce | None = None
        if evaluator is None:
            system = copy.deepcopy(droplet.system)
        else:
            system = stripped.system
            self._force = EvaluatorForce(evaluator, self.numbers, self.charges_mm, droplet.qm_charge)
            force = openmm.PythonForce(self._force)
            force.setParticles([*qm.tolist(), *charged.tolist()])
            system.addForce(force)
        add_droplet_restraints(
            system,
            droplet.topology,
            qm,
            droplet.wall_radius,
            droplet.wall_force_constant,
            droplet.center_force_constant,
        )
        if settings.mm_cutoff:
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
        report("minimising")
        self._guarded(minimize_around, self.context, self._qm, 200)
        self.context.setVelocitiesToTemperature(settings.temperature, settings.seed)
        report(f"equilibrating for {settings.equilibration:g} ps at {settings.temperature:g} K")
        self._integrator.setFriction(10.0 * settings.friction)
        self._guarded(self._integrator.step, round(settings.equilibration * 1000.0 / settings.timestep))
        self._integrator.setFriction(settings.friction)
        self.context.setTime(0.0)
        self.context.setStepCount(0)

    def restore(self, path: Path) -> None:
        """Positions, velocities, time and step count of a state that `save` wrote."""
        state = openmm.XmlSerializer.deserialize(path.read_text())
        self.context.setState(state)
        # The same random numbers again would repeat the start of the trajectory's noise.
        seed = 1 + (self._settings.seed + self.context.getStepCount()) % (2**31 - 1)
        self._integrator.setRandomNumberSeed(seed)
        self.context.reinitialize(preserveState=True)

    def save(self, path: Path) -> None:
        """Write the state, replacing the last one in one step."""
        state = self.context.getState(positions=True, velocities=True)
        draft = path.with_name(f".{path.name}.new")
        draft.write_text(openmm.XmlSerializer.serialize(state))
        os.replace(draft, path)

    def frames(self) -> Iterator[Record]:
        """Step from the present state to the end of the trajectory, one record an interval."""
        settings = self._settings
        done = self.context.getStepCount() // settings.steps_per_frame
        for index in range(done, settings.n_frames):
            self._guarded(self._integrator.step, settings.steps_per_frame)
            positions = self.context.getState(positions=True).getPositions(asNumpy=True)
            yield self._record(positions.value_in_unit(unit.angstrom), index)

    def _guarded(self, call: Callable[..., None], *arguments: Any) -> None:
        """Call into OpenMM; an error of the evaluator comes back as itself."""
        try:
            call(*arguments)
        except openmm.OpenMMException as error:
            if self._force is not None and self._force.error is not None:
                raise self._force.error from None
            raise SimulationStopped(f"OpenMM stopped the dynamics: {error}. The frames before are stored") from error

    def _record(self, positions: np.ndarray, index: int) -> Record:
        settings = self._settings
        qm, mm = positions[self._qm], positions[self._mm]
        near = molecules_within(qm, mm, self._molecule, settings.mm_region)[self._charged]
        return Record(
            positions_qm=qm,
            positions_mm=mm[self._charged][near],
            charges_mm=self.charges_mm[near],
            time=(index + 1) * settings.interval * 0.001,
            temperature=settings.temperature,
            trajectory=settings.trajectory_id,
            source_index=index,
        )


def sample(
    droplet: Droplet,
    evaluator: Evaluator | None,
    settings: SamplingSettings,
    path: str | Path,
    *,
    driver: str,
    command: str = "",
    resume: bool = False,
    report: Callable[[str], None] = print,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Run the dynamics and store its frames.

    Args:
        droplet: the classical droplet, see `load_droplet`.
        evaluator: what drives the QM region; None is the classical force field.
        settings: see `SamplingSettings`.
        path: the HDF5 file; refused when it exists, unless `resume`.
        driver: the evaluator's name, for the file's header.
        command: what the user typed, for the file's header.
        resume: continue from the last state saved beside the file (`path` + ".state.xml").
        report: told in words what goes on.
        progress: told (frames stored, frames wanted).

    Returns:
        The number of frames in the file.

    Raises:
        DataFileError: the file exists, or is another system's.
        SimulationStopped: positions turned NaN; all frames before that are stored.
        LabellingError: the driver failed; all frames before that are stored.
    """
    path = Path(path)
    state_file = path.with_name(path.name + ".state.xml")
    header = _header(droplet, settings, driver, command)
    resume = resume and path.exists()
    if path.exists() and not resume:
        raise DataFileError(f"{path} exists and is not overwritten; choose another name, or resume it")
    sampler = Sampler(droplet, evaluator, settings)
    if resume:
        _check_resumable(path, settings, driver, state_file)
        sampler.restore(state_file)
        report("continuing from the saved state")
    else:
        # The file comes after the equilibration: a run stopped before that leaves nothing in its successor's way.
        sampler.equilibrate(report)
        sampler.save(state_file)
    with FrameWriter(path, header, sampler.numbers, append=resume) as writer:
        progress(writer.n_frames, settings.n_frames)
        pending: list[Record] = []
        try:
            for record in sampler.frames():
                # After a kill between writing frames and saving the state, the first frames are there already.
                if record.source_index >= writer.n_frames + len(pending):
                    pending.append(record)
                if len(pending) >= settings.flush:
                    writer.append(*pending)
                    pending = []
                    sampler.save(state_file)
                    progress(writer.n_frames, settings.n_frames)
        except (LabellingError, SimulationStopped, KeyboardInterrupt):
            writer.append(*pending)
            raise
        writer.append(*pending)
        sampler.save(state_file)
        progress(writer.n_frames, settings.n_frames)
        return writer.n_frames


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


def _header(droplet: Droplet, settings: SamplingSettings, driver: str, command: str) -> Header:
    sampling: dict[str, Any] = {
        "driver": driver,
        **{name: value for name, value in asdict(settings).items() if name != "flush"},
        "integrator": "LangevinMiddle",
        "openmm": openmm.version.version,
        "wall_radius_nm": droplet.wall_radius,
    }
    return Header(
        system=droplet.name,
        qm_charge=droplet.qm_charge,
        mm_region=f"molecules with an atom within {settings.mm_region:g} Å of a QM atom",
        boundary="droplet",
        sampling=sampling,
        command=command,
    )


def _check_resumable(path: Path, settings: SamplingSettings, driver: str, state_file: Path) -> None:
    if not state_file.is_file():
        raise InputError(f"resume: expected the saved state {state_file}, found none; start anew under another file name")
    before = read_frames(path).header.sampling
    for name, value in {"driver": driver, **asdict(settings)}.items():
        if name not in ("time", "flush") and before.get(name) != value:
            raise InputError(
                f"resume: the trajectory was begun with {name} {before.get(name)}, got {value}; only time may change"
            )
