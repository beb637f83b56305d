"""Checkpoints of a training run: tensors and plain values only, written whole or not at all."""

from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import torch

from ampmm.errors import DataFileError, InputError
from ampmm.files import replacing
from ampmm.training.config import TrainingConfig

# Where files lie may change between two parts of a run; what is in them may not.
_MAY_MOVE = ("data", "extra_data", "base_data")


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write to a neighbouring file first and rename, so that a kill or a power cut leaves the previous checkpoint.

    Raises:
        DataFileError: the disk is full, or the folder cannot be written to.
    """
    try:
        with replacing(path) as draft:
            torch.save(state, draft)
    except (OSError, RuntimeError) as error:  # RuntimeError: torch's own, of a full disk
        raise DataFileError(
            f"checkpoint: cannot write {path}: {error}. An earlier checkpoint there is untouched; free some space or mend the "
            "folder's rights, then go on with --resume"
        ) from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; raises `InputError` when it is missing or damaged."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        state["config"], state["fingerprint"], state["step"]
    except FileNotFoundError:
        raise InputError(f"checkpoint: {path} does not exist; train without --resume first") from None
    except Exception as error:
        raise InputError(
            f"checkpoint: {path} cannot be read ({type(error).__name__}); it is damaged or no checkpoint"
        ) from None
    return state


def load_checkpoint(path: Path, config: dict[str, Any], fingerprint: str, system: dict[str, Any]) -> dict[str, Any]:
    """Read the checkpoint of a run with this configuration and these frames (see `ampmm.data.splits.fingerprint`).

    One of another run is refused, naming the differences. The data file may have been moved: its frames count, not its path.
    `system` is what the data are of, by name; checkpoints of older versions do not hold it.
    """
    state = read_checkpoint(path)
    other = state.get("system", {})
    unlike = [f"{name}: {other[name]!r} in the checkpoint, {system.get(name)!r} in {config['data']}" for name in other
              if other[name] != system.get(name)]  # fmt: skip
    if unlike:
        raise InputError(f"checkpoint: {path} was trained on another data set: {'; '.join(unlike)}")
    if state["fingerprint"] != fingerprint:
        raise InputError(
            f"checkpoint: {path} was trained on other frames than those of {config['data']}; resume with the same file "
            "(frames labelled since then change the split)"
        )
    # A setting that came with a newer version has its default in an older run.
    stored = {**_defaults(), **state["config"]}
    differing = [name for name in config if name not in _MAY_MOVE and stored.get(name) != config[name]]
    if differing:
        details = "; ".join(f"{name}: {stored.get(name)!r} in the checkpoint, {config[name]!r} now" for name in differing)
        raise InputError(
            f"checkpoint: {path} belongs to a run with another configuration: {details}; a run keeps its settings, its length "
            f"too: go on in another folder with --start-from {path.parent}"
        )
    return state


def _defaults() -> dict[str, Any]:
    plain = {each.name: each.default for each in fields(TrainingConfig) if each.default is not MISSING}
    made = {each.name: each.default_factory() for each in fields(TrainingConfig) if each.default_factory is not MISSING}
    return {**plain, **made}
