"""Traceless symmetric Cartesian multipoles up to order 3, packed into their 2k+1 independent components.

The packed components refer to an orthonormal basis of traceless symmetric tensors, so the full contraction of two
tensors is the dot product of their packed forms. R^k of a unit vector (spec: R^1 = r̂, R^2 = r̂r̂ - I/3, ...)
then has real solid harmonics as components, with |R^k|² = k!/(2k-1)!!.
"""

from itertools import permutations

import torch
from torch import Tensor, nn

MAX_ORDER = 3

# The basis tensors as homogeneous harmonic polynomials: {(i, j, ...): coefficient of r_i r_j ...}.
_S2, _S6 = 2.0**0.5, 6.0**0.5
_QUADRUPOLE = (
    {(0, 1): _S2},
    {(0, 2): _S2},
    {(1, 2): _S2},
    {(0, 0): 1 / _S2, (1, 1): -1 / _S2},
    {(2, 2): 2 / _S6, (0, 0): -1 / _S6, (1, 1): -1 / _S6},
)
_OCTUPOLE = (
    {(0, 0, 1): 3 * 0.5, (1, 1, 1): -0.5},
    {(0, 1, 2): 6.0**0.5},
    {(1, 2, 2): 4 * 0.15**0.5, (0, 0, 1): -(0.15**0.5), (1, 1, 1): -(0.15**0.5)},
    {(2, 2, 2): 2 * 0.1**0.5, (0, 0, 2): -3 * 0.1**0.5, (1, 1, 2): -3 * 0.1**0.5},
    {(0, 2, 2): 4 * 0.15**0.5, (0, 0, 0): -(0.15**0.5), (0, 1, 1): -(0.15**0.5)},
    {(0, 0, 2): 1.5**0.5, (1, 1, 2): -(1.5**0.5)},
    {(0, 0, 0): 0.5, (0, 1, 1): -3 * 0.5},
)


# The same for the lower orders, and the squares of the numbers that make all coefficients of a component whole.
_POLYNOMIALS = (({(): 1.0},), ({(0,): 1.0}, {(1,): 1.0}, {(2,): 1.0}), _QUADRUPOLE, _OCTUPOLE)
_SQUARED_NORMS = (1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 6.0, 4.0, 6.0, 60.0, 10.0, 60.0, 6.0, 4.0)


def _symmetric(polynomial: dict[tuple[int, ...], float], rank: int) -> Tensor:
    """The symmetric tensor T with T·r·r… equal to the polynomial."""
    tensor = torch.zeros((3,) * rank, dtype=torch.float64)
    for indices, coefficient in polynomial.items():
        places = set(permutations(indices))
        for place in places:
            tensor[place] += coefficient / len(places)
    return tensor


def basis_tensors(order: int) -> Tensor:
    """The orthonormal basis of traceless symmetric tensors of one order, flattened: (2·order+1, 3^order) float64."""
    return torch.stack([_symmetric(polynomial, order).flatten() for polynomial in _POLYNOMIALS[order]])


def contraction_table(order: int) -> Tensor:
    """How packed tensors of orders 1..`order` contract once with a vector r, each to one of an order less: (n,) float64.

    For every order l the numbers t[e, c, b] of (T·r)_c = Σ T_e t[e, c, b] r_b, (2l+1, 2l-1, 3), flattened one after another.
    """
    tables = [torch.zeros(0, dtype=torch.float64)]
    for l in range(1, order + 1):
        tensors = basis_tensors(l).reshape(2 * l + 1, 3 ** (l - 1), 3)
        tables.append(torch.einsum("eib,ci->ecb", tensors, basis_tensors(l - 1)).flatten())
    return torch.cat(tables)


def packed_size(order: int) -> int:
    """Components of all orders 0..`order`."""
    return (order + 1) ** 2


def quadrupole_tensors(packed: Tensor) -> Tensor:
    """Packed quadrupoles (..., 5) as Cartesian tensors (..., 3, 3)."""
    s2, s6 = 0.5**0.5, 6.0**-0.5
    xy, xz, yz, difference = (s2 * packed[..., :4]).unbind(-1)
    axial = s6 * packed[..., 4]
    rows = [difference - axial, xy, xz, xy, -difference - axial, yz, xz, yz, 2.0 * axial]
    return torch.stack(rows, dim=-1).reshape(list(packed.shape[:-1]) + [3, 3])


class PackedTensors(nn.Module):
    """R^0..R^order of unit vectors, by one matrix product in the place of fifty small operations, each a launch on a GPU.

    The buffers hold integers alone, which no change of precision rounds: polynomials without their factors, and the squared
    norms that give those.
    """

    def __init__(self, order: int) -> None:
        super().__init__()
        self.order = order
        # Rows are the products of `order` (at least one) factors that each are 1, x, y or z.
        n_factors = max(order, 1)
        polynomials = torch.zeros((4,) * n_factors + (packed_size(order),), dtype=torch.float64)
        column = 0
        for k in range(order + 1):
            for polynomial in _POLYNOMIALS[k]:
                for indices, coefficient in polynomial.items():
                    place = (0,) * (n_factors - k) + tuple(index + 1 for index in indices)
                    polynomials[(*place, column)] = coefficient * _SQUARED_NORMS[column] ** 0.5
                column += 1
        integers = torch.round(polynomials).reshape(4**n_factors, column)
        self.register_buffer("polynomials", integers.to(torch.get_default_dtype()), persistent=False)
        self.register_buffer("squared_norms", torch.tensor(_SQUARED_NORMS[:column]), persistent=False)

    def forward(self, unit: Tensor) -> Tensor:
        """Unit vectors (n, 3) to the tensors, packed one after another: (n, (order+1)²)."""
        factors = torch.nn.functional.pad(unit, [1, 0], value=1.0)
        products = factors
        for _ in range(self.order - 1):
            products = (products.unsqueeze(2) * factors.unsqueeze(1)).flatten(1)
        return products @ (self.polynomials.to(unit.dtype) * self.squared_norms.to(unit.dtype).rsqrt())


class Multipoles(nn.Module):
    """Operations on packed multipoles M^0..M^K of `order` K: weighting, norms, contractions."""

    def __init__(self, order: int) -> None:
        super().__init__()
        self.order = order
        orders = [k for k in range(order + 1) for _ in range(2 * k + 1)]
        self.register_buffer("order_of_component", torch.tensor(orders), persistent=False)
        summation = torch.zeros(packed_size(order), order + 1)
        summation[torch.arange(len(orders)), torch.tensor(orders)] = 1.0
        self.register_buffer("sum_within_order", summation, persistent=False)
        basis = torch.block_diag(*(basis_tensors(k) for k in range(order + 1)))
        self.register_buffer("basis", basis.to(torch.get_default_dtype()), persistent=False)

    def weighted(self, coefficients: Tensor, tensors: Tensor) -> Tensor:
        """c^k R^k: (n, K+1) and (n, (K+1)²) to (n, (K+1)²)."""
        return coefficients.index_select(1, self.order_of_component) * tensors

    def dot(self, left: Tensor, right: Tensor) -> Tensor:
        """Full contraction order by order: two (n, (K+1)²) to (n, K+1)."""
        return (left * right) @ self.sum_within_order

    def norms(self, multipoles: Tensor) -> Tensor:
        """Frobenius norms ‖M^k‖, (n, K+1); zero with a finite gradient (and second derivative) at zero."""
        # sqrt(|M|² + ε²) - ε with ε = 1e-4
        return torch.sqrt(self.dot(multipoles, multipoles) + 1.0e-8) - 1.0e-4

    def cartesian(self, multipoles: Tensor) -> Tensor:
        """The Cartesian tensors, each flattened, one order after another: (n, (K+1)²) to (n, 1 | 4 | 13 | 40)."""
        return multipoles @ self.basis

    def interactions(self, left: Tensor, right: Tensor, unit: Tensor) -> Tensor:
        """The coefficients of Eq. 6 for pairs of `cartesian` multipoles and their unit vectors (n, 3).

        For every contraction count d_c = 0..K, all pairs of orders (l_i, l_j ≥ d_c): (n, 1 | 5 | 14 | 30).
        """
        n = unit.shape[0]
        column = unit.repeat(2, 1).unsqueeze(-1)  # (2n, 3, 1)
        # With r̂ contracted orders 1..K become orders 0..K-1, and so on.
        levels = [torch.cat([left, right])]
        for _ in range(self.order):
            tensors = levels[-1][:, 1:]
            levels.append((tensors.reshape(2 * n, tensors.shape[1] // 3, 3) @ column).squeeze(-1))
        scalars = []
        start, size = 0, 1
        for rank in range(self.order + 1):
            # Every M^l, l ≥ rank, contracted l - rank times with r̂: (2n, K+1-rank, 3^rank).
            n_tensors = self.order + 1 - rank
            tensors = torch.cat([level[:, start : start + size] for level in levels[:n_tensors]], dim=1)
            tensors = tensors.reshape(2 * n, n_tensors, size)
            scalars.append((tensors[:n] @ tensors[n:].transpose(1, 2)).flatten(1))
            start, size = start + size, 3 * size
        return torch.cat(scalars, dim=1)


def n_interactions(order: int) -> int:
    """How many scalars `Multipoles.interactions` gives: 1, 5, 14, 30 for order 0..3."""
    return sum((order + 1 - rank) ** 2 for rank in range(order + 1))
