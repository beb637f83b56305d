"""The kernels for the GPU against their twins: values and first derivatives. Without a GPU, see test_emulated_gpu.py."""

import copy

import pytest
import torch
from support.amp_models import VARIANTS, Region, evaluate, random_region, small_model
from torch import Tensor, nn

from ampmm.export.near_pairs import PaddedPairs
from ampmm.geometry.neighbors import pairs_between
from ampmm.nn import native
from ampmm.nn.kernels import AnisotropicFeatures, PairGeometry, PairSum, PolarizedFeatures, PolarizedMultipoles, WithNorms
from ampmm.nn.mlp import NodeNetwork
from ampmm.physics.coulomb import BareCoulomb, ElectrostaticPotential, ReactionField
from ampmm.physics.forces import PairForces, no_forces
from ampmm.types import Pairs

DEVICE = native.gpu_device()
pytestmark = pytest.mark.skipif(DEVICE == "", reason="the library of native operators has no kernels for a GPU")

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
TYPES = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
N = 5
REGIONS = {
    "random": random_region(),
    "one pair": random_region(2, 1),
    "one atom, no charges": random_region(1, 0),
    "no charges": random_region(4, 0),
    "no edges": random_region(1, 3),
    "several blocks": random_region(3, 150, seed=4),
}


@pytest.fixture(autouse=True)
def double_constants():
    """The modules' constant buffers exact in float64, not rounded to float32 first."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, device=DEVICE)


def sorted_index(n: int, size: int = N) -> Tensor:
    return torch.randint(size, (n,), device=DEVICE).sort().values


def on_device(region: Region, dtype: torch.dtype) -> Region:
    numbers, *others, charge = region
    return Region(numbers.to(DEVICE), *(x.to(DEVICE, dtype) for x in others), charge)


def assert_close(one: Tensor, other: Tensor, dtype: torch.dtype) -> None:
    assert one.shape == other.shape and one.dtype == other.dtype
    if one.numel():
        assert float((one - other).detach().abs().max()) <= TOLERANCE[dtype] * max(1.0, float(other.detach().abs().max()))


def in_place_of(twin: nn.Module) -> nn.Module:
    """The module that calls the kernel."""
    fast = native.use_native(nn.Sequential(copy.deepcopy(twin)))[0]
    assert type(fast) is not type(twin)
    return fast


def assert_same(twin: nn.Module, dtype: torch.dtype, inputs: tuple, wanted: tuple[int, ...]) -> None:
    """Of the twin and the kernel: what they give, and the gradients of a random sum of it by the inputs that are `wanted`."""
    twin = twin.to(DEVICE, dtype).eval().requires_grad_(False)
    inputs = [x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs]
    results = []
    for module in (twin, torch.jit.script(in_place_of(twin)), in_place_of(twin)):
        own = [x.clone().requires_grad_() if i in wanted else x for i, x in enumerate(inputs)]
        for _ in range(2):  # nothing is left over from an earlier call
            out = module(*own)
        out = (out,) if isinstance(out, Tensor) else out
        generator = torch.Generator(DEVICE).manual_seed(1)
        weights = [torch.randn(x.shape, generator=generator, device=DEVICE, dtype=dtype) for x in out]
        total = sum((x * w).sum() for x, w in zip(out, weights, strict=True))
        gradients = [torch.zeros_like(own[i]) for i in wanted]
        if total.requires_grad:  # not where no pair reaches the sum
            gradients = torch.autograd.grad(total, [own[i] for i in wanted], materialize_grads=True)
        results.append([*out, *gradients])
    for result in results[1:]:
        for one, other in zip(result, results[0], strict=True):
            assert_close(one, other, dtype)


@TYPES
@pytest.mark.parametrize("order", range(4))
@pytest.mark.parametrize("n", [0, 1, 300])
def test_pair_geometry(dtype, order, n):
    vectors = random(n, 3) + torch.tensor([1.5, 0.0, 0.0], device=DEVICE)  # near ones and some beyond the cutoff
    assert_same(PairGeometry(9, 2.5, 6, order), dtype, (vectors,), (0,))


@TYPES
@pytest.mark.parametrize("order", range(4))
@pytest.mark.parametrize("n", [0, 1, 40])
def test_anisotropic_features(dtype, order, n):
    unit = torch.nn.functional.normalize(random(n, 3), dim=1)
    atoms = (random(N, (order + 1) ** 2), unit, random(n, 6), random(N, 4), random(N, 4), random(4, 6))
    assert_same(AnisotropicFeatures(order), dtype, (*atoms, sorted_index(n), torch.randint(N, (n,), device=DEVICE)), (0, 1, 2))


@TYPES
@pytest.mark.parametrize("order", range(1, 4))
@pytest.mark.parametrize("n", [0, 1, 300])
def test_polarized_features(dtype, order, n):
    inputs = (random(N, (order + 1) ** 2), random(n, (order + 1) ** 2), random(n, 6), random(n), random(N, 3), random(3, 6))
    centers = sorted_index(n)
    for wanted in ((0, 1, 2), (0, 1, 2, 3)):  # by the charges only the twin
        assert_same(PolarizedFeatures(order), dtype, (*inputs, centers), wanted)


@TYPES
@pytest.mark.parametrize("leading", [False, True])
@pytest.mark.parametrize("lowest", [None, 0, 1])
@pytest.mark.parametrize("n, width", [(0, 16), (1, 40), (70, 128), (1500, 16)])
def test_pair_sum(dtype, lowest, leading, n, width):
    order, n_features, n_leading = 2, 7, 45
    messages = lowest is None
    n_in = n_features + n_leading
    weights = (random(width, n_in) / n_in**0.5, random(width, width) / width**0.5, random(width))
    last = None if messages else random(order + 1 - lowest, width) / width**0.5
    inputs = (
        random(n, n_features),
        random(n, n_leading) if leading else None,
        random(N, width),
        None if lowest == 1 else random(N, width),
        sorted_index(n),
        torch.randint(N, (n,), device=DEVICE),
        random(n),
        None if messages else random(n, (order + 1) ** 2),
        *weights,
        last,
    )
    wanted = tuple(i for i in (0, 1, 2, 3, 6, 7) if inputs[i] is not None)
    assert_same(PairSum(0 if messages else order, lowest or 0), dtype, inputs, wanted)


def pair_sum_inputs(n: int, width: int, order: int | None) -> tuple:
    """Of multipoles up to an order, or of messages."""
    return (
        random(n, 3),
        None,
        random(N, width),
        random(N, width),
        sorted_index(n),
        torch.randint(N, (n,), device=DEVICE),
        random(n) / n**0.5,
        None if order is None else random(n, (order + 1) ** 2),
        random(width, 3),
        random(width, width) / width**0.5,
        random(width),
        None if order is None else random(order + 1, width) / width**0.5,
    )


@pytest.mark.parametrize("order", [None, 1])
def test_pair_sum_of_so_many_pairs_that_blocks_are_largest(order):
    """In float32; with_rows in networks.cu says from how many on."""
    inputs = pair_sum_inputs(8193 + 7, 8, order)
    assert_same(PairSum(order or 0), torch.float32, inputs, tuple(i for i in (0, 2, 3, 6, 7) if inputs[i] is not None))


def test_what_is_wider_than_the_kernels_takes_the_twins():
    """Five orders of multipoles; more outputs of a network than a block has columns."""
    assert_same(PairSum(4), torch.float64, pair_sum_inputs(20, 8, 4), (0, 2, 3, 6, 7))
    assert_same(NodeNetwork(3, 8, 130), torch.float64, (random(4, 3),), (0,))
    with pytest.raises(RuntimeError, match="w3: expected at most 4 rows on a GPU, got 5"):
        torch.ops.ampmm.pair_sum(*pair_sum_inputs(20, 8, 4), 0, 1)
    packed, n = random(N, 25), 6
    with pytest.raises(RuntimeError, match="multipoles: expected orders up to 3 on a GPU, got 4"):
        torch.ops.ampmm.polarized_features(
            packed, random(n, 25), random(n, 6), random(n), random(N, 3), random(3, 6), sorted_index(n)
        )


@TYPES
@pytest.mark.parametrize("n", [0, 1, 300])
def test_polarized_multipoles(dtype, n):
    order, width, n_radial, n_weights = 3, 24, 6, 3
    n_features = (order + 1) * n_weights + n_radial
    inputs = (
        random(n, 3) + 2.0,
        random(n),
        sorted_index(n),
        random(N, 16),
        random(N, width),
        random(N, n_weights),
        random(n_weights, n_radial),
        random(width, n_features) / n_features**0.5,
        random(width, width) / width**0.5,
        random(width),
        random(order, width) / width**0.5,
    )
    for wanted in ((0, 3, 4), (0, 1, 3, 4)):  # by the charges only the twins
        assert_same(PolarizedMultipoles(order, n_radial, 6.0, 6, 0.3, 32768), dtype, inputs, wanted)


@TYPES
@pytest.mark.parametrize("n_out", [None, 1, 5])
@pytest.mark.parametrize("n, n_in, width", [(0, 3, 8), (1, 3, 8), (7, 260, 128)])
def test_node_network(dtype, n, n_in, width, n_out):
    assert_same(NodeNetwork(n_in, width, n_out), dtype, (random(n, n_in),), (0,))


@TYPES
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("n, n_in, n_out", [(0, 3, 8), (1, 1, 1), (7, 260, 128), (3, 33, 300)])
def test_linear(dtype, n, n_in, n_out, bias):
    assert_same(nn.Linear(n_in, n_out, bias=bias), dtype, (random(n, n_in),), (0,))


@TYPES
@pytest.mark.parametrize("order", range(4))
@pytest.mark.parametrize("n", [0, 1, 9])
def test_with_norms(dtype, order, n):
    multipoles = random(n, (order + 1) ** 2)
    multipoles[: n // 2] = 0.0  # as before the first layer
    assert_same(WithNorms(order), dtype, (random(n, 11), multipoles), (0, 1))


class NoGradient(torch.autograd.Function):
    """Zero, by which nothing is differentiable: what comes before is called with no gradients at all."""

    @staticmethod
    def forward(ctx, *inputs):
        return inputs[0].new_zeros(())

    @staticmethod
    def backward(ctx, by):
        return None, None


def test_gradients_of_what_has_none():
    order, n = 2, 6
    multipoles, unit = random(N, 9).requires_grad_(), torch.nn.functional.normalize(random(n, 3), dim=1).requires_grad_()
    indices = (sorted_index(n), torch.randint(N, (n,), device=DEVICE))
    network, linear = (each.to(DEVICE).requires_grad_(False).eval() for each in (NodeNetwork(9, 8, 2), nn.Linear(9, 4)))
    results = (
        in_place_of(PairGeometry(6, 4.0, 6, order).to(DEVICE))(unit)[0],
        in_place_of(AnisotropicFeatures(order).to(DEVICE))(
            multipoles, unit, random(n, 6), random(N, 4), random(N, 4), random(4, 6), *indices
        ),
        in_place_of(PolarizedFeatures(order).to(DEVICE))(
            multipoles, random(n, 9), random(n, 6), random(n), random(N, 3), random(3, 6), indices[0]
        ),
        in_place_of(PairSum(0))(unit, *pair_sum_inputs(n, 8, None)[1:]),
        in_place_of(network)(multipoles),
        in_place_of(linear)(multipoles),
        in_place_of(WithNorms(order).to(DEVICE).eval())(random(N, 5), multipoles),
    )
    for each in results:
        assert each.requires_grad
        total = NoGradient.apply(each, None) + 0.0 * (multipoles.sum() + unit.sum())
        for gradient in torch.autograd.grad(total, (multipoles, unit)):
            assert not gradient.any()


@TYPES
@pytest.mark.parametrize("kernel", [BareCoulomb(), ReactionField(4.0)], ids=["bare", "reaction field"])
@pytest.mark.parametrize("n", [0, 1, 300])
def test_coulomb_sums_and_sums_of_forces(dtype, kernel, n):
    pairs = Pairs(sorted_index(n), torch.randint(30, (n,), device=DEVICE), (random(n, 3) + 2.0).to(dtype))
    charges = random(30).to(dtype)
    results = []
    for usual in (True, False):
        potential, forces = ElectrostaticPotential(kernel), PairForces()
        if usual:
            potential.native = forces.native = False
        terms = potential(pairs, charges, N)
        summed = forces(no_forces(charges, N, 30), terms.pair_gradients, pairs, True)
        inner = Pairs(pairs.centers, pairs.neighbors % N, pairs.vectors)
        results.append([*terms, *summed, forces(no_forces(charges, N, 0), terms.pair_gradients, inner, False).qm])
    for one, other in zip(*results, strict=True):
        assert_close(one, other, dtype)


@TYPES
@pytest.mark.parametrize("cutoff", [4.0, float("inf")])
@pytest.mark.parametrize("periodic", [False, True])
def test_padded_pairs(dtype, periodic, cutoff):
    box = torch.tensor([[9.0, 0.0, 0.0], [2.0, 8.5, 0.0], [-1.0, 3.0, 10.0]], device=DEVICE) if periodic else None
    positions, others = 6.0 * random(4, 3), 6.0 * random(600, 3)
    padded = PaddedPairs(torch.zeros(0, dtype=dtype, device=DEVICE))
    for own, distinct in ((others, False), (positions, True)):
        pairs = pairs_between(positions, own, cutoff, box)
        keep = pairs.centers != pairs.neighbors if distinct else torch.ones_like(pairs.centers, dtype=torch.bool)
        wanted = Pairs(*(x[keep] for x in pairs))
        n = len(wanted.centers)
        for capacity in (n + 7, n, max(1, n - 3)):
            got, n_near = padded(positions, own, box, cutoff, capacity, 77, distinct)
            held = min(n, capacity)
            assert int(n_near) == n and len(got.centers) == capacity
            assert got.centers[:held].equal(wanted.centers[:held]) and got.neighbors[:held].equal(wanted.neighbors[:held])
            assert_close(got.vectors[:held], wanted.vectors[:held].to(dtype), dtype)
            assert (got.centers[held:] == len(positions) - 1).all() and (got.neighbors[held:] == 77).all()
            if cutoff < float("inf"):
                assert (got.vectors[held:].norm(dim=1) > cutoff).all()


@TYPES
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("region", REGIONS.values(), ids=REGIONS)
def test_energies_and_forces_of_models(variant, region, dtype):
    model = small_model(variant, dtype=dtype).to(DEVICE).requires_grad_(False)
    model.element_energies.zero_()  # they are many times what the networks give
    fast = native.use_native(copy.deepcopy(model))
    assert list(fast.state_dict()) == list(model.state_dict())
    assert list(native.use_twins(copy.deepcopy(fast)).state_dict()) == list(model.state_dict())
    own = on_device(region, dtype)
    got, wanted = evaluate(fast, own), evaluate(model, own)
    for one, other in zip((got.energies.total, *got[1:]), (wanted.energies.total, *wanted[1:]), strict=True):
        assert_close(one, other, dtype)


@pytest.mark.parametrize("training, weights", [(True, True), (True, False), (False, True)])
def test_training_and_gradients_by_weights_take_the_twins(training, weights):
    region = on_device(random_region(), torch.float64)
    results = []
    for use in (native.use_native, native.use_twins):
        model = use(small_model("AMP(3)-DP").to(DEVICE)).train(training).requires_grad_(weights)
        if DEVICE == "cpu" and training:
            pytest.skip("training on the CPU has operators of its own")
        result = evaluate(model, region, create_graph=training)
        by_weights = []
        if training and weights:
            by_weights = torch.autograd.grad(result.forces_mm.square().sum(), list(model.parameters()), materialize_grads=True)
        results.append([*result[1:], *by_weights])
    for one, other in zip(*results, strict=True):
        assert_close(one, other, torch.float64)
