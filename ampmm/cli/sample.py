"""`ampmm sample`: QM/MM dynamics of a droplet; its frames into an HDF5 file."""

import sys
from pathlib import Path

import click

from ampmm.cli.shared import refuse_idle
from ampmm.errors import InputError


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.argument("system")
@click.option(
    "--driver",
    default="gfn2-xtb",
    help="What moves the QM region: a labeller (gfn2-xtb, pyscf); cheaper, for frames to be labelled by another: gfn-ff, "
    "classical (the system's own force field); a shipped model's name, or a .pt file.",
)
@click.option("--temperature", default=300.0, help="K")
@click.option("--time", default=10.0, help="Length of the stored trajectory, ps.")
@click.option("--interval", default=10.0, help="Time between two stored frames, fs.")
@click.option("--timestep", default=1.0, help="fs")
@click.option(
    "--minimize",
    default=200,
    help="Iterations at most, of the MM atoms around the QM region, before equilibration; 0 for none. Each is a call or two of "
    "the driver: 20 do for a droplet that is equilibrated already.",
)
@click.option("--equilibration", default=3.0, help="Time before the first frame, after minimisation, ps.")
@click.option("--friction", default=1.0, help="Of the Langevin thermostat, 1/ps; ten times that while equilibrating.")
@click.option(
    "--hydrogen-mass",
    default=3.0,
    help="Mass of the QM hydrogens, amu. Averages do not depend on it; 3 allows 1 fs steps.",
)
@click.option("--mm-region", default=14.0, help="Molecules with an atom within this distance of a QM atom are stored, Å.")
@click.option(
    "--mm-cutoff",
    default=0.0,
    help="Cutoff of the classical non-bonded terms, Å, with a reaction field; 0 is none. 10 makes large droplets several "
    "times faster. Only for the drivers gfn-ff and classical, whose charges are fixed.",
)
@click.option("--seed", default=1, help="Of velocities and thermostat.")
@click.option("--trajectory-id", default=0, help="Number stored with every frame, to tell trajectories apart.")
@click.option("--accuracy", default=1.0, help="xtb's accuracy factor while sampling; labels are computed anew with their own.")
@click.option("--round", "round_", default=0, help="Of learning, stored with every frame: 0 before any model, then 1, 2, …")
@click.option(
    "--restrain",
    "restrain",
    type=(int, int, float, float),
    multiple=True,
    metavar="I J R K",
    help="Hold the distance of atoms I and J (from 0) at R nm by ½K(r−R)², K in kJ/mol/nm²; repeatable. Takes the place of "
    "system.yaml's restraint on the same atoms.",
)
@click.option(
    "--burst",
    default=0,
    metavar="STEPS",
    help="After every interval, this many steps by --burst-driver, whose frames are stored instead; 0 is none.",
)
@click.option("--burst-driver", default="gfn2-xtb", help="What moves the QM region in a burst; names as for --driver.")
@click.option("--burst-frames", default=1, help="Frames stored of each burst, evenly over its steps.")
@click.option("--burst-timestep", default=1.0, help="fs")
@click.option("--burst-friction", default=20.0, help="1/ps; strong, to take up the heat of changing drivers.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The HDF5 file of frames.")
@click.option("--resume", is_flag=True, help="Continue a trajectory that was stopped; --time may be longer than before.")
def command(system: str, driver: str, accuracy: float, restrain: tuple, output: Path, resume: bool, **options) -> None:
    """Sample frames of SYSTEM by QM/MM molecular dynamics.

    SYSTEM is a folder name under systems/ (such as uracil) or a path to a folder with a system.yaml that describes a
    droplet. The droplet is minimised, equilibrated, and moved with rigid water and a flexible QM region, which feels
    all MM charges. Frames carry no labels; `ampmm label` computes them.

    Reference-driven dynamics is slow for large QM regions. A cheap driver is fast, and --burst brings its frames near to
    the reference's distribution before they are stored.

    \b
    Examples:
      ampmm sample systems/uracil --temperature 350 --time 25 --trajectory-id 2 --seed 2 -o walker_350K.h5
      ampmm sample systems/ra --driver gfn-ff --time 100 --interval 500 --burst 200 -o ra_bursts.h5
      ampmm sample systems/sam --driver gfn-ff --restrain 52 0 0.40 20000 --time 50 --interval 100 -o sam_40.h5
    """
    from tqdm import tqdm

    from ampmm.interrupt import terminated_as_interrupted
    from ampmm.simulation.drivers import make_driver
    from ampmm.simulation.droplet_files import load_droplet
    from ampmm.simulation.restraints import umbrella
    from ampmm.simulation.sampling import Burst, BurstSettings, SamplingSettings, sample

    burst_options = {name: options.pop(f"burst_{name}") for name in ("driver", "frames", "timestep", "friction")}
    burst_driver, burst_steps = burst_options.pop("driver"), options.pop("burst")
    burst_settings = BurstSettings(burst_steps, **burst_options) if burst_steps else None
    drivers = {driver.lower(), *({burst_driver.lower()} if burst_steps else ())}
    refuse_idle(("burst_driver", "burst_frames", "burst_timestep", "burst_friction"), bool(burst_steps), "with --burst")
    refuse_idle(("accuracy",), "gfn2-xtb" in drivers, "with the driver gfn2-xtb")
    checked = SamplingSettings(round=options.pop("round_"), **options)
    umbrellas = [umbrella(*each) for each in restrain]
    if output.exists() and not resume:
        raise InputError(f"--output: {output} exists and is not overwritten; choose another name, or continue it with --resume")
    if not output.parent.is_dir():
        raise InputError(f"--output: the folder {output.parent} does not exist; make it first")
    droplet = load_droplet(system, umbrellas)
    evaluator, name = make_driver(driver, droplet, accuracy)
    burst = None
    if burst_settings is not None:
        burst = Burst(*make_driver(burst_driver, droplet, accuracy), burst_settings)
    total = checked.n_frames * (burst_settings.frames if burst_settings else 1)
    with tqdm(total=total, unit="frame", smoothing=0.05, mininterval=1.0) as bar, terminated_as_interrupted():

        def progress(done: int, total: int) -> None:
            bar.update(done - bar.n)

        try:
            n_frames = sample(
                droplet,
                evaluator,
                checked,
                output,
                driver=name,
                burst=burst,
                command="ampmm " + " ".join(sys.argv[1:]),
                resume=resume,
                report=bar.write,
                progress=progress,
            )
        except KeyboardInterrupt:
            bar.close()
            if output.exists():
                click.echo(f"\nstopped; the frames before are in {output}, go on with the same command and --resume", err=True)
            else:
                click.echo("\nstopped before the first frame; nothing is stored", err=True)
            raise SystemExit(130) from None
    click.echo(f"{n_frames} frames in {output}")
