"""QM/MM sampling: conserved energy, what is stored, stopping and continuing. One QM water among 26 TIP3P waters."""

from dataclasses import replace

import numpy as np
import openmm
import pytest
from openmm import unit
from support.water_droplet import QM, Springs, water_droplet

from ampmm.cli.sample import command as sample_command
from ampmm.data import FrameWriter, WriterLock, read_frames
from ampmm.errors import BackendError, DataFileError, InputError, LabellingError, SimulationStopped
from ampmm.reference import get_labeller
from ampmm.simulation.droplet_files import load_droplet
from ampmm.simulation.restart import save_state
from ampmm.simulation.sampling import Sampler, SamplingSettings, molecules_within, sample

SETTINGS = SamplingSettings(time=0.06, interval=2.0, timestep=0.5, equilibration=0.02, mm_region=4.0, seed=3, flush=5)


@pytest.fixture(scope="module")
def droplet():
    return water_droplet()


def run(droplet, path, evaluator=None, settings=SETTINGS, **options):
    return sample(droplet, evaluator or Springs(), settings, path, driver="springs", report=lambda text: None, **options)


def total_energies(sampler, n_steps, timestep):
    """Total energies (kJ/mol) along Newton's equations of motion, no thermostat."""
    integrator = openmm.VerletIntegrator(timestep)
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(sampler.context.getSystem(), integrator, platform)
    start = sampler.context.getState(positions=True, velocities=True)
    context.setPositions(start.getPositions())
    context.setVelocities(start.getVelocities())
    energies, potentials = [], []
    for _ in range(n_steps):
        integrator.step(1)
        state = context.getState(energy=True)
        potentials.append(state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole))
        energies.append(potentials[-1] + state.getKineticEnergy().value_in_unit(unit.kilojoule_per_mole))
    return np.array(energies), np.array(potentials)


def test_energy_is_conserved_with_gfn2(droplet):
    """QM and MM forces are those of one energy, and nothing is counted twice or left out of the forces."""
    try:
        labeller = get_labeller("gfn2-xtb", accuracy=0.1, warm_start=True)
    except BackendError as missing:
        pytest.skip(str(missing))
    sampler = Sampler(droplet, labeller, SETTINGS)
    sampler.equilibrate(lambda text: None)
    energies, potentials = total_energies(sampler, 150, 0.0002)
    assert potentials.std() > 2.0  # kJ/mol: it does move
    assert np.ptp(energies) < 0.05 * np.ptp(potentials)
    assert abs(np.polyfit(np.arange(150), energies, 1)[0] * 150) < 0.02 * np.ptp(potentials)


def test_the_qm_region_is_flexible_and_heavy_and_the_water_is_neither(droplet):
    sampler = Sampler(droplet, Springs(), SETTINGS)
    system = sampler.context.getSystem()
    masses = [system.getParticleMass(i).value_in_unit(unit.dalton) for i in range(system.getNumParticles())]
    assert masses[40:42] == [3.0, 3.0]
    assert masses[1] == pytest.approx(1.008, abs=1e-3)
    constrained = {atom for k in range(system.getNumConstraints()) for atom in system.getConstraintParameters(k)[:2]}
    assert constrained.isdisjoint(QM) and len(constrained) == 78


def test_temperature(droplet):
    """The thermostat holds the temperature asked for (kinetic energy of all degrees of freedom)."""
    sampler = Sampler(droplet, Springs(), replace(SETTINGS, temperature=400.0, equilibration=1.0, timestep=1.0, friction=20.0))
    sampler.equilibrate(lambda text: None)
    kinetic = []
    for _ in range(400):
        sampler.context.getIntegrator().step(10)
        kinetic.append(sampler.context.getState(energy=True).getKineticEnergy().value_in_unit(unit.kilojoule_per_mole))
    degrees_of_freedom = 26 * 6 + 9
    temperature = 2 * np.mean(kinetic) / (degrees_of_freedom * 8.314462618e-3)
    assert temperature == pytest.approx(400.0, rel=0.04)  # 5 standard errors


def test_what_is_stored(droplet, tmp_path):
    path = tmp_path / "frames.h5"
    assert run(droplet, path, command="ampmm sample …") == 30
    frames = read_frames(path)
    np.testing.assert_allclose(frames.time, 0.002 * np.arange(1, 31))
    np.testing.assert_array_equal(frames.source_index, range(30))
    np.testing.assert_array_equal(frames.numbers, [8, 1, 1])
    assert (frames.temperature == 300.0).all() and frames.energy is None
    assert frames.header.mm_region == "molecules with an atom within 4 Å of a QM atom"
    assert frames.header.boundary == "droplet" and frames.header.sampling["driver"] == "springs"
    for index in (0, 29):
        record = frames.record(index)
        waters = record.positions_mm.reshape(-1, 3, 3)  # whole molecules
        assert 0 < len(waters) < 26
        np.testing.assert_allclose(np.linalg.norm(waters[:, 1] - waters[:, 0], axis=-1), 0.9572, atol=2e-3)
        np.testing.assert_allclose(
            record.charges_mm.reshape(-1, 3), np.tile([-0.834, 0.417, 0.417], (len(waters), 1)), atol=1e-6
        )
        nearest = np.linalg.norm(record.positions_qm[:, None] - record.positions_mm[None], axis=-1).min(axis=0)
        assert (nearest.reshape(-1, 3).min(axis=1) < 4.0).all()
    assert np.ptp(frames.positions_qm[:, 0, 0]) > 0.0
    assert (frames.round == 0).all() and (frames.driver == "springs").all()


def test_molecules_are_taken_whole():
    """A molecule with one site inside is stored whole, one just outside not at all."""
    mm = np.array([[1.0, 0, 0], [9.0, 0, 0], [5.1, 0, 0], [5.2, 0, 0], [-4.9, 0, 0]])
    near = molecules_within(np.zeros((1, 3)), mm, np.array([7, 7, 2, 2, 3]), 5.0)
    np.testing.assert_array_equal(near, [True, True, False, False, True])


def test_an_earlier_file_is_not_overwritten(droplet, tmp_path):
    path = tmp_path / "frames.h5"
    run(droplet, path)
    before = path.read_bytes()
    with pytest.raises(DataFileError, match="exists and is not overwritten"):
        run(droplet, path)
    assert path.read_bytes() == before


def test_a_second_process_leaves_the_state_of_the_first_alone(droplet, tmp_path):
    path, state = tmp_path / "a.h5", tmp_path / "a.h5.state.xml"
    state.write_text("of the first process, which has not written its first frame yet")
    engine = Springs()
    with WriterLock(state), pytest.raises(DataFileError, match="another process is writing"):
        run(droplet, path, engine)
    assert state.read_text().startswith("of the first") and not path.exists()


def test_a_full_disk_is_said_as_such(droplet, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FrameWriter, "_write", full)
    with pytest.raises(DataFileError, match="is the disk full"):
        run(droplet, tmp_path / "a.h5")


def test_a_failing_engine_keeps_its_message_and_the_frames_before(droplet, tmp_path):
    path = tmp_path / "frames.h5"
    counter = Springs()
    run(droplet, tmp_path / "count.h5", counter)
    with pytest.raises(LabellingError, match="the engine gave up"):
        run(droplet, path, Springs(fail_at=counter.calls - 40))
    n_frames = read_frames(path).n_frames
    assert 0 < n_frames < 30
    assert run(droplet, path, resume=True) == 30
    frames = read_frames(path)
    np.testing.assert_array_equal(frames.source_index, range(30))
    np.testing.assert_allclose(frames.time, 0.002 * np.arange(1, 31))
    moved = np.linalg.norm(np.diff(frames.positions_qm[:, 0], axis=0), axis=1)  # (29,) Å in 2 fs
    seam = moved[n_frames - 1]
    assert seam < 2.0 * np.median(moved)  # the same trajectory goes on, with other noise


def test_a_driver_that_refuses_a_frame_leaves_those_before(droplet, tmp_path):
    class Refuses(Springs):
        def evaluate(self, *arguments, **more):
            if self.calls == counter.calls - 40:
                raise InputError("energies are not finite")
            return super().evaluate(*arguments, **more)

    counter = Springs()
    run(droplet, tmp_path / "count.h5", counter)
    with pytest.raises(InputError, match="not finite"):
        run(droplet, tmp_path / "frames.h5", Refuses(), settings=replace(SETTINGS, flush=1000))
    assert read_frames(tmp_path / "frames.h5").n_frames > 10


def test_going_on_does_not_repeat_the_noise(droplet, tmp_path):
    first, repeating, going_on = (Sampler(droplet, Springs(), SETTINGS) for _ in range(3))
    first.equilibrate(lambda text: None)
    first.step(10)
    save_state(tmp_path / "state.xml", first.state())
    repeating.context.setState(openmm.XmlSerializer.deserialize((tmp_path / "state.xml").read_text()))
    going_on.restore(tmp_path / "state.xml")
    assert going_on.context.getStepCount() == repeating.context.getStepCount() == 10
    for each in (repeating, going_on):
        each.step(10)
    ends = [each.context.getState(positions=True).getPositions(asNumpy=True)._value for each in (repeating, going_on)]
    assert np.abs(ends[0] - ends[1]).max() > 1e-4


def test_a_trajectory_can_be_made_longer_but_not_changed(droplet, tmp_path):
    path = tmp_path / "frames.h5"
    run(droplet, path)
    assert run(droplet, path, settings=replace(SETTINGS, time=0.08), resume=True) == 40
    with pytest.raises(InputError, match=r"begun with temperature 300.0, got 310.0"):
        run(droplet, path, settings=replace(SETTINGS, temperature=310.0), resume=True)
    with pytest.raises(InputError, match=r"begun with driver springs, got GFN2-xTB"):
        sample(droplet, Springs(), SETTINGS, path, driver="GFN2-xTB", resume=True)
    wider = droplet._replace(wall_radius=2.0 * droplet.wall_radius)
    with pytest.raises(InputError, match="begun with wall_radius_nm"):
        run(wider, path, resume=True)
    with pytest.raises(InputError, match="begun with system_digest"):
        run(droplet._replace(digest="another"), path, resume=True)
    path.with_name("frames.h5.state.xml").write_text("rubbish")
    with pytest.raises(DataFileError, match=r"cannot read it .* the frames stored so far stay good"):
        run(droplet, path, settings=replace(SETTINGS, time=0.1), resume=True)
    path.with_name("frames.h5.state.xml").unlink()
    with pytest.raises(InputError, match="saved state"):
        run(droplet, path, resume=True)


def test_a_driver_that_refuses_a_trial_step_of_the_minimiser_is_no_failure(droplet, tmp_path):
    class Refuses(Springs):
        def evaluate(self, *arguments, **more):
            if self.calls == 3:
                self.calls += 1
                raise LabellingError("GFN2-xTB did not converge")
            return super().evaluate(*arguments, **more)

    said = []
    assert sample(droplet, Refuses(), SETTINGS, tmp_path / "frames.h5", driver="springs", report=said.append) == 30
    assert any("was undone" in text for text in said)


def test_without_minimising(droplet, tmp_path):
    said = []
    assert sample(
        droplet, Springs(), replace(SETTINGS, minimize=0), tmp_path / "frames.h5", driver="springs", report=said.append
    )
    assert not any("minimising" in text for text in said)


def test_ctrl_c_within_the_engine_comes_back_as_itself(droplet, tmp_path):
    """Most of the time is spent there, below OpenMM, which turns every exception into its own."""

    class Interrupted(Springs):
        def evaluate(self, *arguments, **more):
            if self.calls == counter.calls - 40:
                raise KeyboardInterrupt
            return super().evaluate(*arguments, **more)

    counter = Springs()
    run(droplet, tmp_path / "count.h5", counter)
    with pytest.raises(KeyboardInterrupt):
        run(droplet, tmp_path / "frames.h5", Interrupted())
    assert run(droplet, tmp_path / "frames.h5", resume=True) == 30


def test_nan_stops_the_dynamics_and_keeps_the_frames(droplet, tmp_path):
    class Explodes(Springs):
        def evaluate(self, *arguments, **more):
            result = super().evaluate(*arguments, **more)
            return result._replace(forces_qm=result.forces_qm * (np.nan if self.calls > 300 else 1.0))

    counter = Springs()
    run(droplet, tmp_path / "count.h5", counter)
    explodes = Explodes()
    explodes.calls = 300 - counter.calls + 50
    with pytest.raises(SimulationStopped, match="NaN"):
        run(droplet, tmp_path / "frames.h5", explodes)
    assert np.isfinite(read_frames(tmp_path / "frames.h5").positions_qm).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"timestep": 0.0}, "timestep: expected a positive"),
        ({"interval": 2.2}, "interval: expected a multiple"),
        ({"time": 0.001}, "time: expected at least one interval"),
        ({"seed": 0}, "seed: expected 1"),
        ({"equilibration": -1.0}, "equilibration: expected 0"),
        ({"round": -1}, "round: expected 0"),
        ({"minimize": -1}, "minimize: expected 0"),
        ({"trajectory_id": 202611211932}, "trajectory_id: expected 0 to 2147483647, got 202611211932"),
    ],
)
def test_settings_are_checked(changes, message):
    with pytest.raises(InputError, match=message):
        replace(SETTINGS, **changes)


def test_a_cutoff_is_refused_for_what_the_water_polarizes(droplet):
    cut = replace(SETTINGS, mm_cutoff=10.0)
    with pytest.raises(InputError, match="mm_cutoff: expected 0 with a driver that the MM charges polarize, got 10 Å"):
        Sampler(droplet, Springs(), cut)
    fixed = Springs()
    fixed.fixed_charges = True
    for evaluator in (fixed, None):
        sampler = Sampler(droplet, evaluator, cut)  # owns the forces
        system = sampler.context.getSystem()
        nonbonded = next(force for force in system.getForces() if isinstance(force, openmm.NonbondedForce))
        assert nonbonded.getCutoffDistance().value_in_unit(unit.nanometer) == pytest.approx(1.0)
        assert nonbonded.getNonbondedMethod() == openmm.NonbondedForce.CutoffNonPeriodic


def test_system_folders_are_checked(tmp_path):
    with pytest.raises(InputError, match=r"folder with a system\.yaml"):
        load_droplet(tmp_path)
    (tmp_path / "system.yaml").write_text("name: water\n")
    with pytest.raises(InputError, match="describes no 'droplet'"):
        load_droplet(tmp_path)
    (tmp_path / "system.yaml").write_text("name: [water\n")
    with pytest.raises(InputError, match="is not YAML"):
        load_droplet(tmp_path / "system.yaml")


def test_the_command_refuses_what_it_cannot_do(tmp_path):
    from click.testing import CliRunner

    taken = tmp_path / "frames.h5"
    taken.write_text("")
    for arguments, message in (
        (["systems/uracil", "-o", str(taken)], "is not overwritten"),
        (["systems/uracil", "-o", str(tmp_path / "no" / "frames.h5")], "does not exist"),
        ([str(tmp_path), "-o", str(tmp_path / "new.h5")], "system.yaml"),
        (["uracil", "--burst", "-5", "-o", str(tmp_path / "new.h5")], "burst steps: expected a positive number"),
        (["uracil", "--burst", "5", "--burst-frames", "2", "-o", str(tmp_path / "new.h5")], "a divisor of the 5 steps"),
        (["uracil", "--burst-frames", "2", "-o", str(tmp_path / "new.h5")], "--burst-frames: expected with --burst alone"),
        (["uracil", "--driver", "gfn-ff", "--accuracy", "9", "-o", str(tmp_path / "new.h5")], "--accuracy: expected with"),
        (["uracil", "--restrain", "0", "0", "0.3", "9", "-o", str(tmp_path / "new.h5")], "the indices of two atoms"),
        (["uracil", "--restrain", "0", "99999", "0.3", "9", "-o", str(tmp_path / "new.h5")], "expected atoms below"),
    ):
        result = CliRunner().invoke(sample_command, arguments)
        assert result.exit_code == 1 and message in str(result.exception), result.output
