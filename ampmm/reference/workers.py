"""Who computes the labels: processes on this machine, or the workers of a Dask scheduler. Results come in order."""

import json
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple

import numpy as np

from ampmm.data import Failure, Record
from ampmm.errors import BackendError, LabellingError
from ampmm.export.metadata import unlike
from ampmm.reference.base import Labeller
from ampmm.reference.registry import get_labeller

_TASKS_AHEAD = 4  # per worker: enough to keep it busy, little enough to keep memory flat
_PATIENCE = 30  # seconds for a scheduler to answer, and for its first worker to come

Task = list[Record]
Result = list[Record | Failure]


class Job(NamedTuple):
    """What holds for all frames of a labelling run."""

    engine: str
    options: dict[str, Any]
    settings: dict[str, Any]  # `Labeller.settings` of the parent; a worker's must be the same
    numbers: np.ndarray  # (N,)
    qm_charge: int


def run_in_processes(tasks: Iterable[Task], job: Job, workers: int) -> Iterator[Result]:
    """The tasks' results in order, computed by worker processes.

    Raises:
        LabellingError: a worker died.
    """
    # spawn: a forked child would share libraries' threads and locks with the parent.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker)
    try:
        yield from _in_order(lambda task: pool.submit(label_task, job, task), tasks, lambda: workers)
    except BrokenProcessPool as error:
        raise LabellingError(
            "a worker process died (out of memory, or killed); frames labelled before are stored, "
            "run the same command again to continue, perhaps with fewer --workers"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def run_on_dask(tasks: Iterable[Task], job: Job, scheduler: str) -> Iterator[Result]:
    """The tasks' results in order, computed by the workers of the Dask scheduler at this address.

    Workers may come and go; a task whose worker went is given to another one.

    Raises:
        BackendError: Dask is not installed, the scheduler does not answer or has no workers, or a worker has another
            version of the engine.
        LabellingError: one task was the end of several workers.
    """
    try:
        from dask.distributed import Client
        from distributed import KilledWorker
    except ImportError as error:
        raise BackendError(f"--scheduler needs Dask: pip install '.[dask]' in a clone of ampmm ({error})") from error
    try:
        client = Client(scheduler, timeout=_PATIENCE, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise BackendError(
            f"scheduler: expected the address of a running Dask scheduler, such as tcp://host:8786, got {scheduler!r} "
            f"({type(error).__name__}: {error}); start one with `dask scheduler`"
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=_PATIENCE)
        except TimeoutError as error:
            raise BackendError(
                f"scheduler: {scheduler} has no workers; start them with `dask worker {scheduler} --nworkers N --nthreads 1` "
                "where ampmm and the engine are installed"
            ) from error
        try:
            yield from _in_order(
                lambda task: client.submit(label_task, job, task, pure=False),
                tasks,
                lambda: sum(client.nthreads().values()),
            )
        except (KilledWorker, CancelledError) as error:
            raise LabellingError(
                f"the Dask workers died over some frames ({type(error).__name__}: {error}); frames labelled before are "
                "stored, run the same command again to continue"
            ) from error


def _in_order(submit: Callable[[Task], Any], tasks: Iterable[Task], n_workers: Callable[[], int]) -> Iterator[Result]:
    waiting: deque = deque()
    for task in tasks:
        waiting.append(submit(task))
        if len(waiting) >= max(1, n_workers()) * _TASKS_AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


_labellers: dict[str, Labeller] = {}  # of this worker process
_one_at_a_time = threading.Lock()  # the engines' libraries are not safe among threads, which a Dask worker may have


def label_task(job: Job, records: Task) -> Result:
    """Labelled copies of the frames, or why there is none; runs in a worker.

    Raises:
        BackendError: the engine is not installed here, or is not the parent's version.
    """
    with _one_at_a_time:
        labeller = _labeller(job)
        return [_label_record(labeller, job, record) for record in records]


def _labeller(job: Job) -> Labeller:
    key = json.dumps([job.engine, job.options], sort_keys=True)
    if key not in _labellers:
        _labellers[key] = get_labeller(job.engine, **job.options)
    settings = _labellers[key].settings
    if differing := unlike(settings, job.settings, apart=()):
        name = differing[0]
        raise BackendError(
            f"a worker's {job.engine} differs from this machine's: {name} is {settings.get(name)!r} there and "
            f"{job.settings.get(name)!r} here; install the same version on all machines"
        )
    return _labellers[key]


def _label_record(labeller: Labeller, job: Job, record: Record) -> Record | Failure:
    trajectory, source_index = int(record.trajectory), int(record.source_index)
    try:
        label = labeller.label(job.numbers, record.positions_qm, record.positions_mm, record.charges_mm, job.qm_charge)
    except LabellingError as error:
        return Failure(trajectory, source_index, str(error))
    if not all(np.isfinite(each).all() for each in label):
        return Failure(trajectory, source_index, f"{labeller.level_of_theory} returned numbers that are not finite")
    return record._replace(
        energy=label.energy,
        forces_qm=label.forces_qm,
        forces_mm=label.forces_mm.astype(np.float32),
        charges_qm=label.charges_qm,
        dipole=label.dipole,
    )


def _start_worker() -> None:
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """End this worker when the parent was killed; without this it would wait for tasks for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
