"""Total energy of an NVE run, and its drift in kT per ns and degree of freedom.

python docs/figures/nve_drift.py runs/nve -o docs/figures/nve_drift.png
"""

import argparse
import csv
from pathlib import Path

import matplotlib
import numpy as np

from ampmm.units import GAS_CONSTANT

matplotlib.use("agg")
import matplotlib.pyplot as plt


def read_state(folder: Path) -> dict[str, np.ndarray]:
    """The columns of a run's state.csv."""
    with (folder / "state.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


def drift(state: dict[str, np.ndarray]) -> tuple[float, float, int]:
    """Slope of the total energy, kT/ns per degree of freedom; its uncertainty; the number of degrees of freedom.

    The slope is a least-squares line through all reports; its uncertainty is that of a line through ten block means, from
    their scatter about it.
    """
    time, total = state["time_ps"], state["total_kJ_per_mol"]
    temperature = state["temperature_K"].mean()
    freedom = round(np.median(2.0 * state["kinetic_kJ_per_mol"] / (GAS_CONSTANT * state["temperature_K"])))
    slope, intercept = np.polyfit(time, total, 1)  # kJ/mol/ps
    residual = total - (slope * time + intercept)
    blocks = np.array([block.mean() for block in np.array_split(residual, 10)])
    error = blocks.std(ddof=2) * np.sqrt(12.0 / len(blocks)) / (time[-1] - time[0])  # of a line through ten block means
    scale = 1000.0 / (freedom * GAS_CONSTANT * temperature)
    return slope * scale, error * scale, freedom


def main() -> None:
    """Print the drift and draw the energy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of `ampmm simulate --ensemble NVE`")
    parser.add_argument("-o", "--output", type=Path, required=True, help="PNG")
    arguments = parser.parse_args()
    state = read_state(arguments.run)
    value, error, freedom = drift(state)
    time, total = state["time_ps"], state["total_kJ_per_mol"]
    text = f"drift {value:.1e} ± {error:.0e} kT/ns per degree of freedom"
    figure, axes = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
    axes.plot(time, total - total[0], lw=0.8)
    axes.plot(time, np.polyval(np.polyfit(time, total - total[0], 1), time), lw=1.2, color="black")
    axes.set(xlabel="time / ps", ylabel="total energy − first / (kJ/mol)", title=text)
    figure.savefig(arguments.output, dpi=200)
    print(f"{time[-1] - time[0]:g} ps, {freedom} degrees of freedom, {state['temperature_K'].mean():.1f} K: {text}")
    potential = state["potential_kJ_per_mol"]
    print(f"standard deviations: total energy {total.std():.3f}, potential energy {potential.std():.1f} kJ/mol")


if __name__ == "__main__":
    main()
