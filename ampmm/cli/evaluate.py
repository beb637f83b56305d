"""`ampmm evaluate`: a model against labelled frames."""

from pathlib import Path

import click

from ampmm.cli.shared import evaluated, frame_counts
from ampmm.errors import InputError


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
@click.option("--device", default="cpu", help="cpu or cuda.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; without it, torch's own choice.")
def command(
    model: str, data: Path, split: str, output: Path | None, log: Path | None, limit: int, device: str, threads: int | None
) -> None:
    """Compare MODEL (a .pt file or a shipped name) with the labels of DATA.h5.

    Prints mean absolute, root mean square and largest errors of energies, forces on QM atoms and forces on MM charges
    (per Cartesian component). With --output, also writes them as JSON and draws parity plots. Data of another system,
    net charge or level of theory is refused.

    \b
    Example:
      ampmm evaluate uracil uracil_gfn2.h5 -o report --log runs/uracil/log.csv
      ampmm evaluate uracil independent_300K.h5
    """
    import torch

    from ampmm.data import read_frames
    from ampmm.evaluation import (
        check_comparable,
        differing_settings,
        error_table,
        errors_of,
        parts_of,
        plot_learning_curve,
        plot_parity,
        thinned,
        write_errors,
    )
    from ampmm.export import load_model

    if threads is not None:
        torch.set_num_threads(threads)
    if log is not None and output is None:
        raise InputError("--log: the learning curve is drawn into a folder; give --output too")
    loaded = load_model(model, _device(device))
    frames = read_frames(data)
    check_comparable(loaded.card, frames, str(data))
    for difference in differing_settings(loaded.card, frames):
        click.echo(f"note: the labels' settings differ: {difference}", err=True)
    parts = parts_of(loaded.card, frames, str(data), split)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        if log is not None:
            plot_learning_curve(log, output / "learning_curve.png")
    errors, counts = {}, {}
    for part, indices in parts.items():
        predictions = evaluated(loaded.module, loaded.card, part, frames, thinned(indices, limit))
        errors[part], counts[part] = errors_of(predictions), predictions.n_frames
        if output is not None:
            title = f"{loaded.card.name}, {loaded.card.variant}: {counts[part]} frames of {data.name}, {part}"
            plot_parity(predictions, title, output / f"parity_{part}.png")
    sizes = {part: len(indices) for part, indices in parts.items()}
    click.echo(f"{loaded.card.name} ({loaded.card.variant}, {loaded.card.level_of_theory}) on {data}")
    click.echo(error_table({part: each.to_dict() for part, each in errors.items()}, frame_counts(counts, sizes)))
    if output is not None:
        about = {"model": loaded.card.name, "model_file": str(loaded.path), "data": str(data), "part_sizes": sizes}
        write_errors(output / "errors.json", errors, counts, about)
        click.echo(f"errors.json and plots in {output}")


def _device(name: str) -> str:
    import torch

    if name != "cpu" and not (name.startswith("cuda") and torch.cuda.is_available()):
        raise InputError(f"--device: expected cpu, or cuda where torch finds such a device, got {name!r}")
    return name
