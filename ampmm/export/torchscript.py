"""`.pt` files: a TorchScript archive with its card; saving, loading, and the models that ship with the package."""

import copy
import os
import struct
import zipfile
import zlib
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Final

import torch
from torch import nn

from ampmm.elements import SYMBOLS
from ampmm.errors import InputError, ModelFileError
from ampmm.export.executor import use_simple_executor
from ampmm.export.loaded_model import LoadedModel
from ampmm.export.metadata import Card
from ampmm.export.native_modules import uses_native_operators, with_native_operators
from ampmm.files import replacing
from ampmm.nn.native import use_twins

_CARD: Final = "ampmm_card.json"
_CUTOFF_ATTRIBUTES: Final = {
    "qm": "cutoff",
    "polarization": "polarization_cutoff",
    "long_range": "long_range_cutoff",
    "coulomb": "coulomb_cutoff",
}
# What `zipfile` raises on damage: a broken directory, a broken stream, an unknown compression, an encryption flag.
_UNREADABLE: Final = (zipfile.BadZipFile, zlib.error, struct.error, RuntimeError, ValueError, EOFError, OSError)


def shipped_models() -> tuple[str, ...]:
    """Names of the models that ship with ampmm."""
    return tuple(sorted(entry.name[:-3] for entry in files("ampmm.pretrained").iterdir() if entry.name.endswith(".pt")))


def save_model(path: str | Path, model: nn.Module, card: Card) -> None:
    """Script a model and write it with its card; an existing file is replaced only by a whole one.

    Files never contain native operators, so that they load everywhere.

    Raises:
        InputError: when the model is not in float32, in which it will be run, or is scripted with native operators.
        ModelFileError: when the file cannot be written.
    """
    path = Path(path)
    if any(parameter.dtype != torch.float32 for parameter in model.parameters()):
        raise InputError("model: expected float32 parameters, as `load_model` runs it; call model.float() first")
    if set(card.elements) - set(range(1, len(SYMBOLS))):
        raise InputError(f"card.elements: expected atomic numbers, got {card.elements}")
    if isinstance(model, torch.jit.ScriptModule):
        if uses_native_operators(model):
            raise InputError(
                "model: scripted with native operators, which other machines lack; save the unscripted model, or "
                "set AMPMM_NATIVE=0 before it is loaded"
            )
        scripted = model
    else:
        scripted = torch.jit.script(use_twins(copy.deepcopy(model).eval()))
    try:
        with replacing(path) as draft:
            torch.jit.save(scripted, str(draft), _extra_files={_CARD: card.to_json().encode()})
    except (RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelFileError(f"{path}: cannot be written ({reason}); is there such a folder, and space on the disk?") from None


@torch.inference_mode(False)  # forces are gradients, which need tensors that are not of that mode
def load_model(name_or_path: str | Path, device: str | torch.device = "cpu") -> LoadedModel:
    """Load a shipped model by name, or any `.pt` file by path.

    The archive is read by TorchScript; no Python pickle is executed. Where the native operators are built, the model uses
    them (see `ampmm.export.native_modules`). Raises `ModelFileError` with what is wrong.
    """
    use_simple_executor()
    _check_device(device)
    path = _resolve(name_or_path)
    if not zipfile.is_zipfile(path):
        raise ModelFileError(f"{path}: no TorchScript archive (or a truncated one); expected a .pt file of `ampmm export`")
    damage = _damage(path)
    if damage:
        raise ModelFileError(f"{path}: the file is damaged ({damage}); fetch or export it again")
    extra = {_CARD: ""}
    try:
        module = torch.jit.load(str(path), map_location=device, _extra_files=extra)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelFileError(f"{path}: the archive cannot be read ({reason}); it is damaged or no TorchScript") from None
    text = extra[_CARD]
    if not text:
        raise ModelFileError(f"{path}: a TorchScript archive without an ampmm card; export the model with `ampmm export`")
    card = Card.from_json(text if isinstance(text, str) else text.decode(errors="replace"), str(path))
    for name, attribute in _CUTOFF_ATTRIBUTES.items():
        own = getattr(module, attribute, None) or None  # a model without long-range pairs has 0, or no such attribute
        told = card.cutoffs.get(name) or None
        if own != told:
            raise ModelFileError(f"{path}: its card gives a {name} cutoff of {told} Å, its model has {own}")
    return LoadedModel(with_native_operators(module.eval(), card), card, path)


def _check_device(device: str | torch.device) -> None:
    try:
        asked = torch.device(device)
    except (RuntimeError, TypeError):
        raise InputError(f"device: expected cpu, cuda or cuda:N, got {device!r}") from None
    if asked.type == "cuda" and (asked.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device: {device} is asked for, and torch finds {torch.cuda.device_count()} CUDA device(s) here")


def ampmm_version() -> str:
    """The installed version of ampmm."""
    return version("ampmm")


def _damage(path: Path) -> str:
    """What the checksums of the archive's members say; TorchScript does not look at them. Empty if all is well."""
    try:
        with zipfile.ZipFile(path) as archive:
            member = archive.testzip()
    except _UNREADABLE as error:
        return str(error)
    return "" if member is None else f"bad checksum of {member}"


def _resolve(name_or_path: str | Path) -> Path:
    text = str(name_or_path)
    if text in shipped_models():
        return Path(str(files("ampmm.pretrained") / f"{text}.pt"))
    path = Path(text)
    if path.is_file():
        return path
    known = ", ".join(shipped_models()) or "none"
    if (path / "model.pt").is_file():
        raise ModelFileError(f"model: expected a .pt file, got the folder {text}; give the {path / 'model.pt'} in it")
    if path.suffix == ".pt" or os.sep in text:
        raise ModelFileError(f"model: there is no file {text}; give a .pt file or a shipped model ({known})")
    raise ModelFileError(f"model: unknown name {text!r}; the shipped models are: {known}; or give the path of a .pt file")
