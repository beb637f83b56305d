"""`ampmm train`: fit a model to labelled frames."""

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import yaml

from ampmm.errors import InputError

if TYPE_CHECKING:
    from ampmm.training import TrainingConfig


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.argument("config", type=click.Path(path_type=Path))
@click.option("-o", "--output", "folder", type=click.Path(path_type=Path), required=True, help="Folder of the run.")
@click.option("--resume", is_flag=True, help="Continue the run in that folder from its checkpoint.")
@click.option("--data", help="Labelled HDF5 file, instead of the configuration's.")
@click.option("--extra-data", multiple=True, help="The same for the configuration's extra_data. Repeatable.")
@click.option("--device", default="auto", help="cpu, cuda, or auto: cuda when there is one.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; without it, torch's own choice.")
def command(
    config: Path, folder: Path, resume: bool, data: str | None, extra_data: tuple[str, ...], device: str, threads: int | None
) -> None:
    """Train a model as CONFIG (a YAML file) says.

    The run's folder gets config.yaml, log.csv (a row at every validation), checkpoint.pt, and at the end model.pt with
    its card. Ctrl-C leaves a checkpoint, from which the same command with --resume goes on to the same result.

    \b
    Example:
      ampmm train systems/uracil/train.yaml -o runs/uracil
      ampmm train systems/uracil/train.yaml -o runs/uracil --resume
    """
    import torch

    from ampmm.cli.export import export_run
    from ampmm.data import read_frames
    from ampmm.training import Trainer, TrainingConfig

    if threads is not None:
        torch.set_num_threads(threads)
    settings = TrainingConfig.from_yaml(config)
    if data is not None:
        settings = dataclasses.replace(settings, data=data)
    if extra_data:
        settings = dataclasses.replace(settings, extra_data=list(extra_data))
    _check_folder(folder, resume)
    frames, extra = read_frames(settings.data), [read_frames(path) for path in settings.extra_data]
    trainer = Trainer(settings, frames, folder, _device(device), extra)
    if resume:
        trainer.resume()
        click.echo(f"resuming {folder} at step {trainer.step} of {settings.steps}")
    else:
        if settings.start_from:
            trainer.start_from(Path(settings.start_from) / "checkpoint.pt")
        folder.mkdir(parents=True)
        _write_config(folder, settings)
        trainer.save()
    n_parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
    click.echo(
        f"{settings.name}: {n_parameters} parameters, {len(trainer.training_frames)} frames for training "
        f"({len(trainer.split.train)} of {frames.n_frames} in {settings.data}), {settings.steps} steps of "
        f"{settings.batch_size} frames on {trainer.device}"
    )
    try:
        trained = trainer.run()
    except KeyboardInterrupt:
        click.echo(
            f"\nstopped at step {trainer.step} of {settings.steps}; go on with:\n"
            f"  ampmm train {config} -o {folder} --resume" + (f" --data {data}" if data else ""),
            err=True,
        )
        raise SystemExit(130) from None
    click.echo(f"{trained.steps} steps in {trained.minutes:.1f} minutes; checkpoint and log in {folder}")
    try:
        export_run(folder, folder / "model.pt", (), data, extra_data, "ampmm " + " ".join(sys.argv[1:]))
    except KeyboardInterrupt:
        click.echo(f"\nthe training is complete; export it with:\n  ampmm export {folder} -o NAME.pt", err=True)
        raise SystemExit(130) from None


def _check_folder(folder: Path, resume: bool) -> None:
    if not resume and folder.exists():
        raise InputError(
            f"--output: {folder} exists and is not overwritten; choose another folder, or continue its run with --resume"
        )
    if resume and not folder.is_dir():
        raise InputError(f"--output: there is no run in {folder} to resume; check the path, or train without --resume")


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name != "cpu" and not name.startswith("cuda"):
        raise InputError(f"--device: expected cpu, cuda or auto, got {name!r}")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"--device: {name} is asked for, but torch finds no CUDA device here; use --device cpu")
    return name


def _write_config(folder: Path, settings: "TrainingConfig") -> None:
    text = yaml.safe_dump(settings.to_dict(), sort_keys=False, allow_unicode=True)
    (folder / "config.yaml").write_text(text, encoding="utf-8")
