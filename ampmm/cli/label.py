"""`ampmm label`: reference energies and forces for sampled frames."""

import contextlib
import sys
from pathlib import Path
from typing import Any

import click
import yaml

from ampmm.errors import InputError


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.argument("frames", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The labelled file.")
@click.option("--engine", default="gfn2-xtb", help="gfn2-xtb or pyscf.")
@click.option("--workers", default=1, help="Processes, each with one thread.")
@click.option(
    "--scheduler",
    default="",
    metavar="ADDRESS",
    help="Label on the workers of this Dask scheduler, e.g. tcp://host:8786, instead of processes here; needs the extra dask.",
)
@click.option("--retry-failed", is_flag=True, help="Compute frames again whose calculation failed in an earlier run.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting of the engine, e.g. accuracy=0.01 (gfn2-xtb) or xc=b3lyp, basis=def2-svp (pyscf); repeatable.",
)
def command(frames: tuple[Path, ...], output: Path, engine: str, settings: tuple[str, ...], **how) -> None:
    """Label FRAMES (files of `ampmm sample`) with a reference method.

    Every frame gets its energy, the forces on QM atoms and MM charges, QM charges and the dipole. A run that was
    stopped is continued by the same command: frames in the output are not computed again. Frames whose calculation
    does not converge are left out; the output lists them, with the reason.

    To label on many machines, start `dask scheduler` on one of them and, where ampmm and the engine are installed,
    `dask worker ADDRESS --nworkers N --nthreads 1`; then give --scheduler ADDRESS here. This process alone writes.

    \b
    Example:
      ampmm label walker_300K.h5 walker_350K.h5 -o uracil_gfn2.h5 --workers 2
    """
    from tqdm import tqdm

    from ampmm.data import read_failures
    from ampmm.reference.label import label_frames

    if not output.parent.is_dir():
        raise InputError(f"--output: the folder {output.parent} does not exist; make it first")
    if how["scheduler"] and how["workers"] != 1:
        raise InputError(
            f"--workers: expected without --scheduler, whose own workers label, got {how['workers']}; leave it out"
        )
    options = dict(_setting(text) for text in settings)
    with tqdm(unit="frame", mininterval=1.0) as bar:

        def progress(done: int, total: int) -> None:
            # Frames of an earlier run are no measure of this run's speed.
            if bar.total is None:
                bar.total, bar.initial, bar.n = total, done, done
                bar.refresh()
            bar.update(done - bar.n)

        report = label_frames(
            frames,
            output,
            engine=engine,
            options=options,
            **how,
            command="ampmm " + " ".join(sys.argv[1:]),
            progress=progress,
        )
    click.echo(f"{report.labelled} frames labelled, {report.present} were there before, in {output}")
    if report.failed:
        click.echo(f"{report.failed} frames could not be labelled and are left out; the first of them, as listed in the file:")
        for failure in read_failures(output)[:5]:
            click.echo(f"  trajectory {failure.trajectory}, frame {failure.source_index}: {failure.reason}")


def _setting(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise InputError(f"--set: expected NAME=VALUE, got {text!r}")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError:
        return name, value
    if isinstance(parsed, str):
        with contextlib.suppress(ValueError):
            return name, float(parsed)  # to YAML, 1e-3 is text
    return name, parsed
