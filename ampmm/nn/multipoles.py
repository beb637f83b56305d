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


def _symmetric(polynomial: dict[tuple[int, ...], float]) -> Tensor:
    """The symmetric tensor T with T·r·r… equal to the polynomial."""
    rank = len(next(iter(polynomial)))
    tensor = torch.zeros((3,) * rank, dtype=torch.float64)
    for indices, coefficient in polynomial.items():
        places = set(permutations(indices))
        for place in places:
            tensor[place] += coefficient / len(places)
    return tensor


def basis_tensors(order: int) -> Tensor:
    """The orthonormal basis of traceless symmetric tensors of one order, flattened: (2·order+1, 3^order) float64."""
    if order == 0:
        return torch.ones(1, 1, dtype=torch.float64)
    if order == 1:
        return torch.eye(3, dtype=torch.float64)
    polynomials = _QUADRUPOLE if order == 2 else _OCTUPOLE
    return torch.stack([_symmetric(polynomial).flatten() for polynomial in polynomials])


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


def packed_tensors(unit: Tensor, order: int) -> Tensor:
    """R^0..R^order of unit vectors (n, 3), packed one after another: (n, (order+1)²)."""
    x, y, z = unit.unbind(-1)
    parts = [torch.ones_like(x)]
    if order >= 1:
        parts += [x, y, z]
    if order >= 2:
        s2 = 2.0**0.5
        s6 = 6.0**0.5
        xx_yy = x * x - y * y
        parts += [s2 * x * y, s2 * x * z, s2 * y * z, xx_yy / s2, (3.0 * z * z - 1.0) / s6]
        if order >= 3:
            zz5 = 5.0 * z * z
            s15 = 0.15**0.5
            parts += [
                0.5 * y * (3.0 * x * x - y * y),
                s6 * x * y * z,
                s15 * y * (zz5 - 1.0),
                0.1**0.5 * z * (zz5 - 3.0),
                s15 * x * (zz5 - 1.0),
                1.5**0.5 * z * xx_yy,
                0.5 * x * (x * x - 3.0 * y * y),
            ]
    return torch.stack(parts, dim=-1)


def quadrupole_tensors(packed: Tensor) -> Tensor:
    """Packed quadrupoles (..., 5) as Cartesian tensors (..., 3, 3)."""
    s2, s6 = 0.5**0.5, 6.0**-0.5
    xy, xz, yz, difference = (s2 * packed[..., :4]).unbind(-1)
    axial = s6 * packed[..., 4]
    rows = [difference - axial, xy, xz, xy, -difference - axial, yz, xz, yz, 2.0 * axial]
    return torch.stack(rows, dim=-1).reshape(list(packed.shape[:-1]) + [3, 3])


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
        for k in range(MAX_ORDER + 1):
            tensors = basis_tensors(k) if k <= order else torch.zeros(0, 0)
            self.register_buffer(f"basis_{k}", tensors.to(torch.get_default_dtype()), persistent=False)

    def weighted(self, coefficients: Tensor, tensors: Tensor) -> Tensor:
        """c^k R^k: (n, K+1) and (n, (K+1)²) to (n, (K+1)²)."""
        return coefficients[:, self.order_of_component] * tensors

    def dot(self, left: Tensor, right: Tensor) -> Tensor:
        """Full contraction order by order: two (n, (K+1)²) to (n, K+1)."""
        return (left * right) @ self.sum_within_order

    def norms(self, multipoles: Tensor) -> Tensor:
        """Frobenius norms ‖M^k‖, (n, K+1); zero with a finite gradient (and second derivative) at zero."""
        # sqrt(|M|² + ε²) - ε with ε = 1e-4
        return torch.sqrt(self.dot(multipoles, multipoles) + 1.0e-8) - 1.0e-4

    def cartesian(self, multipoles: Tensor) -> list[Tensor]:
        """The Cartesian tensors, one per order: [(n,), (n, 3), (n, 3, 3), (n, 3, 3, 3)][:K+1]."""
        n = multipoles.shape[0]
        out = [multipoles[:, 0]]
        if self.order >= 1:
            out.append(multipoles[:, 1:4])
        if self.order >= 2:
            out.append((multipoles[:, 4:9] @ self.basis_2).reshape(n, 3, 3))
        if self.order >= 3:
            out.append((multipoles[:, 9:16] @ self.basis_3).reshape(n, 3, 3, 3))
        return out

    def interactions(self, left: list[Tensor], right: list[Tensor], unit: Tensor) -> Tensor:
        """The coefficients of Eq. 6 for pairs of Cartesian multipoles and their unit vectors (n, 3).

        For every contraction count d_c = 0..K, all pairs of orders (l_i, l_j ≥ d_c): (n, 1 | 5 | 14 | 30).
        """
        left_by_rank = self._contracted(left, unit)
        right_by_rank = self._contracted(right, unit)
        scalars = []
        for rank in range(self.order + 1):
            products = left_by_rank[rank] @ right_by_rank[rank].transpose(1, 2)  # (n, K+1-rank, K+1-rank)
            scalars.append(products.flatten(1))
        return torch.cat(scalars, dim=1)

    def _contracted(self, multipoles: list[Tensor], unit: Tensor) -> list[Tensor]:
        """For each remaining rank d_c, every M^l (l ≥ d_c) contracted l - d_c times with r̂: (n, K+1-d_c, 3^d_c)."""
        n = unit.shape[0]
        column = unit.unsqueeze(-1)  # (n, 3, 1)
        rows: list[list[Tensor]] = [[] for _ in range(self.order + 1)]
        n_components = 1  # 3^order; written out since -1 is ambiguous when there are no pairs
        for order in range(self.order + 1):
            tensor = multipoles[order].reshape(n, n_components)
            rows[order].append(tensor)
            n_left = n_components
            for step in range(order):
                n_left = n_left // 3
                tensor = (tensor.reshape(n, n_left, 3) @ column).squeeze(-1)
                rows[order - 1 - step].append(tensor)
            n_components *= 3
        return [torch.stack(row, dim=1) for row in rows]


def n_interactions(order: int) -> int:
    """How many scalars `Multipoles.interactions` gives: 1, 5, 14, 30 for order 0..3."""
    return sum((order + 1 - rank) ** 2 for rank in range(order + 1))
