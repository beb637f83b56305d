"""The fully connected networks of AMP: Linear and SiLU in turn (paper A.2)."""

from typing import List, Optional

import torch
from torch import Tensor, nn

from ampmm.nn.activation import silu
from ampmm.nn.kernels import PairSum


def _he_(linear: nn.Linear) -> nn.Linear:
    """He et al. (2015) weights, zero bias."""
    nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
    return linear


def _joint_linears(n_out: int, *n_in: int, nonlinearity: str) -> list[nn.Linear]:
    """Blocks of one Linear over the joint input, initialised over the joint fan-in; the first one has the bias."""
    joint = torch.empty(n_out, sum(n_in))
    nn.init.kaiming_normal_(joint, nonlinearity=nonlinearity)
    linears = []
    for position, weight in enumerate(joint.split(n_in, dim=1)):
        linear = nn.Linear(weight.shape[1], n_out, bias=position == 0)
        linear.weight = nn.Parameter(weight.clone())
        if position == 0:
            nn.init.zeros_(linear.bias)
        linears.append(linear)
    return linears


class PairLinear(nn.Module):
    """One Linear on [center atom, neighbor atom, pair], split so that the atoms' parts are computed once per atom."""

    def __init__(self, n_center: int, n_neighbor: int, n_pair: int, n_out: int, nonlinearity: str = "linear") -> None:
        super().__init__()
        self.center, self.neighbor, self.pair = _joint_linears(n_out, n_center, n_neighbor, n_pair, nonlinearity=nonlinearity)

    def forward(self, atoms: Tensor, pair: Tensor, centers: Tensor, neighbors: Tensor) -> Tensor:
        """Atom features (n_atoms, ·), pair features (n_pairs, ·) and indices (n_pairs,) to (n_pairs, n_out)."""
        # In place: each copy would pass through memory, as these are larger than the cache.
        out = self.center(atoms).index_select(0, centers)
        out = out.add_(self.neighbor(atoms).index_select(0, neighbors))
        return out.addmm_(pair, self.pair.weight.t())


class OneSidedPairLinear(nn.Module):
    """The same for pairs whose neighbor has no features: [center atom, pair]."""

    def __init__(self, n_center: int, n_pair: int, n_out: int, nonlinearity: str = "linear") -> None:
        super().__init__()
        self.center, self.pair = _joint_linears(n_out, n_center, n_pair, nonlinearity=nonlinearity)

    def forward(self, center: Tensor, pair: Tensor, centers: Tensor) -> Tensor:
        """`center` (n_atoms, n_out) is `self.center` of the atoms; pair features (n_pairs, ·) to (n_pairs, n_out)."""
        return center.index_select(0, centers) + self.pair(pair)


class Network(nn.Module):
    """SiLU, Linear, SiLU and, with `n_out`, a last Linear without bias, on what a first Linear gave."""

    def __init__(self, width: int, n_out: int | None = None) -> None:
        super().__init__()
        self.second = _he_(nn.Linear(width, width))
        self.last = nn.Identity() if n_out is None else _he_(nn.Linear(width, n_out, bias=False))

    def forward(self, first: Tensor) -> Tensor:
        """(n, width) to (n, n_out or width)."""
        return self.last(silu(self.second(silu(first))))


class NodeNetwork(nn.Module):
    """φ_h, φ_V and φ_ρ."""

    def __init__(self, n_in: int, width: int, n_out: int | None = None) -> None:
        super().__init__()
        self.first = _he_(nn.Linear(n_in, width))
        self.rest = Network(width, n_out)

    def forward(self, x: Tensor) -> Tensor:
        """(n, n_in) to (n, n_out or width)."""
        return self.rest(self.first(x))


class PairNetwork(nn.Module):
    """φ_M and φ_e with the sum of their results over the pairs of an atom: messages, or multipoles of the orders given.

    Args:
        n_atom, n_pair: features of an atom and of a pair.
        orders: lowest and highest order of the multipoles, `n_channels` of each; None for messages.
    """

    gives_messages: torch.jit.Final[bool]

    def __init__(
        self, n_atom: int, n_pair: int, width: int, orders: tuple[int, int] | None = None, n_channels: int = 1
    ) -> None:
        super().__init__()
        lowest, highest = orders or (0, 0)
        self.first = PairLinear(n_atom, n_atom, n_pair, width, "relu")
        self.rest = Network(width, None if orders is None else (highest + 1 - lowest) * n_channels)
        self.sum = PairSum(highest, lowest, n_channels)
        self.gives_messages = orders is None

    def forward(
        self,
        atoms: Tensor,
        pair: Tensor,
        leading: Optional[Tensor],
        centers: Tensor,
        neighbors: Tensor,
        scale: Tensor,
        tensors: Optional[Tensor] = None,
    ) -> Tensor:
        """Atoms (N, n_atom) and pairs (n, ·), with `leading` and `scale` as in `PairSum`, to what that gives.

        `tensors` (n, (K+1)²) are the packed R^k; None for messages.
        """
        last: Optional[Tensor] = None
        if not self.gives_messages:
            last = self.rest.last.weight
        return self.sum(
            pair,
            leading,
            self.first.center(atoms),
            self.first.neighbor(atoms),
            centers,
            neighbors,
            scale,
            tensors,
            self.first.pair.weight,
            self.rest.second.weight,
            self.rest.second.bias,
            last,
        )

    def weights(self) -> List[Tensor]:
        """Of the first Linear for centers, its bias, for neighbors, for pairs; of the second, its bias; of the last, if any."""
        first, second = self.first, self.rest.second
        weights = [first.center.weight, first.center.bias, first.neighbor.weight, first.pair.weight, second.weight, second.bias]
        if not self.gives_messages:
            weights.append(self.rest.last.weight)
        return weights
