"""The radial functions and their envelope: published form, smooth end, finite start."""

import math

import pytest
import torch

from ampmm.nn.radial import RadialBasis, polynomial_envelope

CUTOFF = 5.0


def derivatives(function, at: float, count: int = 2) -> list[float]:
    """Value and derivatives of a function of one number."""
    x = torch.tensor([at], dtype=torch.float64, requires_grad=True)
    value = function(x).sum()
    out = [value.item()]
    for _ in range(count):
        (value,) = torch.autograd.grad(value, x, create_graph=True)
        value = value.sum()
        out.append(value.item())
    return out


@pytest.mark.parametrize("p", [5, 6])
def test_envelope_ends_with_two_derivatives(p):
    just_inside = 1.0 - 1e-9
    assert max(abs(value) for value in derivatives(lambda d: polynomial_envelope(d, p), just_inside)) < 1e-5
    assert derivatives(lambda d: polynomial_envelope(d, p), 1.2) == [0.0, 0.0, 0.0]
    assert polynomial_envelope(torch.tensor([0.0, 0.5]), p)[0] == 1.0


@pytest.mark.parametrize("n", range(20))
def test_radial_functions_end_with_two_derivatives(n):
    basis = RadialBasis(20, CUTOFF, 6).double()
    value, slope, curvature = derivatives(lambda r: basis(r)[0][:, n], CUTOFF * (1.0 - 1e-8))
    assert abs(value) < 1e-12 and abs(slope) < 1e-7 and abs(curvature) < 1e-4  # (1 - d)³ at 1 - d = 1e-8
    assert derivatives(lambda r: basis(r)[0][:, n], 1.01 * CUTOFF) == [0.0, 0.0, 0.0]


def test_radial_functions_are_dimenet_s():
    """u(d) sin(nπd), u(d) = 1/d - 28 d⁵ + 48 d⁶ - 21 d⁷ (DimeNet's code, p = 6)."""
    r = torch.linspace(0.3, 4.9, 12, dtype=torch.float64)
    functions, envelope = RadialBasis(20, CUTOFF, 6).double()(r)
    d = r / CUTOFF
    u = 1.0 / d - 28.0 * d**5 + 48.0 * d**6 - 21.0 * d**7
    torch.testing.assert_close(envelope, d * u)
    for n in range(1, 21):
        torch.testing.assert_close(functions[:, n - 1], u * torch.sin(n * math.pi * d), rtol=1e-5, atol=1e-5)


def test_radial_functions_are_finite_close_to_zero():
    """u(d) sin(nπd) → nπ."""
    functions, _ = RadialBasis(20, CUTOFF, 6).double()(torch.tensor([1e-6], dtype=torch.float64))
    torch.testing.assert_close(functions[0], math.pi * torch.arange(1, 21).double(), rtol=1e-6, atol=0)
