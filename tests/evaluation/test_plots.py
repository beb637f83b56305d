"""Plots are drawn where matplotlib is, and asked for politely where it is not."""

import sys

import numpy as np
import pytest
from click.testing import CliRunner

from ampmm.cli.benchmark import command as benchmark
from ampmm.cli.evaluate import command as evaluate
from ampmm.errors import BackendError, InputError
from ampmm.evaluation import Predictions, plot_learning_curve, plot_parity


def noisy(n_frames: int, n_mm: int) -> Predictions:
    random = np.random.default_rng(0)
    exact = [random.normal(size=n_frames) - 1e5, random.normal(size=(3 * n_frames, 3)), random.normal(size=(n_mm, 3))]
    return Predictions(*(values + 0.1 * random.normal(size=values.shape) for values in exact), *exact)


@pytest.mark.parametrize(("n_frames", "n_mm"), [(1, 0), (5, 40), (50, 4000)])
def test_parity_plot(tmp_path, n_frames, n_mm):
    pytest.importorskip("matplotlib")
    plot_parity(noisy(n_frames, n_mm), "toy", tmp_path / "parity.png")
    assert (tmp_path / "parity.png").read_bytes().startswith(b"\x89PNG")


def test_learning_curve(tmp_path, toy_folder):
    pytest.importorskip("matplotlib")
    plot_learning_curve(toy_folder / "run" / "log.csv", tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("text", [None, "a,b\n1,2\n"])
def test_what_is_no_log_is_refused(tmp_path, text):
    pytest.importorskip("matplotlib")
    log = tmp_path / "log.csv"
    if text is not None:
        log.write_text(text)
    with pytest.raises(InputError, match=r"log.csv cannot be read as the log.csv of `ampmm train`"):
        plot_learning_curve(log, tmp_path / "curve.png")


def test_without_matplotlib_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(BackendError, match=r"pip install '\.\[plots\]'"):
        plot_parity(noisy(2, 2), "toy", tmp_path / "parity.png")


def test_commands_that_end_in_a_plot_ask_for_matplotlib_before_they_begin(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for command, arguments in (
        (evaluate, ["uracil", "none.h5", "-o", str(tmp_path / "report")]),
        (benchmark, ["--sweep", "charges", "-o", str(tmp_path / "sweep")]),
    ):
        with pytest.raises(BackendError, match=r"pip install '\.\[plots\]'"):
            CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert not (tmp_path / "report").exists() and not (tmp_path / "sweep").exists()
