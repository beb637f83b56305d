"""One source, two ways to run it: TorchScript gives what eager calls give, also once its optimizer has run."""

import pytest
import torch
from support.amp_models import VARIANTS, evaluate, random_region, small_model

from ampmm.export import use_simple_executor

use_simple_executor()  # as wherever the package runs TorchScript


@pytest.mark.parametrize("variant", VARIANTS)
def test_scripted_is_eager_at_every_call(variant):
    """TorchScript profiles its first calls and runs other code afterwards; numbers of pairs change as in dynamics."""
    model = small_model(variant)
    scripted = torch.jit.script(model)
    regions = [random_region(5, 6, 1.0, seed) for seed in (1, 2, 3)]
    expected = [evaluate(model, region) for region in regions]
    for call in range(1, 21):
        got, wanted = evaluate(scripted, regions[call % 3]), expected[call % 3]
        if call in (1, 2, 3, 20):
            for one, other in zip([*got.energies, *got[1:]], [*wanted.energies, *wanted[1:]], strict=True):
                torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_scripted_model_takes_regions_without_edges_or_charges():
    scripted, model = torch.jit.script(small_model("AMP(3)-DP")), small_model("AMP(3)-DP")
    for region in (random_region(1, 0), random_region(1, 3), random_region(4, 0), random_region(4, 3)) * 2:
        torch.testing.assert_close(evaluate(scripted, region).energies.total, evaluate(model, region).energies.total)


@pytest.mark.parametrize("variant", ["GNN-P", "AMP(3)-DP"])
def test_single_precision_is_close_to_double(variant):
    model, region = small_model(variant), random_region()
    single = small_model(variant, dtype=torch.float32)
    low = region._replace(qm=region.qm.float(), mm=region.mm.float(), charges=region.charges.float())
    got, expected = evaluate(single, low), evaluate(model, region)
    torch.testing.assert_close(got.energies.total.double(), expected.energies.total, rtol=0, atol=1e-3)
    for one, other in zip(got[1:], expected[1:], strict=True):
        torch.testing.assert_close(one.double(), other, rtol=0, atol=1e-4 * float(other.abs().max()))
