"""The learning rate over a run: exponential by default, cosine cycles with warm restarts."""

import dataclasses

import numpy as np
import pytest
import torch

from ampmm.errors import InputError
from ampmm.training import TrainingConfig
from ampmm.training.schedule import cosine_factor, learning_rate_schedule

CONFIG = TrainingConfig(data="toy.h5", name="toy", steps=50, learning_rate=1.0e-2, final_learning_rate=1.0e-4, warmup_steps=10)


def rates(config, resumed_at=None):
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([parameter], lr=config.learning_rate)
    schedule = learning_rate_schedule(optimizer, config)
    found = []
    for step in range(config.steps):
        if step == resumed_at:
            state = schedule.state_dict(), optimizer.state_dict()
            optimizer = torch.optim.Adam([parameter], lr=config.learning_rate)
            schedule = learning_rate_schedule(optimizer, config)
            schedule.load_state_dict(state[0])
            optimizer.load_state_dict(state[1])
        optimizer.step()
        schedule.step()
        found.append(optimizer.param_groups[0]["lr"])
    return np.array(found)


def test_exponential_falls_by_a_constant_factor():
    found = rates(CONFIG)
    factors = found[11:] / found[10:-1]
    assert np.allclose(factors, 0.01 ** (1 / 40))
    assert found[-1] == pytest.approx(1.0e-4)


def test_cosine_restarts_at_the_start_of_each_cycle():
    found = rates(dataclasses.replace(CONFIG, schedule="cosine", cycles=4))
    assert found[:10] == pytest.approx(CONFIG.learning_rate * (0.01 + 0.099 * np.arange(1, 11)))
    for start in (10, 20, 30, 40):
        assert found[start - 1] == pytest.approx(1.0e-2)
        assert (np.diff(found[start - 1 : start + 9]) < 0.0).all()
    assert found[-1] == pytest.approx(1.0e-4)
    assert found[14] == pytest.approx(0.5 * (1.0e-2 + 1.0e-4))  # half way down the first cycle


def test_one_cycle_falls_once():
    factors = np.array([cosine_factor(step, 30, 1, 0.1) for step in range(31)])
    assert factors[0] == 1.0 and factors[-1] == pytest.approx(0.1) and (np.diff(factors) < 0.0).all()


@pytest.mark.parametrize("schedule", ["exponential", "cosine"])
def test_a_resumed_schedule_goes_on_as_the_whole(schedule):
    config = dataclasses.replace(CONFIG, schedule=schedule, cycles=3 if schedule == "cosine" else 1)
    for step in (4, 10, 33):
        assert rates(config, resumed_at=step) == pytest.approx(rates(config), rel=1e-12)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"schedule": "linear"}, "schedule: expected one of exponential, cosine, got 'linear'"),
        ({"cycles": 2}, "cycles: only schedule 'cosine' has more than one, got 2"),
        ({"cycles": 0}, "cycles: expected a positive number"),
        ({"warmup_steps": -1}, "warmup_steps: expected 0 or more"),
        ({"mm_force_weight": -1.0}, "mm_force_weight: expected 0 or more"),
    ],
)
def test_bad_values(values, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(CONFIG, **values)
