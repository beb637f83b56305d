"""Predictions of many frames are those of each frame alone, and lie beside the right labels."""

import numpy as np
import pytest
from support.toy_frames import toy_frames

from ampmm.errors import InputError
from ampmm.evaluation import predict


def cutoffs(model):
    return {"cutoff": model.card.cutoffs["qm"], "polarization_cutoff": model.card.cutoffs["polarization"]}


def test_batched_predictions_equal_single_evaluations(toy_model):
    frames = toy_frames(7, seed=4)
    indices = np.array([6, 0, 1, 3])
    result = predict(toy_model.module, frames, indices, batch_size=3, **cutoffs(toy_model))
    records = [frames.record(index) for index in indices]
    alone = [toy_model.evaluate(frames.numbers, r.positions_qm, r.positions_mm, r.charges_mm) for r in records]
    np.testing.assert_allclose(result.energy, [each.energy for each in alone], rtol=1e-6)
    np.testing.assert_allclose(result.forces_qm, np.concatenate([each.forces_qm for each in alone]), atol=2e-3)
    np.testing.assert_allclose(result.forces_mm, np.concatenate([each.forces_mm for each in alone]), atol=2e-3)
    np.testing.assert_array_equal(result.energy_reference, frames.energy[indices])
    np.testing.assert_allclose(result.forces_mm_reference, np.concatenate([r.forces_mm for r in records]), rtol=1e-6)


def test_progress_counts_frames(toy_model):
    seen = []
    predict(toy_model.module, toy_frames(7), np.arange(7), batch_size=3, progress=seen.append, **cutoffs(toy_model))
    assert seen == [3, 3, 1]


def test_unlabelled_frames_are_refused(toy_model):
    with pytest.raises(InputError, match="no labels to compare with"):
        predict(toy_model.module, toy_frames(4)._replace(energy=None), np.arange(4), **cutoffs(toy_model))
