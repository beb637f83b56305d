"""`ampmm models`: what ships with this installation."""

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ampmm.export import LoadedModel

_COLUMNS = {
    "name": "name",
    "variant": "variant",
    "level_of_theory": "level of theory",
    "formula": "QM region",
    "charge": "charge, e",
    "energy": "energy, kJ/mol",
    "forces_qm": "QM forces",
    "forces_mm": "MM forces, kJ/mol/Å",
    "parameters": "parameters",
    "megabytes": "MB",
}
_PARTS = ("test", "validation")  # whose errors are shown: the first that the card has


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def command(as_json: bool) -> None:
    """List the models that ship with ampmm.

    With level of theory, QM region (elements where it may be any), net charge, mean absolute errors on the test frames
    and size. `ampmm info NAME` prints the whole card.

    \b
    Example:
      ampmm models
      ampmm models --json
    """
    from ampmm.export import load_model, shipped_models

    rows = [summary(load_model(name), name) for name in shipped_models()]
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False, indent=1))
    elif not rows:
        click.echo("no models are shipped with this installation; give a .pt file")
    else:
        click.echo(_table(rows))
        click.echo("\nMean absolute errors on test frames, of forces per Cartesian component. More: ampmm info NAME")


def summary(loaded: "LoadedModel", name: str) -> dict[str, Any]:
    """What the list says of one model; errors in kJ/mol and kJ/mol/Å, None where the card has none."""
    from ampmm.elements import formula, symbols

    card = loaded.card
    part = next((part for part in _PARTS if part in card.errors), None)
    errors = {key: card.errors[part].get(key, {}).get("mae") if part else None for key in ("energy", "forces_qm", "forces_mm")}
    level = card.level_of_theory
    return {
        "name": name,
        "variant": card.variant,
        "level_of_theory": f"{level}, as a correction to {card.base['level_of_theory']}" if card.base else level,
        "formula": formula(card.composition) if card.composition else " ".join(symbols(card.elements)),
        "elements": symbols(card.elements),
        "charge": card.qm_charge,
        "errors_on": part,
        **errors,
        "parameters": card.training.get("parameters"),
        "megabytes": round(loaded.path.stat().st_size / 1e6, 1),
    }


def _table(rows: list[dict[str, Any]]) -> str:
    cells = [list(_COLUMNS.values())] + [[_cell(key, row[key]) for key in _COLUMNS] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(f"{text:{width}}" for text, width in zip(line, widths, strict=True)).rstrip() for line in cells)


def _cell(key: str, value: Any) -> str:
    if value is None:
        return "any" if key == "charge" else "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
