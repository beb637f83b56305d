"""What native operators there are on a GPU alone, for networks of atoms, and what the GPU's kernels take."""

import re
from typing import ClassVar, Final, Optional

import torch
from torch import Tensor, nn

from ampmm.nn.kernels import WithNorms
from ampmm.nn.mlp import NodeNetwork

# On a GPU up to so many atoms go to our kernels, which read all weights for every two of them; more go to torch's products.
FEW_ATOMS: Final = 256
WIDEST: Final = 128  # of networks; MAX_WIDTH in plugin/src/gpu/operators.h
MOST_COEFFICIENTS: Final = 4  # of a pair: orders 0 to 3


def takes(x: Tensor, weight: Tensor, gpu: str, training: bool, most: int = 128) -> bool:
    """Whether the operators take `x`.

    On the CPU always. On a GPU, with kernels for it, in evaluations that want no gradients by weights, of which there are up to
    `most` rows.
    """
    if x.device.type != gpu:
        return x.device.type == "cpu"
    return not training and not (torch.is_grad_enabled() and weight.requires_grad) and weight.shape[0] <= most


def architectures(listed: str) -> str:
    """The variant of a library with kernels for the GPUs of TORCH_CUDA_ARCH_LIST: of "9.0;10.0+PTX" cuda-sm90-sm100ptx.

    Raises:
        ValueError: not a list of numbers.
    """
    found = [re.fullmatch(r"(\d+)\.(\d)([af]?)(\+PTX)?", part) for part in listed.replace(";", " ").split()]
    if None in found:
        raise ValueError(f"TORCH_CUDA_ARCH_LIST: expected numbers, as in 9.0 or 8.0;9.0+PTX, got {listed!r}")
    names = [f"sm{one[1]}{one[2]}{one[3]}{'ptx' if one[4] else ''}" for one in found if one]
    return "-".join(["cuda", *dict.fromkeys(names)])


def gpus() -> list[tuple[int, int]]:
    """The compute capabilities of the GPUs that torch sees."""
    try:
        return sorted({torch.cuda.get_device_capability(k) for k in range(torch.cuda.device_count())})
    except RuntimeError:  # of a driver that does not answer
        return []


def fits(library: str, here: list[tuple[int, int]]) -> bool:
    """Whether the kernels of a library, by its name, run on every one of some GPUs."""
    built = [re.fullmatch(r"sm(\d+)(\d)([af]?)(ptx)?", part) for part in library.split("-")]
    return all(any(_runs(one, gpu) for one in built if one) for gpu in here)


def _runs(built: re.Match[str], gpu: tuple[int, int]) -> bool:
    """Code runs on later GPUs of its generation; with PTX, which is compiled there, on those of later ones."""
    own = int(built[1]), int(built[2])
    if built[3]:
        return own == gpu
    return own <= gpu and (own[0] == gpu[0] or built[4] is not None)


class NativeLinear(nn.Module):
    """`nn.Linear` of few atoms on a GPU, for evaluations; cuBLAS takes up to 50 µs for such a product, on an H100."""

    __jit_unused_properties__: ClassVar = ["twin"]

    def __init__(self, twin: nn.Linear, gpu: str) -> None:
        super().__init__()
        self.weight, self.bias = twin.weight, twin.bias  # the parameters keep their names
        self.gpu = gpu
        self.most = FEW_ATOMS
        self.train(twin.training)

    @property
    def twin(self) -> nn.Linear:
        """With the same parameters."""
        n_out, n_in = self.weight.shape
        linear = nn.Linear(n_in, n_out, bias=self.bias is not None, device="meta")
        linear.weight, linear.bias = self.weight, self.bias
        return linear.train(self.training)

    def forward(self, x: Tensor) -> Tensor:
        """As the twin."""
        weights_too = torch.is_grad_enabled() and self.weight.requires_grad
        if x.device.type != self.gpu or self.training or weights_too or x.dim() != 2 or x.shape[0] > self.most:
            return torch.nn.functional.linear(x, self.weight, self.bias)
        return torch.ops.ampmm.atom_linear(x, self.weight, self.bias)


class NativeNodeNetwork(nn.Module):
    """Native `NodeNetwork` on a GPU, for evaluations."""

    __jit_unused_properties__: ClassVar = ["twin"]
    has_last: torch.jit.Final[bool]

    def __init__(self, twin: NodeNetwork, gpu: str) -> None:
        super().__init__()
        self.first, self.rest = twin.first, twin.rest  # the parameters keep their names
        self.has_last = isinstance(twin.rest.last, nn.Linear)
        # What is wider than the kernel's blocks stays with the twin.
        self.gpu = "" if self.has_last and twin.rest.last.weight.shape[0] > WIDEST else gpu
        self.most = FEW_ATOMS
        self.train(twin.training)

    @property
    def twin(self) -> NodeNetwork:
        """With the same parameters."""
        network = NodeNetwork(1, 1)
        network.first, network.rest = self.first, self.rest
        return network.train(self.training)

    def forward(self, x: Tensor) -> Tensor:
        """As the twin."""
        on_gpu = x.device.type == self.gpu and takes(x, self.first.weight, self.gpu, self.training)
        if not on_gpu or x.shape[0] > self.most:
            return self.rest(self.first(x))
        last: Optional[Tensor] = None
        if self.has_last:
            last = self.rest.last.weight
        return torch.ops.ampmm.atom_network(
            x, self.first.weight, self.first.bias, self.rest.second.weight, self.rest.second.bias, last
        )


class NativeWithNorms(nn.Module):
    """Native `WithNorms` on a GPU, for evaluations."""

    def __init__(self, twin: WithNorms, gpu: str) -> None:
        super().__init__()
        self.twin = twin
        self.order = twin.multipoles.order
        self.gpu = gpu
        self.train(twin.training)

    def forward(self, hidden: Tensor, multipoles: Tensor) -> Tensor:
        """As the twin."""
        if hidden.device.type != self.gpu or self.training:
            return self.twin(hidden, multipoles)
        return torch.ops.ampmm.with_norms(hidden, multipoles, self.order)
