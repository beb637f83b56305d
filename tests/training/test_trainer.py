"""Training runs on a toy: they learn, they resume to the same weights, and nothing that goes wrong loses a checkpoint."""

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.toy_frames import toy_frames

from ampmm.data.combine import first_frames
from ampmm.errors import DataFileError, InputError
from ampmm.physics.coulomb import BareCoulomb
from ampmm.physics.evaluators import force_evaluator
from ampmm.training import Trainer, TrainingConfig
from ampmm.training.checkpoint import save_checkpoint

CONFIG = TrainingConfig(
    data="toy.h5",
    name="toy",
    hyperparameters={"order": 1, "width": 16, "n_layers": 2, "multipole_scale": 0.1, "energy_scale": 10.0, "charge_scale": 0.1},
    n_train=16,
    n_validation=4,
    n_test=4,
    steps=12,
    batch_size=3,
    learning_rate=3.0e-3,
    final_learning_rate=1.0e-3,
    warmup_steps=3,
    gradient_clip=100.0,
    ema_decay=0.9,
    validation_interval=4,
    checkpoint_interval=4,
)


@pytest.fixture(scope="module")
def frames():
    return toy_frames(24)


def trainer(frames, folder, **changes):
    folder.mkdir(exist_ok=True)
    return Trainer(dataclasses.replace(CONFIG, **changes), frames, folder)


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_amp_bms_learns_too(frames, tmp_path):
    """Its long-range pairs and fields reach the trainer; polarizabilities and charges get gradients through the forces."""
    values = {"width": 16, "edge_width": 8, "head_width": 8, "n_channels": 2, "moment_divisor": 5.0}
    run = trainer(frames, tmp_path, architecture="amp-bms", hyperparameters=values, steps=60, validation_interval=20)
    before = {name: value.clone() for name, value in run.model.named_parameters()}
    run.run(progress=False)
    log = np.genfromtxt(tmp_path / "log.csv", delimiter=",", names=True)
    assert log["loss"][-1] < 0.5 * log["loss"][0]
    unmoved = [name for name, value in run.model.named_parameters() if torch.equal(value, before[name])]
    assert not unmoved


def test_errors_fall(frames, tmp_path):
    run = trainer(frames, tmp_path, steps=120, validation_interval=30)
    run.run(progress=False)
    log = np.genfromtxt(tmp_path / "log.csv", delimiter=",", names=True)
    assert log["step"].tolist() == [30.0, 60.0, 90.0, 120.0]
    assert log["loss"][-1] < 0.1 * log["loss"][0]
    assert log["validation_energy_mae"][-1] < 0.3 * frames.energy.std()
    assert log["validation_forces_mm_mae"][-1] < 0.2 * frames.forces_mm.std()


def test_learning_rate_warms_up_and_falls_to_its_end(frames, tmp_path):
    run = trainer(frames, tmp_path, validation_interval=1)
    run.run(progress=False)
    rates = np.genfromtxt(tmp_path / "log.csv", delimiter=",", names=True)["learning_rate"]
    assert rates.argmax() == CONFIG.warmup_steps - 1
    assert rates.max() == pytest.approx(CONFIG.learning_rate)
    assert rates[-1] == pytest.approx(CONFIG.final_learning_rate)


def test_resumed_run_ends_with_the_same_bits(frames, tmp_path):
    whole = trainer(frames, tmp_path / "whole")
    whole.run(progress=False)
    halted = trainer(frames, tmp_path / "halted")
    interrupt_after(halted, 7)
    with pytest.raises(KeyboardInterrupt):
        halted.run(progress=False)
    resumed = trainer(frames, tmp_path / "halted")
    resumed.resume()
    assert resumed.step == 7
    resumed.run(progress=False)
    assert torch.equal(weights(resumed.model), weights(whole.model))
    assert torch.equal(weights(resumed.averaged_model()), weights(whole.averaged_model()))
    assert not torch.equal(weights(whole.model), weights(whole.averaged_model()))


def interrupt_after(run, n_steps):
    """Ctrl-C in the middle of step `n_steps`."""
    ordinary = run._train_step

    def step(evaluator, batch):
        if run.step == n_steps - 1:
            os.kill(os.getpid(), signal.SIGINT)
        return ordinary(evaluator, batch)

    run._train_step = step


def test_after_a_second_interrupt_the_saved_step_is_that_of_the_checkpoint(frames, tmp_path):
    run = trainer(frames, tmp_path, checkpoint_interval=5)
    interrupt_after(run, 8)
    ordinary = run._train_step

    def twice(evaluator, batch):
        if run.step == 7:
            os.kill(os.getpid(), signal.SIGINT)
        return ordinary(evaluator, batch)

    run._train_step = twice
    with pytest.raises(KeyboardInterrupt):
        run.run(progress=False)
    assert (run.step, run.saved_step) == (7, 5)
    assert torch.load(run.checkpoint_path, weights_only=True)["step"] == 5


def test_steps_done_again_are_logged_once(frames, tmp_path):
    run = trainer(frames, tmp_path, checkpoint_interval=5, validation_interval=1)
    ordinary = run._train_step

    def fails_at_step_8(evaluator, batch):
        if run.step == 7:
            raise RuntimeError("power cut")
        return ordinary(evaluator, batch)

    run._train_step = fails_at_step_8
    with pytest.raises(RuntimeError, match="power cut"):
        run.run(progress=False)
    resumed = trainer(frames, tmp_path, checkpoint_interval=5, validation_interval=1)
    resumed.resume()
    assert resumed.step == 5
    resumed.run(progress=False)
    log = np.genfromtxt(tmp_path / "log.csv", delimiter=",", names=True)
    assert log["step"].tolist() == list(range(1, 13))


def test_every_pass_visits_every_training_frame_once(frames, tmp_path):
    run = trainer(frames, tmp_path, steps=12)
    visited = []
    for batch in run._training_batches():
        run.step += 1
        visited += batch.energy.tolist()
    expected = sorted(frames.energy[run.split.train].tolist())
    assert sorted(visited[:16]) == sorted(visited[16:32]) == expected
    assert visited[:16] != visited[16:32]


def test_resume_with_another_configuration_is_refused(frames, tmp_path):
    trainer(frames, tmp_path).save()
    with pytest.raises(InputError, match=r"another configuration: batch_size: 3 in the checkpoint, 2 now"):
        trainer(frames, tmp_path, batch_size=2).resume()


def test_resume_with_other_frames_is_refused_but_a_moved_file_is_not(frames, tmp_path):
    trainer(frames, tmp_path).save()
    trainer(frames, tmp_path, data="elsewhere/toy.h5").resume()
    with pytest.raises(InputError, match="trained on other frames"):
        trainer(toy_frames(28), tmp_path).resume()


def test_resume_without_a_checkpoint(frames, tmp_path):
    with pytest.raises(InputError, match=r"checkpoint.pt does not exist; train without --resume first"):
        trainer(frames, tmp_path).resume()


def test_damaged_checkpoint_is_named(frames, tmp_path):
    run = trainer(frames, tmp_path)
    run.save()
    whole = run.checkpoint_path.read_bytes()
    for damage in (whole[: len(whole) // 2], b"", b"not a checkpoint"):
        run.checkpoint_path.write_bytes(damage)
        with pytest.raises(InputError, match=r"checkpoint.pt cannot be read"):
            trainer(frames, tmp_path).resume()


def test_a_kill_while_writing_keeps_the_old_checkpoint(frames, tmp_path, monkeypatch):
    run = trainer(frames, tmp_path)
    run.save()
    before = run.checkpoint_path.read_bytes()

    def half_a_file(state, path):
        path.write_bytes(before[: len(before) // 2])
        raise RuntimeError("PytorchStreamWriter failed writing file: No space left on device")

    monkeypatch.setattr(torch, "save", half_a_file)
    with pytest.raises(DataFileError, match=r"cannot write .*checkpoint.pt: .*No space left.* An earlier checkpoint"):
        save_checkpoint(run.checkpoint_path, {})
    assert [each.name for each in tmp_path.iterdir()] == ["checkpoint.pt"]
    assert run.checkpoint_path.read_bytes() == before
    trainer(frames, tmp_path).resume()


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_checkpoint(frames, tmp_path):
    spoilt = frames._replace(forces_qm=frames.forces_qm.copy())
    run = trainer(spoilt, tmp_path)
    run.save()
    before = run.checkpoint_path.read_bytes()
    spoilt.forces_qm[run.split.train] = np.nan
    with pytest.raises(InputError, match="the loss is nan at step 0; lower learning_rate"):
        run.run(progress=False)
    assert run.checkpoint_path.read_bytes() == before


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(frames, tmp_path):
    run = trainer(frames, tmp_path)
    before = weights(run.model)
    next(run.model.parameters()).register_hook(lambda gradient: torch.full_like(gradient, torch.inf))
    with pytest.raises(InputError, match=r"the gradient is (nan|inf) at step 0; lower learning_rate"):
        run.run(progress=False)
    assert torch.equal(weights(run.model), before)


def test_frames_labelled_since_then_are_not_this_runs(tmp_path):
    everything = toy_frames(30)
    fewer = first_frames(everything, 24)
    assert fewer.n_frames == 24 and len(fewer.positions_mm) == len(fewer.forces_mm) == fewer.mm_offsets[-1]
    for index in (0, 23):
        mine, theirs = fewer.record(index), everything.record(index)
        assert all(np.array_equal(mine._asdict()[name], value) for name, value in theirs._asdict().items() if name != "driver")
    assert first_frames(everything, 99) is everything


def test_an_empty_log_of_a_full_disk_is_no_hindrance(frames, tmp_path):
    run = trainer(frames, tmp_path)
    (tmp_path / "log.csv").touch()
    run.run(progress=False)
    assert (tmp_path / "log.csv").read_text().startswith("step,minutes")


def test_a_half_row_of_the_log_is_forgotten(frames, tmp_path):
    """A full disk leaves one; what is written after it is a row of its own."""
    run = trainer(frames, tmp_path)
    run.run(progress=False)
    whole = (tmp_path / "log.csv").read_text()
    (tmp_path / "log.csv").write_text(whole + "1")
    run._forget_later_rows()
    assert (tmp_path / "log.csv").read_text() == whole


def test_validation_frames_are_checked_evenly(frames, tmp_path):
    """The first ones of a temporal split follow the training frames closely."""
    run = trainer(frames, tmp_path, split="temporal", n_train=8, n_validation=12, n_test=4, n_validation_checked=3)
    looked_at = []
    run.batcher.batches = lambda chosen, size: looked_at.extend(chosen.tolist()) or []
    run._validation_errors()
    assert looked_at == run.split.validation[[0, 6, 11]].tolist() or looked_at == run.split.validation[[0, 5, 11]].tolist()


def test_unlabelled_frames_are_refused(frames, tmp_path):
    with pytest.raises(InputError, match=r"toy.h5 has no labels; run `ampmm label`"):
        trainer(frames._replace(energy=None), tmp_path)


def test_weights_depend_on_the_seed_alone(frames, tmp_path):
    first, again = trainer(frames, tmp_path), trainer(frames, tmp_path)
    other = trainer(frames, tmp_path, seed=1)
    assert torch.equal(weights(first.model), weights(again.model))
    assert not torch.equal(weights(first.model), weights(other.model))


def test_a_checkpoint_from_before_newer_settings_goes_on(frames, tmp_path):
    """Settings that did not exist then have their defaults now, and what the data were of was not stored."""
    run = trainer(frames, tmp_path)
    run.save()
    state = torch.load(run.checkpoint_path, weights_only=True)
    for name in ("schedule", "cycles", "base_data"):
        del state["config"][name]
    del state["system"], state["parent"]
    torch.save(state, run.checkpoint_path)
    trainer(frames, tmp_path).resume()
    with pytest.raises(InputError, match=r"schedule: 'exponential' in the checkpoint, 'cosine' now"):
        trainer(frames, tmp_path, schedule="cosine").resume()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda f: toy_frames(24, level="another"),
            r"level_of_theory: 'harmonic bonds .*' in the checkpoint, 'another' in toy.h5",
        ),
        (lambda f: f._replace(numbers=f.numbers[::-1].copy()), r"atoms: 'O H H' in the checkpoint, 'H H O' in toy.h5"),
        (lambda f: f._replace(header=dataclasses.replace(f.header, system="water")), "system: 'toy' .*, 'water' in"),
        (lambda f: f._replace(header=dataclasses.replace(f.header, qm_charge=1)), "qm_charge: 0 .*, 1 in"),
    ],
)
def test_resume_with_another_data_set_says_how_it_differs(frames, tmp_path, change, message):
    trainer(frames, tmp_path).save()
    with pytest.raises(InputError, match="was trained on another data set: .*" + message):
        trainer(change(frames), tmp_path).resume()


def test_a_kill_loses_at_most_one_checkpoint_interval(frames, tmp_path):
    """SIGKILL at step 11 with a checkpoint every 4 steps: the run goes on from step 8."""
    script = (
        "import os, signal, sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from test_trainer import CONFIG, trainer, toy_frames\n"
        "run = trainer(toy_frames(24), Path(sys.argv[2])); ordinary = run._train_step\n"
        "run._train_step = lambda *a: os.kill(os.getpid(), signal.SIGKILL) if run.step == 10 else ordinary(*a)\n"
        "run.run(progress=False)"
    )
    tests = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests.parent), *sys.path])}
    done = subprocess.run([sys.executable, "-c", script, tests, tmp_path], env=environment, timeout=300)
    assert done.returncode == -signal.SIGKILL
    run = trainer(frames, tmp_path)
    run.resume()
    assert run.step == 8


def test_weights_of_the_loss_are_settings(frames, tmp_path):
    """With the energy alone in the loss, the forces' weights have no say; with λ = 1, the energy's has none."""
    energies, forces = trainer(frames, tmp_path, force_weight=0.0), trainer(frames, tmp_path, force_weight=1.0)
    batch = energies.batcher.batch(range(3))
    for run, expected in ((energies, lambda t: t[1]), (forces, lambda t: t[2] + 100.0 * t[3])):
        terms = run._train_step(force_evaluator(run.model, BareCoulomb()), batch)
        assert terms[0] == pytest.approx(expected(terms), rel=1e-5)


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_the_offset_is_settled_on_the_training_frames(frames, tmp_path, ema_decay):
    run = trainer(frames, tmp_path, ema_decay=ema_decay)
    model = run.averaged_model()
    model.element_energies += 7.0
    run.settle_offset()
    evaluator = force_evaluator(model, BareCoulomb())
    errors = [run._predicted(evaluator, batch).energies.total.detach() - batch.energy
              for batch in run.batcher.batches(run.split.train, 4)]  # fmt: skip
    assert abs(torch.cat(errors).mean()) < 1e-3 * torch.cat(errors).std()
