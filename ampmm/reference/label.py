"""Labelling frames in parallel worker processes; may be killed at any moment and continued.

The parent alone writes, in the order of the frames. What is in the output already is not computed again, so the same
command continues where a kill stopped it, and no frame is ever written twice.
"""

import json
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ampmm.data import FrameSet, FrameWriter, Header, Record, read_frame_keys, read_frames
from ampmm.errors import DataFileError, InputError, LabellingError
from ampmm.reference.base import Labeller
from ampmm.reference.registry import get_labeller

_FRAMES_PER_TASK = 8
_TASKS_AHEAD = 4  # per worker: enough to keep it busy, little enough to keep memory flat


class LabelReport(NamedTuple):
    """What `label_frames` did."""

    labelled: int  # frames computed and written now
    present: int  # frames that were in the output before
    failed: int  # frames left out because the calculation did not converge, earlier runs included


class _Failure(NamedTuple):
    """A frame without a label."""

    trajectory: int
    source_index: int
    message: str


def label_frames(
    inputs: Sequence[str | Path],
    output: str | Path,
    *,
    engine: str = "gfn2-xtb",
    options: dict[str, Any] | None = None,
    workers: int = 1,
    command: str = "",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> LabelReport:
    """Label the frames of one or more files into one file.

    Args:
        inputs: files of frames of the same system; labels they carry are ignored.
        output: the labelled file; an existing one is continued if it is of the same system and level.
        engine: name of a labeller, see `get_labeller`.
        options: the engine's settings.
        workers: processes.
        command: what the user typed, for the file's header.
        progress: told (frames settled, frames in all).

    Returns:
        See `LabelReport`. Frames that failed are listed in `output` + ".failed.jsonl" and not tried again.

    Raises:
        DataFileError: an input is no file of frames, the inputs do not belong together, or the output is another
            data set's.
        LabellingError: a worker died.
    """
    output = Path(output)
    if workers < 1:
        raise InputError(f"workers: expected 1 or more, got {workers}")
    if not inputs:
        raise InputError("inputs: expected at least one file of frames, got none")
    sources = [read_frames(path) for path in inputs]
    _check_sources(inputs, sources, output)
    options = dict(options or {})
    header = _header(sources, get_labeller(engine, **options), command)

    failed_file = output.with_name(output.name + ".failed.jsonl")
    with _writer(output, header, sources[0].numbers) as writer:
        settled = _keys(output)
        present = len(settled)
        settled |= {(failure.trajectory, failure.source_index) for failure in _read_failures(failed_file)}
        todo = [
            (source, index)
            for source, frames in enumerate(sources)
            for index in range(frames.n_frames)
            if (int(frames.trajectory[index]), int(frames.source_index[index])) not in settled
        ]
        total = sum(frames.n_frames for frames in sources)
        progress(total - len(todo), total)
        labelled = done = 0
        tasks = ([sources[source].record(index) for source, index in chunk] for chunk in _chunks(todo))
        for results in _run(tasks, engine, options, sources[0].numbers, header.qm_charge, workers):
            records = [result for result in results if isinstance(result, Record)]
            writer.append(*records)
            _write_failures(failed_file, [result for result in results if isinstance(result, _Failure)])
            labelled += len(records)
            done += len(results)
            progress(total - len(todo) + done, total)
    return LabelReport(labelled, present, len(_read_failures(failed_file)))


@contextmanager
def _writer(output: Path, header: Header, numbers: np.ndarray) -> Iterator[FrameWriter]:
    """The output, new or continued; a new one is taken away again if it ends without a frame.

    Otherwise a setting that no frame can be labelled with would stand in the file, and refuse the corrected command.
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
            raise DataFileError(f"{path}: its QM atoms differ from those of {inputs[0]}; label them into separate files")
        for key in zip(frames.trajectory.tolist(), frames.source_index.tolist(), strict=True):
            if key in keys:
                raise DataFileError(
                    f"{path}: frame {key[1]} of trajectory {key[0]} is also in {keys[key]}; "
                    "give each trajectory its own --trajectory-id when sampling"
                )
            keys[key] = path


def _header(sources: Sequence[FrameSet], labeller: Labeller, command: str) -> Header:
    first = sources[0].header
    sampled = [{**frames.header.sampling, "command": frames.header.command} for frames in sources]
    return replace(
        first,
        level_of_theory=labeller.level_of_theory,
        level_settings=labeller.settings,
        sampling={"trajectories": sampled},
        command=command,
    )


def _keys(path: Path) -> set[tuple[int, int]]:
    trajectory, source_index = read_frame_keys(path)
    return set(zip(trajectory.tolist(), source_index.tolist(), strict=True))


def _chunks(items: list) -> Iterator[list]:
    for start in range(0, len(items), _FRAMES_PER_TASK):
        yield items[start : start + _FRAMES_PER_TASK]


def _read_failures(path: Path) -> list[_Failure]:
    if not path.exists():
        return []
    # A kill may have cut the last line short; that frame is simply tried again.
    lines = path.read_text().split("\n")[:-1]
    return [_Failure(**json.loads(line)) for line in lines if line]


def _write_failures(path: Path, failures: list[_Failure]) -> None:
    if not failures:
        return
    with path.open("a") as file:
        for failure in failures:
            file.write(json.dumps(failure._asdict(), ensure_ascii=False) + "\n")


def _run(
    tasks: Iterable[list[Record]],
    engine: str,
    options: dict[str, Any],
    numbers: np.ndarray,
    qm_charge: int,
    workers: int,
) -> Iterator[list[Record | _Failure]]:
    """The tasks' results in order, computed by worker processes."""
    # spawn: a forked child would share libraries' threads and locks with the parent.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _start_worker, (engine, options, numbers, qm_charge))
    waiting: deque[Future] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(_label_task, task))
            if len(waiting) >= workers * _TASKS_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise LabellingError(
            "a worker process died (out of memory, or killed); frames labelled before are stored, "
            "run the same command again to continue, perhaps with fewer --workers"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Worker(NamedTuple):
    labeller: Labeller
    numbers: np.ndarray
    qm_charge: int


_worker: _Worker | None = None  # of this worker process


def _start_worker(engine: str, options: dict[str, Any], numbers: np.ndarray, qm_charge: int) -> None:
    global _worker
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    _worker = _Worker(get_labeller(engine, **options), numbers, qm_charge)


def _exit_with_parent() -> None:
    """End this worker when the parent was killed; without this it would wait for tasks for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _label_task(records: list[Record]) -> list[Record | _Failure]:
    return [_label_record(record) for record in records]


def _label_record(record: Record) -> Record | _Failure:
    try:
        label = _worker.labeller.label(
            _worker.numbers, record.positions_qm, record.positions_mm, record.charges_mm, _worker.qm_charge
        )
    except LabellingError as error:
        return _Failure(int(record.trajectory), int(record.source_index), str(error))
    return record._replace(
        energy=label.energy,
        forces_qm=label.forces_qm,
        forces_mm=label.forces_mm.astype(np.float32),
        charges_qm=label.charges_qm,
        dipole=label.dipole,
    )
