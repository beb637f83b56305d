"""Training shared by processes: the result is that of one process, and only the first one writes."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from support.toy_frames import toy_frames, write_frames

from ampmm.data import read_frames
from ampmm.data.batching import Batcher
from ampmm.errors import InputError
from ampmm.models import build_model
from ampmm.physics.coulomb import BareCoulomb
from ampmm.physics.evaluators import force_evaluator
from ampmm.training import Processes, Trainer, TrainingConfig, choose_device
from ampmm.training.loss import sizes_of, weighted_loss

# 17 frames in batches of 4: the last batch of a pass holds one frame, so that one of two processes has none.
SETTINGS = {
    "name": "toy",
    "hyperparameters": {
        "order": 1, "width": 8, "n_layers": 2, "multipole_scale": 0.1, "energy_scale": 10.0, "charge_scale": 0.1,
    },
    "n_train": 17, "n_validation": 3, "n_test": 4, "steps": 12, "batch_size": 4, "learning_rate": 3.0e-3,
    "final_learning_rate": 1.0e-3, "gradient_clip": 100.0, "ema_decay": 0.5, "validation_interval": 6,
    "checkpoint_interval": 6,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Holds frames.h5, train.yaml, whole/ of one process, and half/, stopped at the half by one process."""
    folder = tmp_path_factory.mktemp("processes")
    write_frames(folder / "frames.h5", toy_frames(24))
    (folder / "train.yaml").write_text(yaml.safe_dump({"data": str(folder / "frames.h5"), **SETTINGS}))
    for name in ("whole", "half"):
        (folder / name).mkdir()
        run = trainer(folder, name)
        if name == "half":
            run.save = stopping_after_save(run)
        try:
            run.run(progress=False)
        except InterruptedError:
            assert run.step == 6
        (folder / name / "config.yaml").write_text(yaml.safe_dump(run.config.to_dict()))
    return folder


def trainer(folder, name):
    config = TrainingConfig.from_yaml(folder / "train.yaml")
    return Trainer(config, read_frames(folder / "frames.h5"), folder / name)


def stopping_after_save(run):
    ordinary = run.save

    def save():
        ordinary()
        raise InterruptedError

    return save


def torchrun(folder, *arguments):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = ["-m", "ampmm.cli", "train", "train.yaml", "--device", "cpu", "--threads", "1", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([*launcher, *script], cwd=folder, env=environment, text=True, capture_output=True, timeout=600)


def same_weights(first, second):
    states = [torch.load(path / "checkpoint.pt", weights_only=True) for path in (first, second)]
    assert states[0]["step"] == states[1]["step"] == SETTINGS["steps"]
    # Adam moves a weight whose gradient is only rounding, one way or the other: what counts is how far all of them moved.
    torch.manual_seed(0)
    start = TrainingConfig.from_yaml(first / "config.yaml").hyperparameters
    begun = build_model("amp", {"elements": [1, 8], **start})
    for part, prefix in (("model", ""), ("average", "module.")):
        names = [name for name, _ in begun.named_parameters()]
        own, other = (torch.cat([state[part][prefix + name].flatten() for name in names]) for state in states)
        moved = torch.linalg.vector_norm(own - torch.cat([p.detach().flatten() for p in begun.parameters()]))
        assert torch.linalg.vector_norm(own - other) < 0.02 * moved, part


def test_two_processes_are_one_with_the_whole_batch(folder):
    result = torchrun(folder, "-o", "two")
    assert result.returncode == 0, result.stderr
    same_weights(folder / "whole", folder / "two")
    logs = [np.genfromtxt(folder / name / "log.csv", delimiter=",", names=True) for name in ("whole", "two")]
    for column in set(logs[0].dtype.names) - {"minutes"}:
        np.testing.assert_allclose(logs[1][column], logs[0][column], rtol=2e-3, atol=1e-4, err_msg=column)
    assert (folder / "two" / "model.pt").is_file()
    assert result.stdout.count("frames for training") == 1


def test_a_run_of_one_process_goes_on_in_two(folder):
    result = torchrun(folder, "-o", "half", "--resume")
    assert result.returncode == 0, result.stderr
    assert "resuming half at step 6 of 12" in result.stdout
    same_weights(folder / "whole", folder / "half")


def test_an_existing_folder_ends_all_processes(folder):
    result = torchrun(folder, "-o", "whole")
    assert result.returncode != 0
    assert "whole exists and is not overwritten" in result.stderr


def test_losses_and_gradients_of_shares_add_up(folder):
    run = trainer(folder, "whole")
    batcher = Batcher(toy_frames(24), run.model.cutoff, run.model.polarization_cutoff)
    frames = np.arange(5)

    def loss_and_gradients(indices, sizes):
        batch = batcher.batch(indices)
        predicted = run._predicted(force_evaluator(run.model, BareCoulomb()), batch, create_graph=True)
        run.optimizer.zero_grad()
        loss = weighted_loss(predicted, batch, 0.8, 100.0, sizes)
        loss.total.backward(inputs=list(run.model.parameters()))
        return torch.cat([torch.stack(loss).detach(), *(p.grad.flatten() for p in run.model.parameters())])

    whole = loss_and_gradients(frames, None)
    sizes = sizes_of(batcher.batch(frames))
    parts = [loss_and_gradients(Processes(rank, 3).share(frames), sizes) for rank in range(3)]
    torch.testing.assert_close(sum(parts), whole, rtol=1e-4, atol=1e-4 * whole.abs().max().item())


def test_shares_are_the_batch(folder):
    frames = np.array([4, 8, 1, 6, 3])
    shares = [Processes(rank, 7).share(frames) for rank in range(7)]
    assert sorted(np.concatenate(shares)) == sorted(frames)
    assert [len(share) for share in shares] == [1, 1, 1, 1, 1, 0, 0]


def test_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == choose_device("cpu").type == "cpu"
    with pytest.raises(InputError, match="finds no CUDA device here; use --device cpu"):
        choose_device("cuda")
    with pytest.raises(InputError, match="expected cpu, cuda or auto, got 'tpu'"):
        choose_device("tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == torch.device("cuda")
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(InputError, match="expected cuda:0 to cuda:1, got 'cuda:2'"):
        choose_device("cuda:2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_device("auto") == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(InputError, match=r"got 3 processes and 2 GPU\(s\); start torchrun with --nproc-per-node 2"):
        choose_device("auto")
