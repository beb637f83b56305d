"""`ampmm export`: a trained run as a `.pt` file with its measured card."""

import dataclasses
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click
import numpy as np

from ampmm.cli.shared import card_errors, evaluated
from ampmm.errors import InputError

if TYPE_CHECKING:
    from ampmm.data import FrameSet
    from ampmm.export import Card
    from ampmm.training import RestoredRun

TRAINING_FRAMES_EVALUATED = 1000
# Settings that have a place of their own in the card.
_ELSEWHERE = (
    "data",
    "extra_data",
    "base_data",
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
@click.option(
    "--base-data",
    multiple=True,
    help="Of a Δ-model: the base's labels, if they were moved since, or those of --independent files besides. Repeatable.",
)
@click.option("--device", default="auto", help="For the evaluation: cpu, cuda, or auto: cuda when there is one.")
@click.option("--license", "license_", default="", metavar="TEXT", help="Of the model, for its card; e.g. MIT.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; without it, torch's own choice.")
def command(
    folder: Path,
    output: Path,
    independent: tuple[Path, ...],
    data: str | None,
    extra_data: tuple[str, ...],
    base_data: tuple[str, ...],
    device: str,
    license_: str,
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
    moved = Moved(data, extra_data, base_data)
    export_run(folder, output, independent, moved, device, "ampmm " + " ".join(sys.argv[1:]), license_)


class Moved(NamedTuple):
    """Where a run's HDF5 files lie now; what is not given is where it was."""

    data: str | None = None
    extra_data: tuple[str, ...] = ()
    base_data: tuple[str, ...] = ()


def export_run(
    folder: Path, output: Path, independent: tuple[Path, ...], moved: Moved, device: str, line: str, license: str = ""
) -> None:
    """Write the model of a run's folder; `line` is the command stored in the card, `license` its licence."""
    from ampmm.data.differences import minus_base
    from ampmm.data.splits import thinned
    from ampmm.evaluation import describe_frames, errors_of
    from ampmm.export import save_model
    from ampmm.training import choose_device, restore_run, split_settings

    run = restore_run(folder, *moved, device=choose_device(device))
    config, frames, trained = run.config, run.frames, run.trained
    model = trained.model.eval().requires_grad_(False)
    card = dataclasses.replace(_card(run, line), license=license)
    parts = {
        "train": (frames, thinned(trained.split.train, TRAINING_FRAMES_EVALUATED)),
        "validation": (frames, trained.split.validation),
        "test": (frames, trained.split.test),
    }
    unseen = _independent(independent, card, parts, [frames, *run.extra])
    parts |= {file.stem: (each, np.arange(each.n_frames)) for file, each in unseen.items()}
    if trained.steps < config.steps:
        click.echo(f"note: the run stands at step {trained.steps} of {config.steps}", err=True)
    learned = frames if not run.base else minus_base(frames, run.base)
    errors = {}
    for part, (each, indices) in parts.items():
        labels = learned if each is frames else minus_base(each, run.base) if run.base else each
        errors[part] = errors_of(evaluated(model, card, part, labels, indices))
    described = {
        **describe_frames(frames, config.data),
        "split": split_settings(config.to_dict()),
        "evaluated_frames": {part: len(indices) for part, (_, indices) in parts.items()},
        "independent": {file.stem: describe_frames(each, file) for file, each in unseen.items()},
        "extra": {
            name: describe_frames(each, file)
            for name, file, each in zip(_names(config.extra_data), config.extra_data, run.extra, strict=True)
        },
    }
    card = dataclasses.replace(card, data=described, errors={part: each.to_dict() for part, each in errors.items()})
    save_model(output, model.cpu(), card)
    click.echo(f"{output}: {card.variant}, {card.training['parameters']} parameters, {card.level_of_theory}")
    click.echo(card_errors(card))


def _names(files: Sequence[str]) -> list[str]:
    """The files' names without their endings; the second of one name gets a number."""
    stems = [Path(file).stem for file in files]
    counts = [stems[: place + 1].count(stem) for place, stem in enumerate(stems)]
    return [stem if count == 1 else f"{stem}-{count}" for stem, count in zip(stems, counts, strict=True)]


def _card(run: "RestoredRun", line: str) -> "Card":
    """The card of a run's model, still without its errors."""
    from ampmm.evaluation import make_card

    config, trained = run.config, run.trained
    settings = {name: value for name, value in config.to_dict().items() if name not in _ELSEWHERE}
    return make_card(
        name=config.name,
        model=trained.model,
        frames=run.frames,
        bounds=trained.bounds,
        base=run.base[0].header if run.base else None,
        data={},
        training={
            **settings,
            "steps": trained.steps,
            "planned_steps": config.steps,
            "minutes": round(trained.minutes, 1),
            "device": trained.device,
            **({"parent": trained.parent} if trained.parent else {}),
        },
        command=line,
    )


def _independent(
    files: tuple[Path, ...], card: "Card", parts: Iterable[str], seen: Sequence["FrameSet"]
) -> dict[Path, "FrameSet"]:
    """The frames of files that the model has not seen, if it can be measured on them."""
    from ampmm.data import read_frames
    from ampmm.data.combine import first_shared
    from ampmm.data.splits import learned_part
    from ampmm.evaluation import check_comparable
    from ampmm.export.metadata import learned_from

    unseen: dict[Path, FrameSet] = {}
    for file in files:
        if file.stem in {*parts, *(other.stem for other in unseen)}:
            raise InputError(f"--independent: two parts would be named {file.stem!r} in the card; rename {file}")
        frames = read_frames(file)
        check_comparable(card, frames, str(file))
        part = learned_part(frames, learned_from(card.training.get("parent", {})))
        if part is not None:
            raise InputError(
                f"--independent: expected frames that the model has not seen, got {file}, of which the weights that its "
                f"training began with had learned {part[0]}; sample and label another trajectory"
            )
        place = first_shared(frames, seen)
        if place is not None:
            raise InputError(
                f"--independent: expected frames that are in no file of the training, got frame {place} of {file}, which is; "
                "sample and label another trajectory"
            )
        unseen[file] = frames
    return unseen
