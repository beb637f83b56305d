"""What a training run is made of: one frozen dataclass, read from YAML, stored with every checkpoint."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import yaml

from ampmm.data.splits import SCHEMES, Split
from ampmm.errors import InputError, unknown_name

_NUMBER = (int, float)
_EXPECTED = {int: int, float: _NUMBER, str: str, list[str]: list, dict[str, Any]: dict}
SCHEDULES = ("exponential", "cosine")
OPTIMIZERS = ("adam", "muon")
_WORDS = {
    int: "a whole number",
    _NUMBER: "a number",
    str: "text",
    list: "a list of text, as in [a.h5, b.h5], or no line at all",
    dict: "a mapping of names to values, or no line at all",
}


@dataclass(frozen=True)
class TrainingConfig:
    """A training run. The optimiser, schedule and loss weights default to the paper's (Eq. 12, A.2).

    Fields:
        data: labelled HDF5 file.
        extra_data: labelled HDF5 files of the same system, all of whose frames are for training: hot or distorted ones, say.
        base_data: the frames of `data` and `extra_data` labelled by a cheaper method; what is learned is the difference to
            it (Δ-learning, see docs/training.md).
        start_from: what this run begins with (fine-tuning): a folder of an earlier run, a .pt file or a shipped model's name.
        name: of the model; becomes the name in its card.
        architecture, hyperparameters: of the model, see `ampmm.models`; `elements` is taken from the data.
        split, n_train, n_validation, n_test, seed: see `ampmm.data.splits`; the seed also sets weights and order.
        steps, batch_size: optimiser steps and frames per step (of all processes together).
        optimizer: "adam", or "muon" (torch 2.9 or newer), which takes fewer steps, see docs/training.md.
        learning_rate, final_learning_rate: the rate falls from one to the other after a linear warm-up.
        schedule, cycles: "exponential", or "cosine" with as many equal cycles, each from the first rate to the final one.
        gradient_clip: largest norm of the gradient of the loss.
        force_weight: λ of Eq. 12; the energy has 1 - λ.
        mm_force_weight: of the MM forces, relative to the QM forces.
        ema_decay: of the exponential moving average of the weights, which is what is evaluated and kept; 0 for none.
        validation_interval, n_validation_checked: how often, and on how many of the validation frames.
        checkpoint_interval: steps between checkpoints.
    """

    data: str
    name: str
    extra_data: list[str] = field(default_factory=list)
    base_data: list[str] = field(default_factory=list)
    start_from: str = ""
    architecture: str = "amp"
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    split: str = "random"
    n_train: int = 7000
    n_validation: int = 2000
    n_test: int = 1000
    seed: int = 0
    steps: int = 400_000
    batch_size: int = 5
    optimizer: str = "adam"
    learning_rate: float = 5.0e-4
    final_learning_rate: float = 1.0e-5
    schedule: str = "exponential"
    cycles: int = 1
    warmup_steps: int = 0
    gradient_clip: float = 1.0
    force_weight: float = 0.8
    mm_force_weight: float = 100.0
    ema_decay: float = 0.0
    validation_interval: int = 1000
    n_validation_checked: int = 200
    checkpoint_interval: int = 1000

    def __post_init__(self) -> None:
        for each in fields(self):
            value, expected = getattr(self, each.name), _EXPECTED[each.type]
            if not _fits(value, expected):
                hint = "; YAML reads 1e-3 as text, write 1.0e-3" if expected is _NUMBER and isinstance(value, str) else ""
                raise InputError(f"{each.name}: expected {_WORDS[expected]}, got {value!r}{hint}")
        if self.split not in SCHEMES:
            raise InputError(f"split: expected one of {', '.join(SCHEMES)}, got {self.split!r}")
        if self.optimizer not in OPTIMIZERS:
            raise InputError(f"optimizer: expected one of {', '.join(OPTIMIZERS)}, got {self.optimizer!r}")
        if self.schedule not in SCHEDULES:
            raise InputError(f"schedule: expected one of {', '.join(SCHEDULES)}, got {self.schedule!r}")
        if self.cycles > 1 and self.schedule != "cosine":
            raise InputError(f"cycles: only schedule 'cosine' has more than one, got {self.cycles} with {self.schedule!r}")
        if not self.mm_force_weight >= 0.0:
            raise InputError(f"mm_force_weight: expected 0 or more, got {self.mm_force_weight}")
        for name in ("seed", "warmup_steps"):
            if getattr(self, name) < 0:
                raise InputError(f"{name}: expected 0 or more, got {getattr(self, name)}")
        if not 0.0 <= self.force_weight <= 1.0:
            raise InputError(f"force_weight: expected 0 to 1 (λ of Eq. 12), got {self.force_weight}")
        if not 0.0 <= self.ema_decay < 1.0:
            raise InputError(f"ema_decay: expected 0 to below 1, got {self.ema_decay}")
        for name in ("n_train", "n_validation", "n_test", "steps", "batch_size", "cycles", "learning_rate",
                     "final_learning_rate", "gradient_clip", "validation_interval", "n_validation_checked",
                     "checkpoint_interval"):  # fmt: skip
            if not getattr(self, name) > 0:
                raise InputError(f"{name}: expected a positive number, got {getattr(self, name)!r}")
        if self.warmup_steps >= self.steps:
            raise InputError(
                f"warmup_steps: expected fewer than steps, {self.steps}, got {self.warmup_steps}: the learning rate would "
                "never come to its schedule; give fewer"
            )

    @classmethod
    def from_dict(cls, values: dict[str, Any], source: str = "training configuration") -> Self:
        """Build from a mapping; unknown or missing names raise `InputError`, whose message begins with `source`."""
        known = [each.name for each in fields(cls)]
        for name in sorted(set(values) - set(known), key=str):
            raise InputError(f"{source}: {unknown_name('name', name, known)}")
        missing = [name for name in ("data", "name") if name not in values]
        if missing:
            raise InputError(f"{source}: {' and '.join(missing)} must be given")
        return cls(**values)

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Read a YAML file."""
        if not Path(path).is_file():
            raise InputError(
                f"training configuration: expected a YAML file (as systems/uracil/train.yaml is), found none at {path}"
            )
        try:
            values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InputError(f"training configuration {path}: cannot be read as YAML: {error}") from None
        if not isinstance(values, dict):
            raise InputError(f"training configuration {path}: expected names and values, got {type(values).__name__}")
        return cls.from_dict(values, f"training configuration {path}")

    def to_dict(self) -> dict[str, Any]:
        """The values as YAML and JSON can hold them."""
        return asdict(self)


def split_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What `ampmm.data.splits.split_frames` needs to make a run's split again, of its `TrainingConfig.to_dict`."""
    sizes = {part: config[f"n_{part}"] for part in Split._fields}
    return {"scheme": config["split"], "seed": config["seed"], **sizes}


def _fits(value: Any, expected: type | tuple[type, ...]) -> bool:
    """Whether a value is of the type; the entries of a list and the names of a mapping are text."""
    inner = value if isinstance(value, (list, dict)) else ()
    return isinstance(value, expected) and not isinstance(value, bool) and all(isinstance(each, str) for each in inner)
