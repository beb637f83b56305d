"""The training loop: batches, optimiser steps, validation, checkpoints."""

import csv
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR, LinearLR, LRScheduler, SequentialLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from ampmm.data.batching import Batch, Batcher
from ampmm.data.combine import concatenated
from ampmm.data.schema import FrameSet
from ampmm.data.splits import Split, fingerprint, split_frames
from ampmm.errors import InputError
from ampmm.memory import keep_freed_memory
from ampmm.models import Model, build_model
from ampmm.physics.coulomb import BareCoulomb
from ampmm.physics.evaluators import force_evaluator
from ampmm.training.checkpoint import load_checkpoint, read_checkpoint, save_checkpoint
from ampmm.training.config import TrainingConfig
from ampmm.training.interrupt import DeferredInterrupt
from ampmm.training.loss import weighted_loss

LOG_FIELDS = (
    "step", "minutes", "learning_rate", "loss", "train_energy_rmse", "train_forces_qm_rmse", "train_forces_mm_rmse",
    "validation_energy_mae", "validation_forces_qm_mae", "validation_forces_mm_mae",
)  # fmt: skip


class TrainedModel(NamedTuple):
    """What a run gives."""

    model: Model  # with the averaged weights
    split: Split
    steps: int
    minutes: float
    device: str  # in words


class Trainer:
    """One training run in a folder: `checkpoint.pt` and `log.csv`.

    Frames are fragments cut out around the QM region, so their electrostatics is bare Coulomb over all stored charges.
    `extra` are the frames of `config.extra_data`.
    """

    def __init__(
        self,
        config: TrainingConfig,
        frames: FrameSet,
        folder: Path,
        device: torch.device | str = "cpu",
        extra: Sequence[FrameSet] = (),
    ) -> None:
        if frames.energy is None:
            raise InputError(f"data: {config.data} has no labels; run `ampmm label` on it first")
        self.config = config
        self.folder = folder
        self.device = torch.device(device)
        if len(extra) != len(config.extra_data):
            raise InputError(f"extra: expected the frames of {config.extra_data}, got {len(extra)} sets of frames")
        self.fingerprint = "+".join(fingerprint(each) for each in (frames, *extra))
        self.split = split_frames(frames, config.split, (config.n_train, config.n_validation, config.n_test), config.seed)
        everything = concatenated(frames, extra)
        # Extra frames come after those that are split, whose indices stay.
        self.training_frames = np.concatenate([self.split.train, np.arange(frames.n_frames, everything.n_frames)])
        keep_freed_memory()
        torch.manual_seed(config.seed)
        elements = sorted({int(number) for number in frames.numbers})
        self.model = build_model(config.architecture, {"elements": elements, **config.hyperparameters})
        # The mean training energy, spread evenly over the atoms: with one composition the elements cannot be told apart.
        per_atom = float(frames.energy[self.split.train].mean()) / len(frames.numbers)
        self.model.set_element_energies(dict.fromkeys(elements, per_atom))
        self.model.to(self.device)
        self.average = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay))
        self.batcher = Batcher(
            everything,
            self.model.cutoff,
            self.model.polarization_cutoff,
            self.device,
            long_range_cutoff=self.model.long_range_cutoff,
        )
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=config.learning_rate, betas=(0.9, 0.999), eps=1.0e-7)
        self.scheduler = _schedule(self.optimizer, config)
        self.step = 0
        self.minutes = 0.0
        self.trained_on = _in_words(self.device)

    @property
    def checkpoint_path(self) -> Path:
        """Where the run's checkpoint lies."""
        return self.folder / "checkpoint.pt"

    def resume(self) -> None:
        """Continue from the folder's checkpoint."""
        state = load_checkpoint(self.checkpoint_path, self.config.to_dict(), self.fingerprint)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.step, self.minutes, self.trained_on = state["step"], state["minutes"], state["device"]

    def start_from(self, checkpoint: Path) -> None:
        """Begin with the averaged weights of another run of the same model (fine-tuning); everything else starts anew."""
        state = read_checkpoint(checkpoint)
        settings = {name: state["config"][name] for name in ("architecture", "hyperparameters")}
        own = {name: self.config.to_dict()[name] for name in settings}
        if settings != own:
            raise InputError(f"initial checkpoint: {checkpoint} holds {settings}, this run trains {own}")
        if state["config"]["ema_decay"] > 0.0:
            self.average.load_state_dict(state["average"])
            self.model.load_state_dict(self.average.module.state_dict())
        else:
            self.model.load_state_dict(state["model"])
        self.average = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(self.config.ema_decay))

    def save(self) -> None:
        """Write the checkpoint."""
        state = {
            "config": self.config.to_dict(),
            "fingerprint": self.fingerprint,
            "step": self.step,
            "minutes": self.minutes,
            "device": self.trained_on,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
        }
        save_checkpoint(self.checkpoint_path, state)

    def run(self, progress: bool = True) -> TrainedModel:
        """Train to the configured number of steps; an interrupt saves a checkpoint before it is passed on."""
        self.trained_on = _in_words(self.device)
        self._forget_later_rows()
        evaluator = force_evaluator(self.model, BareCoulomb())
        squares: list[tuple[float, ...]] = []
        started = time.monotonic() - 60.0 * self.minutes
        bar = tqdm(total=self.config.steps, initial=self.step, unit="step", disable=not progress, mininterval=2.0)
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
                if interrupt.requested:
                    self.save()
                    raise KeyboardInterrupt
            self.save()
        return self.trained()

    def trained(self) -> TrainedModel:
        """What the run has given so far."""
        return TrainedModel(self.averaged_model(), self.split, self.step, self.minutes, self.trained_on)

    def _forget_later_rows(self) -> None:
        """Rows logged after the checkpoint are of steps that are done again."""
        path = self.folder / "log.csv"
        if path.exists():
            header, *rows = path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [row for row in rows if float(row.split(",", 1)[0]) <= self.step]
            path.write_text(header + "".join(kept), encoding="utf-8")

    def averaged_model(self) -> Model:
        """The model with the weights that are kept."""
        return self.average.module if self.config.ema_decay > 0.0 else self.model

    def _training_batches(self) -> Iterator[Batch]:
        """Endless passes over the training frames, each in an order of its own; a resumed run goes on in the same order."""
        size, train = self.config.batch_size, self.training_frames
        per_pass = -(-len(train) // size)
        while self.step < self.config.steps:
            this_pass, position = divmod(self.step, per_pass)
            order = np.random.default_rng([self.config.seed, this_pass]).permutation(train)
            for start in range(position * size, len(train), size):
                if self.step >= self.config.steps:
                    return
                yield self.batcher.batch(order[start : start + size])

    def _train_step(self, evaluator: nn.Module, batch: Batch) -> tuple[float, ...]:
        predicted = evaluator(
            batch.frame, batch.charges, batch.polarization, batch.coulomb, create_graph=True, long_range=batch.long_range
        )
        loss = weighted_loss(predicted, batch, self.config.force_weight, self.config.mm_force_weight)
        if not torch.isfinite(loss.total):
            raise InputError(
                f"training: the loss is {loss.total.item()} at step {self.step}; lower learning_rate or gradient_clip, "
                "or look for damaged frames with `ampmm evaluate`"
            )
        self.optimizer.zero_grad(set_to_none=True)
        # Only the parameters need gradients: the second derivatives by the geometry are not computed.
        loss.total.backward(inputs=list(self.model.parameters()))
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_clip)
        self.optimizer.step()
        self.scheduler.step()
        if self.config.ema_decay > 0.0:
            self.average.update_parameters(self.model)
        return tuple(value.item() for value in loss)

    def _log(self, squares: list[tuple[float, ...]]) -> list[float]:
        """Append a row to the log: the training errors since the last row and the validation errors now."""
        mean = np.mean(squares, axis=0)
        chosen = self.split.validation[: self.config.n_validation_checked]
        evaluator = force_evaluator(self.averaged_model(), BareCoulomb())
        errors: dict[str, list[torch.Tensor]] = {"energy": [], "forces_qm": [], "forces_mm": []}
        for batch in self.batcher.batches(chosen, self.config.batch_size):
            predicted = evaluator(batch.frame, batch.charges, batch.polarization, batch.coulomb, long_range=batch.long_range)
            errors["energy"].append((predicted.energies.total.detach() - batch.energy).abs())
            errors["forces_qm"].append((predicted.forces_qm - batch.forces_qm).abs().flatten())
            errors["forces_mm"].append((predicted.forces_mm - batch.forces_mm).abs().flatten())
        validation = [(values.sum() / max(1, len(values))).item() for values in map(torch.cat, errors.values())]
        row = [
            self.step,
            round(self.minutes, 3),
            self.scheduler.get_last_lr()[0],
            mean[0],
            *np.sqrt(mean[1:]),
            *validation,
        ]
        path = self.folder / "log.csv"
        new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(LOG_FIELDS)
            writer.writerow([f"{value:.6g}" for value in row])
        return row


def _in_words(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} thread(s)"


def _schedule(optimizer: torch.optim.Optimizer, config: TrainingConfig) -> LRScheduler:
    """Linear warm-up, then exponential decay to the final learning rate."""
    falling_steps = max(1, config.steps - config.warmup_steps)
    decay = ExponentialLR(optimizer, gamma=(config.final_learning_rate / config.learning_rate) ** (1.0 / falling_steps))
    if config.warmup_steps == 0:
        return decay
    warmup = LinearLR(optimizer, start_factor=0.01, total_iters=config.warmup_steps)
    return SequentialLR(optimizer, [warmup, decay], milestones=[config.warmup_steps])
