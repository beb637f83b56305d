"""`ampmm evaluate`: a model against labelled frames."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ampmm.cli.shared import evaluated, frame_counts
from ampmm.errors import InputError

if TYPE_CHECKING:
    from ampmm.data import FrameSet
    from ampmm.export import Card


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.argument("model")
@click.argument("data", metavar="DATA.h5", type=click.Path(path_type=Path))
@click.option(
    "--split",
    type=click.Choice(["auto", "from-card", "all"]),
    default="auto",
    help="from-card: train, validation and test frames as recorded in the card; all: the whole file; "
    "auto: from-card for the file the model was trained on, all for any other.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), help="Folder for errors.json and plots.")
@click.option("--log", type=click.Path(path_type=Path), help="log.csv of the training run: for a learning curve in --output.")
@click.option("--limit", type=click.IntRange(min=0), default=0, help="At most this many frames of each part; 0: all.")
@click.option("--base-data", multiple=True, help="Of a Δ-model: the same frames labelled by its base. Repeatable.")
@click.option(
    "--other-level", is_flag=True, help="Also compare with labels of another level of theory: energies up to a constant."
)
@click.option("--device", default="auto", help="cpu, cuda, or auto: cuda when there is one.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; without it, torch's own choice.")
def command(
    model: str,
    data: Path,
    split: str,
    output: Path | None,
    log: Path | None,
    limit: int,
    base_data: tuple[str, ...],
    other_level: bool,
    device: str,
    threads: int | None,
) -> None:
    """Compare MODEL (a .pt file or a shipped name) with the labels of DATA.h5.

    Prints mean absolute, root mean square and largest errors of energies, forces on QM atoms and forces on MM charges
    (per Cartesian component). With --output, also writes them as JSON and draws parity plots. Data of another system,
    net charge or level of theory is refused; the last may be allowed, e.g. for the published AMP-BMS.

    \b
    Example:
      ampmm evaluate uracil uracil_gfn2.h5 -o report --log runs/uracil/log.csv
      ampmm evaluate uracil independent_300K.h5
    """
    import torch

    from ampmm.data import read_frames
    from ampmm.data.splits import thinned
    from ampmm.evaluation import (
        check_comparable,
        differing_settings,
        error_table,
        errors_of,
        parts_of,
        plot_learning_curve,
        plot_parity,
        pyplot,
        write_errors,
    )
    from ampmm.export import load_model
    from ampmm.training import choose_device

    if threads is not None:
        torch.set_num_threads(threads)
    if log is not None and output is None:
        raise InputError("--log: the learning curve is drawn into a folder; give --output too")
    if output is not None:
        pyplot()
        if output.exists() and any(output.iterdir()):
            raise InputError(f"--output: {output} holds files, which are never overwritten; give another folder")
    loaded = load_model(model, choose_device(device))
    frames = read_frames(data)
    check_comparable(loaded.card, frames, str(data), other_level)
    shifted = frames.header.level_of_theory != loaded.card.level_of_theory
    if shifted:
        levels = f"{frames.header.level_of_theory}, not {loaded.card.level_of_theory}"
        click.echo(f"note: the labels are {levels}; each part's mean energy error is left out", err=True)
    for difference in () if shifted else differing_settings(loaded.card, frames):
        click.echo(f"note: the labels' settings differ: {difference}", err=True)
    parts = parts_of(loaded.card, frames, str(data), split)
    labels = _learned(loaded.card, frames, base_data)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        if log is not None:
            plot_learning_curve(log, output / "learning_curve.png")
    errors, counts = {}, {}
    for part, indices in parts.items():
        predictions = evaluated(loaded.module, loaded.card, part, labels, thinned(indices, limit))
        predictions = predictions.relative() if shifted else predictions
        errors[part], counts[part] = errors_of(predictions), predictions.n_frames
        if output is not None:
            title = f"{loaded.card.name}, {loaded.card.variant}: {counts[part]} frames of {data.name}, {part}"
            plot_parity(predictions, title, output / f"parity_{part}.png")
    sizes = {part: len(indices) for part, indices in parts.items()}
    click.echo(f"{loaded.card.name} ({loaded.card.variant}, {loaded.card.level_of_theory}) on {data}")
    click.echo(error_table({part: each.to_dict() for part, each in errors.items()}, frame_counts(counts, sizes)))
    if output is not None:
        about = {"model": loaded.card.name, "model_file": str(loaded.path), "data": str(data), "part_sizes": sizes}
        about["mean_energy_error_left_out"] = shifted
        write_errors(output / "errors.json", errors, counts, about)
        click.echo(f"errors.json and plots in {output}")


def _learned(card: "Card", frames: "FrameSet", base_data: tuple[str, ...]) -> "FrameSet":
    """The labels that the model is to be compared with: of a Δ-model, their differences to its base's."""
    from ampmm.data import read_frames
    from ampmm.data.differences import minus_base
    from ampmm.export.metadata import unlike

    if not card.base:
        if base_data:
            raise InputError(f"--base-data: model {card.name!r} is no Δ-model and has no base; leave it out")
        return frames
    level = card.base["level_of_theory"]
    if not base_data:
        raise InputError(
            f"--base-data: model {card.name!r} is a correction to {level}, got no labels of that level; make them of the same "
            "frames with `ampmm label` and give the file"
        )
    base = [read_frames(path) for path in base_data]
    for path, each in zip(base_data, base, strict=True):
        if each.header.level_of_theory != level:
            raise InputError(f"--base-data: expected labels of {level}, got {each.header.level_of_theory!r} in {path}")
        own, other = card.base["level_settings"], each.header.level_settings
        if names := unlike(own, other):
            differing = "; ".join(f"{name} {other.get(name)!r}, not {own.get(name)!r}" for name in names)
            raise InputError(f"--base-data: {path} has other settings of {level} than the model's base: {differing}")
    return minus_base(frames, base)
