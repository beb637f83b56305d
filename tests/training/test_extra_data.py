"""Extra frames are for training alone, and a run can begin with another run's weights."""

import dataclasses

import numpy as np
import pytest
import torch
from support.toy_frames import toy_frames

from ampmm.data.combine import concatenated, first_frames
from ampmm.errors import InputError
from ampmm.training import Trainer, TrainingConfig

CONFIG = TrainingConfig(
    data="toy.h5",
    name="toy",
    hyperparameters={"order": 1, "width": 16, "n_layers": 2, "multipole_scale": 0.1, "energy_scale": 10.0},
    n_train=8,
    n_validation=2,
    n_test=2,
    steps=4,
    batch_size=2,
    ema_decay=0.9,
)


def run_in(folder, frames, extra=(), **changes):
    folder.mkdir()
    config = dataclasses.replace(CONFIG, extra_data=[f"{i}.h5" for i in range(len(extra))], **changes)
    return Trainer(config, frames, folder, extra=extra)


def test_frames_keep_their_own_charges_when_sets_are_joined():
    first, second = toy_frames(5), toy_frames(7, seed=1)
    joined = concatenated(first, [second])
    assert joined.n_frames == 12
    for index, (source, own) in {3: (first, 3), 5: (second, 0), 11: (second, 6)}.items():
        for name, value in joined.record(index)._asdict().items():
            np.testing.assert_array_equal(value, getattr(source.record(own), name), err_msg=name)


def test_extra_frames_are_trained_on_and_leave_the_split_alone(tmp_path):
    frames, extra = toy_frames(12), toy_frames(6, seed=1)
    with_extra, without = run_in(tmp_path / "a", frames, [extra]), run_in(tmp_path / "b", frames)
    for ours, theirs in zip(with_extra.split, without.split, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert sorted(with_extra.training_frames) == sorted([*without.split.train, *range(12, 18)])
    with_extra.run(progress=False)
    with pytest.raises(InputError, match="trained on other frames"):
        Trainer(with_extra.config, frames, tmp_path / "a", extra=[toy_frames(6, seed=2)]).resume()


def test_an_empty_extra_file_is_refused_before_the_training(tmp_path):
    with pytest.raises(InputError, match=r"extra_data: 0.h5 holds no frames; label some"):
        run_in(tmp_path / "a", toy_frames(12), [first_frames(toy_frames(4), 0)])


def test_extra_frames_of_another_level_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"extra_data: file 1 does not belong.*level_of_theory"):
        run_in(tmp_path / "a", toy_frames(12), [toy_frames(4, level="another")])


def test_fine_tuning_begins_with_the_averaged_weights(tmp_path):
    frames = toy_frames(12)
    first = run_in(tmp_path / "first", frames)
    first.run(progress=False)
    second = run_in(tmp_path / "second", frames, seed=5)
    second.start_from(first.checkpoint_path)
    for ours, theirs in zip(second.model.parameters(), first.averaged_model().parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert second.step == 0
    other = run_in(tmp_path / "other", frames, hyperparameters={**CONFIG.hyperparameters, "width": 8})
    with pytest.raises(InputError, match=r"start_from: .* holds .*'width': 16.* this run trains .*'width': 8"):
        other.start_from(first.checkpoint_path)
