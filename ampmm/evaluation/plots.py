"""Parity plots and the learning curve, as PNG files; matplotlib is imported here alone and only when a plot is drawn."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ampmm.errors import BackendError, InputError
from ampmm.evaluation.metrics import ErrorSummary, errors_of
from ampmm.evaluation.predict import Predictions

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ENERGY, _FORCE = "kJ/mol", "kJ/mol/Å"
_TITLES = {
    "energy": ("Energies", _ENERGY),
    "forces_qm": ("Forces on QM atoms", _FORCE),
    "forces_mm": ("Forces on MM charges", _FORCE),
}
_BINS = 120
_FEW = 3000  # up to here, points; beyond, a histogram
_BLUE, _ORANGE, _GREY = "#1f5fa8", "#d9722b", "0.55"
_SEVERAL = (_BLUE, _ORANGE, "#3b8f5a", "#7d4fa0")
_STYLE = {
    "font.size": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11.0,
    "savefig.dpi": 150.0,
    "legend.frameon": False,
}


def plot_parity(predictions: Predictions, title: str, path: Path) -> None:
    """Predicted against reference values, and below them the errors, of energy, QM forces and MM forces."""
    plt = pyplot()
    errors = errors_of(predictions)
    shown = [name for name in _TITLES if getattr(errors, name) is not None]
    with plt.rc_context(_STYLE):
        size = (4.1 * len(shown), 5.6)
        figure, axes = plt.subplots(
            2, len(shown), figsize=size, height_ratios=(3, 1.1), sharex="col", squeeze=False, layout="constrained"
        )
        for (upper, lower), name in zip(axes.T, shown, strict=True):
            reference = getattr(predictions, f"{name}_reference").astype(np.float64).ravel()
            predicted = getattr(predictions, name).astype(np.float64).ravel()
            # Energies are large numbers that differ little: their mean would only make the axis unreadable.
            offset = reference.mean() if name == "energy" else 0.0
            _parity(upper, reference - offset, predicted - offset, getattr(errors, name), *_TITLES[name])
            _residuals(lower, reference - offset, predicted - reference, _TITLES[name][1])
        figure.suptitle(title)
        figure.savefig(path)
        plt.close(figure)


def plot_learning_curve(log: Path, path: Path) -> None:
    """Training and validation errors of a run's log.csv against the step, and the learning rate."""
    plt = pyplot()
    columns = _read_log(log)
    steps = columns["step"]
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(1, 4, figsize=(15.0, 3.5), layout="constrained")
        for axis, (name, (title, unit)) in zip(axes, _TITLES.items(), strict=False):
            axis.plot(steps, columns[f"train_{name}_rmse"], color=_GREY, lw=1.2, label="training, RMSE")
            axis.plot(steps, columns[f"validation_{name}_mae"], color=_BLUE, lw=1.8, label="validation, MAE")
            axis.set(title=title, ylabel=f"error, {unit}", xlabel="step", yscale="log")
            _plain_log_axis(axis)
        axes[0].legend()
        axes[3].plot(steps, columns["learning_rate"], color=_ORANGE, lw=1.8)
        axes[3].set(title="Learning rate", xlabel="step", yscale="log")
        _plain_log_axis(axes[3])
        for axis in axes:
            axis.grid(True, which="major", color="0.9", lw=0.8)
            axis.set_xlim(0.0, steps[-1])
            axis.set_axisbelow(True)
        figure.suptitle(f"{steps[-1]:.0f} steps in {columns['minutes'][-1]:.1f} minutes")
        figure.savefig(path)
        plt.close(figure)


class Scaling(NamedTuple):
    """What one line of `plot_scaling` shows at its sizes."""

    sizes: list[float]
    milliseconds: list[float]
    floor: list[float]  # milliseconds
    megabytes: list[float]  # empty where memory was not measured


def plot_scaling(lines: dict[str, Scaling], xlabel: str, path: Path) -> None:
    """Time of a frame, its floor dotted, and peak memory, over a size; all axes logarithmic, a line for each label."""
    plt = pyplot()
    panels = 2 if any(line.megabytes for line in lines.values()) else 1
    with plt.rc_context(_STYLE):
        figure, (axes,) = plt.subplots(1, panels, figsize=(5.6 * panels, 4.2), layout="constrained", squeeze=False)
        for color, (label, line) in zip(_SEVERAL, lines.items(), strict=False):
            axes[0].loglog(line.sizes, line.milliseconds, "o-", color=color, lw=1.5, ms=4.0, label=label)
            axes[0].loglog(line.sizes, line.floor, ":", color=color, lw=1.2)
            if line.megabytes:
                axes[1].loglog(line.sizes, line.megabytes, "o-", color=color, lw=1.5, ms=4.0)
        axes[0].legend()
        ylabels = ("ms a frame (dotted: matrix products alone)", "peak memory of a call, MB")
        for axis, ylabel in zip(axes, ylabels, strict=False):
            axis.set(xlabel=xlabel, ylabel=ylabel)
            axis.grid(True, which="major", color="0.9", lw=0.8)
            _plain_log_axis(axis)
        figure.savefig(path)
        plt.close(figure)


def _parity(axis: "Axes", reference: np.ndarray, predicted: np.ndarray, summary: ErrorSummary, title: str, unit: str) -> None:
    low, high = min(reference.min(), predicted.min()), max(reference.max(), predicted.max())
    margin = 0.04 * (high - low) or 1.0
    limits = (low - margin, high + margin)
    axis.plot(limits, limits, color=_ORANGE, lw=1.0, zorder=0)
    _density(axis, reference, predicted, limits, limits)
    relative = "relative to their mean, " if title == "Energies" else ""
    axis.set(title=f"{title}, {relative}{unit}", ylabel="predicted", xlim=limits, ylim=limits)
    text = f"MAE {summary.mae:.3g}\nRMSE {summary.rmse:.3g}\nmaximum {summary.max:.3g}"
    axis.text(0.05, 0.95, text, transform=axis.transAxes, va="top", linespacing=1.4)


def _residuals(axis: "Axes", reference: np.ndarray, error: np.ndarray, unit: str) -> None:
    """Errors against the reference; where they are too many for points, up to the 99.9 % quantile, which the axis names."""
    whole = len(error) <= _FEW
    largest = np.abs(error).max() if whole else np.quantile(np.abs(error), 0.999)
    limit = 1.15 * float(largest) or 1.0
    axis.axhline(0.0, color=_ORANGE, lw=1.0, zorder=0)
    _density(axis, reference, error, axis.get_xlim(), (-limit, limit))
    axis.set(xlabel=f"reference, {unit}", ylabel="error", ylim=(-limit, limit))
    if not whole:
        axis.text(1.0, 1.01, "99.9 % of the errors", transform=axis.transAxes, ha="right", va="bottom", color=_GREY, fontsize=8)


def _density(axis: "Axes", x: np.ndarray, y: np.ndarray, x_range: tuple[float, float], y_range: tuple[float, float]) -> None:
    if len(x) <= _FEW:
        axis.scatter(x, y, s=7.0, color=_BLUE, alpha=0.55, linewidths=0.0)
        return
    from matplotlib.colors import LinearSegmentedColormap, LogNorm

    # Bins are as high as they are wide on paper.
    box = axis.get_position()
    n_rows = max(20, round(_BINS * box.height / box.width * axis.figure.get_figheight() / axis.figure.get_figwidth()))
    counts, x_edges, y_edges = np.histogram2d(x, y, bins=(_BINS, n_rows), range=(x_range, y_range))
    masked = np.ma.masked_equal(counts.T, 0.0)
    shades = LinearSegmentedColormap.from_list("shades", ["#b9d3ec", _BLUE, "#08264a"])
    scale = LogNorm(vmin=1.0, vmax=max(counts.max(), 2.0))
    axis.pcolormesh(x_edges, y_edges, masked, norm=scale, cmap=shades, rasterized=True)


def _plain_log_axis(axis: "Axes") -> None:
    """Numbers as 0.5 and 20, not as powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def _read_log(log: Path) -> dict[str, np.ndarray]:
    needed = ["step", "minutes", "learning_rate"]
    needed += [f"{kind}" for name in _TITLES for kind in (f"train_{name}_rmse", f"validation_{name}_mae")]
    try:
        with log.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        columns = {name: np.array([float(row[name]) for row in rows]) for name in needed}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"log: {log} cannot be read as the log.csv of `ampmm train` ({error!r})") from None
    if not rows:
        raise InputError(f"log: {log} has no rows yet; the first one comes after validation_interval steps")
    return columns


def pyplot() -> Any:
    """matplotlib.pyplot, drawing into files; to be called before long work whose end is a plot.

    Raises:
        BackendError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise BackendError("plots need matplotlib, which is missing: pip install '.[plots]' in a clone of ampmm") from None
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    return plt
