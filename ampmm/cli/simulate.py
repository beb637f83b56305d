"""`ampmm simulate`: ML/MM dynamics of a system folder, or of a config file."""

import shlex
from pathlib import Path
from typing import Any

import click

from ampmm.errors import InputError
from ampmm.threads import spin_briefly, use_threads

PLATFORMS = ("auto", "CPU", "CUDA", "OpenCL", "HIP", "Reference")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("system", metavar="SYSTEM|STRUCTURE|CONFIG", required=False)
@click.option("--preset", type=click.Choice(["tip3p", "tip4p-fb"]), help="The published set-up of AMP-BMS, with this water.")
@click.option("--coordinates", help="Of an Amber or GROMACS topology given as STRUCTURE.")
@click.option("--qm-atoms", help="Residue name or MDTraj selection.  [default: the system's own, or all but water and ions]")
@click.option("--padding", type=float, metavar="Å", help="Water between a PDB that has none and its image.  [default: 15]")
@click.option("--form", type=click.Choice(["box", "droplet"]), help="Periodic box or droplet.  [default: box]")
@click.option("--model", help="A shipped model's name, a .pt file, or 'classical'.  [default: the system's own]")
@click.option(
    "--backend", type=click.Choice(["auto", "torchforce", "python"]), help="How OpenMM calls the model.  [default: auto]"
)
@click.option(
    "--electrostatics",
    type=click.Choice(["auto", "reaction-field", "bare"]),
    help="QM–MM electrostatics; auto is reaction-field in a box, bare in a droplet.  [default: auto]",
)
@click.option("--platform", type=click.Choice(PLATFORMS, case_sensitive=False), help="OpenMM platform.  [default: auto]")
@click.option("--precision", type=click.Choice(["float32", "float64"]), help="Of the model.  [default: float32]")
@click.option("--cuda-graphs", is_flag=True, default=None, help="Replay the model's calls as a CUDA graph, on a GPU.")
@click.option("--ensemble", type=click.Choice(["NVT", "NPT", "NVE"], case_sensitive=False), help="[default: NVT]")
@click.option("--temperature", type=float, metavar="K", help="[default: 300]")
@click.option("--pressure", type=float, metavar="BAR", help="With NPT.  [default: 1]")
@click.option("--friction", type=float, metavar="1/PS", help="Of the Langevin thermostat.  [default: 1]")
@click.option("--timestep", type=float, metavar="FS", help="[default: 0.5]")
@click.option("--steps", type=int, help="Length of the whole trajectory.  [default: 2000]")
@click.option("--time", type=float, metavar="PS", help="The same, as a time; instead of --steps.")
@click.option("--report-interval", type=int, metavar="STEPS", help="Between frames, table rows and checks.  [default: 50]")
@click.option("--checkpoint-interval", type=int, metavar="STEPS", help="A multiple of it.  [default: 200]")
@click.option(
    "--minimize",
    type=int,
    metavar="N",
    help="Iterations at most to relax the MM atoms around the QM region, 0 for none.  [default: 100]",
)
@click.option("--seed", type=int, help="Of velocities, thermostat and barostat.  [default: 1]")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder of the run.  [default: runs/SYSTEM-FORM]")
@click.option("--resume", is_flag=True, help="Continue the run in the output folder, with the settings stored there.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of OpenMM and torch.  [default: all cores]")
@click.option("--progress/--no-progress", default=True, help="Show a progress bar.")
def command(system: str | None, resume: bool, threads: int | None, progress: bool, **options: Any) -> None:
    """Run ML/MM molecular dynamics.

    SYSTEM is a folder name under systems/ (such as uracil) or a path to a folder with a system.yaml; CONFIG is a YAML
    file of settings, named as the options are with underscores (plus distance_slack and force_slack). Options
    override the file's settings. With --preset it may be a STRUCTURE: a PDB or mmCIF file, which gets hydrogens, water and
    ions if it has no water (solvated.pdb in the run's folder), or an Amber or GROMACS topology with --coordinates.

    \b
    The run's folder receives
      initial.pdb                 the relaxed start, a topology for the trajectory
      trajectory.dcd              a frame at every report
      state.csv                   energies, temperature, volume, density
      ml.csv                      the model's energy, dipole and atomic charges
      checkpoint.chk, state.xml   what --resume continues from
      final.pdb                   the end
    An earlier run there is never overwritten. Ctrl-C leaves a checkpoint, a second one stops at once. The run stops, with
    the last good frame in last_good.pdb, when numbers turn NaN or the QM region leaves what the model was trained on.

    \b
    Examples:
      ampmm simulate uracil --time 10
      ampmm simulate uracil --form droplet --ensemble NVE --steps 4000 -o runs/nve
      ampmm simulate uracil --time 20 --resume        (up to 20 ps in all)
      ampmm simulate peptide.pdb --preset tip3p --model amp_bms.pt
      ampmm simulate run.yaml
    """
    if threads is not None:
        use_threads(threads)
    spin_briefly()
    from ampmm.simulation.runner import resume as resume_run
    from ampmm.simulation.runner import start

    given = {name: value for name, value in options.items() if value is not None}
    if resume:
        folder, steps = _resumed(system, given)
        result = resume_run(folder, steps, progress=progress, model_file=given.get("model", ""))
    else:
        config = _config(system, given)
        result = start(config, progress=progress)
        if config.steps < config.report_interval:
            click.echo(
                f"note: {config.steps} steps are fewer than --report-interval {config.report_interval}: "
                "trajectory and tables are empty",
                err=True,
            )
    state = "interrupted" if result.interrupted else "done"
    click.echo(f"{state}: {result.step} steps, {result.ns_per_day:.3f} ns/day")
    click.echo(f"trajectory: {result.trajectory} (topology: {result.folder / 'initial.pdb'})")
    if result.interrupted:
        words = ["ampmm", "simulate", "--resume", "--output", str(result.folder)]
        words += ["--threads", str(threads)] if threads is not None else []
        click.echo(f"continue with: {shlex.join(words)}")
        raise SystemExit(130)


def _config(system: str | None, given: dict[str, Any]):
    """The config of a new run: the file's settings, then the options'."""
    from ampmm.simulation.config import config_from, read_settings
    from ampmm.simulation.system_files import SYSTEM_FILE

    if system is None:
        raise InputError("SYSTEM|CONFIG: expected a system's name or a YAML file, got nothing; try: ampmm simulate uracil")
    settings: dict[str, Any] = {}
    source = "options"
    if Path(system).suffix in (".yaml", ".yml") and Path(system).name != SYSTEM_FILE:
        settings, source = read_settings(Path(system)), system
    else:
        settings["system"] = system
    if "steps" in given and "time" in given:
        raise InputError("--steps, --time: expected one of them, got both; leave one out")
    if "steps" in given or "time" in given:
        settings.pop("steps", None)
        settings.pop("time", None)
    if "ensemble" in given:
        given["ensemble"] = given["ensemble"].upper()
    if "output" in given:
        given["output"] = str(given["output"])
    return config_from({**settings, **given}, source)


def _resumed(system: str | None, given: dict[str, Any]) -> tuple[Path, int | None]:
    """The folder to continue and its new length; every other setting is the stored one."""
    from ampmm.simulation.config import config_from, read_settings, steps_of_time
    from ampmm.simulation.restart import CONFIG, require_run

    fixed = sorted(set(given) - {"output", "steps", "time", "form", "model"})
    if fixed:
        names = ", ".join("--" + name.replace("_", "-") for name in fixed)
        raise InputError(
            "--resume: expected only --output, --steps, --time or --threads beside it, or --model for a file that was moved, "
            f"got {names}; a resumed run keeps its settings; start another run to change them"
        )
    if "steps" in given and "time" in given:
        raise InputError("--steps, --time: expected one of them, got both; leave one out")
    form = {"form": given["form"]} if "form" in given else {}
    if "output" in given:
        folder = Path(given["output"])
        if system is not None or form:
            _check_same(folder, system, form)
    elif system is not None:
        folder = _config(system, form).folder
    else:
        raise InputError("--resume: expected the run's folder with --output, or the SYSTEM it was started with, got neither")
    require_run(folder)
    steps = given.get("steps")
    if "time" in given:
        stored = config_from(read_settings(folder / CONFIG), str(folder / CONFIG))
        steps = steps_of_time(given["time"], stored.timestep)
    return folder, steps


def _check_same(folder: Path, system: str | None, form: dict[str, Any]) -> None:
    """Refuse a system or form beside the folder of a run of another one."""
    from ampmm.simulation.config import config_from, read_settings, with_full_paths
    from ampmm.simulation.restart import CONFIG, require_run
    from ampmm.simulation.structure_source import is_structure_file

    require_run(folder)
    if system is not None and is_structure_file(system):
        system = None  # the run may have solvated it into a file of its own
    stored = with_full_paths(config_from(read_settings(folder / CONFIG), str(folder / CONFIG)))
    now = stored if system is None else with_full_paths(_config(system, {}))
    for name, asked in (("system", now.system), *form.items()):
        if asked != getattr(stored, name):
            raise InputError(
                f"--resume: the run in {folder} has the {name} {getattr(stored, name)}, got {asked}; leave it out, or give "
                "that run's own folder"
            )
