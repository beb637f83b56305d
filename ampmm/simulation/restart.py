"""Stopping and going on: checkpoints that a kill cannot halve, and the way back from them.

`checkpoint.chk` is OpenMM's own: bitwise, random numbers included, good on the same machine, platform and version.
`state.xml` holds positions, velocities, box and step as text: good anywhere, but the thermostat draws new numbers.
"""

from pathlib import Path
from typing import Final, NamedTuple

import openmm
from openmm import app

from ampmm.data import WriterLock
from ampmm.errors import DataFileError, InputError
from ampmm.files import replacing

CHECKPOINT: Final = "checkpoint.chk"
STATE: Final = "state.xml"
CONFIG: Final = "config.yaml"
TRAJECTORY: Final = "trajectory.dcd"
STATE_DATA: Final = "state.csv"
ML_TERMS: Final = "ml.csv"
INITIAL: Final = "initial.pdb"
FINAL: Final = "final.pdb"
RUN_FILES: Final = (CONFIG, TRAJECTORY, STATE_DATA, ML_TERMS, INITIAL, FINAL, CHECKPOINT, STATE)


class Restarted(NamedTuple):
    """Where a resumed run stands."""

    step: int
    bitwise: bool  # False: from state.xml


def refuse_overwrite(folder: Path) -> None:
    """Raise `InputError` if `folder` holds files of an earlier run."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"output: expected a folder, got the file {folder}; give another name")
    found = [name for name in RUN_FILES if (folder / name).exists()]
    if found:
        raise InputError(
            f"output: {folder} holds an earlier run ({', '.join(found)}), which is never overwritten; "
            "add --resume to continue it, or give another folder with --output"
        )


def only_writer(folder: Path) -> WriterLock:
    """The folder, made if need be, for this process alone; a context manager.

    Raises:
        DataFileError: another process runs a simulation there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return WriterLock(folder / TRAJECTORY)


def require_run(folder: Path) -> None:
    """Raise `InputError` if there is nothing in `folder` to resume."""
    if not (folder / CONFIG).is_file():
        raise InputError(f"--resume: expected the folder of an earlier run, found no {CONFIG} in {folder}")
    if not any((folder / name).is_file() for name in (CHECKPOINT, STATE)):
        raise InputError(
            f"--resume: the run in {folder} stopped before its first checkpoint; remove the folder and start again"
        )


def save_checkpoint(simulation: app.Simulation, folder: Path) -> None:
    """Write both restart files; each names its own step, so either alone is consistent."""
    with replacing(folder / CHECKPOINT) as draft:
        draft.write_bytes(simulation.context.createCheckpoint())
    save_state(folder / STATE, simulation.context.getState(positions=True, velocities=True, parameters=True))


def save_state(path: Path, state: openmm.State) -> None:
    """Write a State as XML, whole or not at all."""
    with replacing(path) as draft:
        draft.write_text(openmm.XmlSerializer.serialize(state))


def load_checkpoint(simulation: app.Simulation, folder: Path) -> Restarted:
    """Bring `simulation` back to the last checkpoint.

    Raises:
        DataFileError: neither file can be read.
    """
    reasons = []
    if (folder / CHECKPOINT).is_file():
        try:
            simulation.context.loadCheckpoint((folder / CHECKPOINT).read_bytes())
            return Restarted(simulation.context.getStepCount(), bitwise=True)
        except openmm.OpenMMException as error:
            reasons.append(f"{CHECKPOINT}: {error}")
    if (folder / STATE).is_file():
        try:
            state = openmm.XmlSerializer.deserialize((folder / STATE).read_text())
            _reseed(simulation, state.getStepCount())
            simulation.context.setState(state)
            return Restarted(simulation.context.getStepCount(), bitwise=False)
        except (openmm.OpenMMException, UnicodeDecodeError, ValueError) as error:
            reasons.append(f"{STATE}: {error}")
    raise DataFileError(
        f"{folder}: expected a checkpoint that fits this System, could read none ({'; '.join(reasons)}); "
        "start again in another folder"
    )


def _reseed(simulation: app.Simulation, step: int) -> None:
    """Other random numbers for thermostat and barostat than those of the run's start; the context begins anew."""
    for each in (simulation.integrator, *simulation.system.getForces()):
        if hasattr(each, "setRandomNumberSeed"):
            each.setRandomNumberSeed(1 + (each.getRandomNumberSeed() + step) % (2**31 - 1))
    simulation.context.reinitialize()
