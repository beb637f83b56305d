"""A run's folder read back: its configuration, its frames, and the model as of its last checkpoint."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from ampmm.data.combine import first_frames
from ampmm.data.hdf5 import read_frames
from ampmm.data.schema import FrameSet
from ampmm.errors import DataFileError, InputError
from ampmm.training.checkpoint import read_checkpoint
from ampmm.training.config import TrainingConfig
from ampmm.training.trainer import TrainedModel, Trainer


class RestoredRun(NamedTuple):
    """A run, finished or not."""

    config: TrainingConfig
    frames: FrameSet
    extra: list[FrameSet]  # of config.extra_data
    trained: TrainedModel
    base: list[FrameSet]  # of config.base_data


def read_run_frames(config: TrainingConfig, checkpoint: Path | None = None) -> tuple[FrameSet, list[FrameSet], list[FrameSet]]:
    """The frames of a run: of its data, of each extra file, of each base file.

    With the checkpoint of a run that has begun, only the frames that were there then: labelling appends to files.
    """
    if not Path(config.data).is_file():
        raise DataFileError(
            f"data: expected the labelled frames {config.data}, which are not there from {Path.cwd()}; make them with "
            "`ampmm label`, or give another file with --data"
        )
    frames, *extra = (read_frames(path) for path in (config.data, *config.extra_data))
    if checkpoint is not None:
        counts = read_checkpoint(checkpoint).get("n_frames", [])  # older ones do not hold them
        if len(counts) == 1 + len(extra):
            frames, *extra = (first_frames(each, count) for each, count in zip((frames, *extra), counts, strict=True))
    return frames, extra, [read_frames(path) for path in config.base_data]


def restore_run(
    folder: Path,
    data: str | None = None,
    extra_data: Sequence[str] = (),
    base_data: Sequence[str] = (),
    device: torch.device | str = "cpu",
) -> RestoredRun:
    """Read a run's folder; `data`, `extra_data` and `base_data` say where its HDF5 files lie now, if they were moved.

    The model's energy offset is settled on the training frames (`Trainer.settle_offset`).

    Raises:
        InputError: the folder is no run, its checkpoint is damaged, or the data holds other frames.
    """
    if not (folder / "config.yaml").is_file():
        raise InputError(f"run folder: {folder} holds no config.yaml; expected a folder of `ampmm train`")
    config = TrainingConfig.from_yaml(folder / "config.yaml")
    if data is not None:
        config = dataclasses.replace(config, data=data)
    if extra_data:
        config = dataclasses.replace(config, extra_data=list(extra_data))
    if base_data:
        config = dataclasses.replace(config, base_data=list(base_data))
    frames, extra, base = read_run_frames(config, folder / "checkpoint.pt")
    trainer = Trainer(config, frames, folder, device, extra, base)
    trainer.resume()
    trainer.settle_offset()
    return RestoredRun(config, frames, extra, trainer.trained(), base)
