"""The fields of MM charges at QM atoms (-F): what they are, and that every way of summing them gives the same."""

import functools

import pytest
import torch

from ampmm.models.field_polarization import MOST_AT_ONCE, FieldSums, masked_sums, sums_in_rows
from ampmm.nn.multipoles import packed_size

CUTOFF = 4.0  # Å
N_ATOMS, N_FIELDS = 3, 5
CENTERS = torch.tensor([0, 0, 0, 2, 2, 0])  # no pairs of atom 1; the last of atom 0 apart from the others


@pytest.fixture(autouse=True)
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_field_is_the_sum_over_its_charges(order):
    """Σ_m q_m w_b(r_im) R_im^k, written out with the paper's formulas of the radial functions and, up to order 1, of R."""
    torch.manual_seed(0)
    vectors, charges = torch.randn(6, 3), torch.randn(6)
    matrix, bias = torch.randn(N_FIELDS, 8), torch.randn(N_FIELDS)
    fields = FieldSums(order, 8, CUTOFF, 6)(vectors, charges, CENTERS, N_ATOMS, matrix, bias)
    expected = torch.zeros(N_ATOMS, N_FIELDS, 4)
    for vector, charge, center in zip(vectors, charges, CENTERS, strict=True):
        d = vector.norm() / CUTOFF
        assert d < 1
        envelope = 1 - 28 * d**6 + 48 * d**7 - 21 * d**8  # d·u(d) with p = 6
        radial = envelope / d * torch.sin(torch.pi * d * torch.arange(1, 9))
        weights = charge * envelope * (matrix @ radial + bias)
        expected[center] += weights.unsqueeze(1) * torch.cat([torch.ones(1), vector / vector.norm()])
    assert fields.shape == (N_ATOMS, N_FIELDS, packed_size(order))
    torch.testing.assert_close(fields[..., :4], expected, rtol=1e-12, atol=1e-12)
    assert (fields[1] == 0.0).all()


@pytest.mark.parametrize("at_once", [MOST_AT_ONCE, 2 * N_FIELDS * 16, 4 * N_FIELDS * 16])
@pytest.mark.parametrize("n_pairs", [0, 6])
def test_sums_in_rows_and_masked_ones_agree_through_the_second_derivative(n_pairs, at_once):
    """The second is for a GPU, where the first would have to wait for the length of a row."""
    torch.manual_seed(1)
    sources, tensors = torch.randn(n_pairs, N_FIELDS), torch.randn(n_pairs, 16)
    results = []
    for sums in (sums_in_rows, functools.partial(masked_sums, most=at_once)):
        given = [each.clone().requires_grad_() for each in (sources, tensors)]
        value = sums(*given, CENTERS[:n_pairs], N_ATOMS)
        first = torch.autograd.grad(value.sin().sum(), given, create_graph=True)
        results.append([value, *first, *torch.autograd.grad(sum(each.square().sum() for each in first), given)])
    assert results[0][0].shape == (N_ATOMS, N_FIELDS, 16)
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
