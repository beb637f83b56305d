"""`ampmm import-weights`: the published AMP-BMS state dict as a `.pt` file with its card."""

import hashlib
import sys
from pathlib import Path
from typing import Any, Final

import click

from ampmm.errors import InputError

LEVEL_OF_THEORY: Final = "ωB97M, QM/MM (published AMP-BMS weights)"
CITATION: Final = "AMP-BMS: J. Am. Chem. Soc. 2026, 148, 28133"
LICENSE: Final = "MIT"


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.argument("weights", metavar="FILE", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The .pt file.")
@click.option(
    "--params",
    type=click.Path(path_type=Path, dir_okay=False),
    help="YAML with hyperparameters of AMPBMSConfig that differ from the published ones, e.g. cutoff or n_channels.",
)
@click.option("--name", default="amp-bms", help="Of the model, for its card.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
def command(weights: Path, output: Path, params: Path | None, name: str, force: bool) -> None:
    """Make a .pt file of FILE, the published PyTorch state dict of AMP-BMS.

    The file is read without running code from it. Every key is mapped or reported, every shape is checked; a truncated
    or foreign file is refused. docs/amp_bms.md says where to get it.

    \b
    Example:
      ampmm import-weights MIN_state_dict -o amp_bms.pt
      ampmm info amp_bms.pt
    """
    if output.exists() and not force:
        raise InputError(f"--output: {output} exists and is not overwritten; choose another name, or replace it with --force")
    if output.suffix != ".pt":
        raise InputError(f"--output: expected a name that ends in .pt, got {output.name}")
    if not output.parent.is_dir():
        raise InputError(f"--output: the folder {output.parent} does not exist; make it first")
    unused = import_file(weights, output, _read_params(params), name, "ampmm " + " ".join(sys.argv[1:]))
    for key, reason in unused.items():
        click.echo(f"not needed: {key} ({reason})")
    click.echo(f"{output}: AMP-BMS, license {LICENSE}; cite {CITATION}")


def import_file(weights: Path, output: Path, hyperparameters: dict[str, Any], name: str, line: str) -> dict[str, str]:
    """Write the `.pt` file; returns the keys that were not needed, with the reasons. `line` is stored in the card."""
    from ampmm.evaluation.card import without_folders
    from ampmm.export import Card, save_model
    from ampmm.export.torchscript import ampmm_version
    from ampmm.models import import_weights

    model, unused = import_weights(weights, hyperparameters)
    values = model.hyperparameters.to_dict()
    card = Card(
        name=name,
        architecture=model.architecture,
        variant=model.hyperparameters.name,
        hyperparameters=values,
        elements=tuple(values["elements"]),
        qm_charge=None,
        cutoffs=model.cutoffs,
        level_of_theory=LEVEL_OF_THEORY,
        data={
            "source": "published state dict, imported",
            "file": weights.name,
            "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
            "keys_not_needed": list(unused),
        },
        training={"parameters": sum(p.numel() for p in model.parameters())},
        license=LICENSE,
        citation=CITATION,
        command=without_folders(line),
        ampmm_version=ampmm_version(),
    )
    save_model(output, model, card)
    return unused


def _read_params(path: Path | None) -> dict[str, Any]:
    import yaml

    if path is None:
        return {}
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"--params: {path} cannot be read ({error})") from None
    if not isinstance(values, dict):
        raise InputError(f"--params: expected names and values in {path}, got {type(values).__name__}")
    return values
