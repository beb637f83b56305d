"""Packed multipoles against the Cartesian formulas of the paper (Eqs. 3 to 6)."""

import itertools
import math

import pytest
import torch

from ampmm.nn.multipoles import Multipoles, PackedTensors, n_interactions, packed_size

DELTA = torch.eye(3, dtype=torch.float64)


def unit_vectors(n: int = 20) -> torch.Tensor:
    vectors = torch.randn(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return vectors / vectors.norm(dim=1, keepdim=True)


def random_multipoles(n: int, order: int, seed: int) -> torch.Tensor:
    return torch.randn(n, packed_size(order), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def packed_tensors(unit: torch.Tensor, order: int) -> torch.Tensor:
    return PackedTensors(order).double()(unit)


def by_order(rows: torch.Tensor) -> list[torch.Tensor]:
    """Cartesian tensors in their shapes: (n,), (n, 3), (n, 3, 3), (n, 3, 3, 3) of flattened ones."""
    n_orders = {1: 1, 4: 2, 13: 3, 40: 4}[rows.shape[1]]
    parts = rows.split([3**k for k in range(n_orders)], dim=1)
    return [part.reshape([len(rows)] + [3] * k) for k, part in enumerate(parts)]


def formulas(r: torch.Tensor) -> list[torch.Tensor]:
    """R^0..R^3 of unit vectors as printed in the paper's appendix."""
    second = torch.einsum("na,nb->nab", r, r) - DELTA / 3.0
    traces = (
        torch.einsum("ab,nc->nabc", DELTA, r) + torch.einsum("ac,nb->nabc", DELTA, r) + torch.einsum("bc,na->nabc", DELTA, r)
    )
    return [torch.ones(len(r), dtype=r.dtype), r, second, torch.einsum("na,nb,nc->nabc", r, r, r) - traces / 5.0]


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_tensors_are_the_traceless_cartesian_ones(order):
    unit = unit_vectors()
    tensors = by_order(Multipoles(order).double().cartesian(packed_tensors(unit, order)))
    assert len(tensors) == order + 1
    for got, expected in zip(tensors, formulas(unit), strict=False):
        torch.testing.assert_close(got, expected, rtol=0, atol=2e-7 if order > 1 else 0)


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_tensors_are_exact_whatever_precision_the_module_went_through(order):
    unit = unit_vectors()
    through = PackedTensors(order).float().double()(unit)
    torch.testing.assert_close(through, PackedTensors(order).double()(unit), rtol=0, atol=0)
    exact = torch.stack([torch.ones(20), *unit.unbind(1)], dim=1)[:, : packed_size(order)]
    torch.testing.assert_close(through[:, :4], exact.double(), rtol=0, atol=0)
    for k in range(order + 1):
        own = through[:, packed_size(k - 1) : packed_size(k)]
        expected = math.factorial(k) / math.prod(range(2 * k - 1, 0, -2))
        torch.testing.assert_close(own.square().sum(1), torch.full((20,), expected, dtype=torch.float64), rtol=1e-14, atol=0)


@pytest.mark.parametrize("order", [2, 3])
def test_any_packed_form_is_traceless_and_symmetric(order):
    tensor = by_order(Multipoles(order).double().cartesian(random_multipoles(5, order, 1)))[order]
    for axes in itertools.permutations(range(1, order + 1)):
        torch.testing.assert_close(tensor, tensor.permute(0, *axes))
    assert torch.einsum("naa...->n...", tensor).abs().max() < 1e-6


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_contractions_and_norms_are_those_of_the_cartesian_tensors(order):
    operations = Multipoles(order).double()
    left, right = random_multipoles(6, order, 2), random_multipoles(6, order, 3)
    tensors, others = by_order(operations.cartesian(left)), by_order(operations.cartesian(right))
    pairs = zip(tensors, others, strict=True)
    expected = torch.stack([(a * b).flatten(1).sum(1) if a.dim() > 1 else a * b for a, b in pairs], dim=1)
    torch.testing.assert_close(operations.dot(left, right), expected, rtol=1e-6, atol=1e-6)
    frobenius = torch.stack([t.flatten(1).norm(dim=1) if t.dim() > 1 else t.abs() for t in tensors], dim=1)
    torch.testing.assert_close(operations.norms(left), frobenius, rtol=0, atol=1.1e-4)  # √(|M|² + ε²) - ε, ε = 1e-4


def test_norm_of_a_unit_tensor():
    """|R^k|² = k!/(2k-1)!!: 1, 1, 2/3, 2/5."""
    operations = Multipoles(3).double()
    packed = packed_tensors(unit_vectors(), 3)
    expected = torch.tensor([1.0, 1.0, 2.0 / 3.0, 2.0 / 5.0], dtype=torch.float64).expand(20, 4)
    torch.testing.assert_close(operations.dot(packed, packed), expected)


def test_norms_and_two_derivatives_are_finite_at_zero():
    operations = Multipoles(3).double()
    zero = torch.zeros(2, 16, dtype=torch.float64, requires_grad=True)
    norms = operations.norms(zero)
    assert norms.abs().max() < 1e-15
    (gradient,) = torch.autograd.grad(norms.sum(), zero, create_graph=True)
    (curvature,) = torch.autograd.grad(gradient.sum(), zero)
    assert (gradient == 0).all()
    assert torch.isfinite(curvature).all()
    assert torch.autograd.gradgradcheck(operations.norms, (random_multipoles(2, 3, 4).requires_grad_(),))


def by_einsum(left: torch.Tensor, right: torch.Tensor, unit: torch.Tensor, counts: tuple[int, int, int]) -> torch.Tensor:
    """One scalar of Eq. 6, its indices written out: (l_i, l_j, d_c)."""
    l_i, l_j, d_c = counts
    shared, own_i, own_j = "abc"[:d_c], "def"[: l_i - d_c], "uvw"[: l_j - d_c]
    operands = [f"n{shared}{own_i}", f"n{shared}{own_j}", *(f"n{index}" for index in own_i + own_j)]
    return torch.einsum(",".join(operands) + "->n", left, right, *[unit] * (l_i + l_j - 2 * d_c))


@pytest.mark.parametrize(("order", "count"), [(0, 1), (1, 5), (2, 14), (3, 30)])
def test_interactions_are_all_scalars_of_eq_6(order, count):
    operations, unit = Multipoles(order).double(), unit_vectors(6)
    left = operations.cartesian(random_multipoles(6, order, 5))
    right = operations.cartesian(random_multipoles(6, order, 6))
    scalars = operations.interactions(left, right, unit)
    assert scalars.shape == (6, count)
    assert n_interactions(order) == count
    wanted = [(i, j, d) for d in range(order + 1) for i in range(d, order + 1) for j in range(d, order + 1)]
    for column, counts in enumerate(wanted):
        torch.testing.assert_close(
            scalars[:, column], by_einsum(by_order(left)[counts[0]], by_order(right)[counts[1]], unit, counts), msg=str(counts)
        )


def test_interactions_are_invariant_under_rotation_of_everything():
    operations, unit = Multipoles(3).double(), unit_vectors(6)
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(7)))
    rows = operations.cartesian(random_multipoles(6, 3, 8))
    tensors = by_order(rows)
    turned = [
        tensors[0],
        torch.einsum("xa,na->nx", rotation, tensors[1]),
        torch.einsum("xa,yb,nab->nxy", rotation, rotation, tensors[2]),
        torch.einsum("xa,yb,zc,nabc->nxyz", rotation, rotation, rotation, tensors[3]),
    ]
    before = operations.interactions(rows, rows, unit)
    turned_rows = torch.cat([tensor.reshape(6, -1) for tensor in turned], dim=1)
    torch.testing.assert_close(operations.interactions(turned_rows, turned_rows, unit @ rotation.T), before)
    assert before.abs().mean() > 0.1


def test_weighting_multiplies_order_by_order():
    operations = Multipoles(3).double()
    coefficients = torch.tensor([[2.0, 3.0, 5.0, 7.0]], dtype=torch.float64)
    weighted = operations.weighted(coefficients, torch.ones(1, 16, dtype=torch.float64))
    assert weighted[0].tolist() == [2.0] + [3.0] * 3 + [5.0] * 5 + [7.0] * 7
    assert math.prod(weighted.shape) == packed_size(3)
