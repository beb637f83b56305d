"""The published AMP-BMS weights against the published code: every term, multipoles, forces (see docs/amp_bms.md)."""

import numpy as np
import pytest
import torch
from support.bms_models import COULOMB_CUTOFF, SYSTEMS, evaluate, needs_reference, published_model, reference_frame

from ampmm.export import use_simple_executor
from ampmm.models import import_weights

use_simple_executor()  # as wherever the package runs TorchScript

pytestmark = needs_reference

TERMS = {  # tolerances, kJ/mol
    "total": ("energy", 1e-4),
    "nodes": ("energy_nodes", 1e-4),
    "coulomb": ("energy_coulomb", 1e-4),
    "dispersion": ("energy_d4", 1e-6),
    "repulsion": ("energy_zbl", 1e-6),
}
MULTIPOLES = {"charges": "monopoles", "dipoles": "dipoles", "quadrupoles": "quadrupoles", "c6_factors": "c6_factors"}


@pytest.mark.parametrize("system", SYSTEMS)
def test_double_precision_gives_the_published_numbers(system):
    frame = reference_frame(system)
    result = evaluate(published_model(), frame.region, box=frame.box, coulomb_cutoff=COULOMB_CUTOFF)
    for term, (key, tolerance) in TERMS.items():
        assert getattr(result.energies, term).item() == pytest.approx(float(frame.values[key]), rel=0, abs=tolerance), term
    for name, key in MULTIPOLES.items():
        got = getattr(result.energies, name).detach().numpy()
        np.testing.assert_allclose(got, frame.values[key], rtol=0, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(result.forces_qm.detach(), frame.values["forces_qm"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(result.forces_mm.detach(), frame.values["forces_mm"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("system", SYSTEMS)
def test_single_precision_is_within_a_thousandth(system):
    frame = reference_frame(system)
    model = import_weights_in_single()
    result = evaluate(model, frame.region, box=frame.box, coulomb_cutoff=COULOMB_CUTOFF, dtype=torch.float32)
    for term, (key, _) in TERMS.items():
        assert getattr(result.energies, term).item() == pytest.approx(float(frame.values[key]), rel=1e-3), term
    for forces, key in ((result.forces_qm, "forces_qm"), (result.forces_mm, "forces_mm")):
        expected = frame.values[key]
        np.testing.assert_allclose(forces.detach(), expected, rtol=0, atol=1e-3 * np.abs(expected).max())


def import_weights_in_single():
    from support.bms_models import WEIGHTS

    return import_weights(WEIGHTS).model


def test_scripted_gives_the_published_forces_at_every_call():
    scripted = torch.jit.script(published_model())
    for call in range(1, 21):
        frame = reference_frame("uracil")
        result = evaluate(scripted, frame.region, box=frame.box, coulomb_cutoff=COULOMB_CUTOFF)
        if call in (1, 2, 3, 20):
            assert result.energies.total.item() == pytest.approx(float(frame.values["energy"]), rel=0, abs=1e-4)
            np.testing.assert_allclose(result.forces_qm.detach(), frame.values["forces_qm"], rtol=0, atol=1e-5)


def test_two_molecules_far_apart_are_two_molecules():
    """Uracil and retinoic acid 60 Å apart: no edges, no long-range pairs; node energies add up."""
    model, one, other = published_model(), reference_frame("uracil").region, reference_frame("ra").region
    both = one._replace(
        numbers=torch.cat([other.numbers, one.numbers]), qm=torch.cat([other.qm + 60.0, one.qm]),
        mm=one.mm[:0], charges=one.charges[:0],
    )  # fmt: skip
    alone = [evaluate(model, each._replace(mm=each.mm[:0], charges=each.charges[:0])).energies for each in (one, other)]
    together = evaluate(model, both).energies
    assert together.nodes.item() == pytest.approx(sum(each.nodes.item() for each in alone), rel=1e-12)
    assert together.repulsion.item() == pytest.approx(sum(each.repulsion.item() for each in alone), rel=1e-12)
    assert together.dispersion.item() == pytest.approx(sum(each.dispersion.item() for each in alone), rel=1e-12)
