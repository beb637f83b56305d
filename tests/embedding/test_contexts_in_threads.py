"""Contexts of one System in several threads, which share the Python backend's module."""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from embedding_systems import ML_GROUP, context, energy, mixed

from ampmm.embedding.computations import PotentialComputation


def test_two_contexts_of_one_system(droplet, model):
    """The module's neighbour lists are of one of them at a time."""
    system = mixed(droplet, model, backend="python", dtype=torch.float64)
    places = [droplet.positions + shift for shift in (0.0, 0.3)]  # apart by more than the skin

    def energies(positions: np.ndarray) -> list[float]:
        here = context(system, positions)
        found = []
        for _ in range(15):
            here.setPositions(positions)
            found.append(energy(here, {ML_GROUP}))
        return found

    expected = energies(places[0])[0]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(2) as pool:
            for found in pool.map(energies, places):
                assert found == pytest.approx([expected] * 15, abs=1e-6)
    finally:
        sys.setswitchinterval(interval)


def test_a_computation_leaves_its_module_alone_while_another_thread_is_in_it(droplet, monkeypatch):
    """A look at its buffers, while a call exchanged them, read freed memory."""

    class Still(torch.nn.Module):
        def forward(self, positions: torch.Tensor, box: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
            return positions.sum(), torch.zeros_like(positions)

    computation = PotentialComputation(Still(), periodic=False)
    monkeypatch.setattr(computation, "module", None)
    state = context(droplet.system, droplet.positions).getState(positions=True)
    with computation.one_at_a_time, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(computation, state)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.2)
        monkeypatch.undo()
        computation.one_at_a_time.release()
        energy_, _ = waiting.result(timeout=60.0)
        computation.one_at_a_time.acquire()
    assert energy_ == pytest.approx(droplet.positions.sum())
