"""`ampmm export`: a trained run as a `.pt` file with its measured card."""

import dataclasses
import sys
from pathlib import Path

import click
import numpy as np

from ampmm.cli.shared import card_errors, evaluated
from ampmm.errors import InputError

TRAINING_FRAMES_EVALUATED = 1000
# Settings that have a place of their own in the card.
_ELSEWHERE = (
    "data",
    "extra_data",
    "name",
    "architecture",
    "hyperparameters",
    "split",
    "n_train",
    "n_validation",
    "n_test",
    "seed",
    "steps",
)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.argument("folder", metavar="RUN_FOLDER", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The .pt file.")
@click.option(
    "--independent",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE.h5",
    help="A labelled file that the model has not seen; its errors go into the card too. Repeatable.",
)
@click.option("--data", help="The training's HDF5 file, if it was moved since.")
@click.option("--extra-data", multiple=True, help="The training's extra files, if they were moved since. Repeatable.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; without it, torch's own choice.")
def command(
    folder: Path,
    output: Path,
    independent: tuple[Path, ...],
    data: str | None,
    extra_data: tuple[str, ...],
    force: bool,
    threads: int | None,
) -> None:
    """Export the model of RUN_FOLDER (of `ampmm train`) as a .pt file with its card.

    The model has the averaged weights of the last checkpoint. Its errors on the training (at most 1000 frames of it),
    validation and test frames and on independent files are computed here and stored in the card, with the level of
    theory, the data, the settings, and the bounds of what it saw.

    \b
    Example:
      ampmm export runs/uracil -o uracil.pt --independent independent_300K.h5
      ampmm info uracil.pt
    """
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    if output.exists() and not force:
        raise InputError(f"--output: {output} exists and is not overwritten; choose another name, or replace it with --force")
    if output.suffix != ".pt":
        raise InputError(f"--output: expected a name that ends in .pt, got {output.name}")
    if not output.parent.is_dir():
        raise InputError(f"--output: the folder {output.parent} does not exist; make it first")
    export_run(folder, output, independent, data, extra_data, "ampmm " + " ".join(sys.argv[1:]))


def export_run(
    folder: Path, output: Path, independent: tuple[Path, ...], data: str | None, extra_data: tuple[str, ...], line: str
) -> None:
    """Write the model of a run's folder; `line` is the command stored in the card."""
    from ampmm.data import read_frames
    from ampmm.evaluation import check_comparable, describe_frames, describe_split, errors_of, make_card, thinned
    from ampmm.export import save_model
    from ampmm.training import restore_run

    config, frames, extra, trained = restore_run(folder, data, extra_data)
    model = trained.model.eval()
    card = make_card(
        name=config.name,
        model=model,
        frames=frames,
        split=trained.split,
        extra=extra,
        data={},
        training={
            **{name: value for name, value in config.to_dict().items() if name not in _ELSEWHERE},
            "optimizer": "Adam",
            "steps": trained.steps,
            "planned_steps": config.steps,
            "minutes": round(trained.minutes, 1),
            "device": trained.device,
        },
        command=line,
    )
    parts = {
        "train": (frames, thinned(trained.split.train, TRAINING_FRAMES_EVALUATED)),
        "validation": (frames, trained.split.validation),
        "test": (frames, trained.split.test),
    }
    others = {}
    for file in independent:
        if file.stem in parts:
            raise InputError(f"--independent: two parts would be named {file.stem!r} in the card; rename {file}")
        unseen = read_frames(file)
        check_comparable(card, unseen, str(file))
        parts[file.stem] = (unseen, np.arange(unseen.n_frames))
        others[file.stem] = describe_frames(unseen, file)
    if trained.steps < config.steps:
        click.echo(f"note: the run stands at step {trained.steps} of {config.steps}", err=True)
    errors = {part: errors_of(evaluated(model, card, part, *each)) for part, each in parts.items()}
    described = {
        **describe_frames(frames, config.data),
        "split": describe_split(trained.split, config.split, config.seed),
        "evaluated_frames": {part: len(indices) for part, (_, indices) in parts.items()},
        "independent": others,
        "extra": {Path(file).stem: describe_frames(each, file) for file, each in zip(config.extra_data, extra, strict=True)},
    }
    card = dataclasses.replace(card, data=described, errors={part: each.to_dict() for part, each in errors.items()})
    save_model(output, model, card)
    click.echo(f"{output}: {card.variant}, {card.training['parameters']} parameters, {card.level_of_theory}")
    click.echo(card_errors(card))
