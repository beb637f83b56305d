"""Muon on the matrices and Adam on the rest act as one optimiser."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from ampmm.errors import InputError
from ampmm.training import TrainingConfig
from ampmm.training.optimizer import make_optimizer
from ampmm.training.schedule import learning_rate_schedule

CONFIG = TrainingConfig(data="toy.h5", name="toy", optimizer="muon", steps=40, learning_rate=0.02, final_learning_rate=0.002)
needs_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon (2.9 and newer have)")


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 32), nn.SiLU(), nn.Linear(32, 20), nn.SiLU(), nn.Linear(20, 1))


def train(model, optimizer, schedule, steps, first=0):
    for step in range(first, first + steps):
        x = torch.randn(64, 24, generator=torch.Generator().manual_seed(step))
        loss = (model(x)[:, 0] - x[:, 0]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return loss.item()


@needs_muon
def test_every_parameter_has_one_optimizer():
    model = network()
    optimizer = make_optimizer(model, CONFIG)
    muon, adam = (each.param_groups[0]["params"] for each in optimizer.optimizers)
    assert [tuple(each.shape) for each in muon] == [(32, 24), (20, 32)]
    assert {id(each) for each in (*muon, *adam)} == {id(each) for each in model.parameters()}


@needs_muon
def test_the_schedule_sets_the_rate_of_both():
    model = network()
    optimizer = make_optimizer(model, CONFIG)
    train(model, optimizer, learning_rate_schedule(optimizer, CONFIG), CONFIG.steps)
    for each in optimizer.optimizers:
        assert each.param_groups[0]["lr"] == pytest.approx(CONFIG.final_learning_rate)


@needs_muon
def test_a_resumed_run_goes_on_as_the_whole():
    whole = network()
    optimizer = make_optimizer(whole, CONFIG)
    schedule = learning_rate_schedule(optimizer, CONFIG)
    train(whole, optimizer, schedule, 20)
    state = copy.deepcopy((whole.state_dict(), optimizer.state_dict(), schedule.state_dict()))
    train(whole, optimizer, schedule, 20, first=20)

    resumed = network()
    optimizer = make_optimizer(resumed, CONFIG)
    schedule = learning_rate_schedule(optimizer, CONFIG)
    for each, its in zip((resumed, optimizer, schedule), state, strict=True):
        each.load_state_dict(its)
    train(resumed, optimizer, schedule, 20, first=20)
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


@needs_muon
def test_it_learns():
    model, config = network(), dataclasses.replace(CONFIG, learning_rate=0.1)
    optimizer = make_optimizer(model, config)
    schedule = learning_rate_schedule(optimizer, config)
    before = train(model, optimizer, schedule, 1)
    assert train(model, optimizer, schedule, 39, first=1) < 0.5 * before


def test_an_older_torch_is_named(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    with pytest.raises(InputError, match=r"muon needs torch 2.9 or newer"):
        make_optimizer(network(), CONFIG)


def test_an_unknown_optimizer_is_named():
    with pytest.raises(InputError, match="optimizer: expected one of adam, muon, got 'sgd'"):
        dataclasses.replace(CONFIG, optimizer="sgd")
