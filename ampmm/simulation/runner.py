"""Running a simulation: start or resume, step in chunks, report, guard, checkpoint, stop with the last good frame."""

import dataclasses
import functools
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import openmm
from openmm import app, unit
from tqdm import tqdm

from ampmm.errors import DataFileError, InputError, SimulationStopped
from ampmm.interrupt import DeferredInterrupt, keeping_interrupts
from ampmm.simulation import restart
from ampmm.simulation.assemble import (
    Assembled,
    assemble,
    draw_velocities,
    evaluate_region,
    make_simulation,
    model_device,
    model_digest,
    named_model,
)
from ampmm.simulation.config import SimulationConfig, config_from, read_settings, with_full_paths, write_config
from ampmm.simulation.guard import complaint, finite
from ampmm.simulation.minimization import minimize_around
from ampmm.simulation.reporters import STATE_COLUMNS, Table, Trajectory, ml_columns
from ampmm.simulation.states import box_of, positions_of, take_state, thermodynamics, write_pdb
from ampmm.simulation.structure_source import is_structure_file, solvate_if_needed
from ampmm.units import ANGSTROM_PER_NM

CHUNK: Final = 100  # steps between looks at a pending Ctrl-C
LAST_GOOD_PDB: Final = "last_good.pdb"
LAST_GOOD_XML: Final = "last_good.xml"


class Result(NamedTuple):
    """What a finished, or interrupted, run leaves."""

    folder: Path
    trajectory: Path
    step: int
    ns_per_day: float
    interrupted: bool


class Good(NamedTuple):
    """The last frame that passed all checks."""

    step: int
    state: openmm.State


class _Outputs(NamedTuple):
    trajectory: Trajectory
    state_data: Table
    ml_terms: Table | None

    def sync(self) -> None:
        for file in self:
            if file is not None:
                file.sync()

    def close(self) -> None:
        for file in self:
            if file is not None:
                file.close()


def start(config: SimulationConfig, model: Any = None, progress: bool = True) -> Result:
    """Run a new simulation in `config.folder`.

    Args:
        config: the settings.
        model: an Evaluator to use instead of the one that the config names.
        progress: whether to show a progress bar.

    Raises:
        InputError: the folder holds an earlier run; or see `assemble`.
        SimulationStopped: the dynamics left the range where its numbers mean anything, or the disk is full.
    """
    folder = config.folder
    restart.refuse_overwrite(folder)
    if model is None and is_structure_file(config.system):
        model = named_model(config.model, Path(config.system).name, model_device(config))  # before the work of solvating
    with ExitStack() as held:
        claim = functools.cache(lambda: _claim(folder, held))  # once, as soon as something is written there
        config = solvate_if_needed(config, claim)
        assembled = assemble(config, model)
        _announce(assembled, progress)
        simulation = make_simulation(config, assembled)
        digests = {"model_digest": model_digest(assembled.region.model), "system_digest": assembled.system_digest}
        config = dataclasses.replace(with_full_paths(config), **digests)
        held.enter_context(_disk_errors(folder, simulation))
        claim()
        if progress and config.minimize:
            print(f"minimising (at most {config.minimize} iterations)", file=sys.stderr, flush=True)
        good = _prepare(simulation, config, assembled)
        write_config(config, folder / restart.CONFIG)  # from here on the folder holds a run
        write_pdb(folder / restart.INITIAL, assembled.topology, good.state)
        outputs = _open_outputs(config, assembled, folder, None)
        restart.save_checkpoint(simulation, folder)
        return _run(config, assembled, simulation, outputs, good, progress)


def _claim(folder: Path, held: ExitStack) -> None:
    held.enter_context(restart.only_writer(folder))
    restart.refuse_overwrite(folder)


def resume(folder: Path, steps: int | None = None, model: Any = None, progress: bool = True, model_file: str = "") -> Result:
    """Continue the run in `folder` from its last checkpoint; frames after it are cut off and made again.

    Args:
        folder: of the earlier run.
        steps: a new length of the whole trajectory, from its start; None keeps the old one.
        model, progress: as in `start`.
        model_file: where the model's file is now, if it was moved.

    Raises:
        InputError: no run there, or it is already that long.
        DataFileError: its files cannot be continued.
        SimulationStopped: as in `start`.
    """
    restart.require_run(folder)
    settings = read_settings(folder / restart.CONFIG)
    settings["output"] = str(folder)
    if steps is not None:
        settings["steps"] = steps
    if model_file:
        settings["model"] = model_file
    config = config_from(settings, str(folder / restart.CONFIG))
    assembled = assemble(config, model)
    _check_files(config, assembled)
    _announce(assembled, progress)
    simulation = make_simulation(config, assembled)
    with _disk_errors(folder, simulation), restart.only_writer(folder):
        return _go_on(config, assembled, simulation, progress)


def _check_files(config: SimulationConfig, assembled: Assembled) -> None:
    """Refuse to go on with another model or another system under the same name."""
    if not config.system_digest:
        return  # an older version did not store what it began with
    if config.system_digest != assembled.system_digest:
        raise InputError(
            f"--resume: the topology, QM region or restraints of {config.system} are others than those that the run in "
            f"{config.folder} began with; undo the change, or start another run"
        )
    found = model_digest(assembled.region.model)
    if found != config.model_digest:
        digests = (found, config.model_digest)
        now, then = (f"a file of SHA-256 {each}…" if each else "an Evaluator of a script's own" for each in digests)
        raise InputError(
            f"--resume: the model {config.model or 'of the system'} is not the one that the run in {config.folder} began with "
            f"({now} now, {then} then); put that one back, give it to `resume` as `model`, or start another run"
        )


def _go_on(config: SimulationConfig, assembled: Assembled, simulation: app.Simulation, progress: bool) -> Result:
    folder = config.folder
    restarted = restart.load_checkpoint(simulation, folder)
    if restarted.step >= config.steps:
        raise InputError(
            f"--resume: the run in {folder} already has {restarted.step} steps of {config.steps}; "
            "give a greater --steps or --time, counted from the run's start"
        )
    if not restarted.bitwise:
        print(f"{restart.CHECKPOINT} does not load here; continuing from {restart.STATE} with new random numbers.")
    outputs = _open_outputs(config, assembled, folder, restarted.step)
    write_config(with_full_paths(config), folder / restart.CONFIG)
    return _run(config, assembled, simulation, outputs, Good(restarted.step, take_state(simulation)), progress)


def _announce(assembled: Assembled, progress: bool) -> None:
    for each in assembled.restraints if progress else ():
        print(f"restrained: {each}", file=sys.stderr, flush=True)


def _prepare(simulation: app.Simulation, config: SimulationConfig, assembled: Assembled) -> Good:
    """Relax the surroundings and draw velocities; the frame must already be a good one."""
    try:
        with keeping_interrupts():
            fixed = assembled.region.indices if assembled.region.model is not None else ()
            if config.minimize and not minimize_around(simulation.context, fixed, config.minimize):
                print("the minimisation met energies that are not finite and was undone", file=sys.stderr, flush=True)
            simulation.context.applyConstraints(simulation.integrator.getConstraintTolerance())
            draw_velocities(simulation, config)
            state = take_state(simulation)
            reason = _check(state, assembled, _evaluation(assembled, state))
    except openmm.OpenMMException as error:
        reason = f"OpenMM stopped ({error})"
    except InputError as error:  # the model refuses the frame
        reason = str(error)
    if reason:
        raise SimulationStopped(
            f"before the first step: {reason}. Nothing was run; look at the starting structure, or choose another model"
        )
    return Good(0, state)


def _open_outputs(config: SimulationConfig, assembled: Assembled, folder: Path, step: int | None) -> _Outputs:
    """The run's three files, new, or cut back to `step`."""
    frames = None if step is None else step // config.report_interval
    names = (restart.STATE_DATA, restart.TRAJECTORY, *((restart.ML_TERMS,) if assembled.region.model is not None else ()))
    missing = [name for name in names if step is not None and not (folder / name).is_file()]
    if missing:
        raise DataFileError(
            f"--resume: expected {', '.join(missing)} in {folder}, which the run goes on writing, and it is not there; put it "
            "back, or start again in another folder"
        )
    timestep_ps = config.timestep / 1000.0
    tables = [Table(folder / restart.STATE_DATA, STATE_COLUMNS, step)]
    if assembled.region.model is not None:
        tables.append(Table(folder / restart.ML_TERMS, ml_columns(assembled.region.labels), step))
    trajectory = Trajectory(folder / restart.TRAJECTORY, assembled.topology, timestep_ps, config.report_interval, frames)
    return _Outputs(trajectory, tables[0], tables[1] if len(tables) > 1 else None)


def _run(
    config: SimulationConfig,
    assembled: Assembled,
    simulation: app.Simulation,
    outputs: _Outputs,
    good: Good,
    progress: bool,
) -> Result:
    folder, first, step = config.folder, good.step, good.step
    bar = tqdm(
        total=config.steps,
        initial=step,
        unit="step",
        disable=not progress,
        file=sys.stderr,
        mininterval=0.5 if sys.stderr.isatty() else 15.0,
    )
    began = time.perf_counter()
    try:
        with DeferredInterrupt() as interrupt, _disk_errors(folder, simulation):
            while step < config.steps and not interrupt.requested:
                target = min(config.steps, (step // config.report_interval + 1) * config.report_interval, step + CHUNK)
                _advance(simulation, target - step, assembled, folder, good)
                bar.update(target - step)
                step = target
                if step % config.report_interval == 0 or step == config.steps:
                    good = _report(simulation, config, assembled, outputs, step, good)
                    bar.set_postfix_str(_rate_text(config, step - first, began), refresh=False)
                if step % config.checkpoint_interval == 0:
                    outputs.sync()
                    restart.save_checkpoint(simulation, folder)
            interrupted = step < config.steps
            good = _checked(simulation, assembled, step, good, folder)[0]
            outputs.sync()
            restart.save_checkpoint(simulation, folder)
            write_pdb(folder / restart.FINAL, assembled.topology, good.state)
    finally:
        bar.close()
        outputs.close()
    rate = _ns_per_day(config, step - first, time.perf_counter() - began)
    return Result(folder, folder / restart.TRAJECTORY, step, rate, interrupted)


def _advance(simulation: app.Simulation, steps: int, assembled: Assembled, folder: Path, good: Good) -> None:
    try:
        with keeping_interrupts():
            simulation.integrator.step(steps)
    except openmm.OpenMMException as error:
        _stop(f"OpenMM could not take the next step ({error})", assembled, folder, good)


def _report(
    simulation: app.Simulation, config: SimulationConfig, assembled: Assembled, outputs: _Outputs, step: int, good: Good
) -> Good:
    """Check the frame, then write it to all files; returns it as the last good one."""
    good, evaluation = _checked(simulation, assembled, step, good, config.folder)
    if step % config.report_interval:
        return good  # a last step between two reports: the final structure has it
    state, time_ps = good.state, step * config.timestep / 1000.0
    box = box_of(assembled.system, state)
    outputs.trajectory.write(positions_of(state), box)
    outputs.state_data.write([step, time_ps, *thermodynamics(assembled.system, state, box)])
    if outputs.ml_terms is not None:
        outputs.ml_terms.write([step, time_ps, evaluation.energy, *evaluation.dipole, *evaluation.charges_qm])
    return good


def _checked(simulation: app.Simulation, assembled: Assembled, step: int, good: Good, folder: Path) -> tuple[Good, Any]:
    """The present frame if it is good, with the model's Evaluation; else stop."""
    try:
        with keeping_interrupts():
            state = take_state(simulation)
            evaluation = _evaluation(assembled, state)
        reason = _check(state, assembled, evaluation)
    except openmm.OpenMMException as error:  # the model's force itself refuses positions that are not finite
        reason = f"OpenMM stopped ({error})"
    except InputError as error:  # so does the model
        reason = str(error)
    if reason:
        _stop(reason, assembled, folder, good, step)
    return Good(step, state), evaluation


def _evaluation(assembled: Assembled, state: openmm.State) -> Any:
    positions = positions_of(state)
    if assembled.region.model is None or not np.isfinite(positions).all():
        return None
    return evaluate_region(assembled.region, positions, box_of(assembled.system, state))


def _check(state: openmm.State, assembled: Assembled, evaluation: Any) -> str:
    """What is wrong with a frame, or ""."""
    potential = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
    kinetic = state.getKineticEnergy().value_in_unit(unit.kilojoule_per_mole)
    if not np.isfinite(positions_of(state)).all():
        return "the positions are not finite"
    if not finite(potential, kinetic):
        return f"the energy is not finite (potential {potential}, kinetic {kinetic} kJ/mol)"
    if not np.isfinite(state.getForces(asNumpy=True)._value).all():
        return "the forces are not finite"
    region = assembled.region
    forces = None if evaluation is None else evaluation.forces_qm
    positions = positions_of(state)[region.indices] * ANGSTROM_PER_NM
    box = box_of(assembled.system, state)
    box = None if box is None else box * ANGSTROM_PER_NM
    return complaint(region.numbers, positions, forces, region.bounds, region.labels, box)


def _stop(reason: str, assembled: Assembled, folder: Path, good: Good, step: int | None = None) -> None:
    """Save the last good frame and raise."""
    write_pdb(folder / LAST_GOOD_PDB, assembled.topology, good.state)
    restart.save_state(folder / LAST_GOOD_XML, good.state)
    where = f"after step {good.step}" if step is None else f"at step {step}"
    raise SimulationStopped(
        f"stopped {where}: {reason}. The last good frame, of step {good.step}, is in {folder / LAST_GOOD_PDB} and "
        f"{folder / LAST_GOOD_XML}; trajectory and tables end there. A shorter --timestep, a longer equilibration or "
        "a model trained on such structures may help"
    )


def _ns_per_day(config: SimulationConfig, steps: int, seconds: float) -> float:
    return steps * config.timestep * 1e-6 * 86400.0 / max(seconds, 1e-9)


def _rate_text(config: SimulationConfig, steps: int, began: float) -> str:
    return f"{_ns_per_day(config, steps, time.perf_counter() - began):.3f} ns/day"


@contextmanager
def _disk_errors(folder: Path, simulation: app.Simulation) -> Iterator[None]:
    """Say what a failed write means for the run."""
    try:
        yield
    except OSError as error:
        step = simulation.context.getStepCount()
        raise SimulationStopped(
            f"stopped at step {step}: cannot write to {folder}: {error}. The last checkpoint written before is "
            "untouched; free some space or mend the folder's rights, then continue with --resume"
        ) from error
