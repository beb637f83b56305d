"""The native operators: where their library lies, whether it is in use, and how modules get it.

`python plugin/build.py` (or `make plugin`) builds the library for this machine and this torch. A module whose kernels
are exchanged keeps its parameters and their names; on other devices than the CPU it goes on with the twins of
`ampmm.nn.kernels`.
"""

import hashlib
import math
import os
import platform
from functools import cache, partial
from pathlib import Path
from typing import Final, Optional, Tuple

import torch
from torch import Tensor, nn

from ampmm.nn.kernels import (
    AnisotropicFeatures,
    PairGeometry,
    PairSum,
    PolarizedFeatures,
    PolarizedMultipoles,
    WithNorms,
)
from ampmm.nn.mlp import NodeNetwork
from ampmm.nn.multipoles import contraction_table
from ampmm.nn.native_on_gpu import (
    MOST_COEFFICIENTS,
    NativeLinear,
    NativeNodeNetwork,
    NativeWithNorms,
    fits,
    gpus,
    takes,
)

# Goes up whenever an operator comes or goes, or its arguments or their meaning change.
ABI: Final = 8
OPERATORS: Final = (
    "pair_geometry",
    "anisotropic_features",
    "polarized_features",
    "polarized_multipoles",
    "field_sums",
    "has_bfloat16",
    "gpu_device",
    "pair_sum",
    "layer_multipoles",
    "layer_messages",
    "channel_features",
    "induced_moments",
    "reaction_field",
    "charge_potential",
    "charge_fields",
    "charge_field_gradients",
    "sums_over_pairs",
    "near_pairs",
    "padded_pairs",
    "atom_linear",
    "atom_network",
    "with_norms",
    "long_range_energies",
    "nuclear_repulsion",
)
SOURCES: Final = Path(__file__).parents[2] / "plugin" / "src"  # in a checkout; nothing is there after `pip install`
_BUILD: Final = "run `make plugin` in a checkout of ampmm to build them"


def cache_folder() -> Path:
    """Where libraries are kept: $AMPMM_NATIVE_DIR, or ampmm's folder in the user's cache."""
    own = os.environ.get("AMPMM_NATIVE_DIR")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ampmm"


def library_name(variant: str = "*", sources: Optional[Path] = SOURCES) -> str:
    """A library's file name for this torch, this processor's instructions and these sources ("*" without any).

    The variant is cpu, emulated (the kernels for a GPU on the CPU, for tests) or as cuda-sm90, with kernels for such GPUs.
    """
    machine = hashlib.sha256(f"{torch.__version__} {platform.machine()} {instructions()}".encode()).hexdigest()[:10]
    digest = "*"
    if sources is not None and sources.is_dir():
        texts = [path.read_bytes() for path in sorted(sources.rglob("*")) if path.suffix in (".h", ".cpp", ".cu")]
        digest = hashlib.sha256(b"\0".join(texts)).hexdigest()[:10]
    return f"ampmm_native-{ABI}-{machine}-{variant}-{digest}.so"


def instructions() -> str:
    """What the processor can do, where the system says so: a library built elsewhere may use more."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


@cache
def load() -> str:
    """Load the library once for the process; returns why it is not in use, or "" if it is."""
    if os.environ.get("AMPMM_NATIVE", "1") == "0":
        return "switched off by AMPMM_NATIVE=0"
    found = sorted(cache_folder().glob(library_name()), key=lambda path: path.stat().st_mtime)
    if not found and any(cache_folder().glob(library_name(sources=None))):
        return f"built from other sources than these; {_BUILD}"
    if not found:
        return f"not built for this torch and processor; {_BUILD}"
    usable = _usable(found)
    if not usable:
        return f"built for another GPU ({found[-1].name}); {_BUILD}"
    path = usable[-1]
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        return f"{path} does not load ({error}); {_BUILD}"
    missing = [name for name in OPERATORS if not hasattr(torch.ops.ampmm, name)]
    return f"{path} lacks {', '.join(missing)}; {_BUILD}" if missing else ""


def _usable(found: list[Path]) -> list[Path]:
    """Of libraries those that run here; where torch sees GPUs, those with kernels for them last."""
    with_kernels = [path for path in found if "-cuda-" in path.name]
    here = gpus() if with_kernels else []  # not asked without need: it starts CUDA
    if not here:
        return found
    return [path for path in found if path not in with_kernels] + [path for path in with_kernels if fits(path.stem, here)]


def available() -> bool:
    """Whether the native operators can be used."""
    return load() == ""


def gpu_device() -> str:
    """The type of device whose tensors the GPU's kernels take: "cuda", "cpu" where tests emulate it, "" without kernels."""
    return torch.ops.ampmm.gpu_device() if available() else ""


def in_bfloat16() -> bool:
    """Whether the polarization multiplies in bfloat16: asked for by AMPMM_BFLOAT16=1, and the processor can."""
    return os.environ.get("AMPMM_BFLOAT16", "0") == "1" and available() and torch.ops.ampmm.has_bfloat16()


def status() -> str:
    """One line for people."""
    where = {"": "on the CPU", "cuda": "on CPU and GPU", "cpu": "on the CPU, the GPU's kernels emulated"}
    line = f"native operators: {load() or f'in use {where[gpu_device()]}'}"
    if not available() or os.environ.get("AMPMM_BFLOAT16", "0") != "1":
        return line
    return f"{line}, the polarization's products in {'bfloat16' if in_bfloat16() else 'float32: this processor has no others'}"


def use_native(module: nn.Module) -> nn.Module:
    """Put the native operators in the place of their twins, in place, if the library is there; returns the module."""
    if not available():
        return module
    gpu = gpu_device()
    on_gpu = {twin: partial(fast, gpu=gpu) for twin, fast in _ON_GPU.items()} if gpu else {}
    return _exchange(module, {**_NATIVE, **on_gpu})


def use_twins(module: nn.Module) -> nn.Module:
    """The opposite of `use_native`."""
    for name, child in module.named_children():
        if isinstance(child, (*_NATIVE.values(), *_ON_GPU.values())):
            setattr(module, name, use_twins(child.twin))
        else:
            use_twins(child)
    return module


def register(twin: type[nn.Module], fast: type[nn.Module]) -> None:
    """Let `use_native` put `fast(module)`, whose `twin` the module is, in the place of modules of a class elsewhere."""
    _NATIVE[twin] = fast


def is_native(module: nn.Module) -> bool:
    """Whether any part of a module, which is not scripted, uses a native operator."""
    return any(isinstance(each, tuple(_NATIVE.values())) for each in module.modules())


def _exchange(module: nn.Module, table: dict) -> nn.Module:
    for name, child in module.named_children():
        if type(child) in table:
            fast = table[type(child)](child)
            setattr(module, name, fast)
            if getattr(fast, "exchanges_parts", False):
                _exchange(fast, table)
        elif not isinstance(child, (*_NATIVE.values(), *_ON_GPU.values())):
            _exchange(child, table)
    return module


def _has_known_frequencies(geometry: PairGeometry) -> Tuple[bool, bool]:
    """Whether the radial frequencies are nπ, as the operators', in single precision and exactly; others are the twin's."""
    own = geometry.radial.frequencies.double()
    multiples = math.pi * torch.arange(1, own.shape[0] + 1).to(own)
    return torch.allclose(own, multiples, rtol=1e-6, atol=0.0), torch.equal(own, multiples)


class NativePairGeometry(nn.Module):
    """Native `PairGeometry`."""

    def __init__(self, twin: PairGeometry) -> None:
        super().__init__()
        self.twin = twin
        self.cutoff = twin.radial.cutoff
        self.envelope_exponent = twin.radial.envelope_exponent
        self.n_radial = twin.radial.frequencies.shape[0]
        self.order = twin.tensors.order
        self.rounded, self.exact = _has_known_frequencies(twin)
        self.gpu = gpu_device()
        self.train(twin.training)

    def forward(self, vectors: Tensor) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
        """As the twin."""
        known = self.rounded if vectors.dtype == torch.float32 else self.exact
        if not known or not takes(vectors, self.twin.radial.frequencies, self.gpu, self.training):
            return self.twin(vectors)
        return torch.ops.ampmm.pair_geometry(vectors, self.cutoff, self.envelope_exponent, self.n_radial, self.order)


class NativeAnisotropicFeatures(nn.Module):
    """Native `AnisotropicFeatures`."""

    def __init__(self, twin: AnisotropicFeatures) -> None:
        super().__init__()
        self.twin = twin
        like = twin.multipoles.sum_within_order
        self.register_buffer("table", contraction_table(twin.multipoles.order).to(like), persistent=False)
        self.gpu = gpu_device()
        self.train(twin.training)

    def forward(
        self,
        multipoles: Tensor,
        unit: Tensor,
        radial: Tensor,
        by_center: Tensor,
        by_neighbor: Tensor,
        matrix: Tensor,
        centers: Tensor,
        neighbors: Tensor,
    ) -> Tensor:
        """As the twin."""
        if not takes(unit, matrix, self.gpu, self.training, 64):
            return self.twin(multipoles, unit, radial, by_center, by_neighbor, matrix, centers, neighbors)
        return torch.ops.ampmm.anisotropic_features(
            multipoles, unit, radial, by_center, by_neighbor, matrix, centers, neighbors, self.table
        )


class NativePolarizedFeatures(nn.Module):
    """Native `PolarizedFeatures`."""

    def __init__(self, twin: PolarizedFeatures) -> None:
        super().__init__()
        self.twin = twin
        self.gpu = gpu_device()
        self.train(twin.training)

    def forward(
        self,
        multipoles: Tensor,
        tensors: Tensor,
        radial: Tensor,
        charges: Tensor,
        by_center: Tensor,
        matrix: Tensor,
        centers: Tensor,
    ) -> Tensor:
        """As the twin."""
        # On a GPU no gradients by the charges.
        by_charges = charges.requires_grad and charges.device.type == self.gpu
        if by_charges or not takes(tensors, matrix, self.gpu, self.training, 16):
            return self.twin(multipoles, tensors, radial, charges, by_center, matrix, centers)
        return torch.ops.ampmm.polarized_features(multipoles, tensors, radial, charges, by_center, matrix, centers)


class NativePairSum(nn.Module):
    """Native `PairSum`."""

    def __init__(self, twin: PairSum) -> None:
        super().__init__()
        self.twin = twin
        self.lowest_order = twin.lowest_order
        self.n_channels = twin.n_channels
        self.most_coefficients = MOST_COEFFICIENTS
        self.gpu = gpu_device() if self.n_channels == 1 else ""
        self.train(twin.training)

    def forward(
        self,
        features: Tensor,
        leading: Optional[Tensor],
        center_part: Tensor,
        neighbor_part: Optional[Tensor],
        centers: Tensor,
        neighbors: Tensor,
        scale: Tensor,
        tensors: Optional[Tensor],
        w1: Tensor,
        w2: Tensor,
        b2: Tensor,
        w3: Optional[Tensor],
    ) -> Tensor:
        """As the twin."""
        many = w3 is not None and w3.shape[0] > self.most_coefficients and features.device.type == self.gpu
        if many or not takes(features, w2, self.gpu, self.training):
            return self.twin(features, leading, center_part, neighbor_part, centers, neighbors, scale, tensors, w1, w2, b2, w3)
        return torch.ops.ampmm.pair_sum(
            features, leading, center_part, neighbor_part, centers, neighbors, scale, tensors, w1, w2, b2, w3,
            self.lowest_order, self.n_channels,
        )  # fmt: skip


class NativePolarizedMultipoles(nn.Module):
    """Native `PolarizedMultipoles`: in evaluations one operator for all, in training the twin with native parts.

    The operator keeps what its derivatives need of at most `pairs_per_chunk` pairs, each atom's filled up to tiles; of more it
    computes that again, so that memory grows by the lists of pairs alone. On a GPU it keeps all.
    """

    def __init__(self, twin: PolarizedMultipoles) -> None:
        super().__init__()
        self.scale = twin.scale
        self.pairs_per_chunk = twin.pairs_per_chunk
        self.cutoff = twin.geometry.radial.cutoff
        self.envelope_exponent = twin.geometry.radial.envelope_exponent
        self.n_radial = twin.geometry.radial.frequencies.shape[0]
        self.rounded, self.exact = _has_known_frequencies(twin.geometry)
        self.bfloat16 = in_bfloat16()
        self.gpu = gpu_device()
        self.twin = _exchange(twin, _NATIVE)
        self.train(twin.training)

    def forward(
        self,
        vectors: Tensor,
        charges: Tensor,
        centers: Tensor,
        multipoles: Tensor,
        by_atom: Tensor,
        weights_by_atom: Tensor,
        matrix: Tensor,
        w1: Tensor,
        w2: Tensor,
        b2: Tensor,
        w3: Tensor,
    ) -> Tensor:
        """As the twin."""
        known = self.rounded if vectors.dtype == torch.float32 else self.exact
        operators = takes(vectors, w2, self.gpu, self.training) and takes(vectors, matrix, self.gpu, self.training, 16)
        by_charges = charges.requires_grad and charges.device.type == self.gpu
        if self.training or not known or not operators or by_charges:
            return self.twin(vectors, charges, centers, multipoles, by_atom, weights_by_atom, matrix, w1, w2, b2, w3)
        return torch.ops.ampmm.polarized_multipoles(
            vectors, charges, centers, multipoles, by_atom, weights_by_atom, matrix, w1, w2, b2, w3,
            self.cutoff, self.envelope_exponent, self.n_radial, self.scale, self.pairs_per_chunk,
            self.bfloat16,
        )  # fmt: skip


_NATIVE: Final[dict[type[nn.Module], type[nn.Module]]] = {
    PairGeometry: NativePairGeometry,
    AnisotropicFeatures: NativeAnisotropicFeatures,
    PolarizedFeatures: NativePolarizedFeatures,
    PairSum: NativePairSum,
    PolarizedMultipoles: NativePolarizedMultipoles,
}
# Where the library has kernels for the GPU, these too.
_ON_GPU: Final[dict[type[nn.Module], type[nn.Module]]] = {
    nn.Linear: NativeLinear,
    NodeNetwork: NativeNodeNetwork,
    WithNorms: NativeWithNorms,
}
