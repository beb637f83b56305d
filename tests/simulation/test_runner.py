"""Runs: what they write, that resuming continues the same trajectory, that they stop with the last good frame."""

import hashlib
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import mdtraj
import numpy as np
import openmm
import parmed
import pytest
from openmm import unit
from small_runs import config, frames, run, table
from support.stand_in_model import write_stand_in

from ampmm.errors import DataFileError, InputError, ModelFileError, SimulationStopped
from ampmm.export import load_model
from ampmm.simulation import restart
from ampmm.simulation.assemble import _properties, assemble, evaluate_region, make_simulation
from ampmm.simulation.runner import resume, start


def test_run_writes_all_it_promises(small_system, tmp_path):
    result = run(small_system, tmp_path / "a")
    assert (result.step, result.interrupted) == (40, False) and result.ns_per_day > 0
    assert {file.name for file in result.folder.iterdir()} == set(restart.RUN_FILES) - {restart.ML_TERMS}
    data = table(result.folder / "state.csv")
    assert data["step"].tolist() == [10, 20, 30, 40]
    assert data["time_ps"] == pytest.approx(data["step"] * 0.0005)
    assert data["total_kJ_per_mol"] == pytest.approx(data["potential_kJ_per_mol"] + data["kinetic_kJ_per_mol"])
    trajectory = frames(result.folder)
    assert trajectory.n_frames == 4
    oxygens, hydrogens = trajectory.xyz[:, 12::3], trajectory.xyz[:, 13::3]
    assert np.linalg.norm(oxygens - hydrogens, axis=-1) == pytest.approx(0.09572, abs=2e-5)  # water stays rigid


def test_earlier_run_is_never_overwritten(small_system, tmp_path):
    run(small_system, tmp_path / "a", steps=10)
    before = {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()}
    with pytest.raises(InputError, match=r"holds an earlier run .*--resume"):
        run(small_system, tmp_path / "a", steps=10)
    assert before == {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()}
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="expected a folder, got the file"):
        run(small_system, tmp_path / "file")


def test_resumed_run_is_the_uninterrupted_one_bit_by_bit(small_system, tmp_path):
    run(small_system, tmp_path / "whole")
    run(small_system, tmp_path / "parts", steps=20)
    result = resume(tmp_path / "parts", 40, progress=False)
    assert result.step == 40
    assert (frames(tmp_path / "whole").xyz == frames(tmp_path / "parts").xyz).all()
    assert (tmp_path / "whole" / "state.csv").read_text() == (tmp_path / "parts" / "state.csv").read_text()
    with pytest.raises(InputError, match="already has 40 steps of 40"):
        resume(tmp_path / "parts", progress=False)


def test_frames_after_the_last_checkpoint_are_made_again(small_system, tmp_path):
    """A kill between checkpoints: files are ahead of the checkpoint, and end up as if nothing had happened."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(small_system, whole)
    run(small_system, killed, steps=20)
    kept = {name: (killed / name).read_bytes() for name in (restart.CHECKPOINT, restart.STATE)}
    resume(killed, 30, progress=False)
    for name, content in kept.items():
        (killed / name).write_bytes(content)
    resume(killed, 40, progress=False)
    assert (frames(whole).xyz == frames(killed).xyz).all()
    assert (whole / "state.csv").read_text() == (killed / "state.csv").read_text()


def test_unreadable_checkpoint_falls_back_on_the_state(small_system, tmp_path, capsys):
    run(small_system, tmp_path / "a", steps=20, ensemble="NVE")
    run(small_system, tmp_path / "b", steps=40, ensemble="NVE")
    (tmp_path / "a" / restart.CHECKPOINT).write_bytes(b"rubbish")
    resume(tmp_path / "a", 40, progress=False)
    assert "continuing from state.xml" in capsys.readouterr().out
    assert table(tmp_path / "a" / "state.csv")["step"].tolist() == [10, 20, 30, 40]
    assert frames(tmp_path / "a").xyz == pytest.approx(frames(tmp_path / "b").xyz, abs=1e-5)  # NVE draws nothing
    for name in (restart.CHECKPOINT, restart.STATE):
        (tmp_path / "a" / name).write_bytes(b"rubbish")
    with pytest.raises(DataFileError, match="could read none"):
        resume(tmp_path / "a", 60, progress=False)


def test_going_on_from_the_state_does_not_repeat_the_noise(small_system, tmp_path):
    run(small_system, tmp_path / "a", steps=20)
    (tmp_path / "a" / restart.CHECKPOINT).unlink()
    settings = config(small_system, tmp_path / "a")
    simulation = make_simulation(settings, assemble(settings))  # with the generator of the run's start
    simulation.context.setState(openmm.XmlSerializer.deserialize((tmp_path / "a" / restart.STATE).read_text()))
    simulation.step(20)
    resume(tmp_path / "a", 40, progress=False)
    repeated = simulation.context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    assert np.abs(frames(tmp_path / "a").xyz[-1] - repeated).max() > 1e-3


def test_two_processes_do_not_write_one_run(small_system, tmp_path):
    run(small_system, tmp_path / "a", steps=20)
    for call in (lambda: resume(tmp_path / "a", 40, progress=False), lambda: run(small_system, tmp_path / "b")):
        both = restart.only_writer(tmp_path / "a"), restart.only_writer(tmp_path / "b")
        with both[0], both[1], pytest.raises(DataFileError, match=r"trajectory.dcd: another process is writing"):
            call()
    assert resume(tmp_path / "a", 40, progress=False).step == 40


def test_another_model_under_the_same_name_does_not_go_on(small_system, tmp_path):
    model = write_stand_in(tmp_path / "m.pt")
    run(small_system, tmp_path / "a", steps=20, model=str(model), platform="CPU")
    assert resume(tmp_path / "a", 30, progress=False).step == 30
    stored = tmp_path / "a" / restart.CONFIG
    digest = hashlib.sha256(model.read_bytes()).hexdigest()[:8]
    assert digest in stored.read_text()
    stored.write_text(stored.read_text().replace(digest, "deadbeef"))
    with pytest.raises(InputError, match=r"m.pt is not the one that the run in .* began with \(a file of SHA-256 \w+… now"):
        resume(tmp_path / "a", 40, progress=False)


def test_a_run_with_an_evaluator_of_ones_own_does_not_go_on_with_another(small_system, tmp_path, springs):
    start(config(small_system, tmp_path / "a", steps=20), model=springs, progress=False)
    assert resume(tmp_path / "a", 30, model=springs, progress=False).step == 30
    model = write_stand_in(tmp_path / "m.pt")
    with pytest.raises(InputError, match=r"an Evaluator of a script's own then"):
        resume(tmp_path / "a", 40, progress=False, model_file=str(model))


@pytest.mark.parametrize("name", [restart.TRAJECTORY, restart.STATE_DATA])
def test_a_file_that_was_taken_away_is_named(small_system, tmp_path, name):
    run(small_system, tmp_path / "a", steps=20)
    (tmp_path / "a" / name).unlink()
    with pytest.raises(DataFileError, match=rf"--resume: expected {name} in .* put it back"):
        resume(tmp_path / "a", 40, progress=False)


def test_a_model_that_was_moved_goes_on_from_its_new_place(small_system, tmp_path, monkeypatch):
    model = write_stand_in(tmp_path / "m.pt")
    run(small_system, tmp_path / "a", steps=20, model=str(model), platform="CPU")
    model.rename(tmp_path / "moved.pt")
    with pytest.raises(ModelFileError, match=r"there is no file .*m\.pt"):
        resume(tmp_path / "a", 30, progress=False)
    monkeypatch.chdir(tmp_path)
    assert resume(tmp_path / "a", 30, progress=False, model_file="moved.pt").step == 30
    monkeypatch.chdir(tmp_path / "a")  # the name as typed means nothing here
    assert resume(tmp_path / "a", 40, progress=False).step == 40


def test_another_system_under_the_same_name_does_not_go_on(small_system, tmp_path):
    system = tmp_path / "system"
    shutil.copytree(small_system, system)
    run(system, tmp_path / "a", steps=20)
    text = (system / "system.yaml").read_text()
    (system / "system.yaml").write_text("# read again\n" + text)
    assert resume(tmp_path / "a", 30, progress=False).step == 30
    (system / "system.yaml").write_text(text.replace("wall_radius: 0.8", "wall_radius: 0.9"))
    with pytest.raises(InputError, match=r"restraints of .*system are others than those that the run in .* began with"):
        resume(tmp_path / "a", 40, progress=False)


def test_resume_needs_a_run(tmp_path):
    with pytest.raises(InputError, match=r"found no config\.yaml"):
        resume(tmp_path, progress=False)


def test_constant_energy_is_conserved(small_system, tmp_path):
    run(small_system, tmp_path / "a", ensemble="NVE", steps=400, checkpoint_interval=400, minimize=50)
    data = table(tmp_path / "a" / "state.csv")
    assert np.ptp(data["total_kJ_per_mol"]) < 0.02 * data["kinetic_kJ_per_mol"].mean()


def test_barostat_moves_the_box_and_the_columns_say_so(small_system, tmp_path):
    run(small_system, tmp_path / "a", form="box", ensemble="NPT", pressure=1000.0, steps=100, platform="CPU",
        checkpoint_interval=100)  # fmt: skip
    data = table(tmp_path / "a" / "state.csv")
    assert len(set(data["volume_nm3"])) > 1
    mass = 112.09 + 40 * 18.015
    assert data["density_g_per_mL"] == pytest.approx(mass / 602.214076 / data["volume_nm3"], rel=1e-4)
    assert frames(tmp_path / "a").unitcell_volumes == pytest.approx(data["volume_nm3"], rel=1e-5)
    final = mdtraj.load(str(tmp_path / "a" / restart.FINAL))
    assert final.unitcell_volumes == pytest.approx(data["volume_nm3"][-1:], rel=1e-3)  # three decimals of Å


def test_a_barostat_may_shrink_the_box_by_some_percent(small_system, tmp_path):
    """By default the QM–MM reaction field would end at half the box; the written terms use the force's cutoff in any box."""
    model = load_model(write_stand_in(tmp_path / "uracil.pt"))
    for ensemble, cutoff in (("NVT", 11.0), ("NPT", 0.475 * 22.0)):
        settings = config(narrower(small_system, tmp_path / ensemble, 22.0), tmp_path / "a", form="box", ensemble=ensemble)
        assembled = assemble(settings, model)
        assert assembled.region.options["coulomb_cutoff"] == pytest.approx(cutoff)
        context = make_simulation(settings, assembled).context
        shrunk = 0.96 * 2.2 * np.eye(3)
        context.setPeriodicBoxVectors(*shrunk)
        force = {next(i for i, each in enumerate(assembled.system.getForces()) if each.getName() == "ampmm")}
        for index, each in enumerate(assembled.system.getForces()):
            each.setForceGroup(index)
        context.reinitialize(preserveState=True)
        if ensemble == "NVT":
            with pytest.raises(openmm.OpenMMException, match="over half the box"):
                context.getState(energy=True, groups=force)
            continue
        state = context.getState(energy=True, positions=True, groups=force)
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        expected = evaluate_region(assembled.region, positions, shrunk).energy
        assert state.getPotentialEnergy()._value == pytest.approx(expected, abs=1e-2)


def narrower(system, folder, edge):
    """The same system in a cube of another edge, Å."""
    shutil.copytree(system, folder)
    structure = parmed.load_file(str(folder / "box.prmtop"), str(folder / "box.inpcrd"))
    structure.box = [edge, edge, edge, 90.0, 90.0, 90.0]
    structure.save(str(folder / "box.prmtop"), overwrite=True)
    structure.save(str(folder / "box.inpcrd"), format="rst7", overwrite=True)
    return folder


def test_model_drives_the_region_and_its_terms_are_written(small_system, tmp_path, springs):
    result = start(config(small_system, tmp_path / "a"), model=springs, progress=False)
    data = table(result.folder / "ml.csv")
    assert data.dtype.names[:6] == ("step", "time_ps", "energy_kJ_per_mol", "dipole_x_eA", "dipole_y_eA", "dipole_z_eA")
    assert data["charge_O1_e"] == pytest.approx(-0.1) and data["charge_H4_e"] == pytest.approx(0.1)
    assert (data["energy_kJ_per_mol"] > 0).all() and len(set(data["energy_kJ_per_mol"])) == 4
    positions = 10 * frames(result.folder).xyz[:, :12].astype(float)
    dipoles = np.linspace(-0.1, 0.1, 12) @ positions
    assert np.stack([data[f"dipole_{axis}_eA"] for axis in "xyz"], axis=1) == pytest.approx(dipoles, abs=1e-4)


@pytest.mark.parametrize(("precision", "resolution"), [("float32", 1e-2), ("float64", 1e-8)])  # kJ/mol
def test_terms_have_the_precision_of_the_forces(small_system, tmp_path, precision, resolution):
    """The model's terms are evaluated beside OpenMM's force; both with the arithmetic that the run asks for."""
    model = load_model(write_stand_in(tmp_path / "uracil.pt"))
    assembled = assemble(config(small_system, tmp_path / "a", precision=precision), model)
    simulation = make_simulation(config(small_system, tmp_path / "a", precision=precision), assembled)
    force = next(each for each in assembled.system.getForces() if each.getName() == "ampmm")
    force.setForceGroup(5)
    simulation.context.reinitialize(preserveState=True)
    expected = simulation.context.getState(energy=True, groups={5}).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
    positions = simulation.context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    assert evaluate_region(assembled.region, positions, None).energy == pytest.approx(expected, abs=resolution)


def test_nan_stops_the_run_and_saves_the_last_good_frame(small_system, tmp_path, springs):
    calls = []
    evaluate = springs.evaluate

    def failing(*arguments, **named):
        calls.append(1)
        springs.scale = float("nan") if len(calls) > 60 else 1.0
        return evaluate(*arguments, **named)

    springs.evaluate = failing
    folder = tmp_path / "a"
    with pytest.raises(SimulationStopped, match="The last good frame, of step") as caught:
        start(config(small_system, folder, steps=400, minimize=0), model=springs, progress=False)
    good = mdtraj.load(str(folder / "last_good.pdb"))
    assert np.isfinite(good.xyz).all()
    state = openmm.XmlSerializer.deserialize((folder / "last_good.xml").read_text())
    assert f"of step {state.getStepCount()}," in str(caught.value)
    assert np.isfinite(frames(folder).xyz).all()
    assert table(folder / "state.csv")["step"][-1] == state.getStepCount()


def test_nan_while_minimising_is_explained(small_system, tmp_path, springs):
    springs.scale = float("nan")
    with pytest.raises(SimulationStopped, match=r"before the first step: .*Nothing was run"):
        start(config(small_system, tmp_path / "a"), model=springs, progress=False)
    springs.scale = 1.0  # the same command, with what was wrong mended
    assert start(config(small_system, tmp_path / "a", steps=10), model=springs, progress=False).step == 10


def test_a_model_that_refuses_a_frame_stops_the_run_like_nan(small_system, tmp_path, springs, monkeypatch):
    calls = []

    def refusing(*arguments):
        calls.append(1)
        if len(calls) > 2:
            raise InputError("positions_qm: expected a frame the model can handle, got energy nan")
        return evaluate_region(*arguments)

    monkeypatch.setattr("ampmm.simulation.runner.evaluate_region", refusing)
    with pytest.raises(SimulationStopped, match=r"stopped at step 20: positions_qm: expected .* The last good frame, of"):
        start(config(small_system, tmp_path / "a", minimize=0), model=springs, progress=False)
    assert (tmp_path / "a" / "last_good.pdb").is_file()


def test_leaving_the_training_bounds_stops_the_run(small_system, tmp_path, springs):
    springs.card = SimpleNamespace(bounds={"min_distance": {"C-H": 0.5}, "max_force_qm": 1e-3})
    with pytest.raises(SimulationStopped, match=r"before the first step: the force on .* was not trained"):
        start(config(small_system, tmp_path / "a"), model=springs, progress=False)
    springs.card.bounds = {"max_bond": {"C-H": 1.09}, "max_force_qm": 1e6}
    with pytest.raises(SimulationStopped, match=r"the bond \w+–\w+ is .* Å long"):
        start(config(small_system, tmp_path / "b", distance_slack=0.02, temperature=2000.0, steps=4000),
              model=springs, progress=False)  # fmt: skip


def test_full_disk_keeps_the_last_checkpoint(small_system, tmp_path, monkeypatch):
    run(small_system, tmp_path / "a", steps=20)
    before = {name: (tmp_path / "a" / name).read_bytes() for name in (restart.CHECKPOINT, restart.STATE)}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(SimulationStopped, match=r"No space left on device.*--resume"):
        resume(tmp_path / "a", 40, progress=False)
    assert before == {name: (tmp_path / "a" / name).read_bytes() for name in before}
    monkeypatch.undo()
    assert resume(tmp_path / "a", 40, progress=False).step == 40


def test_what_openmm_cannot_set_up_is_refused_by_name(small_system, tmp_path, monkeypatch):
    def failing(*_):
        raise openmm.OpenMMException("The cutoff distance cannot be greater than half the periodic box size.")

    monkeypatch.setattr("ampmm.simulation.assemble.app.Simulation", failing)
    with pytest.raises(InputError, match=r"system: OpenMM cannot set .* up on the platform Reference: The cutoff"):
        run(small_system, tmp_path / "a")


def test_unknown_platform_lists_the_known(small_system, tmp_path):
    with pytest.raises(InputError, match=r"platform: expected auto or one of Reference, CPU.*, got 'GPU'"):
        run(small_system, tmp_path / "a", platform="GPU")
    assert not (tmp_path / "a").exists()


def test_graphs_are_refused_on_other_platforms_than_cuda(small_system, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    with pytest.raises(InputError, match="cuda_graphs: expected OpenMM's CUDA platform, got platform 'CPU'"):
        run(small_system, tmp_path / "a", platform="CPU", model="uracil", cuda_graphs=True)


def test_a_platform_gets_the_precision_asked_for_however_it_was_chosen(small_system, monkeypatch):
    """CPU and Reference have no such property; what has one gets it, OpenMM's own choice too."""
    asked = []
    monkeypatch.setattr("ampmm.simulation.assemble._properties", lambda platform, config: asked.append(platform) or {})
    for platform in ("auto", "CPU"):
        each = config(small_system, Path("none"), platform=platform)
        make_simulation(each, assemble(each))
    assert [platform.getName() for platform in asked] == ["CPU", "CPU"]
    monkeypatch.undo()
    gpu = SimpleNamespace(getPropertyNames=lambda: ("DeviceIndex", "Precision"))
    for precision, expected in (("float32", "mixed"), ("float64", "double")):
        assert _properties(gpu, config(small_system, Path("none"), precision=precision)) == {"Precision": expected}
