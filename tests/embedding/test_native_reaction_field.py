"""The native reaction field between MM charges against OpenMM's own: any box, what a run does with it, and what it refuses."""

import numpy as np
import openmm
import pytest
import torch
from embedding_systems import context, energy, forces, solvated
from support.native_library import library_missing

from ampmm.embedding import deserialize_system, serialize_system, use_shifted_reaction_field
from ampmm.embedding.shifted_reaction_field import MM_COULOMB_NAME, NativeReactionField
from ampmm.geometry.cell import minimum_image
from ampmm.physics.coulomb import ReactionField
from ampmm.units import COULOMB_CONSTANT

pytestmark = pytest.mark.skipif(bool(library_missing()), reason=library_missing())

CUTOFF = 9.0  # Å
BOXES = {
    "cube": torch.diag(torch.tensor([21.0, 21.0, 21.0], dtype=torch.float64)),
    "narrow": torch.diag(torch.tensor([18.01, 40.0, 60.0], dtype=torch.float64)),
    "triclinic": torch.tensor([[20.0, 0.0, 0.0], [6.0, 19.0, 0.0], [-7.0, 8.0, 18.5]], dtype=torch.float64),
}


def summed(positions, charges, exclusions, box):
    """Energy and forces of all pairs by autograd, kJ/mol and kJ/mol/Å."""
    own = positions.clone().requires_grad_()
    i, j = torch.triu_indices(len(charges), len(charges), 1)
    counted = torch.ones(len(charges), len(charges), dtype=torch.bool)
    counted[exclusions.min(1).values, exclusions.max(1).values] = False
    i, j = i[counted[i, j]], j[counted[i, j]]
    value, _ = ReactionField(CUTOFF)(minimum_image(own[j] - own[i], box).norm(dim=-1))
    total = COULOMB_CONSTANT * (charges[i] * charges[j] * value).sum()
    return total.detach(), -torch.autograd.grad(total, own)[0]


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
@pytest.mark.parametrize("n", [2, 3, 40, 300])
@pytest.mark.parametrize("threads", [1, 3])
def test_every_pair_counts_once_wherever_its_images_are(box, n, threads):
    """Random particles, far outside of the box too; a tenth of them without charge, some pairs excluded."""
    generator = torch.Generator().manual_seed(n)
    positions = (3.0 * torch.rand(n, 3, dtype=torch.float64, generator=generator) - 1.0) @ box
    charges = torch.randn(n, dtype=torch.float64, generator=generator)
    charges[::10] = 0.0
    exclusions = torch.stack([torch.arange(0, n - 1, 2), torch.arange(1, n, 2)], dim=1).flip(1)
    wanted, wanted_forces = summed(positions, charges, exclusions, box)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for precise, tolerance in ((True, 1e-10), (False, 1e-5)):
            module = NativeReactionField(charges.numpy(), exclusions.numpy(), CUTOFF, precise)
            got, got_forces = torch.jit.script(module)(0.1 * positions, 0.1 * box)
            scale = max(1.0, float(wanted_forces.abs().max()))
            assert abs(float(got - wanted)) <= 10.0 * tolerance * scale
            assert float((0.1 * got_forces - wanted_forces).abs().max()) <= tolerance * scale
            assert got_forces.sum(0).abs().max() <= 100.0 * tolerance * scale
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("backend", ["python", "torchforce"])
def test_a_system_has_the_energy_and_forces_of_openmm_s_own_force(backend):
    case = solvated()
    results = []
    for implementation in ("openmm", "native"):
        system = openmm.XmlSerializer.clone(case.system)
        use_shifted_reaction_field(system, CUTOFF, implementation, backend)
        if implementation == "native":
            assert "CustomNonbondedForce" not in [type(force).__name__ for force in system.getForces()]
            system = deserialize_system(serialize_system(system))
            assert MM_COULOMB_NAME in [force.getName() for force in system.getForces()]
        own = context(system, case.positions)
        results.append((energy(own), forces(own)))
    (wanted, wanted_forces), (got, got_forces) = results
    assert got == pytest.approx(wanted, abs=0.05)
    assert np.abs(got_forces - wanted_forces).max() <= 2e-5 * np.abs(wanted_forces).max()


def test_auto_leaves_gpu_platforms_to_openmm(monkeypatch):
    """OpenMM takes its fastest platform unless told otherwise."""
    case, kinds = solvated(), []
    for name in ("CPU", "CUDA"):
        platform = type("Platform", (), {"getName": lambda self, name=name: name})()
        monkeypatch.setattr(openmm.Platform, "getNumPlatforms", staticmethod(lambda: 1))
        monkeypatch.setattr(openmm.Platform, "getPlatform", staticmethod(lambda _, platform=platform: platform))
        system = openmm.XmlSerializer.clone(case.system)
        use_shifted_reaction_field(system, CUTOFF, backend="python")
        kinds.append({type(force).__name__ for force in system.getForces()})
    assert "PythonForce" in kinds[0] and "CustomNonbondedForce" not in kinds[0]
    assert "CustomNonbondedForce" in kinds[1] and "PythonForce" not in kinds[1]


def test_a_box_too_small_and_positions_at_nan_are_seen():
    module = NativeReactionField(np.array([1.0, -1.0, 0.5]), np.zeros((0, 2)), CUTOFF)
    positions = torch.rand(3, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match="over half the box"):
        module(positions, 0.1 * torch.diag(torch.tensor([17.9, 30.0, 30.0])))
    with pytest.raises(ValueError, match="periodic and needs them"):
        module(positions)
    positions[1, 2] = float("nan")
    energy_, _ = module(positions, 3.0 * torch.eye(3))
    assert torch.isnan(energy_)
