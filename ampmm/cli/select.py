"""`ampmm select`: of many unlabelled frames, those on which a committee of models disagrees."""

import sys
from dataclasses import replace
from pathlib import Path

import click

from ampmm.errors import InputError

FILE = click.Path(path_type=Path)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.argument("frames", type=FILE, nargs=-1, required=True)
@click.option(
    "-m", "--model", "models", multiple=True, required=True, help="A .pt file or a shipped model; two or three of them."
)
@click.option("-n", "--count", default=500, help="Frames to keep, at most.")
@click.option("--round", "round_", type=click.IntRange(min=1), required=True, help="Stored with every frame kept.")
@click.option("--measure", type=click.Choice(["max", "rms"]), default="max", help="Of the scatter of forces over the QM atoms.")
@click.option("--spacing", default=50.0, help="Least time between two frames kept of one trajectory, fs.")
@click.option("--diversity", default=0.0, help="Least RMS difference of the QM atoms' distances between two frames kept, Å.")
@click.option(
    "--ceiling", default=float("inf"), help="Frames that disagree more, kJ/mol/Å, are left out as broken.", show_default="none"
)
@click.option("--exclude", type=FILE, multiple=True, help="A file whose frames are not kept again (same trajectory and index).")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The file of frames kept.")
def command(frames, models, count, round_, measure, spacing, diversity, ceiling, exclude, output) -> None:
    """Keep the frames of FRAMES on which models disagree, for `ampmm label`.

    FRAMES are files of `ampmm sample`, such as dynamics driven by one of the models at 300 to 400 K. The models are of one
    level and differ in their seeds. The output appears only when it is whole; labels that FRAMES may have are not copied.

    \b
    Example:
      ampmm select md_350K.h5 md_400K.h5 -m a.pt -m b.pt -n 500 --round 1 -o round1.h5
      ampmm label round1.h5 -o round1_gfn2.h5 --workers 2
    """
    from tqdm import tqdm

    from ampmm.data import read_frames, write_whole
    from ampmm.data.combine import concatenated
    from ampmm.evaluation.committee import check_limits, disagreements, quantile_table, select_frames
    from ampmm.export import load_model

    if output.exists():
        raise InputError(f"--output: {output} exists and is not overwritten; choose another name")
    if not output.parent.is_dir():
        raise InputError(f"--output: the folder {output.parent} does not exist; make it first")
    limits = {"spacing": spacing * 0.001, "diversity": diversity, "ceiling": ceiling}
    check_limits(count, **limits)  # before the work
    sets = [_unlabelled(read_frames(path)) for path in frames]
    _check_regions(frames, sets)
    pool = concatenated(sets[0], sets[1:], "frames")
    _check_keys(pool)
    known = [read_frames(path) for path in exclude]
    _check_excluded(exclude, known, pool)
    committee = [load_model(model) for model in models]
    with tqdm(total=pool.n_frames, unit="frame", mininterval=1.0) as bar:
        scores = disagreements(committee, pool, measure, bar.update)
    scores[_among(pool, known)] = float("nan")
    chosen = select_frames(pool, scores, count, **limits)
    click.echo(quantile_table(scores, chosen.indices))
    if not len(chosen.indices):
        raise InputError("frames: expected some to keep, found none; they are excluded, above --ceiling, or not finite")
    how = {"models": [str(model) for model in models], "measure": measure, "spacing_fs": spacing, "diversity": diversity}
    trajectories = [{**each, "selection": how} for part in sets for each in part.header.trajectories()]
    header = replace(pool.header, sampling={"trajectories": trajectories}, command="ampmm " + " ".join(sys.argv[1:]))
    records = (pool.record(index)._replace(round=round_) for index in chosen.indices.tolist())
    write_whole(output, header, pool.numbers, records)
    click.echo(
        f"{len(chosen.indices)} of {pool.n_frames} frames in {output}; passed over: {chosen.too_near} near a frame kept, "
        f"{chosen.above_ceiling} excluded, above the ceiling or not finite"
    )


def _unlabelled(frames):
    """The frames without their labels."""
    header = replace(frames.header, level_of_theory="", level_settings={})
    return frames._replace(header=header, energy=None, forces_qm=None, forces_mm=None, charges_qm=None, dipole=None)


def _check_regions(paths, sets) -> None:
    regions = [each.header.mm_region for each in sets]
    for path, region in zip(paths, regions, strict=True):
        if region != regions[0]:
            raise InputError(
                f"frames: expected one MM region, got {regions[0]!r} in {paths[0]} and {region!r} in {path}; "
                "select from them separately"
            )


def _check_excluded(paths, known, pool) -> None:
    for path, each in zip(paths, known, strict=True):
        if each.header.system != pool.header.system or each.numbers.tolist() != pool.numbers.tolist():
            raise InputError(
                f"--exclude: expected frames of {pool.header.system}, as FRAMES are, got those of {each.header.system} in "
                f"{path}; numbers of trajectories mean nothing between systems, so leave it out"
            )


def _key_list(frames) -> list[tuple[int, int]]:
    return list(zip(frames.trajectory.tolist(), frames.source_index.tolist(), strict=True))


def _check_keys(frames) -> None:
    keys = _key_list(frames)
    if len(set(keys)) < len(keys):
        trajectory, index = next(key for key in keys if keys.count(key) > 1)
        raise InputError(
            f"frames: frame {index} of trajectory {trajectory} is there twice; give each trajectory its own --trajectory-id "
            "when sampling, and each file once"
        )


def _among(frames, known) -> list[bool]:
    keys = {key for each in known for key in _key_list(each)}
    return [key in keys for key in _key_list(frames)]
