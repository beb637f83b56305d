"""What an evaluation costs, part by part, beside what its arithmetic alone would."""

from ampmm.benchmark.measure import Measurement, measure_region
from ampmm.benchmark.regions import PAPER_REGIONS, Region, parse_region, random_region
from ampmm.benchmark.report import exponent, plot_sweep, table

__all__ = [
    "PAPER_REGIONS",
    "Measurement",
    "Region",
    "exponent",
    "measure_region",
    "parse_region",
    "plot_sweep",
    "random_region",
    "table",
]
