"""Measurements as a Markdown table and as plots with fitted exponents."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ampmm.benchmark.measure import Measurement
from ampmm.evaluation.plots import Scaling, plot_scaling

_COLUMNS: dict[str, Callable[[Measurement], str]] = {
    "region": lambda m: m.region,
    "mode": lambda m: m.mode,
    "edges / polarization / Coulomb pairs": lambda m: f"{m.edges:,} / {m.polarization_pairs:,} / {m.coulomb_pairs:,}",
    "ms per frame": lambda m: _number(m.total / m.frames),
    "graph": lambda m: _number(m.graph / m.frames),
    "polarization": lambda m: _number(m.polarization / m.frames),
    "Coulomb": lambda m: _number(m.coulomb / m.frames),
    "lists": lambda m: _number(m.lists),
    "launches": lambda m: f"{m.launches:,}",
    "GFLOP": lambda m: _number(m.gigaflop / m.frames),
    "products alone": lambda m: _number(m.floor / m.frames),
    "their bytes alone": lambda m: _number(m.traffic / m.frames),
    "ratio": lambda m: _number(m.total / m.floor),
    "peak MB": lambda m: "–" if m.peak_megabytes is None else f"{m.peak_megabytes:.0f}",
}


def _number(value: float) -> str:
    """Three digits that count."""
    return f"{value:.3g}" if abs(value) < 1000.0 else f"{value:.0f}"


def table(measurements: Sequence[Measurement]) -> str:
    """Markdown; times in milliseconds a frame."""
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|" + "---|" * len(_COLUMNS)]
    lines += ["| " + " | ".join(cell(each) for cell in _COLUMNS.values()) + " |" for each in measurements]
    return "\n".join(lines).replace(",", "'")


def exponent(sizes: Sequence[float], times: Sequence[float]) -> float:
    """The slope of log(time) over log(size), by least squares; NaN for fewer than two sizes."""
    if len(set(sizes)) < 2:
        return math.nan
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])


def plot_sweep(
    measurements: Sequence[Measurement], x: Callable[[Measurement], float], label: str, path: Path
) -> dict[str, float]:
    """Time of a frame and peak memory over a size, one line a mode; returns the fitted exponents of the time."""
    exponents, lines = {}, {}
    for mode in dict.fromkeys(each.mode for each in measurements):
        own = sorted((each for each in measurements if each.mode == mode), key=x)
        sizes, times = [x(each) for each in own], [each.total / each.frames for each in own]
        exponents[mode] = exponent(sizes, times)
        # The system hands out memory in pages: below a megabyte nothing is resolved.
        peaks = [max(1.0, each.peak_megabytes) for each in own if each.peak_megabytes is not None]
        floor = [each.floor / each.frames for each in own]
        lines[f"{mode}: exponent {exponents[mode]:.2f}"] = Scaling(sizes, times, floor, peaks if len(peaks) == len(own) else [])
    plot_scaling(lines, label, path)
    return exponents
