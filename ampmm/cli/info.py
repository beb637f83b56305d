"""`ampmm info`: the card of a model."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from torch.jit import ScriptModule

    from ampmm.export import Card

_LONG = 100  # characters; a longer list is given by its length


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the whole card as JSON.")
def command(model: str | None, as_json: bool) -> None:
    """Print the card of MODEL: a .pt file, or the name of a model that ships with ampmm.

    Without MODEL, list the models that ship with ampmm, as `ampmm models` does.

    \b
    Example:
      ampmm info uracil
      ampmm info runs/uracil/model.pt --json
    """
    from ampmm.cli import models
    from ampmm.export import load_model

    if model is None:
        models.command.callback(as_json)
        return
    loaded = load_model(model)
    if as_json:
        click.echo(loaded.card.to_json())
        return
    click.echo(card_text(loaded.card, str(loaded.path)))
    click.echo(f"\n{_operators(loaded.module)}")


def _operators(module: "ScriptModule") -> str:
    """Whether this installation runs the model with native operators, and if not, why."""
    from ampmm.export import uses_native_operators
    from ampmm.nn import native

    if native.available() and not uses_native_operators(module):
        return "native operators: not for this model (another architecture, or a file of another version of ampmm)"
    return native.status()


def card_text(card: "Card", file: str) -> str:
    """The card in sections, with aligned values."""
    from ampmm.cli.shared import card_errors
    from ampmm.elements import formula, symbols

    model = {
        "file": file,
        "variant": card.variant,
        "parameters": card.training.get("parameters"),
        "QM region": f"{formula(card.composition)}, in this order: {' '.join(symbols(card.composition))}"
        if card.composition
        else None,
        "elements": " ".join(symbols(card.elements)),
        "correction to": card.base.get("level_of_theory"),
        "net charge": "any" if card.qm_charge is None else f"{card.qm_charge} e",
        "cutoffs": ", ".join(f"{name} {value:g} Å" for name, value in card.cutoffs.items()),
        "units": ", ".join(f"{name} {unit}" for name, unit in card.units.items()),
    }
    data = dict(card.data)
    trajectories, split = data.pop("trajectories", []), data.pop("split", {})
    independent, counts = data.pop("independent", {}), data.pop("evaluated_frames", {})
    others = {"independent": independent, "trained on besides": data.pop("extra", {})}
    data.pop("sampling", None)
    for each in trajectories:
        data[f"trajectory {each['trajectory']}"] = _trajectory(each)
    for what, files in others.items():
        for name, other in files.items():
            temperatures = ", ".join(f"{t:g}" for t in other["temperatures_K"])
            data[f"{what}: {name}"] = f"{other['frames']} frames, {temperatures} K, {other['span_ps']:g} ps"
    data["split"] = ", ".join(f"{name} {value}" for name, value in split.items())
    bounds = {
        "least distance, Å": _pairs(card.bounds.get("min_distance", {})),
        "longest bond, Å": _pairs(card.bounds.get("max_bond", {})),
        "largest QM force": f"{card.bounds['max_force_qm']:g} kJ/mol/Å" if "max_force_qm" in card.bounds else None,
    }
    about = {
        "ampmm": card.ampmm_version,
        "format": card.format_version,
        "license": card.license,
        "citation": card.citation,
        "command": card.command,
    }
    sections = [
        (card.name, model),
        ("Level of theory", {"method": card.level_of_theory, **card.level_settings}),
        ("Data", data),
        ("Training", {**card.training, "parent": _parent(card.training.get("parent", {}))}),
        ("Seen in training (dynamics outside of it means nothing)", bounds),
        ("Hyperparameters", card.hyperparameters),
        ("File", about),
    ]
    texts = [_section(title, values.items()) for title, values in sections]
    if card.errors:
        title = "Errors (of forces: per Cartesian component)"
        note = "" if counts else "how many frames were evaluated is not recorded\n"
        texts.insert(3, f"{title}\n{'-' * len(title)}\n{note}{card_errors(card)}")
    return "\n\n".join(texts)


def _parent(about: dict[str, Any]) -> dict[str, Any]:
    """What the training began with, without the list of all that it had learned."""
    return {name: value for name, value in about.items() if name != "learned_from"}


def _section(title: str, values: Iterable[tuple[str, Any]]) -> str:
    rows = [(name.replace("_", " "), _text(value)) for name, value in values]
    rows = [(name, text) for name, text in rows if text]
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join([title, "-" * len(title), *(f"{name:{width}}  {text}" for name, text in rows)])


def _text(value: Any) -> str:
    if value is None or value == {} or value == []:
        return ""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(each)}" for name, each in value.items())
    if isinstance(value, (list, tuple)):
        text = ", ".join(_text(each) for each in value)
        return text if len(text) <= _LONG else f"{len(value)} values; see --json"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _trajectory(each: dict[str, Any]) -> str:
    return f"{each['frames']} frames, {each['temperature_K']:g} K, {each['span_ps']:g} ps"


def _pairs(distances: dict[str, float]) -> str:
    return ", ".join(f"{pair} {value:.2f}" for pair, value in distances.items())
