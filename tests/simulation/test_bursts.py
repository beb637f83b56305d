"""Bursts of a second driver, restraints and rounds while sampling: what is stored, and what goes on from where."""

from dataclasses import replace

import numpy as np
import pytest
from support.water_droplet import Springs, water_droplet

from ampmm.data import read_frames
from ampmm.errors import InputError, LabellingError
from ampmm.simulation.restraints import umbrella
from ampmm.simulation.sampling import Burst, BurstSettings, SamplingSettings, sample

SETTINGS = SamplingSettings(time=0.06, interval=10.0, timestep=0.5, equilibration=0.02, mm_region=4.0, seed=3, flush=2)
BURST = BurstSettings(steps=20, frames=2, timestep=0.5, friction=50.0)


@pytest.fixture(scope="module")
def droplet():
    return water_droplet()


class Longer(Springs):
    """The same water with O–H bonds of 1.2 Å."""

    def evaluate(self, numbers, positions_qm, *others, **more):
        scaled = positions_qm.mean(axis=0) + (positions_qm - positions_qm.mean(axis=0)) * (0.957 / 1.2)
        return super().evaluate(numbers, scaled, *others, **more)


def run(droplet, path, burst, settings=SETTINGS, **options):
    reports = []
    n = sample(droplet, Springs(), settings, path, driver="springs", burst=burst, report=reports.append, **options)
    return n, reports


def bond_lengths(frames):
    return np.linalg.norm(frames.positions_qm[:, 1:] - frames.positions_qm[:, :1], axis=-1)


def test_frames_are_the_bursts_and_the_driver_goes_on_from_its_own(droplet, tmp_path):
    assert run(droplet, tmp_path / "plain.h5", None)[0] == 6
    plain = read_frames(tmp_path / "plain.h5")
    settings = replace(SETTINGS, round=4)
    assert run(droplet, tmp_path / "a.h5", Burst(Longer(), "long springs", BURST), settings)[0] == 12
    frames = read_frames(tmp_path / "a.h5")
    assert frames.source_index.tolist() == list(range(12)) and frames.round.tolist() == [4] * 12
    assert frames.driver.tolist() == ["springs; 10 steps of long springs", "springs; 20 steps of long springs"] * 6
    ends = 0.01 * np.repeat(np.arange(1, 7), 2) + np.tile([0.005, 0.01], 6)
    np.testing.assert_allclose(frames.time, ends)
    assert bond_lengths(plain).mean() < 1.0 and bond_lengths(frames)[1::2].mean() > 1.1
    # Heavy motion is the cheap driver's: a burst starts at its frame, so the oxygen is near it every time.
    moved = np.linalg.norm(frames.positions_qm[1::2, 0] - plain.positions_qm[:, 0], axis=-1)
    assert moved.max() < 0.3  # Å
    assert frames.header.sampling["burst"] == {
        "driver": "long springs",
        "steps": 20,
        "frames": 2,
        "timestep": 0.5,
        "friction": 50.0,
    }


def test_a_burst_that_fails_is_left_out_and_a_run_of_bursts_continues(droplet, tmp_path):
    path = tmp_path / "frames.h5"
    failing = Springs(fail_at=30)  # within the second burst
    n, reports = run(droplet, path, Burst(failing, "failing", BURST), replace(SETTINGS, time=0.04))
    assert n < 8 and any("failed and is left out: the engine gave up" in text for text in reports)
    before = read_frames(path).source_index.tolist()
    assert sorted(set(range(8)) - set(before)) in ([2, 3], [0, 1])
    n, _ = run(droplet, path, Burst(Springs(), "failing", BURST), SETTINGS, resume=True)
    assert read_frames(path).source_index.tolist() == [*before, 8, 9, 10, 11] and n == len(before) + 4


@pytest.mark.parametrize("fail_at", range(24, 48, 5))
def test_no_frame_of_a_burst_that_fails_is_stored(droplet, tmp_path, fail_at):
    """Wherever in a burst of two frames the driver fails."""
    run(droplet, tmp_path / "a.h5", Burst(Springs(fail_at=fail_at), "failing", BURST), replace(SETTINGS, time=0.04))
    stored = read_frames(tmp_path / "a.h5").source_index.tolist()
    assert 4 <= len(stored) < 8 and all(index ^ 1 in stored for index in stored)


class Refusing(Springs):
    """A model in the place of an engine: what it says of energies that are not finite."""

    def evaluate(self, *arguments, **more):
        self.asked = getattr(self, "asked", 0) + 1
        if self.asked == 50:
            raise InputError("positions: the energy or the forces are not finite here")
        return super().evaluate(*arguments, **more)


def test_a_burst_that_a_model_refuses_is_left_out(droplet, tmp_path):
    n, reports = run(droplet, tmp_path / "a.h5", Burst(Refusing(), "model", BURST))
    assert 9 <= n < 12
    assert any("failed and is left out: positions: the energy" in line for line in reports)


def test_bursts_that_only_fail_stop_the_run(droplet, tmp_path):
    class Broken(Springs):
        def evaluate(self, *arguments, **more):
            raise LabellingError("no SCF")

    with pytest.raises(LabellingError, match="no SCF"):
        run(droplet, tmp_path / "a.h5", Burst(Broken(), "broken", BURST), replace(SETTINGS, interval=1.0, time=0.02))
    assert read_frames(tmp_path / "a.h5").n_frames == 0


def test_an_umbrella_holds_the_distance_and_is_in_the_header(droplet, tmp_path):
    held = droplet._replace(restraints=(umbrella(39, 0, 0.35, 50000.0),))
    settings = replace(SETTINGS, equilibration=0.5)
    _, reports = run(held, tmp_path / "a.h5", None, settings)
    assert any(text.startswith("restrained: distance HOH:O–HOH:O at 0.35 nm") for text in reports)
    frames = read_frames(tmp_path / "a.h5")
    assert frames.header.sampling["restraints"] == [
        {"distance": [39, 0], "lower": 0.35, "upper": 0.35, "force_constant": 50000.0}
    ]
    nearest = [np.linalg.norm(r.positions_mm - r.positions_qm[0], axis=1) for r in map(frames.record, range(6))]
    assert all(np.abs(distances - 3.5).min() < 0.3 for distances in nearest)  # Å
    with pytest.raises(InputError, match="begun with restraints"):
        run(droplet, tmp_path / "a.h5", None, settings, resume=True)
    with pytest.raises(InputError, match="begun with burst None"):
        run(held, tmp_path / "a.h5", Burst(Springs(), "springs", BURST), settings, resume=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "burst steps: expected a positive"),
        ({"frames": 3}, "burst frames: expected a divisor of the 20 steps, got 3"),
        ({"timestep": -1.0}, "burst timestep"),
        ({"friction": float("nan")}, "burst friction"),
    ],
)
def test_settings_are_checked(change, message):
    with pytest.raises(InputError, match=message):
        replace(BURST, **change)
