"""Native operators against their twins: values, first and second derivatives. Built here where there is a compiler."""

import copy

import pytest
import torch
from support.amp_models import VARIANTS, evaluate, random_region, small_model
from support.native_library import library_missing
from torch.autograd import forward_ad

from ampmm.benchmark.measure import peak_memory
from ampmm.nn import native

pytestmark = pytest.mark.skipif(bool(library_missing()), reason=library_missing())

REGIONS = {
    "random": random_region(),
    "many charges": random_region(5, 90, seed=3),
    "one pair": random_region(2, 1),
    "one atom, no charges": random_region(1, 0),
    "no charges": random_region(4, 0),
    "no edges": random_region(1, 3),
}


@pytest.fixture(autouse=True)
def double_constants():
    """The models' constant buffers exact in float64, not rounded to float32 first."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def derivatives(model, region):
    """Energy, forces, and the gradients of a force-matching loss by all parameters: first and second derivatives."""
    result = evaluate(model, region, create_graph=True)
    loss = 1e-2 * result.energies.total.square().sum() + result.forces_qm.square().sum() + result.forces_mm.square().sum()
    gradients = torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True)
    return [result.energies.total, result.forces_qm, result.forces_mm, *gradients]


def arguments_of(model, region):
    """Frame and surroundings that a model is called with."""
    seen = []

    def spy(*inputs):
        seen.append(inputs)
        return model(*inputs)

    evaluate(spy, region)
    return seen[0]


def assert_equal(got, wanted, tolerance):
    for one, other in zip(got, wanted, strict=True):
        if other.numel():
            assert float((one - other).detach().abs().max()) <= tolerance * max(1e-6, float(other.abs().max()))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("region", REGIONS.values(), ids=REGIONS)
def test_models_agree_with_their_twins_through_the_second_derivative(variant, region):
    model = small_model(variant)
    fast = native.use_native(copy.deepcopy(model))
    assert native.is_native(fast) and list(fast.state_dict()) == list(model.state_dict())
    assert_equal(derivatives(fast, region), derivatives(model, region), 1e-10)


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("region", [*REGIONS.values(), random_region(3, 150, seed=4)], ids=[*REGIONS, "several tiles"])
def test_evaluations_with_fixed_weights_agree_with_their_twins(variant, region, kept):
    """As in dynamics: then only what the first derivative needs is kept, or nothing."""
    model = small_model(variant).eval().requires_grad_(False)
    fast = native.use_native(copy.deepcopy(model))
    if not kept and variant.endswith(("-D", "-DP")):
        fast.layers[-1].polarization.sum.pairs_per_chunk = 0
    got, wanted = evaluate(fast, region), evaluate(model, region)
    assert_equal([got.energies.total, *got[1:]], [wanted.energies.total, *wanted[1:]], 1e-10)


@pytest.mark.parametrize("variant", ["AMP(3)-DP", "AMP(3)-FP"])
def test_lists_of_any_layout(variant):
    """Indices as columns of one matrix, vectors component by component."""
    model = small_model(variant).eval().requires_grad_(False)
    frame, surroundings = arguments_of(model, REGIONS["random"])
    wanted = model(frame, surroundings).total
    lists = []
    for pairs in (frame.edges, surroundings.pairs):
        matrix = torch.stack([pairs.centers, pairs.neighbors], dim=1)
        lists.append(pairs._replace(centers=matrix[:, 0], neighbors=matrix[:, 1], vectors=pairs.vectors.t().contiguous().t()))
    got = native.use_native(model)(frame._replace(edges=lists[0]), surroundings._replace(pairs=lists[1])).total
    assert_equal([got], [wanted], 1e-10)


@pytest.mark.parametrize("variant", ["AMP(3)-DP", "AMP(3)-FP"])
def test_second_derivatives_by_the_geometry_with_fixed_weights(variant):
    """What a Hessian needs; nothing was kept for it."""
    model = small_model(variant).eval().requires_grad_(False)
    frame, surroundings = arguments_of(model, REGIONS["random"])
    vectors = [frame.edges.vectors, surroundings.pairs.vectors]
    results = []
    for each in (model, native.use_native(copy.deepcopy(model))):
        first = torch.autograd.grad(each(frame, surroundings).total.sum(), vectors, create_graph=True)
        results.append([*first, *torch.autograd.grad(sum(part.square().sum() for part in first), vectors)])
    assert_equal(results[1], results[0], 1e-10)


@pytest.mark.parametrize("variant", ["AMP(1)-DP", "AMP(3)-DP", "AMP(3)-FP"])
@pytest.mark.parametrize("region", REGIONS.values(), ids=REGIONS)
def test_models_in_evaluation_mode_have_all_derivatives(variant, region):
    """By the weights, too."""
    model = small_model(variant).eval()
    fast = native.use_native(copy.deepcopy(model))
    assert_equal(derivatives(fast, region), derivatives(model, region), 1e-10)


@pytest.mark.parametrize(("variant", "kept"), [("AMP(3)-D", True), ("AMP(3)-D", False), ("AMP(3)-FP", True)])
def test_derivatives_by_the_charges_with_fixed_weights(variant, kept):
    model = small_model(variant).eval().requires_grad_(False)
    frame, surroundings = arguments_of(model, REGIONS["many charges"])
    charges = surroundings.charges.clone().requires_grad_()
    fast = native.use_native(copy.deepcopy(model))
    if not kept:
        fast.layers[-1].polarization.sum.pairs_per_chunk = 0
    surroundings = surroundings._replace(charges=charges)
    got, wanted = (torch.autograd.grad(each(frame, surroundings).total.sum(), [charges]) for each in (fast, model))
    assert_equal(got, wanted, 1e-10)


def test_memory_of_an_evaluation_does_not_grow_with_the_chunks():
    model = native.use_native(small_model("AMP(3)-DP", dtype=torch.float32, width=64).requires_grad_(False))
    whole = random_region(6, 40)
    region = whole._replace(qm=whole.qm.float(), mm=whole.mm.float().repeat(150, 1), charges=whole.charges.float().repeat(150))
    peaks = []
    for pairs in (10**6, 1000):
        model.layers[-1].polarization.sum.pairs_per_chunk = pairs
        evaluate(model, region)
        peaks.append(peak_memory(lambda: evaluate(model, region), torch.device("cpu")))
    if None in peaks:
        pytest.skip("peaks of memory can be measured on Linux only")
    assert peaks[1] < 0.5 * peaks[0]


@pytest.mark.parametrize("variant", ["AMP(3)-DP", "AMP(3)-FP"])
def test_single_precision_is_as_close_as_the_twin_is(variant):
    model = small_model(variant, dtype=torch.float32)
    region = random_region(6, 90)
    single = region._replace(qm=region.qm.float(), mm=region.mm.float(), charges=region.charges.float())
    fast = native.use_native(copy.deepcopy(model).requires_grad_(False))
    got, wanted = evaluate(fast, single), evaluate(model, single)
    assert_equal([got.energies.nodes, *got[1:]], [wanted.energies.nodes, *wanted[1:]], 1e-5)


def test_products_in_bfloat16_are_close(monkeypatch):
    """Three digits of what the charges change; in double precision the switch changes nothing."""
    monkeypatch.setenv("AMPMM_BFLOAT16", "1")
    if not native.in_bfloat16():
        assert "float32: this processor has no others" in native.status()
        pytest.skip("this processor does not multiply in bfloat16")
    assert native.status().endswith("the polarization's products in bfloat16")
    region = random_region(6, 90)
    model = small_model("AMP(3)-DP", width=40).requires_grad_(False)
    wanted, alone = evaluate(model, region), evaluate(model, region._replace(mm=region.mm[:0], charges=region.charges[:0]))
    fast = native.use_native(copy.deepcopy(model))
    got = evaluate(fast, region)
    assert_equal([got.energies.total, *got[1:]], [wanted.energies.total, *wanted[1:]], 1e-10)
    single = region._replace(qm=region.qm.float(), mm=region.mm.float(), charges=region.charges.float())
    narrow = evaluate(fast.float(), single)
    monkeypatch.delenv("AMPMM_BFLOAT16")
    exact = evaluate(native.use_native(copy.deepcopy(model)).float(), single)
    for one, other, change in zip(narrow[1:], exact[1:], (wanted.forces_qm - alone.forces_qm, wanted.forces_mm), strict=True):
        assert 0 < float((one - other).abs().max()) < 1e-2 * float(change.abs().max())


def test_derivatives_by_the_geometry_are_complete():
    """`loss.backward()` without a list of inputs asks for the second derivatives by the pair vectors as well."""
    for order in range(4):
        vectors = torch.randn(9, 3).mul_(1.5).requires_grad_()
        twin = native.PairGeometry(6, 4.0, 6, order)
        results = []
        for module in (twin, native.NativePairGeometry(twin)):
            weighted = sum((k + out).square().sum() for k, out in enumerate(module(vectors)))
            (first,) = torch.autograd.grad(weighted, vectors, create_graph=True)
            (second,) = torch.autograd.grad(first.square().sum(), vectors)
            results.append([first, second])
        assert_equal(results[1], results[0], 1e-10)


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("variant", ["AMP(3)-DP", "AMP(3)-FP"])
def test_scripted_is_eager_at_every_call(variant, fixed):
    model = native.use_native(small_model(variant).requires_grad_(not fixed))
    scripted = torch.jit.script(model)
    regions = [random_region(5, 6, 1.0, seed) for seed in (1, 2, 3)]
    for call in range(20):
        got, wanted = evaluate(scripted, regions[call % 3]), evaluate(model, regions[call % 3])
        assert_equal([got.energies.total, *got[1:]], [wanted.energies.total, *wanted[1:]], 1e-10)


def test_back_to_the_twins():
    model = small_model("AMP(3)-DP")
    kinds, names = [type(each) for each in model.modules()], list(model.state_dict())
    native.use_native(model)
    graph = str(torch.jit.script(model).inlined_graph)
    assert all(f"ampmm::{name}" in graph for name in ("pair_sum", "layer_multipoles", "layer_messages"))
    assert not native.is_native(native.use_twins(model))
    assert [type(each) for each in model.modules()] == kinds and list(model.state_dict()) == names
    assert "ampmm::" not in str(torch.jit.script(model).inlined_graph)


def test_a_library_that_lacks_an_operator_is_not_used(monkeypatch):
    monkeypatch.setattr(native, "OPERATORS", (*native.OPERATORS, "of_tomorrow"))
    assert "lacks of_tomorrow; run `make plugin`" in native.load.__wrapped__()


def test_what_is_not_implemented_is_refused():
    model = native.use_native(small_model("AMP(1)"))
    weight = model.layers[0].message.rest.second.weight
    result = evaluate(model, REGIONS["random"], create_graph=True)
    (first,) = torch.autograd.grad(result.energies.total.sum(), weight, create_graph=True)
    with pytest.raises(RuntimeError, match="weight gradients are not implemented natively"):
        torch.autograd.grad(first.square().sum(), weight)


@pytest.mark.parametrize("weights_learn", [True, False])
@pytest.mark.parametrize("variant", ["AMP(3)-DP", "AMP(3)-FP"])
def test_tangents_are_refused_and_not_lost(variant, weights_learn):
    model = native.use_native(small_model(variant).requires_grad_(weights_learn))
    frame, surroundings = arguments_of(model, REGIONS["random"])
    vectors = surroundings.pairs.vectors.detach()
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match="forward-mode derivatives of the native operators"):
        pairs = surroundings.pairs._replace(vectors=forward_ad.make_dual(vectors, torch.ones_like(vectors)))
        model(frame, surroundings._replace(pairs=pairs))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vectors": torch.ones(5, 2)}, r"vectors: expected \(n_pairs, 3\)"),
        ({"charges": torch.ones(1)}, r"charges: expected \(5\), got \[1\]"),
        ({"centers": torch.tensor([0, 0, 1])}, r"centers: expected \(5\), got \[3\]"),
        ({"centers": torch.tensor([0, 0, 1, 1, 2])}, "centers: expected 0 to 1, got 2"),
        ({"centers": torch.tensor([0, 0, -1, 1, 1])}, "centers: expected 0 to 1, got -1"),
        ({"bias": torch.ones(0)}, r"matrix, bias: expected \(n_fields, n_radial\)"),
    ],
)
def test_sums_of_fields_refuse_what_would_be_read_elsewhere(changes, message):
    given = {"vectors": torch.ones(5, 3), "charges": torch.ones(5), "centers": torch.tensor([0, 0, 1, 1, 1]), "n_atoms": 2}
    given |= {"matrix": torch.ones(4, 6), "bias": torch.ones(4), "cutoff": 5.0, "exponent": 6, "order": 2}
    assert torch.ops.ampmm.field_sums(**given).shape == (2, 4, 9)
    with pytest.raises(RuntimeError, match=message):
        torch.ops.ampmm.field_sums(**(given | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"charges": torch.ones(1)}, r"charges: expected \(5\), got \[1\]"),
        ({"centers": torch.tensor([0, 0, 1])}, r"centers: expected \(5\), got \[3\]"),
        ({"centers": torch.tensor([0, 0, 1, 1, 2])}, "centers: expected 0 to 1, got 2"),
        ({"by_atom": torch.ones(1, 16)}, "by_atom, weights_by_atom: expected rows of 2 atoms"),
    ],
)
def test_the_polarization_refuses_what_would_be_read_elsewhere(changes, message):
    given = {"vectors": torch.ones(5, 3), "charges": torch.ones(5), "centers": torch.tensor([0, 0, 1, 1, 1])}
    given |= {"multipoles": torch.ones(2, 4), "by_atom": torch.ones(2, 16), "weights_by_atom": torch.ones(2, 3)}
    given |= {"matrix": torch.ones(3, 6), "w1": torch.ones(16, 12), "w2": torch.ones(16, 16), "b2": torch.ones(16)}
    given |= {"w3": torch.ones(1, 16), "cutoff": 5.0, "exponent": 6, "n_radial": 6, "scale": 1.0, "largest_kept": 0}
    assert torch.ops.ampmm.polarized_multipoles(**given).shape == (2, 4)
    with pytest.raises(RuntimeError, match=message):
        torch.ops.ampmm.polarized_multipoles(**(given | changes))


def test_a_library_with_kernels_for_a_gpu_does_the_same_on_the_cpu(monkeypatch):
    """There only modules for the GPU are added, which leave tensors of the CPU to their twins."""
    model = small_model("AMP(3)-DP").requires_grad_(False)
    usual = native.use_native(copy.deepcopy(model))
    monkeypatch.setattr(native, "gpu_device", lambda: "cuda")
    fast = native.use_native(copy.deepcopy(model))
    assert type(fast.embedding) is native.NativeLinear and list(fast.state_dict()) == list(model.state_dict())
    got, wanted = evaluate(fast, random_region()), evaluate(usual, random_region())
    assert_equal([got.energies.total, *got[1:]], [wanted.energies.total, *wanted[1:]], 1e-12)
    assert type(native.use_twins(fast).embedding) is torch.nn.Linear
