"""Walls: zero inside the bounds, steep outside, forces that are their slope."""

import numpy as np
import pytest
import torch

from ampmm.physics.walls import FREQUENCY, DistanceWalls, wall_stiffness

POSITIONS = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.1, 0.0], [0.2, 1.4, 0.3]], dtype=torch.float64)


def walls(lower=0.0, upper=np.inf):
    ones = torch.ones(3, 3, dtype=torch.float64)
    return DistanceWalls(lower * ones, upper * ones)


def test_inside_the_bounds_there_is_nothing():
    terms = walls(0.9, 1.8)(POSITIONS, None)
    assert terms.energy == 0.0
    assert not terms.forces.any()


def test_a_pair_beyond_its_bound_costs_a_harmonic_energy():
    distance = float(torch.linalg.vector_norm(POSITIONS[1]))
    terms = walls(lower=1.1)(POSITIONS, None)
    stiffness = wall_stiffness(torch.tensor(0.504)).item()  # of two hydrogens
    assert stiffness == pytest.approx(0.504 * 500.0**2 / 100.0)  # amu/ps² are kJ/mol/nm²
    assert terms.energy.item() == pytest.approx(0.5 * stiffness * (1.1 - distance) ** 2)
    assert terms.forces[1, 0] > 0.0 > terms.forces[0, 0]  # pushed apart


@pytest.mark.parametrize("bounds", [(1.45, np.inf), (0.0, 1.3), (1.2, 1.3)])
def test_forces_are_the_slope_and_sum_to_zero(bounds):
    scripted = torch.jit.script(walls(*bounds))
    terms = scripted(POSITIONS, None)
    np.testing.assert_allclose(terms.forces.sum(0), 0.0, atol=1e-9)
    for atom, axis in np.ndindex(3, 3):
        shift = torch.zeros_like(POSITIONS)
        shift[atom, axis] = 1e-6
        slope = (scripted(POSITIONS + shift, None).energy - scripted(POSITIONS - shift, None).energy) / 2e-6
        assert -slope.item() == pytest.approx(terms.forces[atom, axis].item(), rel=1e-6, abs=1e-3)


def test_time_steps_of_dynamics_suit_the_walls_of_every_pair():
    """Leapfrog is stable below a frequency of 2 over the time step, and one atom may touch several walls."""
    masses = torch.tensor([1.008, 12.011, 1.008, 15.999])
    one = DistanceWalls(torch.ones(4, 4), torch.full((4, 4), float("inf")), masses)
    reduced = masses[one.first] * masses[one.second] / (masses[one.first] + masses[one.second])
    frequencies = torch.sqrt(100.0 * one.stiffness / reduced)  # 1/ps
    assert torch.allclose(frequencies, torch.full_like(frequencies, FREQUENCY))
    assert 0.001 * FREQUENCY < 0.5 * 2.0  # half of the limit at 1 fs


def test_a_hydrogen_bounces_off_a_wall_and_keeps_its_energy():
    """Velocity Verlet, 1 fs; with a wall of 1e5 kJ/mol/Å² between two hydrogens it gains energy without end."""
    mass, step = 1.008, 1e-3  # amu, ps
    wall = walls(lower=1.55)
    positions = torch.tensor([[0.0, 0.0, 0.0], [1.5, 0.0, 0.0], [50.0, 0.0, 0.0]], dtype=torch.float64)
    velocities = torch.tensor([[20.0, 0.0, 0.0], [-20.0, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)  # Å/ps
    energies = []
    for _ in range(60):
        acceleration = 100.0 * wall(positions, None).forces / mass  # kJ/mol/Å/amu are 100 Å/ps²
        velocities = velocities + 0.5 * step * acceleration
        positions = positions + step * velocities
        terms = wall(positions, None)
        velocities = velocities + 0.5 * step * 100.0 * terms.forces / mass
        energies.append(terms.energy.item() + 0.005 * mass * (velocities**2).sum().item())  # amu Å²/ps² are 0.01 kJ/mol
    assert terms.energy == 0.0  # it has left the wall
    assert energies[-1] == pytest.approx(energies[0], rel=0.1)


def test_nearest_images_count():
    box = 5.0 * torch.eye(3, dtype=torch.float64)
    moved = POSITIONS + torch.tensor([[0.0, 0.0, 0.0], [5.0, 0.0, 0.0], [0.0, -5.0, 5.0]], dtype=torch.float64)
    assert walls(1.2, 1.3)(moved, box).energy == pytest.approx(walls(1.2, 1.3)(POSITIONS, None).energy)


def test_pairs_without_a_bound_cost_nothing():
    lower, upper = torch.zeros(4, 4), torch.full((4, 4), float("inf"))
    positions = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    nothing = DistanceWalls(lower, upper)
    assert len(nothing.first) == 0
    terms = nothing(positions, None)
    assert terms.energy.item() == 0.0 and (terms.forces == 0.0).all()
    lower[1, 3] = lower[3, 1] = 9.0
    one = DistanceWalls(lower, upper)
    assert one.first.tolist() == [1] and one.second.tolist() == [3] and one(positions, None).energy > 0.0
