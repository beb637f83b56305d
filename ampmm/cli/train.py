"""`ampmm train`: fit a model to labelled frames."""

import dataclasses
import shlex
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml

from ampmm.errors import InputError

if TYPE_CHECKING:
    import torch

    from ampmm.training import Processes, Trainer, TrainingConfig


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.argument("config", type=click.Path(path_type=Path))
@click.option("-o", "--output", "folder", type=click.Path(path_type=Path), required=True, help="Folder of the run.")
@click.option("--resume", is_flag=True, help="Continue the run in that folder from its checkpoint.")
@click.option("--data", help="Labelled HDF5 file, instead of the configuration's.")
@click.option("--extra-data", multiple=True, help="The same for the configuration's extra_data, for all of it. Repeatable.")
@click.option("--base-data", multiple=True, help="The same for the configuration's base_data. Repeatable.")
@click.option("--start-from", help="The same for the configuration's start_from: a run's folder, a .pt file or a model's name.")
@click.option("--device", default="auto", help="cpu, cuda, or auto: cuda when there is one.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; without it, torch's own choice.")
def command(
    config: Path,
    folder: Path,
    resume: bool,
    data: str | None,
    extra_data: tuple[str, ...],
    base_data: tuple[str, ...],
    start_from: str | None,
    device: str,
    threads: int | None,
) -> None:
    """Train a model as CONFIG (a YAML file) says.

    The run's folder gets config.yaml, log.csv (a row at every validation), checkpoint.pt, and at the end model.pt with
    its card. Ctrl-C leaves a checkpoint, from which the same command with --resume goes on to the same result.

    Started by torchrun, several processes share every batch; the result is that of one process, whatever their number.

    \b
    Example:
      ampmm train systems/uracil/train.yaml -o runs/uracil
      ampmm train systems/uracil/train.yaml -o runs/uracil --resume
      torchrun --nproc-per-node 4 --no-python ampmm train systems/uracil/train.yaml -o runs/uracil
    """
    import torch

    from ampmm.training import TrainingConfig, choose_device, joined_processes

    if threads is not None:
        torch.set_num_threads(threads)
    given = {"data": data, "extra_data": list(extra_data), "base_data": list(base_data), "start_from": start_from}
    changes = {name: value for name, value in given.items() if value}
    configured = TrainingConfig.from_yaml(config)
    settings = dataclasses.replace(configured, **changes)
    chosen = choose_device(device)
    with joined_processes(chosen) as processes, ExitStack() as held:
        _note_replaced(configured, settings, processes)
        trainer = _prepared(settings, folder, resume, chosen, processes, held)
        if trainer.step == settings.steps and (folder / "model.pt").exists():
            _say(processes, f"the training is complete; {folder / 'model.pt'} is left as it is, `ampmm export` writes another")
            return
        try:
            trained = trainer.run()
        except KeyboardInterrupt:
            again = _command(config, folder, {**changes, "device": device, "threads": threads}, processes.count)
            _say(processes, f"\nstopped at step {trainer.saved_step} of {settings.steps}; go on with:\n  {again}", err=True)
            raise SystemExit(130) from None
        if processes.is_first:
            click.echo(f"{trained.steps} steps in {trained.minutes:.1f} minutes; checkpoint and log in {folder}")
            _export(folder, settings, device)


def _prepared(
    settings: "TrainingConfig", folder: Path, resume: bool, device: "torch.device", processes: "Processes", held: ExitStack
) -> "Trainer":
    """The trainer of a new or continued run, its folder made, locked in `held`, and its first checkpoint written."""
    from ampmm.data import WriterLock
    from ampmm.nn import native
    from ampmm.training import Trainer, read_run_frames

    if processes.is_first:
        _check_folder(folder, resume)
        if resume:
            held.enter_context(WriterLock(folder / "checkpoint.pt"))
    frames, extra, base = read_run_frames(settings, folder / "checkpoint.pt" if resume else None)
    trainer = Trainer(settings, frames, folder, device, extra, base, processes)
    if resume:
        trainer.resume()
        _say(processes, f"resuming {folder} at step {trainer.step} of {settings.steps}")
    else:
        if settings.start_from:
            trainer.start_from(settings.start_from)
        if processes.is_first:
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(WriterLock(folder / "checkpoint.pt"))
            _write_config(folder, settings)
            trainer.save()
    n_parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
    _say(
        processes,
        f"{settings.name}: {n_parameters} parameters, {len(trainer.training_frames)} frames for training "
        f"({len(trainer.split.train)} of {frames.n_frames} in {settings.data}), {settings.steps} steps of "
        f"{settings.batch_size} frames on {device}"
        + (f", shared by {processes.count} processes" if processes.count > 1 else ""),
    )
    if device.type == "cpu":
        _say(processes, native.status())
    return trainer


def _export(folder: Path, settings: "TrainingConfig", device: str) -> None:
    from ampmm.cli.export import Moved, export_run

    moved = Moved(settings.data, tuple(settings.extra_data), tuple(settings.base_data))
    try:
        export_run(folder, folder / "model.pt", (), moved, device, "ampmm " + " ".join(sys.argv[1:]))
    except KeyboardInterrupt:
        click.echo(f"\nthe training is complete; export it with:\n  ampmm export {folder} -o NAME.pt", err=True)
        raise SystemExit(130) from None


def _note_replaced(configured: "TrainingConfig", settings: "TrainingConfig", processes: "Processes") -> None:
    """Say where files of the command line stand in the place of more or fewer of the configuration's."""
    for name in ("extra_data", "base_data"):
        before, now = getattr(configured, name), getattr(settings, name)
        if before and len(now) != len(before):
            option = name.replace("_", "-")
            text = f"note: --{option} stands in the place of all of the configuration's {name}: {', '.join(before)}"
            _say(processes, text, err=True)


def _say(processes: "Processes", text: str, err: bool = False) -> None:
    """One line from one of the processes."""
    if processes.is_first:
        click.echo(text, err=err)


def _command(config: Path, folder: Path, options: dict[str, Any], n_processes: int) -> str:
    """What goes on with the run, with the options that were given."""
    words = ["torchrun", "--nproc-per-node", str(n_processes), "--no-python"] if n_processes > 1 else []
    words += ["ampmm", "train", str(config), "-o", str(folder), "--resume"]
    for name, values in options.items():
        for value in values if isinstance(values, list) else [values]:
            if value not in (None, "auto"):
                words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)


def _check_folder(folder: Path, resume: bool) -> None:
    taken = folder.exists() and not (folder.is_dir() and all(each.name.endswith(".lock") for each in folder.iterdir()))
    if not resume and taken:
        raise InputError(
            f"--output: {folder} exists and is not overwritten; choose another folder, or continue its run with --resume"
        )
    if resume and not folder.is_dir():
        raise InputError(f"--output: there is no run in {folder} to resume; check the path, or train without --resume")


def _write_config(folder: Path, settings: "TrainingConfig") -> None:
    text = yaml.safe_dump(settings.to_dict(), sort_keys=False, allow_unicode=True)
    (folder / "config.yaml").write_text(text, encoding="utf-8")
