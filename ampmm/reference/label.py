"""Labelling frames in parallel, here or over machines; may be killed at any moment and continued.

The parent alone writes, in the order of the frames. What is in the output already is not computed again, so the same
command continues where a kill stopped it, and no frame is ever written twice.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ampmm.data import Failure, FrameSet, FrameWriter, Header, Record, read_columns, read_failures, read_frames
from ampmm.data.combine import difference_of_atoms
from ampmm.errors import DataFileError, InputError
from ampmm.reference.base import Labeller
from ampmm.reference.registry import get_labeller
from ampmm.reference.workers import Job, run_in_processes, run_on_dask

_FRAMES_PER_TASK = 8  # of an engine that takes a fraction of a second a frame
_SLOW_ENGINES = ("pyscf",)  # a frame is a task: minutes, that a kill should not take along


class LabelReport(NamedTuple):
    """What `label_frames` did."""

    labelled: int  # frames computed and written now
    present: int  # frames that were in the output before
    failed: int  # frames left out because the calculation did not converge, earlier runs included


def label_frames(
    inputs: Sequence[str | Path],
    output: str | Path,
    *,
    engine: str = "gfn2-xtb",
    options: dict[str, Any] | None = None,
    workers: int = 1,
    scheduler: str = "",
    retry_failed: bool = False,
    command: str = "",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> LabelReport:
    """Label the frames of one or more files into one file.

    Args:
        inputs: files of frames of the same system; labels they carry are ignored.
        output: the labelled file; an existing one is continued if it is of the same system and level, and begun anew if it
            is of another level but has no frames, because all failed.
        engine: name of a labeller, see `get_labeller`.
        options: the engine's settings.
        workers: processes on this machine; with a scheduler it has no meaning.
        scheduler: address of a Dask scheduler, whose workers label instead of processes here.
        retry_failed: compute frames again that failed in an earlier run.
        command: what the user typed, for the file's header.
        progress: told (frames settled, frames in all).

    Returns:
        See `LabelReport`. Frames that failed are listed in the output (`ampmm.data.read_failures`) and not tried again.

    Raises:
        DataFileError: an input is no file of frames, the inputs do not belong together, or the output is another
            data set's.
        LabellingError: a worker died.
        BackendError: the engine, or Dask, is not installed; the scheduler does not answer; or a Dask worker has another
            version of the engine.
    """
    output = Path(output)
    if workers < 1:
        raise InputError(f"workers: expected 1 or more, got {workers}")
    if not inputs:
        raise InputError("inputs: expected at least one file of frames, got none")
    sources = [read_frames(path) for path in inputs]
    _check_sources(inputs, sources, output)
    options = dict(options or {})
    labeller = get_labeller(engine, **options)
    header = _header(sources, labeller, command)
    job = Job(engine, options, labeller.settings, sources[0].numbers, header.qm_charge)

    with _writer(output, header, sources[0].numbers) as writer:
        if retry_failed:
            writer.forget_failures()
        settled = _present(output, inputs, sources)
        present = len(settled)
        settled |= {(failure.trajectory, failure.source_index) for failure in read_failures(output)}
        todo = [
            (source, index)
            for source, frames in enumerate(sources)
            for index in range(frames.n_frames)
            if (int(frames.trajectory[index]), int(frames.source_index[index])) not in settled
        ]
        total = sum(frames.n_frames for frames in sources)
        progress(total - len(todo), total)
        labelled = done = 0
        tasks = ([sources[source].record(index) for source, index in chunk] for chunk in _chunks(todo, engine))
        for results in run_on_dask(tasks, job, scheduler) if scheduler else run_in_processes(tasks, job, workers):
            records = [result for result in results if isinstance(result, Record)]
            writer.append(*records)
            writer.append_failures(*[result for result in results if isinstance(result, Failure)])
            labelled += len(records)
            done += len(results)
            progress(total - len(todo) + done, total)
        return LabelReport(labelled, present, len(read_failures(output)))


@contextmanager
def _writer(output: Path, header: Header, numbers: np.ndarray) -> Iterator[FrameWriter]:
    """The output, new or continued; a new one is taken away again if an error ends it before its first frame.

    One in which every frame failed stays, with the list of failures; the corrected command begins it anew.
    """
    continued = output.exists()
    with FrameWriter(output, header, numbers, append=continued) as writer:
        try:
            yield writer
        except BaseException:
            if not continued and writer.n_frames == 0:
                output.unlink(missing_ok=True)
            raise


def _check_sources(inputs: Sequence[str | Path], sources: Sequence[FrameSet], output: Path) -> None:
    first = sources[0]
    keys: dict[tuple[int, int], str | Path] = {}
    for path, frames in zip(inputs, sources, strict=True):
        if Path(path).resolve() == output.resolve():
            raise InputError(f"output: {output} is also an input; choose another name")
        for name in ("system", "qm_charge", "mm_region", "boundary"):
            if getattr(frames.header, name) != getattr(first.header, name):
                raise DataFileError(
                    f"{path}: {name} is {getattr(frames.header, name)!r}, in {inputs[0]} it is "
                    f"{getattr(first.header, name)!r}; label them into separate files"
                )
        if not np.array_equal(frames.numbers, first.numbers):
            what = difference_of_atoms(frames.numbers, first.numbers)
            raise DataFileError(
                f"{path}: its QM atoms differ from those of {inputs[0]}: {what}; label them into separate files"
            )
        for key in zip(frames.trajectory.tolist(), frames.source_index.tolist(), strict=True):
            if key in keys:
                raise DataFileError(
                    f"{path}: frame {key[1]} of trajectory {key[0]} is also in {keys[key]}; "
                    "give each trajectory its own --trajectory-id when sampling"
                )
            keys[key] = path


def _header(sources: Sequence[FrameSet], labeller: Labeller, command: str) -> Header:
    first = sources[0].header
    sampled = [each for frames in sources for each in frames.header.trajectories()]
    return replace(
        first,
        level_of_theory=labeller.level_of_theory,
        level_settings=labeller.settings,
        sampling={"trajectories": sampled},
        command=command,
    )


def _present(output: Path, inputs: Sequence[str | Path], sources: Sequence[FrameSet]) -> set[tuple[int, int]]:
    """The keys of the frames in the output, after those that are also in the inputs were found to be the same frames."""
    trajectory, source_index, positions = read_columns(output, ("trajectory", "source_index", "positions_qm"))
    rows = {key: row for row, key in enumerate(zip(trajectory.tolist(), source_index.tolist(), strict=True))}
    for path, frames in zip(inputs, sources, strict=True):
        for index, key in enumerate(zip(frames.trajectory.tolist(), frames.source_index.tolist(), strict=True)):
            if key in rows and not np.array_equal(frames.positions_qm[index], positions[rows[key]]):
                raise DataFileError(
                    f"{path}: frame {key[1]} of trajectory {key[0]} is another one than that in {output}; "
                    "give each trajectory its own --trajectory-id when sampling"
                )
    return set(rows)


def _chunks(items: list, engine: str) -> Iterator[list]:
    size = 1 if engine in _SLOW_ENGINES else _FRAMES_PER_TASK
    for start in range(0, len(items), size):
        yield items[start : start + size]
