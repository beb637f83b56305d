"""The training loop: batches, optimiser steps, validation, checkpoints."""

import csv
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from ampmm.data.batching import Batch, Batcher
from ampmm.data.bounds import training_bounds, wider
from ampmm.data.combine import concatenated
from ampmm.data.differences import minus_base
from ampmm.data.schema import PER_CHARGE, FrameSet
from ampmm.data.splits import Split, fingerprint, learned_part, split_frames, thinned
from ampmm.elements import symbols
from ampmm.errors import InputError
from ampmm.files import replacing
from ampmm.interrupt import DeferredInterrupt
from ampmm.memory import keep_freed_memory
from ampmm.models import Model, build_model
from ampmm.nn.native import use_native
from ampmm.physics.coulomb import BareCoulomb
from ampmm.physics.evaluators import force_evaluator
from ampmm.training.checkpoint import load_checkpoint, save_checkpoint
from ampmm.training.config import TrainingConfig, split_settings
from ampmm.training.loss import Sizes, sizes_of, weighted_loss
from ampmm.training.offsets import element_energies
from ampmm.training.optimizer import make_optimizer
from ampmm.training.processes import ALONE, Processes
from ampmm.training.schedule import learning_rate_schedule
from ampmm.training.start import load_weights, read_parent, split_of

LOG_FIELDS = (
    "step", "minutes", "learning_rate", "loss", "train_energy_rmse", "train_forces_qm_rmse", "train_forces_mm_rmse",
    "validation_energy_mae", "validation_forces_qm_mae", "validation_forces_mm_mae",
)  # fmt: skip
_REMEDY = "lower learning_rate or gradient_clip, or look for damaged frames with `ampmm evaluate`"
FRAMES_FOR_OFFSET = 256  # of the training frames; their mean error settles the offset of a model, at its start or its end


class TrainedModel(NamedTuple):
    """What a run gives."""

    model: Model  # with the averaged weights
    split: Split
    steps: int
    minutes: float
    device: str  # in words
    parent: dict[str, Any]  # the model it began with, as a card stores it; empty if it began with none
    bounds: dict[str, Any]  # of all frames it has seen, its parent's included; see `ampmm.data.bounds`


class Trainer:
    """One training run in a folder: `checkpoint.pt` and `log.csv`.

    Frames are fragments cut out around the QM region, so their electrostatics is bare Coulomb over all stored charges.

    Args:
        config: the run's settings.
        frames, extra: labelled frames of `config.data` and of each file of `config.extra_data`.
        folder: where its files lie; only the first of several processes writes there.
        device: this process's.
        base: frames of each file of `config.base_data`, whose labels are subtracted.
        processes: those that train this model together.
    """

    def __init__(
        self,
        config: TrainingConfig,
        frames: FrameSet,
        folder: Path,
        device: torch.device | str = "cpu",
        extra: Sequence[FrameSet] = (),
        base: Sequence[FrameSet] = (),
        processes: Processes = ALONE,
    ) -> None:
        if frames.energy is None:
            raise InputError(f"data: {config.data} has no labels; run `ampmm label` on it first")
        _check_given("extra", extra, config.extra_data)
        _check_given("base", base, config.base_data)
        self.config = config
        self.folder = folder
        self.device = torch.device(device)
        self.processes = processes
        self.split = split_frames(frames, config.split, (config.n_train, config.n_validation, config.n_test), config.seed)
        everything = concatenated(frames, extra)
        # Extra frames come after those that are split, whose indices stay.
        self.training_frames = np.concatenate([self.split.train, np.arange(frames.n_frames, everything.n_frames)])
        self.fingerprint = "+".join(fingerprint(each) for each in (frames, *extra))
        self._data = frames._replace(**dict.fromkeys(PER_CHARGE))  # for its fingerprints; what is large lies in the batcher
        self.n_frames = [each.n_frames for each in (frames, *extra)]
        self.system = _describe(frames, base)
        self.n_atoms = len(frames.numbers)
        self.bounds = training_bounds(everything, self.training_frames)
        if base:
            everything = minus_base(everything, base)
            self.fingerprint += f"-{fingerprint(everything)}"
        keep_freed_memory()
        torch.manual_seed(config.seed)
        elements = self.system["elements"]
        self.model = use_native(build_model(config.architecture, {"elements": elements, **config.hyperparameters}))
        counts = np.array([[np.count_nonzero(frames.numbers == number) for number in elements]] * len(self.split.train))
        offsets = element_energies(counts, everything.energy[self.split.train])
        self.model.set_element_energies(dict(zip(elements, offsets.tolist(), strict=True)))
        self.model.to(self.device)
        self.parent: dict[str, Any] = {}
        self.average = self._new_average()
        self.batcher = Batcher(
            everything,
            self.model.cutoff,
            self.model.polarization_cutoff,
            self.device,
            long_range_cutoff=self.model.long_range_cutoff,
        )
        self.optimizer = make_optimizer(self.model, config)
        self.scheduler = learning_rate_schedule(self.optimizer, config)
        self.step = 0
        self.saved_step = 0  # of the checkpoint
        self.minutes = 0.0
        self.trained_on = self._in_words()

    @property
    def checkpoint_path(self) -> Path:
        """Where the run's checkpoint lies."""
        return self.folder / "checkpoint.pt"

    def resume(self) -> None:
        """Continue from the folder's checkpoint."""
        state = load_checkpoint(self.checkpoint_path, self.config.to_dict(), self.fingerprint, self.system)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.step, self.minutes, self.trained_on = state["step"], state["minutes"], state["device"]
        self.saved_step = self.step
        self.parent = state.get("parent", {})
        self.bounds = wider(self.bounds, state.get("bounds", {}))

    def start_from(self, source: str | Path) -> None:
        """Begin with the weights of another model (fine-tuning); everything else starts anew.

        `source` is a run's folder or checkpoint (its averaged weights), a `.pt` file or a shipped model's name. The energy
        offset is moved so that the parent's mean error over the training frames is zero: another level of theory has
        another zero of energy.
        """
        parent = read_parent(source, self.config, self.model, self.system["base_level_of_theory"])
        theirs = learned_part(self._data, parent.learned_from) if self.processes.is_first else None
        own = self.n_frames[0], split_settings(self.config.to_dict())
        if theirs is not None and (theirs[0], split_of(theirs[1])) != own:
            warnings.warn(
                f"start_from: {source} has learned from {self.config.data} ({theirs[0]} of its {own[0]} frames) with another "
                "split, or from all of it: validation and test frames of this run are not unseen ones; give this run the same "
                "split of the same frames, or test on another trajectory",
                stacklevel=2,
            )
        load_weights(self.model, parent.weights)
        self._move_offset(self.model)
        self.parent = parent.about
        if parent.atoms == self.system["atoms"]:
            self.bounds = wider(self.bounds, parent.bounds)
        self.average = self._new_average()

    def settle_offset(self) -> None:
        """Move the energy offset of the weights that are kept, so that their mean error over the training frames is zero.

        Forces do not see the offset, and the steps of the last epochs let it wander by a good part of the energies' error.
        """
        self._move_offset(self.averaged_model())

    def _move_offset(self, model: Model) -> None:
        chosen = self.split.train[:: max(1, len(self.split.train) // FRAMES_FOR_OFFSET)][:FRAMES_FOR_OFFSET]
        evaluator = force_evaluator(model, BareCoulomb())
        errors = [
            self._predicted(evaluator, batch).energies.total.detach() - batch.energy
            for batch in self.batcher.batches(chosen, self.config.batch_size)
        ]
        model.element_energies -= torch.cat(errors).mean() / self.n_atoms

    def save(self) -> None:
        """Write the checkpoint; of several processes, only the first one does."""
        if not self.processes.is_first:
            return
        state = {
            "config": self.config.to_dict(),
            "fingerprint": self.fingerprint,
            "system": self.system,
            "n_frames": self.n_frames,
            "parent": self.parent,
            "bounds": self.bounds,
            "step": self.step,
            "minutes": self.minutes,
            "device": self.trained_on,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
        }
        save_checkpoint(self.checkpoint_path, state)
        self.saved_step = self.step

    def run(self, progress: bool = True) -> TrainedModel:
        """Train to the configured number of steps; an interrupt saves a checkpoint before it is passed on."""
        self.trained_on = self._in_words()
        self.processes.copy_from_first(self.model)
        self.processes.copy_from_first(self.average.module)
        self._forget_later_rows()
        evaluator = force_evaluator(self.model, BareCoulomb())
        squares: list[tuple[float, ...]] = []
        started = time.monotonic() - 60.0 * self.minutes
        hidden = not (progress and self.processes.is_first)
        bar = tqdm(total=self.config.steps, initial=self.step, unit="step", disable=hidden, mininterval=2.0)
        # An error inside a step leaves the last checkpoint alone: the weights may be what is wrong.
        with bar, DeferredInterrupt() as interrupt:
            for batch in self._training_batches():
                squares.append(self._train_step(evaluator, batch))
                self.step += 1
                self.minutes = (time.monotonic() - started) / 60.0
                bar.update()
                if self.step % self.config.validation_interval == 0 or self.step == self.config.steps:
                    row = self._log(squares)
                    bar.set_postfix_str(f"validation MAE: E {row[7]:.2f} kJ/mol, F_QM {row[8]:.2f}, F_MM {row[9]:.3f} kJ/mol/Å")
                    squares = []
                if self.step % self.config.checkpoint_interval == 0:
                    self.save()
                if self.processes.any(interrupt.requested, self.device):
                    self.save()
                    raise KeyboardInterrupt
            self.save()
        return self.trained()

    def trained(self) -> TrainedModel:
        """What the run has given so far."""
        return TrainedModel(
            self.averaged_model(), self.split, self.step, self.minutes, self.trained_on, self.parent, self.bounds
        )

    def _forget_later_rows(self) -> None:
        """Rows logged after the checkpoint are of steps that are done again."""
        path = self.folder / "log.csv"
        if self.processes.is_first and path.exists():
            text = path.read_text(encoding="utf-8")
            lines = text[: text.rfind("\n") + 1].splitlines(keepends=True)  # without the half row of a full disk
            rows = [row for row in lines[1:] if row.count(",") == len(LOG_FIELDS) - 1]
            kept = [row for row in rows if float(row.split(",", 1)[0]) <= self.step]
            with replacing(path) as draft:
                draft.write_text("".join([*lines[:1], *kept]), encoding="utf-8")

    def averaged_model(self) -> Model:
        """The model with the weights that are kept."""
        return self.average.module if self.config.ema_decay > 0.0 else self.model

    def _training_batches(self) -> Iterator[Batch | None]:
        """This process's share of endless passes over the training frames, each in an order of its own.

        A resumed run goes on in the same order. A share without a frame is None.
        """
        size, train = self.config.batch_size, self.training_frames
        per_pass = -(-len(train) // size)
        while self.step < self.config.steps:
            this_pass, position = divmod(self.step, per_pass)
            order = np.random.default_rng([self.config.seed, this_pass]).permutation(train)
            for start in range(position * size, len(train), size):
                if self.step >= self.config.steps:
                    return
                own = self.processes.share(order[start : start + size])
                yield self.batcher.batch(own) if len(own) else None

    def _train_step(self, evaluator: nn.Module, batch: Batch | None) -> tuple[float, ...]:
        self.optimizer.zero_grad(set_to_none=True)
        parameters = list(self.model.parameters())
        loss = self.processes.add_up_gradients(parameters, self._gradients(evaluator, batch, parameters))
        if not torch.isfinite(loss[0]):
            raise InputError(f"training: the loss is {loss[0].item()} at step {self.step}; {_REMEDY}")
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.config.gradient_clip)
        if not torch.isfinite(norm):  # clipping has spread it over all gradients: the weights would follow
            raise InputError(f"training: the gradient is {norm.item()} at step {self.step}; {_REMEDY}")
        self.optimizer.step()
        self.scheduler.step()
        if self.config.ema_decay > 0.0:
            self.average.update_parameters(self.model)
        return tuple(loss.tolist())

    def _gradients(self, evaluator: nn.Module, batch: Batch | None, parameters: list[nn.Parameter]) -> Tensor:
        """Leave this share's part of the gradients in the parameters; returns its part of the loss and its terms, (4,)."""
        sizes = self._whole_sizes(batch)
        if batch is None:
            return torch.zeros(4, device=self.device)
        predicted = self._predicted(evaluator, batch, create_graph=True)
        loss = weighted_loss(predicted, batch, self.config.force_weight, self.config.mm_force_weight, sizes)
        # Only the parameters need gradients: the second derivatives by the geometry are not computed.
        loss.total.backward(inputs=parameters)
        return torch.stack(loss).detach()

    def _whole_sizes(self, batch: Batch | None) -> Sizes:
        own = Sizes(0, 0, 0) if batch is None else sizes_of(batch)
        if self.processes.count == 1:
            return own
        return Sizes(*self.processes.add_up(torch.tensor(own, device=self.device)).tolist())

    def _predicted(self, evaluator: nn.Module, batch: Batch, create_graph: bool = False) -> Any:
        return evaluator(
            batch.frame, batch.charges, batch.polarization, batch.coulomb, create_graph, long_range=batch.long_range
        )

    def _log(self, squares: list[tuple[float, ...]]) -> list[float]:
        """Append a row to the log: the training errors since the last row and the validation errors now."""
        mean = np.mean(squares, axis=0)
        row = [
            self.step,
            round(self.minutes, 3),
            self.scheduler.get_last_lr()[0],
            mean[0],
            *np.sqrt(mean[1:]),
            *self._validation_errors(),
        ]
        if not self.processes.is_first:
            return row
        path = self.folder / "log.csv"
        new = not path.exists() or path.stat().st_size == 0
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(LOG_FIELDS)
            writer.writerow([f"{value:.6g}" for value in row])
        return row

    def _validation_errors(self) -> list[float]:
        """Mean absolute errors of energy, QM forces and MM forces over the validation frames that are checked."""
        chosen = self.processes.share(thinned(self.split.validation, self.config.n_validation_checked))
        evaluator = force_evaluator(self.averaged_model(), BareCoulomb())
        sums = torch.zeros(2, 3, dtype=torch.float64, device=self.device)  # of errors, of their numbers
        for batch in self.batcher.batches(chosen, self.config.batch_size):
            predicted = self._predicted(evaluator, batch)
            differences = (
                predicted.energies.total.detach() - batch.energy,
                predicted.forces_qm - batch.forces_qm,
                predicted.forces_mm - batch.forces_mm,
            )
            for column, each in enumerate(differences):
                sums[0, column] += each.abs().sum(dtype=torch.float64)
                sums[1, column] += each.numel()
        total, numbers = self.processes.add_up(sums)
        return (total / numbers.clamp(min=1.0)).tolist()

    def _new_average(self) -> AveragedModel:
        return AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(self.config.ema_decay))

    def _in_words(self) -> str:
        if self.device.type == "cuda":
            name = torch.cuda.get_device_name(self.device)
        else:
            name = f"CPU, {torch.get_num_threads()} thread(s)"
        return name if self.processes.count == 1 else f"{self.processes.count} processes, each on {name}"


def _check_given(name: str, given: Sequence[FrameSet], files: list[str]) -> None:
    if len(given) != len(files):
        raise InputError(f"{name}: expected the frames of {files}, got {len(given)} sets of frames")
    for each, file in zip(given, files, strict=True):
        if not each.n_frames:
            raise InputError(f"{name}_data: {file} holds no frames; label some into it, or leave it out")


def _describe(frames: FrameSet, base: Sequence[FrameSet]) -> dict[str, Any]:
    """What the frames are of, as a checkpoint stores it to refuse those of another data set by name."""
    return {
        "system": frames.header.system,
        "level_of_theory": frames.header.level_of_theory,
        "base_level_of_theory": base[0].header.level_of_theory if base else "",
        "atoms": " ".join(symbols(frames.numbers)),
        "elements": sorted({int(number) for number in frames.numbers}),
        "qm_charge": int(frames.qm_charge),
        "boundary": frames.header.boundary,
    }
