"""Disagreement of models whose forces are known, the frames picked for it, and `ampmm select`."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from support.toy_frames import NUMBERS, toy_frames, write_frames
from torch import Tensor, nn

from ampmm.cli.select import command
from ampmm.data import read_frames
from ampmm.errors import InputError
from ampmm.evaluation.committee import disagreements, quantile_table, select_frames
from ampmm.export import Card, load_model, save_model
from ampmm.types import Energies, Frame, PointCharges


class Attraction(nn.Module):
    """½ k r² of every pair of QM atoms: the force on atom i is −k Σⱼ (xᵢ − xⱼ)."""

    def __init__(self, stiffness: float) -> None:
        super().__init__()
        self.cutoff, self.polarization_cutoff = 5.0, 6.0  # Å
        self.register_buffer("stiffness", torch.tensor(stiffness))

    def forward(self, frame: Frame, surroundings: PointCharges) -> Energies:
        energy = 0.25 * self.stiffness * (frame.edges.vectors**2).sum()  # every pair is two edges
        charges: Tensor = torch.zeros_like(surroundings.potential)
        coulomb = (charges * surroundings.potential).sum()
        return Energies((energy + coulomb).reshape(1), energy.reshape(1), coulomb.reshape(1), charges)


def write_model(path, stiffness, level="test", elements=(1, 8), base=None):
    card = Card("toy", "attraction", "attraction", {}, elements, 0, {"qm": 5.0, "polarization": 6.0}, level)
    save_model(path, Attraction(stiffness), replace(card, base=base or {}))
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return [write_model(folder / f"{k}.pt", float(k)) for k in (10, 14, 30)]


def sums(frames):
    """Σⱼ (xᵢ − xⱼ), (F, N, 3)."""
    x = frames.positions_qm
    return len(NUMBERS) * x - x.sum(axis=1, keepdims=True)


def test_the_scatter_is_that_of_the_forces(models):
    frames = toy_frames(6)
    norms = np.linalg.norm(sums(frames), axis=-1)  # (F, N)
    spread = np.std([10.0, 14.0, 30.0])
    committee = [load_model(path) for path in models]
    np.testing.assert_allclose(disagreements(committee, frames), spread * norms.max(1), rtol=1e-5)
    expected = spread * np.sqrt((norms**2).mean(1))
    np.testing.assert_allclose(disagreements(committee, frames, "rms"), expected, rtol=1e-5)


def test_a_box_of_the_frames_does_not_count(models):
    """Forces are those of training: bare Coulomb over the stored charges, in whatever box they were."""
    frames, committee = toy_frames(3), [load_model(path) for path in models[:2]]
    boxed = frames._replace(box=np.tile(6.0 * np.eye(3), (3, 1, 1)))  # too small for any cutoff
    np.testing.assert_array_equal(disagreements(committee, boxed), disagreements(committee, frames))


def test_a_frame_without_a_number_is_never_picked(models):
    frames = toy_frames(3)
    frames.positions_qm[1] = np.nan
    scores = disagreements([load_model(path) for path in models[:2]], frames)
    assert np.isnan(scores[1]) and np.isfinite(scores[[0, 2]]).all()
    chosen = select_frames(frames, scores, 3)
    assert sorted(chosen.indices) == [0, 2] and chosen.above_ceiling == 1


def test_the_largest_come_first_and_keep_apart():
    """24 frames, two trajectories of 12, 0.01 ps apart."""
    frames, scores = toy_frames(24), np.arange(24.0)
    assert select_frames(frames, scores, 4).indices.tolist() == [23, 22, 21, 20]
    chosen = select_frames(frames, scores, 4, spacing=0.05)
    assert chosen.indices.tolist() == [23, 18, 13, 11] and chosen.too_near == 9
    assert select_frames(frames, scores, 4, spacing=0.05, ceiling=20.0).indices.tolist() == [20, 15, 11, 6]
    assert len(select_frames(frames, scores, 99, spacing=1.0).indices) == 2
    twin = frames._replace(positions_qm=frames.positions_qm.copy())
    twin.positions_qm[22] = twin.positions_qm[23][:, [1, 2, 0]]  # turned: the same structure
    assert select_frames(twin, scores, 2, diversity=1e-6).indices.tolist() == [23, 21]
    assert "selected (2)" in quantile_table(scores, np.array([23, 21]))


def run(*arguments):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_the_command(models, tmp_path):
    header = replace(toy_frames(1).header, sampling={"driver": "model a.pt", "trajectory_id": 0}, command="ampmm sample")
    frames = toy_frames(24)._replace(header=header)
    write_frames(tmp_path / "md.h5", frames)
    options = [tmp_path / "md.h5", "-m", models[0], "-m", models[2], "--round", 2, "--spacing", 0]
    done = run(*options, "-n", 5, "-o", tmp_path / "round2.h5")
    assert done.exit_code == 0, done.output
    kept = read_frames(tmp_path / "round2.h5")
    order = np.argsort(-np.linalg.norm(sums(frames), axis=-1).max(1))[:5]
    np.testing.assert_array_equal(kept.positions_qm, frames.positions_qm[order])
    assert kept.round.tolist() == [2] * 5 and not kept.header.labelled
    assert kept.header.sampling["trajectories"][0]["selection"]["models"] == [str(models[0]), str(models[2])]
    assert kept.header.sampling["trajectories"][0]["driver"] == "model a.pt"
    assert "all (24)" in done.output and "selected (5)" in done.output
    more = run(*options, "-n", 99, "--exclude", tmp_path / "round2.h5", "-o", tmp_path / "more.h5")
    write_frames(tmp_path / "ice.h5", frames._replace(header=replace(header, system="ice")))
    other = run(*options, "-n", 99, "--exclude", tmp_path / "ice.h5", "-o", tmp_path / "more2.h5")
    assert "--exclude: expected frames of toy, as FRAMES are, got those of ice" in str(other.exception)
    assert more.exit_code == 0 and read_frames(tmp_path / "more.h5").n_frames == 19
    assert "exists and is not overwritten" in str(run(*options, "-o", tmp_path / "more.h5").exception)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f, m: [f, "-m", m[0]], "expected two or more .pt files, got 1"),
        (lambda f, m: [f, "-m", m[0], "-m", m[0]], "are the same model"),
        (lambda f, m: [f, "-m", m[0], "-m", write_model(f.with_name("l.pt"), 1.0, level="B3LYP")], "models of one level"),
        (lambda f, m: [f, "-m", m[0], "-m", write_model(f.with_name("c.pt"), 1.0, elements=(1, 6))], "knows H, C, got O"),
        (
            lambda f, m: [f, "-m", m[0], "-m", write_model(f.with_name("d.pt"), 1.0, base={"level_of_theory": "GFN2-xTB"})],
            "is a correction to GFN2-xTB and no energy by itself",
        ),
        (lambda f, m: [f, f, "-m", m[0], "-m", m[1]], "frame 0 of trajectory 0 is there twice"),
        (lambda f, m: [f, "-m", m[0], "-m", m[1], "-n", 0], "count: expected 1 frame or more"),
        (lambda f, m: [f, "-m", m[0], "-m", m[1], "--spacing", -1], "spacing: expected 0 or more"),
        (lambda f, m: [f, "-m", m[0], "-m", m[1], "--ceiling", 0], "expected some to keep, found none"),
        (lambda f, m: [f, "-m", m[0], "-m", f.with_name("no.pt")], "no.pt"),
        (lambda f, m: [f.with_name("no.h5"), "-m", m[0], "-m", m[1]], "found nothing there"),
    ],
)
def test_bad_input_is_named_and_leaves_no_file(models, tmp_path, change, message):
    write_frames(tmp_path / "md.h5", toy_frames(4))
    result = run(*change(tmp_path / "md.h5", models), "--round", 1, "-o", tmp_path / "out.h5")
    assert result.exit_code == 1 and message in str(result.exception), result.output
    assert not list(tmp_path.glob("*out.h5*"))


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        ({"system": "ice"}, ["frames: file 1 does not belong", "'ice'"]),
        ({"mm_region": "all water"}, ["frames: expected one MM region, got 'all charges'", "'all water' in"]),
    ],
)
def test_another_systems_frames_are_refused(models, tmp_path, change, messages):
    write_frames(tmp_path / "a.h5", toy_frames(4))
    other = toy_frames(4, seed=1)
    write_frames(tmp_path / "b.h5", other._replace(header=replace(other.header, **change)))
    result = run(tmp_path / "a.h5", tmp_path / "b.h5", "-m", models[0], "-m", models[1], "--round", 1, "-o", tmp_path / "c.h5")
    assert isinstance(result.exception, InputError)
    assert all(message in str(result.exception) for message in messages)
