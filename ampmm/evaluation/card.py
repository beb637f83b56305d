"""The card of a trained model: every field measured or read from where it stands, none typed in."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ampmm.data.schema import FrameSet, Header
from ampmm.data.splits import fingerprint
from ampmm.export.metadata import Card
from ampmm.export.torchscript import ampmm_version
from ampmm.models import Model

_FOLDERS = re.compile(r"(?<![^\s='\"])/(?:[^\s/]+/)+")


def describe_frames(frames: FrameSet, file: str | Path) -> dict[str, Any]:
    """Where frames come from: file, number, trajectories with temperature and time span, how they were sampled."""
    trajectories = []
    for number in np.unique(frames.trajectory):
        own = frames.trajectory == number
        trajectories.append(
            {
                "trajectory": int(number),
                "frames": int(own.sum()),
                "temperature_K": round(float(frames.temperature[own].mean()), 1),
                "span_ps": round(float(np.ptp(frames.time[own])), 3),
            }
        )
    return {
        "file": Path(file).name,
        "fingerprint": fingerprint(frames),
        "system": frames.header.system,
        "frames": frames.n_frames,
        "boundary": frames.header.boundary,
        "mm_region": frames.header.mm_region,
        "mm_charges_per_frame": round(len(frames.charges_mm) / max(1, frames.n_frames), 1),
        "temperatures_K": sorted({each["temperature_K"] for each in trajectories}),
        "span_ps": round(sum(each["span_ps"] for each in trajectories), 3),
        "trajectories": trajectories,
        "sampling": without_folders(frames.header.sampling),
        "command": without_folders(frames.header.command),
    }


def without_folders(value: Any) -> Any:
    """The same value with absolute paths in its texts cut down to file names: folders mean nothing on another machine."""
    if isinstance(value, str):
        return _FOLDERS.sub("", value)
    if isinstance(value, Mapping):
        return {name: without_folders(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_folders(each) for each in value]
    return value


def make_card(
    *,
    name: str,
    model: Model,
    frames: FrameSet,
    bounds: Mapping[str, Any],
    base: Header | None = None,
    data: Mapping[str, Any],
    training: Mapping[str, Any],
    command: str,
) -> Card:
    """The card of `model`, trained on some of `frames`; its errors are added later.

    Args:
        bounds: of what it saw, see `ampmm.data.bounds`.
        base: header of the labels that were subtracted, of a Δ-model.
        data: `describe_frames` of the frames, with "split" (`ampmm.training.split_settings`) and what else is worth knowing.
        training: settings, steps, minutes, device.
    """
    numbers = tuple(int(number) for number in frames.numbers)
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    hyperparameters = model.hyperparameters.to_dict()
    return Card(
        name=name,
        architecture=model.architecture,
        variant=getattr(model.hyperparameters, "name", model.architecture),
        hyperparameters=hyperparameters,
        elements=tuple(hyperparameters["elements"]),
        composition=numbers,
        qm_charge=frames.qm_charge,
        cutoffs=model.cutoffs,
        level_of_theory=frames.header.level_of_theory,
        level_settings=dict(frames.header.level_settings),
        base={} if base is None else {"level_of_theory": base.level_of_theory, "level_settings": dict(base.level_settings)},
        data=dict(data),
        training={**without_folders(training), "parameters": n_parameters, "torch": torch.__version__},
        bounds=dict(bounds),
        command=without_folders(command),
        ampmm_version=ampmm_version(),
    )
