"""The published AMP-BMS weights as a model: every key of the state dict mapped, or named as what it is not needed for."""

import pickle
import zipfile
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from ampmm.errors import InputError, ModelFileError
from ampmm.models.amp_bms import AMPBMS
from ampmm.models.amp_bms_config import AMPBMSConfig

# The rows of per-element tables are atomic numbers, from 0.
N_TABLE_ROWS: Final = 54
# H C N O F P S Cl Br I. The other rows of the published embedding still have the norms of their random beginning.
TRAINED_ELEMENTS: Final = (1, 6, 7, 8, 9, 15, 16, 17, 35, 53)
_UNUSED: Final = {
    "mu.MASSES": "masses, for dipoles about the centre of mass",
    "theta.MASSES": "masses, for quadrupoles about the centre of mass",
}


class ImportedWeights(NamedTuple):
    """A model with published weights, and which keys it did not need, with the reason."""

    model: AMPBMS
    unused: dict[str, str]


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a PyTorch state dict without executing code from it.

    Raises:
        ModelFileError: the file is missing, damaged, or holds something other than tensors by name.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelFileError(f"{path}: there is no such file; give the published state dict") from None
    except Exception as error:
        if _is_torchscript(path):
            raise ModelFileError(
                f"{path}: expected the published state dict, got a TorchScript archive; is it a .pt file of ampmm already?"
            ) from None
        # Of a file that holds other things than tensors torch says how to execute it.
        told = "" if isinstance(error, pickle.UnpicklingError) else str(error).strip()
        reason = told.splitlines()[0] if told else type(error).__name__
        raise ModelFileError(f"{path}: no PyTorch state dict, or a damaged one ({reason})") from None
    if not isinstance(state, Mapping) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise ModelFileError(f"{path}: expected a PyTorch state dict (tensors by name), got {type(state).__name__}")
    return dict(state)


def _is_torchscript(path: str | Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def import_weights(path: str | Path, hyperparameters: Mapping[str, Any] | None = None) -> ImportedWeights:
    """The model of a published state dict.

    Args:
        path: of the file.
        hyperparameters: those of `AMPBMSConfig` that are not the published ones; `elements` are by default those that
            the published weights were trained on.

    Raises:
        ModelFileError: a key is missing or unknown, a tensor has another shape than the hyperparameters ask for, or a
            value is NaN or infinite.
    """
    state = read_weights(path)
    values = {"elements": TRAINED_ELEMENTS, **(hyperparameters or {})}
    config = AMPBMSConfig.from_dict(values)
    if max(config.elements) >= N_TABLE_ROWS:
        raise InputError(f"elements: the published tables end before {N_TABLE_ROWS}, got {max(config.elements)}")
    model = AMPBMS(config)
    shapes = published_shapes(config)
    missing = sorted(set(shapes) - set(state))
    unknown = sorted(set(state) - set(shapes) - set(_UNUSED))
    if missing or unknown:
        raise ModelFileError(
            f"{path}: no AMP-BMS state dict with {config.n_layers} layers; it lacks {_listed(missing)} and has the unknown "
            f"{_listed(unknown)}"
        )
    for name, shape in shapes.items():
        if tuple(state[name].shape) != shape:
            raise ModelFileError(
                f"{path}: expected {name} of shape {shape}, got {tuple(state[name].shape)}; the file is of other "
                "hyperparameters, which --params can give"
            )
        if not torch.isfinite(state[name]).all():
            raise ModelFileError(f"{path}: {name} has values that are NaN or infinite; the file is damaged")
    _fill(model, config, state)
    return ImportedWeights(model, {name: reason for name, reason in _UNUSED.items() if name in state})


def published_shapes(config: AMPBMSConfig) -> dict[str, tuple[int, ...]]:
    """The published names and shapes for these hyperparameters."""
    width, edge, head = config.width, config.edge_width, config.head_width
    aniso = config.n_scalars * config.n_channels
    shapes: dict[str, tuple[int, ...]] = {
        "node_embedding.embedding.weight": (N_TABLE_ROWS, width),
        "radial_embedding.frequencies": (1, config.n_radial),
        "radial_embedding_qmmm.frequencies": (1, config.n_radial_mm),
        "D4.C6_0": (N_TABLE_ROWS, 1),
        "D4.sqrt_r4r2": (N_TABLE_ROWS, 1),
        **_network("edge_embedding", (config.n_radial + 2 * width, edge, edge)),
        **_network("QM_monos", (width, head, 1)),
        **_network("QM_coeffs", (width, head, 3)),
        **_network("B_coefficients", (config.n_radial_mm, config.n_radial_mm, 2)),
        **_network("V.potential", (width, width, width, 1)),
    }
    for i in range(config.n_layers):
        n_in = 2 * width + edge + (0 if i == 0 else aniso)
        n_message = 2 * width + edge + aniso + (config.n_scalars if i == config.n_layers - 1 else 0)
        shapes |= _network(f"eq_message_layers.{i}", (n_in, width, width, 2 * config.n_channels))
        shapes |= _network(f"in_message_layers.{i}", (n_message, width, width), last_bias=True)
        shapes |= _network(f"in_update_layers.{i}", (2 * width, width, width), last_bias=True)
    return shapes


def _network(name: str, sizes: tuple[int, ...], last_bias: bool = False) -> dict[str, tuple[int, ...]]:
    """Names and shapes of Linears with activations between them."""
    shapes: dict[str, tuple[int, ...]] = {}
    for i, (n_in, n_out) in enumerate(pairwise(sizes)):
        shapes[f"{name}.{2 * i}.weight"] = (n_out, n_in)
        if last_bias or i < len(sizes) - 2:
            shapes[f"{name}.{2 * i}.bias"] = (n_out,)
    return shapes


def _fill(model: AMPBMS, config: AMPBMSConfig, state: dict[str, Tensor]) -> None:
    own: dict[str, Tensor] = {}
    rows = list(config.elements)
    own["embedding.weight"] = state["node_embedding.embedding.weight"][rows]
    own["free_c6"] = state["D4.C6_0"][rows, 0]
    own["sqrt_r4r2"] = state["D4.sqrt_r4r2"][rows, 0]
    own["element_energies"] = torch.zeros(len(rows), dtype=torch.float64)
    # The published edge network has the radial functions before the atoms, the others have them after.
    first = state["edge_embedding.0.weight"]
    radial, sender, receiver = first.split([config.n_radial, config.width, config.width], dim=1)
    own |= _pair_linear("edge_embedding.first", sender, receiver, radial, state["edge_embedding.0.bias"])
    own["edge_embedding.last.weight"] = state["edge_embedding.2.weight"]
    for i in range(config.n_layers):
        layer = "last_layer" if i == config.n_layers - 1 else f"hidden_layers.{i}"
        for mine, theirs in (("coefficients", f"eq_message_layers.{i}"), ("message", f"in_message_layers.{i}")):
            weight = state[f"{theirs}.0.weight"]
            sender, receiver, pair = weight.tensor_split([config.width, 2 * config.width], dim=1)
            own |= _pair_linear(f"{layer}.{mine}.first", sender, receiver, pair, state[f"{theirs}.0.bias"])
            own |= _renamed(state, f"{theirs}.2", f"{layer}.{mine}.rest.second")
        own |= _renamed(state, f"eq_message_layers.{i}.4", f"{layer}.coefficients.rest.last")
        own |= _renamed(state, f"in_update_layers.{i}.0", f"{layer}.update.first")
        own |= _renamed(state, f"in_update_layers.{i}.2", f"{layer}.update.rest.second")
    for theirs, mine in (
        ("QM_monos", "atomic_charge"),
        ("QM_coeffs", "response"),
        ("B_coefficients", "polarization.coefficients"),
    ):
        own |= _renamed(state, f"{theirs}.0", f"{mine}.first") | _renamed(state, f"{theirs}.2", f"{mine}.last")
    for theirs, mine in (("0", "first"), ("2", "rest.second"), ("4", "rest.last")):
        own |= _renamed(state, f"V.potential.{theirs}", f"energy.{mine}")
    model.load_state_dict(own)  # strict: every parameter of the model has to be there
    # The stored frequencies are float32 multiples of π; energies are those of the published code only with them.
    model.geometry.radial.frequencies.copy_(state["radial_embedding.frequencies"][0])
    model.polarization.radial.frequencies.copy_(state["radial_embedding_qmmm.frequencies"][0])


def _pair_linear(name: str, sender: Tensor, receiver: Tensor, pair: Tensor, bias: Tensor) -> dict[str, Tensor]:
    return {
        f"{name}.center.weight": receiver,
        f"{name}.center.bias": bias,
        f"{name}.neighbor.weight": sender,
        f"{name}.pair.weight": pair,
    }


def _renamed(state: dict[str, Tensor], theirs: str, mine: str) -> dict[str, Tensor]:
    return {f"{mine}.{part}": state[f"{theirs}.{part}"] for part in ("weight", "bias") if f"{theirs}.{part}" in state}


def _listed(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "") if names else "nothing"
