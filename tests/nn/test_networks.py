"""SiLU, the split first layers, their starting weights, and sums onto atoms."""

import pytest
import torch

from ampmm.nn.activation import silu
from ampmm.nn.mlp import NodeNetwork, OneSidedPairLinear, PairLinear, PairNetwork
from ampmm.nn.scatter import scatter_sum


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_silu_is_torch_s_and_so_are_two_derivatives():
    x = 4.0 * numbers(30)
    torch.testing.assert_close(silu(x), torch.nn.functional.silu(x))
    assert torch.autograd.gradcheck(silu, (x.requires_grad_(),))
    assert torch.autograd.gradgradcheck(silu, (x,))


def test_silu_does_not_overflow():
    x = torch.tensor([-1e4, -100.0, -80.0, 0.0, 100.0, 1e4], requires_grad=True)
    y = silu(x)
    torch.testing.assert_close(y, torch.nn.functional.silu(x), atol=1e-30, rtol=1e-5)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert torch.isfinite(slope).all()
    torch.testing.assert_close(slope, torch.tensor([0.0, 0.0, 0.0, 0.5, 1.0, 1.0]))


def test_scripted_silu_is_the_eager_one():
    scripted, x = torch.jit.script(silu), numbers(20).requires_grad_()
    for _ in range(3):
        torch.testing.assert_close(scripted(x), silu(x))
        (slope,) = torch.autograd.grad(scripted(x).sum(), x)
        torch.testing.assert_close(slope, torch.autograd.grad(silu(x).sum(), x)[0])


def test_silu_leaves_its_input_alone():
    x = numbers(10)
    before = x.clone()
    silu(x.requires_grad_()).sum().backward()
    assert torch.equal(x.detach(), before)


def test_split_linear_is_one_linear_on_the_joint_input():
    centers, neighbors, pair = torch.tensor([0, 1, 1]), torch.tensor([1, 0, 2]), numbers(3, 3, seed=1)
    same_size = PairLinear(5, 5, 3, 7).double()
    atoms = numbers(3, 5, seed=2)
    joint = torch.cat([same_size.center.weight, same_size.neighbor.weight, same_size.pair.weight], dim=1)
    expected = torch.cat([atoms[centers], atoms[neighbors], pair], dim=1) @ joint.T + same_size.center.bias
    torch.testing.assert_close(same_size(atoms, pair, centers, neighbors), expected)

    one_sided = OneSidedPairLinear(5, 3, 7).double()
    joint = torch.cat([one_sided.center.weight, one_sided.pair.weight], dim=1)
    expected = torch.cat([atoms[centers], pair], dim=1) @ joint.T + one_sided.center.bias
    torch.testing.assert_close(one_sided(one_sided.center(atoms), pair, centers), expected)


@pytest.mark.parametrize("part", ["center", "neighbor", "pair"])
def test_split_linear_starts_from_he_weights_of_the_joint_fan_in(part):
    torch.manual_seed(0)
    network = PairNetwork(132, 500, 128, (0, 3))
    expected = (2.0 / (132 + 132 + 500)) ** 0.5
    assert getattr(network.first, part).weight.std().item() == pytest.approx(expected, rel=0.03)
    assert network.first.center.bias.abs().max() == 0
    assert network.first.neighbor.bias is None and network.first.pair.bias is None


def test_networks_have_the_paper_s_layers():
    """Linear, SiLU, Linear, SiLU, and a last Linear without bias where there is one."""
    network = NodeNetwork(6, 4, 2).double()
    x = numbers(3, 6)
    first = torch.nn.functional.silu(network.first(x))
    expected = torch.nn.functional.silu(network.rest.second(first)) @ network.rest.last.weight.T
    torch.testing.assert_close(network(x), expected)
    assert network.rest.last.bias is None
    assert NodeNetwork(6, 4).double()(x).shape == (3, 4)


def test_scatter_sum_adds_by_index():
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    assert scatter_sum(values, torch.tensor([2, 0, 2]), 4).tolist() == [[3.0, 4.0], [0.0, 0.0], [6.0, 8.0], [0.0, 0.0]]
    assert scatter_sum(values[:0], torch.zeros(0, dtype=torch.long), 2).tolist() == [[0.0, 0.0], [0.0, 0.0]]
