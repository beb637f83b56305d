"""What a run begins with when it does not begin from nothing: the weights of another run, a `.pt` file or a shipped model."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ampmm.elements import symbols
from ampmm.errors import InputError
from ampmm.export import load_model, shipped_models
from ampmm.export.metadata import joined_fingerprints, learned_from
from ampmm.models import Model
from ampmm.training.checkpoint import read_checkpoint
from ampmm.training.config import TrainingConfig, split_settings


class Parent(NamedTuple):
    """A model to begin with."""

    weights: dict[str, Tensor]  # fitting the model that will begin with them
    about: dict[str, Any]  # for the card of what comes out
    base: str  # the level of theory that its labels were differences to; empty: none
    atoms: str  # symbols of the QM region, in order
    bounds: dict[str, Any]  # of what it saw; empty: not known

    @property
    def learned_from(self) -> dict[str, dict[str, Any]]:
        """See `ampmm.export.metadata.learned_from`."""
        return learned_from(self.about)


def read_parent(source: str | Path, config: TrainingConfig, model: Model, base: str = "") -> Parent:
    """Weights for `model` from a run's folder, a checkpoint, a `.pt` file or a shipped model's name.

    `base` is the level of theory that this run's labels are differences to (Δ-learning), or empty.

    Raises:
        InputError, ModelFileError: there is no such thing, or it is of another architecture, other hyperparameters or
            differences to another base.
    """
    path = Path(source)
    if path.is_dir() and not (str(source) in shipped_models() and not (path / "checkpoint.pt").is_file()):
        parent = _from_checkpoint(path / "checkpoint.pt", config, model)
    elif path.name == "checkpoint.pt":
        parent = _from_checkpoint(path, config, model)
    else:
        parent = _from_model_file(source, config, model)
    if parent.base != base:
        raise InputError(
            f"start_from: {source} has learned {_learned(parent.base)}, this run learns {_learned(base)}; start from a model "
            "of the same kind, or change base_data"
        )
    return parent


def _learned(base: str) -> str:
    return f"differences to {base}" if base else "whole energies"


def _from_checkpoint(path: Path, config: TrainingConfig, model: Model) -> Parent:
    state = read_checkpoint(path)
    own, stored = config.to_dict(), state["config"]
    settings = ("architecture", "hyperparameters")
    if any(stored[name] != own[name] for name in settings):
        raise InputError(
            f"start_from: {path} holds { {name: stored[name] for name in settings} }, this run trains "
            f"{ {name: own[name] for name in settings} }; give this run the same ones"
        )
    system = state.get("system", {})
    prefix = "module."
    if stored["ema_decay"] > 0.0:
        weights = {name.removeprefix(prefix): value for name, value in state["average"].items() if name.startswith(prefix)}
    else:
        weights = state["model"]
    weights = _for_elements(path, weights, system.get("elements"), model)
    about = {
        "name": stored["name"],
        "level_of_theory": system.get("level_of_theory"),
        "fingerprint": state["fingerprint"],
        "steps": state["step"],
        "learned_from": _lineage(_files(state), split_settings(stored), state.get("parent", {})),
    }
    base = system.get("base_level_of_theory", "")
    about = {name: value for name, value in about.items() if value is not None}
    return Parent(weights, about, base, system.get("atoms", ""), state.get("bounds", {}))


def _from_model_file(source: str | Path, config: TrainingConfig, model: Model) -> Parent:
    loaded = load_model(source)
    card = loaded.card
    if card.architecture != config.architecture:
        raise InputError(
            f"start_from: {source} is of architecture {card.architecture!r}, this run trains {config.architecture!r}"
        )
    # With the defaults of hyperparameters that came later than the file.
    own, other = model.hyperparameters.to_dict(), type(model.hyperparameters).from_dict(card.hyperparameters).to_dict()
    # Lists and tuples are the same to JSON.
    differing = [name for name in sorted({*own, *other} - {"elements"}) if _plain(own.get(name)) != _plain(other.get(name))]
    if differing:
        details = "; ".join(f"{name}: {other.get(name)!r} there, {own.get(name)!r} here" for name in differing)
        raise InputError(
            f"start_from: {source} has other hyperparameters than this run: {details}; give this run the same ones"
        )
    state = loaded.module.state_dict()
    weights = {name: state[name].detach().clone() for name in model.state_dict()}
    weights = _for_elements(source, weights, other.get("elements"), model)
    about = {
        "name": card.name,
        "level_of_theory": card.level_of_theory,
        "fingerprint": card.data.get("fingerprint"),
        "steps": card.training.get("steps"),
        "ampmm_version": card.ampmm_version,
        "learned_from": _lineage(_files_of_card(card.data), card.data.get("split", {}), card.training.get("parent", {})),
    }
    about = {name: value for name, value in about.items() if value}
    base = card.base.get("level_of_theory", "")
    return Parent(weights, about, base, " ".join(symbols(card.composition)), dict(card.bounds))


def _files(state: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Fingerprints of a checkpoint's data and extra files, with their numbers of frames; older checkpoints have none."""
    names, counts = joined_fingerprints(state["fingerprint"]), state.get("n_frames", [])
    return {name: {"frames": count} for name, count in zip(names, counts, strict=True)} if counts else names


def _files_of_card(data: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The same of a card."""
    files = [each for each in (data, *data.get("extra", {}).values()) if each.get("fingerprint")]
    return {each["fingerprint"]: {"frames": each["frames"]} if "frames" in each else {} for each in files}


def _lineage(
    own: Mapping[str, Mapping[str, Any]], split: Mapping[str, Any], parent: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """What a run with this parent has learned from, for the card of what begins with it; `split`: of its first file."""
    first, earlier = next(iter(own), None), learned_from(parent)
    merged = {**earlier, **{each: {**about, **(split if each == first else {})} for each, about in own.items()}}
    for each in own.keys() & earlier.keys():
        if split_of(merged[each]) != split_of(earlier[each]):
            merged[each] = dict(own[each])  # between them, they may have had all of it
    return merged


def split_of(about: Mapping[str, Any]) -> dict[str, Any]:
    """The split of a file that was learned from, of what `learned_from` says of it."""
    return {name: value for name, value in about.items() if name != "frames"}


def _for_elements(source: str | Path, weights: dict[str, Tensor], elements: Any, model: Model) -> dict[str, Tensor]:
    """The weights for `model`: what belongs to an element goes by element; where the source has none, `model` keeps its own."""
    own = list(model.hyperparameters.elements)
    if elements is None or list(elements) == own:
        return weights
    known = [number for number in own if number in elements]
    if not known:
        raise InputError(
            f"start_from: {source} knows the elements {list(elements)}, the data of this run have {own}: none in common"
        )
    here, there = (torch.tensor([list(each).index(number) for number in known]) for each in (own, elements))
    dimensions, fitting = _element_dimensions(model), {}
    for name, value in model.state_dict().items():
        theirs = weights[name].to(value)
        if name in dimensions:
            along = dimensions[name]
            chosen = theirs.index_select(along, there.to(value.device))
            fitting[name] = value.detach().clone().index_copy_(along, here.to(value.device), chosen)
        else:
            fitting[name] = theirs
    return fitting


def _element_dimensions(model: Model) -> dict[str, int]:
    """The dimension that runs over the elements, of each weight that has one: one element more makes it longer."""
    elements = model.hyperparameters.elements
    another = next(number for number in range(1, len(elements) + 2) if number not in elements)
    with torch.random.fork_rng(devices=[]):
        longer = type(model)(replace(model.hyperparameters, elements=(*elements, another))).state_dict()
    found = {}
    for name, value in model.state_dict().items():
        differing = [i for i, (here, there) in enumerate(zip(value.shape, longer[name].shape, strict=True)) if here != there]
        if differing:
            found[name] = differing[0]
    return found


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def load_weights(model: Model, weights: Mapping[str, Tensor]) -> None:
    """Copy weights and buffers into a model, wherever either lies."""
    with torch.no_grad():
        model.load_state_dict(dict(weights))
