"""The whole: a model among classical molecules. Energies against the model's own evaluation, forces against differences."""

import shutil

import numpy as np
import openmm
import pytest
import torch
from embedding_systems import ML_GROUP, Solvated, context, energy, forces, mixed, solvated, write_model
from openmm import app, unit

from ampmm.embedding import (
    BACKENDS,
    add_force,
    create_mixed_system,
    deserialize_system,
    serialize_system,
    strip_qm_terms,
)
from ampmm.errors import EmbeddingError, InputError, ModelFileError
from ampmm.export import load_model

AVAILABLE = [name for name, backend in BACKENDS.items() if not backend.missing()]
TRICLINIC = ((2.2, 0.0, 0.0), (0.6, 2.1, 0.0), (-0.7, 0.8, 2.0))


@pytest.fixture(scope="module")
def triclinic() -> Solvated:
    return solvated(box=TRICLINIC)


@pytest.fixture(scope="module")
def tip4p() -> Solvated:
    return solvated(water="tip4pew")


def evaluate(model, case: Solvated, positions: np.ndarray, box: bool, dtype: torch.dtype = torch.float64):
    """The model's own evaluation of the frame; energy in kJ/mol and forces (n, 3) in kJ/mol/nm."""
    charges = strip_qm_terms(case.system, range(4)).charges
    mm = np.flatnonzero(charges)[4:]
    vectors = [list(v.value_in_unit(unit.angstrom)) for v in case.system.getDefaultPeriodicBoxVectors()]
    result = model.evaluate(
        [6, 8, 8, 1],
        10 * positions[:4],
        10 * positions[mm],
        charges[mm],
        box=np.array(vectors) if box else None,
        dtype=dtype,
    )
    expected = np.zeros_like(positions)
    expected[:4], expected[mm] = 10 * result.forces_qm, 10 * result.forces_mm
    return result.energy, expected


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
@pytest.mark.parametrize("backend", AVAILABLE)
@pytest.mark.parametrize("name", ["box", "droplet", "triclinic"])
def test_the_force_is_the_models_own_energy(name, backend, platform, model, request):
    case = request.getfixturevalue(name)
    system = mixed(case, model, backend=backend)
    expected_energy, expected_forces = evaluate(model, case, case.positions, box=name != "droplet")
    here = context(system, case.positions, platform)
    assert system.usesPeriodicBoundaryConditions() == (name != "droplet")
    assert energy(here, {ML_GROUP}) == pytest.approx(expected_energy, rel=1e-5)
    scale = np.abs(expected_forces).max()
    assert np.allclose(forces(here, {ML_GROUP}), expected_forces, atol=2e-5 * scale)
    rest = energy(context(strip_qm_terms(case.system, range(4), case.topology).system, case.positions, platform))
    assert energy(here) == pytest.approx(rest + expected_energy, abs=2e-4 * abs(rest))


@pytest.mark.parametrize("name", ["box", "triclinic"])
def test_images_do_not_matter(name, model, request):
    case = request.getfixturevalue(name)
    box = np.array([v.value_in_unit(unit.nanometer) for v in case.system.getDefaultPeriodicBoxVectors()])
    shifts = np.random.default_rng(0).integers(-2, 3, (len(case.positions), 3)).astype(float)
    for residue in case.topology.residues():  # OpenMM's bonds want molecules whole, QM atoms may be anywhere
        atoms = [atom.index for atom in residue.atoms()]
        shifts[atoms] = shifts[atoms[0]] if residue.name != "FOR" else shifts[atoms]
    here = context(mixed(case, model, dtype=torch.float64), case.positions)
    before, pulled = energy(here, {ML_GROUP}), forces(here, {ML_GROUP})
    here.setPositions(case.positions + shifts @ box)
    assert energy(here, {ML_GROUP}) == pytest.approx(before, rel=1e-9)
    assert np.allclose(forces(here, {ML_GROUP}), pulled, atol=1e-5)


@pytest.mark.parametrize("backend", AVAILABLE)
@pytest.mark.parametrize("name", ["box", "droplet", "triclinic", "tip4p"])
def test_forces_are_the_energys_slope(name, backend, model, request):
    case = request.getfixturevalue(name)
    here = context(mixed(case, model, backend=backend, dtype=torch.float64), case.positions)
    start = here.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    water = 4 + np.argmin(np.linalg.norm(start[4:] - start[0], axis=1))
    analytic = forces(here, {ML_GROUP})
    step = 1e-5
    for atom in (0, 1, 3, water):
        if here.getSystem().isVirtualSite(int(atom)) or not np.any(analytic[atom]):
            continue
        for axis in range(3):
            energies = []
            for sign in (1, -1):
                moved = start.copy()
                moved[atom, axis] += sign * step
                here.setPositions(moved)
                here.computeVirtualSites()
                energies.append(energy(here, {ML_GROUP}))
            slope = -(energies[0] - energies[1]) / (2 * step)
            assert slope == pytest.approx(analytic[atom, axis], rel=1e-4, abs=0.05)


def test_four_site_water_gives_its_charges_from_the_site(tip4p, model):
    """The oxygen carries no charge: its force is the site's, handed on by OpenMM."""
    system = mixed(tip4p, model, dtype=torch.float64)
    here = context(system, tip4p.positions)
    start = here.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    expected, _ = evaluate(model, tip4p, start, box=True)
    assert energy(here, {ML_GROUP}) == pytest.approx(expected, rel=1e-6)
    oxygen = next(atom.index for atom in tip4p.topology.atoms() if atom.residue.name == "HOH")
    moved, energies = start.copy(), []
    for sign in (1, -1):
        moved[oxygen] = start[oxygen] + [sign * 1e-5, 0, 0]
        here.setPositions(moved)
        here.computeVirtualSites()
        energies.append(energy(here, {ML_GROUP}))
    here.setPositions(start)
    assert -(energies[0] - energies[1]) / 2e-5 == pytest.approx(forces(here, {ML_GROUP})[oxygen, 0], rel=1e-4, abs=0.02)


@pytest.mark.parametrize("backend", AVAILABLE)
def test_energy_is_conserved_from_the_first_steps(backend, droplet, model):
    """NVE of the droplet; TorchScript re-optimises in these steps, and the lists are made anew."""
    system = mixed(droplet, model, backend=backend, skin=0.05)
    integrator = openmm.VerletIntegrator(0.0002)
    here = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    here.setPositions(droplet.positions)
    openmm.LocalEnergyMinimizer.minimize(here, maxIterations=5)  # before the first step
    here.setVelocitiesToTemperature(50.0, 1)
    integrator.step(2)

    def total() -> tuple[float, float]:
        state = here.getState(energy=True)
        kinetic = state.getKineticEnergy().value_in_unit(unit.kilojoule_per_mole)
        return state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole) + kinetic, kinetic

    start, kinetic = total()
    integrator.step(12)
    assert total()[0] == pytest.approx(start, abs=0.02 * kinetic)
    expected, _ = evaluate(
        model, droplet, here.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer), box=False
    )
    assert energy(here, {ML_GROUP}) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("backend", AVAILABLE)
def test_a_script_may_have_switched_gradients_off(backend, droplet, model):
    here = context(mixed(droplet, model, backend=backend), droplet.positions)
    with torch.no_grad():
        without = energy(here, {ML_GROUP})
        assert not torch.is_grad_enabled()
    assert without == energy(here, {ML_GROUP})
    with torch.inference_mode(), pytest.raises(Exception, match="inference_mode: forces are gradients"):
        energy(here, {ML_GROUP})


@pytest.mark.parametrize("backend", AVAILABLE)
def test_a_barostat_in_the_system_may_shrink_its_box(backend, box, model):
    """Under 24 Å the reaction field would end at half the box, and the first trial volume be refused."""
    classical = openmm.XmlSerializer.clone(box.system)
    classical.addForce(openmm.MonteCarloBarostat(1.0, 300.0))
    system = mixed(box._replace(system=classical), model, backend=backend, dtype=torch.float64)
    expected = mixed(box, model, backend=backend, coulomb_cutoff=0.95 * 10.5, dtype=torch.float64)
    energies = []
    for each in (system, expected):
        here = context(each, box.positions)
        here.setPeriodicBoxVectors(*(0.96 * 2.1 * np.eye(3)))
        energies.append(energy(here, {ML_GROUP}))
    assert energies[0] == pytest.approx(energies[1], rel=1e-12)


@pytest.mark.parametrize("backend", AVAILABLE)
def test_a_change_of_the_box_is_followed(backend, box, model):
    here = context(mixed(box, model, backend=backend, dtype=torch.float64), box.positions)
    energy(here)
    scale = 1.02
    here.setPeriodicBoxVectors(*(np.array([v._value for v in box.system.getDefaultPeriodicBoxVectors()]) * scale))
    here.setPositions(box.positions * scale)
    larger = Solvated(box.topology, box.positions * scale, openmm.XmlSerializer.clone(box.system))
    larger.system.setDefaultPeriodicBoxVectors(*here.getState().getPeriodicBoxVectors())
    # The cutoff is a number fixed when the System is made: half of the first box.
    fresh = context(mixed(larger, model, backend=backend, coulomb_cutoff=10.5, dtype=torch.float64), larger.positions)
    assert energy(here, {ML_GROUP}) == pytest.approx(energy(fresh, {ML_GROUP}), rel=1e-9)


def test_barostat_moves_whole_qm_molecules(box, model):
    system = mixed(box, model, coulomb_cutoff=9.0)
    barostat = openmm.MonteCarloBarostat(1.0, 300.0, 1)
    barostat.setRandomNumberSeed(5)
    system.addForce(barostat)
    here = context(system, box.positions)
    openmm.LocalEnergyMinimizer.minimize(here, maxIterations=5)
    molecules = here.getMolecules()
    assert (0, 1, 2, 3) in molecules
    assert len(molecules) == box.topology.getNumResidues()
    here.setVelocitiesToTemperature(100.0, 2)
    here.getIntegrator().step(5)
    assert np.isfinite(energy(here))


def test_add_force_keeps_a_molecule_whole_whose_bonds_the_user_took_out(box, model):
    """Else each QM atom would be a molecule of its own for the barostat."""
    own = openmm.XmlSerializer.clone(strip_qm_terms(box.system, range(4), box.topology).system)
    names = [force.getName() for force in own.getForces()]
    own.removeForce(names.index("QM molecules (zero energy)"))
    add_force(own, box.topology, "FOR", model, coulomb_cutoff=9.0)
    assert (0, 1, 2, 3) in context(own, box.positions).getMolecules()
    joined = strip_qm_terms(box.system, range(4), box.topology).system
    n_forces = joined.getNumForces()
    add_force(joined, box.topology, "FOR", model, coulomb_cutoff=9.0)
    assert joined.getNumForces() == n_forces + 1


def test_classical_charges_of_another_ion_are_noted(droplet, model):
    other = openmm.XmlSerializer.clone(droplet.system)
    force = next(each for each in other.getForces() if isinstance(each, openmm.NonbondedForce))
    force.setParticleParameters(0, 1.75, 0.34, 0.36)
    with pytest.warns(UserWarning, match=r"the QM region is given -1 e, its classical charges add up to \+0\.05 e"):
        create_mixed_system(droplet.topology, other, "FOR", model)


@pytest.mark.parametrize("backend", AVAILABLE)
def test_box_that_shrinks_below_the_cutoff_stops(box, model, backend):
    here = context(mixed(box, model, backend=backend), box.positions)
    vectors = np.array([v._value for v in box.system.getDefaultPeriodicBoxVectors()]) * 0.95
    here.setPeriodicBoxVectors(*vectors)
    with pytest.raises(openmm.OpenMMException, match="half the box"):
        energy(here, {ML_GROUP})


@pytest.mark.parametrize("backend", AVAILABLE)
def test_nan_positions_are_named(backend, droplet, model):
    positions = droplet.positions.copy()
    positions[2, 1] = np.nan
    here = context(mixed(droplet, model, backend=backend), positions)
    with pytest.raises(openmm.OpenMMException, match=r"NaN|nan"):
        energy(here, {ML_GROUP})


@pytest.mark.parametrize("backend", AVAILABLE)
def test_mixed_system_goes_through_xml(backend, box, model):
    system = mixed(box, model, backend=backend, dtype=torch.float64)
    again = deserialize_system(serialize_system(system))
    first, second = context(system, box.positions), context(again, box.positions)
    assert energy(second) == pytest.approx(energy(first), rel=1e-9)
    assert energy(second, {ML_GROUP}) == pytest.approx(energy(first, {ML_GROUP}), rel=1e-9)


def test_model_scaled_in_a_collective_variable(droplet, model):
    """How interpolation and alchemy call a force: by the PythonForce backend, which can be copied."""
    system = strip_qm_terms(droplet.system, range(4), droplet.topology).system
    whole = mixed(droplet, model, backend="python", dtype=torch.float64)
    outer = openmm.CustomCVForce("lambda*v")
    outer.addGlobalParameter("lambda", 0.25)
    outer.addCollectiveVariable("v", openmm.XmlSerializer.clone(whole.getForces()[-1]))
    outer.setForceGroup(ML_GROUP)
    system.addForce(outer)
    scaled, full = context(system, droplet.positions), context(whole, droplet.positions)
    assert energy(scaled, {ML_GROUP}) == pytest.approx(0.25 * energy(full, {ML_GROUP}), rel=1e-9)
    assert np.allclose(forces(scaled, {ML_GROUP}), 0.25 * forces(full, {ML_GROUP}), atol=0.01)


def test_two_models_of_the_same_file_name(droplet, model_file, tmp_path):
    other = write_model(tmp_path / model_file.name, seed=1)
    expected = [evaluate(load_model(path), droplet, droplet.positions, box=False)[0] for path in (model_file, other)]
    assert expected[0] != pytest.approx(expected[1], rel=1e-3)
    for backend in AVAILABLE:
        systems = [mixed(droplet, path, backend=backend, dtype=torch.float64) for path in (model_file, other)]
        here = [context(system, droplet.positions) for system in systems]
        assert [energy(each, {ML_GROUP}) for each in here] == pytest.approx(expected, rel=1e-6)


def test_add_force_to_a_prepared_system(droplet, model):
    system = strip_qm_terms(droplet.system, range(4), droplet.topology).system
    before = system.getNumForces()
    qm = add_force(system, droplet.topology, [3, 2, 1, 0], model, force_group=ML_GROUP, dtype=torch.float64)
    assert qm.tolist() == [0, 1, 2, 3]
    assert system.getNumForces() == before + 1
    expected, _ = evaluate(model, droplet, droplet.positions, box=False)
    assert energy(context(system, droplet.positions), {ML_GROUP}) == pytest.approx(expected, rel=1e-6)


def test_add_force_refuses_to_count_twice(droplet, model):
    system = openmm.XmlSerializer.clone(droplet.system)
    with pytest.raises(EmbeddingError, match=r"count them twice.*create_mixed_system"):
        add_force(system, droplet.topology, "FOR", model)
    assert system.getNumForces() == droplet.system.getNumForces()


@pytest.mark.parametrize("backend", AVAILABLE)
def test_a_second_model_is_refused(droplet, model, backend):
    """QM atoms without classical terms look ready for a model also when they have one."""
    system = mixed(droplet, model, backend=backend)
    for add in (add_force, lambda s, *rest: create_mixed_system(rest[0], s, *rest[1:])):
        with pytest.raises(EmbeddingError, match=r"a force 'ampmm' already.*keep=\['ampmm'\]"):
            add(system, droplet.topology, "FOR", model)
    before = system.getNumForces()
    add_force(system, droplet.topology, "FOR", model, backend="python", keep="ampmm")
    assert system.getNumForces() == before + 1


def test_a_qm_molecule_among_several(droplet, model):
    """Two waters as QM: both leave the classical System, each a molecule still."""
    waters = [[a.index for a in r.atoms()] for r in droplet.topology.residues() if r.name == "HOH"][:2]
    neutral = load_model(write_model(model.path.with_name("waters.pt"), seed=3, charge=0))
    system, qm = create_mixed_system(droplet.topology, droplet.system, [*waters[0], *waters[1]], neutral)
    here = context(system, droplet.positions)
    assert len(qm) == 6
    assert all(tuple(water) in here.getMolecules() for water in waters)
    assert np.isfinite(energy(here))


@pytest.mark.parametrize("backend", AVAILABLE)
def test_a_system_from_xml_takes_no_second_model(droplet, model, backend):
    again = deserialize_system(serialize_system(mixed(droplet, model, backend=backend)))
    with pytest.raises(EmbeddingError, match="holds a force 'ampmm' already"):
        create_mixed_system(droplet.topology, again, "FOR", model)


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("box", {"coulomb_cutoff": 11.0}, InputError, r"coulomb_cutoff: expected at most half the box, 10\.50 Å"),
        ("box", {"coulomb_cutoff": -1.0}, InputError, "coulomb_cutoff: expected a length in Å"),
        ("box", {"coulomb_cutoff": 1.0}, InputError, r"at least 3.0 Å, got 1.0; is this in nm"),
        (
            "box",
            {"coulomb_cutoff": 0.9 * unit.nanometer},
            InputError,
            "expected a plain number in Å, got .* nm",
        ),
        ("box", {"electrostatics": "bare"}, InputError, 'use "reaction-field"'),
        ("box", {"electrostatics": "pme"}, InputError, "electrostatics: expected .*'pme'"),
        ("droplet", {"coulomb_cutoff": 9.0}, InputError, "has no cutoff"),
        ("droplet", {"qm_charge": 0}, InputError, "net charge of -1, got 0"),
        ("droplet", {"backend": "jax"}, InputError, "backend: expected"),
        ("droplet", {"skin": 0.0}, InputError, "skin: expected a positive"),
        ("droplet", {"skin": "1"}, InputError, "skin: expected a positive length in Å, got '1'"),
        ("droplet", {"force_group": 32}, InputError, "force_group: expected a whole number from 0 to 31, got 32"),
        ("droplet", {"force_group": 1.5}, InputError, "force_group: expected a whole number from 0 to 31, got 1.5"),
        ("droplet", {"dtype": torch.float16}, InputError, "dtype: expected"),
        ("droplet", {"keep": ["nothing"]}, InputError, "keep: expected names"),
    ],
)
def test_bad_options(name, options, error, message, model, request):
    case = request.getfixturevalue(name)
    with pytest.raises(error, match=message):
        create_mixed_system(case.topology, case.system, "FOR", model, **options)


def test_polarization_cutoff_over_half_the_box(box, model_file, tmp_path):
    large = load_model(write_model(tmp_path / "large.pt", seed=0, polarization_cutoff=10.6))
    with pytest.raises(InputError, match=r"polarization cutoff: expected at most half the box, 10\.50 Å.*10\.60"):
        mixed(box, large)


def test_bad_inputs(box, droplet, model, tmp_path):
    sodium = next(atom.index for atom in droplet.topology.atoms() if atom.residue.name == "NA")
    with pytest.raises(InputError, match=r"knows H, C, O, got Na"):
        create_mixed_system(droplet.topology, droplet.system, [sodium], model)
    with pytest.raises(ModelFileError, match="unknown name 'no-model'"):
        mixed(droplet, "no-model")
    with pytest.raises(InputError, match=r"same particles in both, got .* atoms"):
        create_mixed_system(app.Topology(), droplet.system, "FOR", model)
    with pytest.raises(InputError, match="topology: expected an OpenMM Topology, got System; create_mixed_system takes"):
        create_mixed_system(droplet.system, droplet.topology, "FOR", model)
    with pytest.raises(EmbeddingError, match=r"FOR1-C \(atom 0\) and MM FOR1-O2"):
        create_mixed_system(droplet.topology, droplet.system, [0, 1], model)
    damaged = tmp_path / "damaged.pt"
    shutil.copy(model.path, damaged)
    damaged.write_bytes(damaged.read_bytes()[:500])
    with pytest.raises(ModelFileError, match=r"damaged\.pt"):
        mixed(droplet, damaged)
    nan = openmm.XmlSerializer.clone(droplet.system)
    force = next(each for each in nan.getForces() if isinstance(each, openmm.NonbondedForce))
    force.setParticleParameters(10, float("nan"), 0.3, 0.1)
    with pytest.raises(EmbeddingError, match="finite charges"):
        create_mixed_system(droplet.topology, nan, "FOR", model)


def test_a_box_without_periodic_boundaries_is_warned_of(box, droplet, model):
    system = openmm.XmlSerializer.clone(box.system)
    next(each for each in system.getForces() if isinstance(each, openmm.NonbondedForce)).setNonbondedMethod(0)
    with pytest.warns(UserWarning, match="has a periodic box and the System has no periodic boundaries"):
        create_mixed_system(box.topology, system, "FOR", model)
