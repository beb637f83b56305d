"""The published set-ups: MM–MM reaction field against a sum over pairs, and what else they fix."""

import io

import numpy as np
import openmm
import pytest
import torch
from embedding_systems import FORMATE_XML, context, energy, solvated
from openmm import app, unit
from support.bms_models import write_small_bms
from support.native_library import library_missing

from ampmm.embedding import create_preset_system, get_preset, use_shifted_reaction_field
from ampmm.errors import EmbeddingError, InputError
from ampmm.geometry.cell import minimum_image
from ampmm.nn import native
from ampmm.physics.coulomb import ReactionField
from ampmm.units import COULOMB_CONSTANT

CUTOFF = 9.0  # Å


@pytest.fixture(scope="module")
def bms(tmp_path_factory):
    return write_small_bms(tmp_path_factory.mktemp("bms") / "small.pt")


def nonbonded_of(system: openmm.System) -> openmm.NonbondedForce:
    return next(force for force in system.getForces() if isinstance(force, openmm.NonbondedForce))


def implementations():
    """Both ways to compute the reaction field, where they are there."""
    skipped = pytest.mark.skipif(bool(library_missing()), reason=library_missing())
    return ["openmm", pytest.param("native", marks=skipped)]


@pytest.mark.parametrize("implementation", implementations())
def test_mm_charges_interact_by_the_shifted_reaction_field(implementation):
    """All pairs that are no exceptions, summed in NumPy; Lennard-Jones and exceptions as before."""
    case = solvated()
    system = openmm.XmlSerializer.clone(case.system)
    nonbonded = nonbonded_of(system)
    n = system.getNumParticles()
    charges = np.array([nonbonded.getParticleParameters(i)[0].value_in_unit(unit.elementary_charge) for i in range(n)])
    counted = np.triu(np.ones((n, n), dtype=bool), 1)
    for k in range(nonbonded.getNumExceptions()):
        i, j, product, _, _ = nonbonded.getExceptionParameters(k)
        counted[min(i, j), max(i, j)] = False
        assert product.value_in_unit(unit.elementary_charge**2) == 0.0
    i, j = np.nonzero(counted)
    box = torch.diag(torch.full((3,), 21.0, dtype=torch.float64))
    r = minimum_image(torch.as_tensor(10.0 * (case.positions[j] - case.positions[i])), box).norm(dim=-1)
    value, _ = ReactionField(CUTOFF)(r)
    expected = COULOMB_CONSTANT * float((torch.as_tensor(charges[i] * charges[j]) * value).sum())

    without = openmm.XmlSerializer.clone(system)
    force = nonbonded_of(without)
    for k in range(n):
        _, sigma, epsilon = force.getParticleParameters(k)
        force.setParticleParameters(k, 0.0, sigma, epsilon)
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(0.1 * CUTOFF)
    use_shifted_reaction_field(system, CUTOFF, implementation)
    got = energy(context(system, case.positions)) - energy(context(without, case.positions))
    assert abs(expected) > 1000.0
    assert got == pytest.approx(expected, rel=1e-6, abs=0.02 if implementation == "native" else 0.0)  # in single precision


def test_what_has_no_reaction_field_is_refused():
    case = solvated(periodic=False)
    with pytest.raises(EmbeddingError, match="expected one NonbondedForce and periodic boundaries"):
        use_shifted_reaction_field(openmm.XmlSerializer.clone(case.system), CUTOFF)
    with pytest.raises(InputError, match="cutoff: expected a positive length"):
        use_shifted_reaction_field(openmm.XmlSerializer.clone(solvated().system), 0.0)
    with pytest.raises(InputError, match="implementation: expected one of 'auto', 'openmm', 'native', got 'fast'"):
        use_shifted_reaction_field(openmm.XmlSerializer.clone(solvated().system), CUTOFF, "fast")
    with pytest.raises(InputError, match="preset: expected one of tip3p, tip4p-fb, got 'spc'"):
        get_preset("spc")


@pytest.mark.parametrize(("preset", "water"), [("tip3p", "tip3p"), ("tip4p-fb", "tip4pew")])
def test_a_preset_has_one_cutoff_rigid_water_and_a_free_solute(bms, preset, water, monkeypatch):
    """Formate from a force field of one's own, in the preset's water."""
    case = solvated(water=water)
    field = app.ForceField(io.StringIO(FORMATE_XML), get_preset(preset).force_fields[1])
    monkeypatch.setattr(native, "available", lambda: False)  # OpenMM's own force, whose parameters can be read
    system, qm = create_preset_system(case.topology, "FOR", bms, preset, force_field=field, backend="python")
    forces = {force.getName(): force for force in system.getForces()}
    nonbonded, coulomb = nonbonded_of(system), forces["shifted reaction field"]
    for force in (nonbonded, coulomb):
        assert force.getCutoffDistance().value_in_unit(unit.angstrom) == pytest.approx(CUTOFF)
    sites = range(system.getNumParticles())
    assert all(nonbonded.getParticleParameters(i)[0].value_in_unit(unit.elementary_charge) == 0.0 for i in sites)
    assert all(coulomb.getParticleParameters(int(i))[0] == 0.0 for i in qm)
    assert sum(coulomb.getParticleParameters(i)[0] for i in sites) == pytest.approx(1.0, abs=1e-4)  # ions against formate
    waters = sum(residue.name == "HOH" for residue in case.topology.residues())
    assert system.getNumConstraints() == 3 * waters
    mixed = context(system, case.positions)
    assert np.isfinite(energy(mixed))
