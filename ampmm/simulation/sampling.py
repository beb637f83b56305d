"""QM/MM dynamics of a droplet, driven by a labeller, a model or a force field, whose frames become a data set.

A cheap driver visits conformers fast, but its bond lengths are its own: a model trained on its frames knows nothing of the
reference's. A burst mends that: after every interval another driver, near the reference, goes on from the cheap driver's
frame for some steps under strong friction, and its frames are stored; the cheap driver then goes on from its own state.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import openmm

from ampmm.data import FIELDS, FrameWriter, Header, Record, WriterLock, read_frame_keys, read_header
from ampmm.errors import DataFileError, InputError, LabellingError, SimulationStopped
from ampmm.export import Evaluator
from ampmm.simulation.restart import save_state
from ampmm.simulation.sampler import Droplet, Sampler, SamplingSettings, molecules_within

__all__ = [
    "Burst",
    "BurstSettings",
    "Droplet",
    "Evaluator",
    "Sampler",
    "SamplingSettings",
    "molecules_within",
    "sample",
]

SECONDS_UNWRITTEN: Final = 60.0
_BURSTS_THAT_MAY_FAIL: Final = 10  # one after another; then the driver and the burst's do not fit together
_DRIVER_BYTES: Final = np.dtype(next(each.dtype for each in FIELDS if each.name == "driver")).itemsize


@dataclass(frozen=True)
class BurstSettings:
    """Settings of a burst.

    steps: of one burst. frames: stored of each, evenly over its steps, the last one at its end. timestep: fs.
    friction: 1/ps; strong, because the two drivers' difference in energy turns to heat.
    """

    steps: int
    frames: int = 1
    timestep: float = 1.0
    friction: float = 20.0

    def __post_init__(self) -> None:
        for name in ("steps", "frames", "timestep", "friction"):
            if not getattr(self, name) > 0:
                raise InputError(f"burst {name}: expected a positive number, got {getattr(self, name)!r}")
        if self.steps % self.frames:
            raise InputError(f"burst frames: expected a divisor of the {self.steps} steps, got {self.frames}")


class Burst(NamedTuple):
    """Short dynamics by a second driver after every interval of the first."""

    evaluator: Evaluator | None
    driver: str
    settings: BurstSettings


def sample(
    droplet: Droplet,
    evaluator: Evaluator | None,
    settings: SamplingSettings,
    path: str | Path,
    *,
    driver: str,
    burst: Burst | None = None,
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
        driver: the evaluator's name, for the file's header and every frame.
        burst: stored are the frames of a burst after every interval, instead of the driver's own. A burst whose driver
            fails is left out, and reported.
        command: what the user typed, for the file's header.
        resume: continue from the last state saved beside the file (`path` + ".state.xml").
        report: told in words what goes on.
        progress: told (frames stored, frames wanted).

    Returns:
        The number of frames in the file.

    Raises:
        DataFileError: the file exists, or is another system's.
        SimulationStopped: positions turned NaN; all frames before that are stored.
        LabellingError: the driver failed, or ten bursts one after another; all frames before that are stored.
    """
    path = Path(path)
    state_file = path.with_name(path.name + ".state.xml")
    header = _header(droplet, settings, driver, burst, command)
    with WriterLock(state_file):  # a second process finds out here, not after it has written another state
        resume = resume and path.exists()
        if path.exists() and not resume:
            raise DataFileError(f"{path} exists and is not overwritten; choose another name, or resume it")
        if resume:
            _check_resumable(path, header.sampling, state_file)
        for each in droplet.restraints:
            report(f"restrained: {each.describe(droplet.topology)}")
        sampler = Sampler(droplet, evaluator, settings)
        if resume:
            sampler.restore(state_file)
            report("continuing from the saved state")
        else:
            # The file comes after the equilibration: a run stopped before that leaves nothing in its successor's way.
            sampler.equilibrate(report)
            save_state(state_file, sampler.state())
        if burst is None:
            intervals = _intervals(sampler, settings, driver)
        else:
            intervals = _bursts(sampler, droplet, settings, driver, burst, report)
        total = settings.n_frames * (1 if burst is None else burst.settings.frames)
        with FrameWriter(path, header, sampler.numbers, append=resume) as writer:
            # After a kill between writing frames and saving the state, the first frames are there already.
            present = set(read_frame_keys(path)[1].tolist())
            progress(writer.n_frames, total)
            new = ([record for record in records if record.source_index not in present] for records in intervals)
            for pending, state in _gathered(new, sampler, settings.flush):
                writer.append(*pending)
                save_state(state_file, state)
                progress(writer.n_frames, total)
            return writer.n_frames


def _gathered(intervals: Iterable[list[Record]], sampler: Sampler, least: int) -> Iterator[tuple[list[Record], openmm.State]]:
    """The records of several intervals, and the state at the end of the last of them, from which a resumed run goes on.

    They come when there are `least` or more, when the first has waited for `SECONDS_UNWRITTEN`, and before an error.
    """
    pending: list[Record] = []
    state, written = sampler.state(), time.monotonic()
    try:
        for records in intervals:
            pending += records
            state = sampler.state()
            if len(pending) >= least or time.monotonic() - written > SECONDS_UNWRITTEN:
                yield pending, state
                pending, written = [], time.monotonic()
    except (Exception, KeyboardInterrupt):  # also a model's own InputError, of energies that are not finite
        yield pending, state
        raise
    yield pending, state


def _intervals(sampler: Sampler, settings: SamplingSettings, driver: str) -> Iterator[list[Record]]:
    """Step from the present state to the end of the trajectory; the frame at the end of every interval."""
    done = sampler.context.getStepCount() // settings.steps_per_frame
    for index in range(done, settings.n_frames):
        sampler.step(settings.steps_per_frame)
        yield [sampler.record(index, (index + 1) * settings.interval * 0.001, _shortened(driver))]


def _bursts(
    sampler: Sampler,
    droplet: Droplet,
    settings: SamplingSettings,
    driver: str,
    burst: Burst,
    report: Callable[[str], None],
) -> Iterator[list[Record]]:
    """As `_intervals`, with the frames of a burst at the end of every interval; none where its driver failed."""
    own, done = burst.settings, sampler.context.getStepCount() // settings.steps_per_frame
    # Other random numbers for a trajectory that is continued, the burst's own time step and friction, and no cutoff.
    changes = {"timestep": own.timestep, "friction": own.friction, "interval": own.timestep, "time": 1.0, "mm_cutoff": 0.0}
    second = Sampler(droplet, burst.evaluator, replace(settings, seed=1 + (settings.seed + done) % (2**31 - 1), **changes))
    stride, failed = own.steps // own.frames, 0
    for index in range(done, settings.n_frames):
        sampler.step(settings.steps_per_frame)
        second.go_on_from(sampler)
        records = []
        try:
            for frame in range(own.frames):
                second.step(stride)
                steps = (frame + 1) * stride
                at = ((index + 1) * settings.interval + steps * own.timestep) * 0.001  # ps
                name = _shortened(f"{driver}; {steps} steps of {burst.driver}")
                records.append(second.record(index * own.frames + frame, at, name))
            failed = 0
        except (LabellingError, SimulationStopped, InputError) as error:  # the last is a model's, of energies not finite
            records = []  # those before the failure were on their way to it
            failed += 1
            report(f"the burst after interval {index} failed and is left out: {error}")
            if failed >= _BURSTS_THAT_MAY_FAIL:
                raise
        yield records


def _shortened(driver: str) -> str:
    """A driver's name as a frame can hold it; the header has it in full."""
    if len(driver.encode()) <= _DRIVER_BYTES:
        return driver
    return driver.encode()[: _DRIVER_BYTES - len("…".encode())].decode(errors="ignore") + "…"


def _header(droplet: Droplet, settings: SamplingSettings, driver: str, burst: Burst | None, command: str) -> Header:
    sampling: dict[str, Any] = {
        "driver": driver,
        **{name: value for name, value in asdict(settings).items() if name != "flush"},
        "integrator": "LangevinMiddle",
        "openmm": openmm.version.version,
        "wall_radius_nm": droplet.wall_radius,
        "wall_force_constant": droplet.wall_force_constant,
        "center_force_constant": droplet.center_force_constant,
        "restraints": [each.as_entry() for each in droplet.restraints],
        "system_digest": droplet.digest,
        "burst": None if burst is None else {"driver": burst.driver, **asdict(burst.settings)},
    }
    return Header(
        system=droplet.name,
        qm_charge=droplet.qm_charge,
        mm_region=f"molecules with an atom within {settings.mm_region:g} Å of a QM atom",
        boundary="droplet",
        sampling=sampling,
        command=command,
    )


def _check_resumable(path: Path, now: dict[str, Any], state_file: Path) -> None:
    if not state_file.is_file():
        raise InputError(f"resume: expected the saved state {state_file}, found none; start anew under another file name")
    # What an older version did not know, it did as the defaults do.
    defaults = {each.name: each.default for each in fields(SamplingSettings)} | {"restraints": [], "burst": None}
    for name in ("wall_radius_nm", "wall_force_constant", "center_force_constant", "system_digest"):
        defaults[name] = now[name]
    before = {**defaults, **read_header(path).sampling}
    for name in ("driver", *defaults):
        if name not in ("time", "flush") and before.get(name) != now[name]:
            raise InputError(
                f"resume: the trajectory was begun with {name} {before.get(name)}, got {now[name]}; only time may change"
            )
