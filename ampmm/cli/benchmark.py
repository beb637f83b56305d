"""`ampmm benchmark`: what an evaluation costs on this machine, part by part."""

import time
from pathlib import Path

import click

from ampmm.cli.shared import refuse_idle
from ampmm.errors import InputError

SWEEPS = {
    "charges": [(12, n) for n in (100, 300, 1000, 3000, 10_000, 30_000, 100_000)],  # at fixed cutoffs
    "atoms": [(n, 3000) for n in (12, 25, 50, 100, 200, 400)],
}


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.argument("regions", nargs=-1, metavar="[REGION]...")
@click.option("--model", help="A shipped AMP model or .pt file; without it an untrained AMP(3), which costs the same.")
@click.option("--mode", "modes", multiple=True, type=click.Choice(["eager", "scripted", "native", "cuda-graph"]),
              help="Repeatable.  [default: eager, scripted, and native where it is built; cuda-graph on a GPU]")  # fmt: skip
@click.option("--sweep", type=click.Choice(list(SWEEPS)), help="Regions of growing size, with the exponent of the time.")
@click.option("--polarization-cutoff", default=8.0, help="Å; without --model.")
@click.option("--polarization-kind", type=click.Choice(["pairs", "fields"]), default="pairs", help="-D or -F; without --model.")
@click.option("--coulomb-cutoff", default=12.0, help="Å, reaction field; 0: bare Coulomb with all charges.")
@click.option("--batch", default=1, type=click.IntRange(min=1), help="Frames evaluated in one call.")
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float32")
@click.option("--device", default="auto", help="cpu, cuda, or auto: cuda when there is one.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; without it, torch's own choice.")
@click.option("--rounds", default=7, type=click.IntRange(min=1), help="Timed, after three that warm up.")
@click.option("--cpu-time", is_flag=True, help="Processor time instead of wall-clock time: for a busy machine, one thread.")
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), help="Folder of benchmark.json and a plot.")
def command(
    regions, model, modes, sweep, polarization_cutoff, polarization_kind, coulomb_cutoff, batch, dtype, device, threads, rounds,
    cpu_time, output,
) -> None:  # fmt: skip
    """Time energy and forces of random QM regions among random MM charges.

    REGION is uracil, ra or sam (the paper's sizes), or QM atoms and MM charges as in 50x2400. All modes take turns in one
    process. "products alone" is the time that the matrix products counted in an evaluation would take at the rate
    of large ones, "their bytes alone" the time to move their operands and results at the rate of a large copy, both rates
    measured in the same process; "ratio" is the time over the first. "launches" are the operations on tensors of one eager
    call, each of which a GPU has to be told. Eager and scripted are the networks in PyTorch; Coulomb
    sums and sums of pair forces are native, one operation each, in every mode where the library is built (AMPMM_NATIVE=0: in
    none). cuda-graph is what is fastest of those on a GPU, replayed as a CUDA graph. Whole MD steps: `make benchmark`.

    \b
    Example:
      ampmm benchmark --threads 1
      ampmm benchmark 12x1490 50x1000 --mode scripted --coulomb-cutoff 0 --batch 10
      ampmm benchmark --sweep charges -o charges
    """
    import torch

    from ampmm.benchmark import PAPER_REGIONS, measure_region, parse_region, random_region, table
    from ampmm.evaluation import pyplot
    from ampmm.nn import native
    from ampmm.training import choose_device

    refuse_idle(("polarization_cutoff", "polarization_kind"), model is None, "without --model, which has its own,")
    if regions and sweep:
        raise InputError(f"--sweep: it has regions of its own, got {' '.join(regions)} too; give one or the other")
    if cpu_time and threads != 1:
        raise InputError("--cpu-time: adds up the time of all threads; give --threads 1 with it")
    if output is not None and output.exists():
        raise InputError(f"--output: {output} exists and is not overwritten; choose another name")
    if output is not None and sweep:
        pyplot()
    if threads:
        torch.set_num_threads(threads)
    where = choose_device(device)
    sizes = {f"{n} × {m}": (n, m) for n, m in SWEEPS[sweep]} if sweep else {
        text: parse_region(text) for text in regions or PAPER_REGIONS
    }  # fmt: skip
    fast = ["native"] if native.available() and where.type in ("cpu", native.gpu_device()) else []
    graphs = ["cuda-graph"] if where.type == "cuda" else []
    chosen = list(modes) or ["eager", "scripted", *fast, *graphs]
    network, cutoff, polarization_cutoff = _network(model, polarization_cutoff, polarization_kind)
    click.echo(_heading(where, dtype, cpu_time))
    measured = []
    for name, (n_qm, n_mm) in sizes.items():
        measured += measure_region(
            name,
            [random_region(n_qm, n_mm, seed, network.hyperparameters.elements) for seed in range(batch)],
            network,
            chosen,
            cutoff=cutoff,
            polarization_cutoff=polarization_cutoff,
            coulomb_cutoff=coulomb_cutoff or float("inf"),
            device=where,
            dtype=getattr(torch, dtype),
            rounds=rounds,
            clock=time.process_time if cpu_time else time.perf_counter,
        )
        click.echo(f"{name}: " + ", ".join(f"{each.mode} {each.total / batch:.3g} ms" for each in measured[-len(chosen) :]))
    click.echo("\n" + table(measured))
    if output is not None:
        _write(output, measured, sweep)
    elif sweep:
        for mode, value in _exponents(measured, sweep).items():
            click.echo(f"{mode}: time grows as size to the power {value:.2f}")


def _network(model: str | None, polarization_cutoff: float, kind: str):
    """An AMP model in eager form, with its cutoffs."""
    from ampmm.benchmark.regions import ELEMENTS
    from ampmm.export import load_model
    from ampmm.models import build_model

    if model is None:
        hyperparameters = {"elements": ELEMENTS, "polarization_cutoff": polarization_cutoff, "polarization_kind": kind}
        network = build_model("amp", hyperparameters)
    else:
        card = load_model(model).card
        if card.architecture != "amp":
            raise InputError(f"--model: expected an AMP model, got {model}, which is {card.architecture}")
        network = build_model(card.architecture, card.hyperparameters)  # times do not depend on the weights
    return network, network.cutoff, network.polarization_cutoff


def _heading(device, dtype: str, cpu_time: bool) -> str:
    import os
    import platform

    import torch

    from ampmm.nn import native

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{os.cpu_count()} cores of {platform.machine()}"
    clock = "processor" if cpu_time else "wall-clock"
    return f"{name}, {torch.get_num_threads()} thread(s), torch {torch.__version__}, {dtype}, {clock} time\n{native.status()}\n"


def _size(sweep: str):
    return (lambda m: m.n_mm, "MM charges") if sweep == "charges" else (lambda m: m.n_qm * m.n_mm, "QM atoms × MM charges")


def _exponents(measured, sweep: str) -> dict[str, float]:
    from ampmm.benchmark import exponent

    size, _ = _size(sweep)
    found = {}
    for mode in dict.fromkeys(each.mode for each in measured):
        own = [each for each in measured if each.mode == mode]
        found[mode] = exponent([size(each) for each in own], [each.total for each in own])
    return found


def _write(output: Path, measured, sweep: str | None) -> None:
    import json

    from ampmm.benchmark import plot_sweep

    output.mkdir(parents=True)
    text = json.dumps([each.to_dict() for each in measured], indent=1)
    (output / "benchmark.json").write_text(text + "\n", encoding="utf-8")
    if sweep:
        size, label = _size(sweep)
        for mode, value in plot_sweep(measured, size, label, output / f"{sweep}.png").items():
            click.echo(f"{mode}: time grows as size to the power {value:.2f}")
    click.echo(f"written to {output}")
