"""Evaluation: a model beside its labels, its errors, its plots and its card."""

from ampmm.evaluation.card import describe_frames, make_card
from ampmm.evaluation.metrics import Errors, ErrorSummary, errors_of
from ampmm.evaluation.parts import check_comparable, differing_settings, parts_of
from ampmm.evaluation.plots import plot_learning_curve, plot_parity, pyplot
from ampmm.evaluation.predict import Predictions, predict
from ampmm.evaluation.report import error_table, write_errors

__all__ = [
    "ErrorSummary",
    "Errors",
    "Predictions",
    "check_comparable",
    "describe_frames",
    "differing_settings",
    "error_table",
    "errors_of",
    "make_card",
    "parts_of",
    "plot_learning_curve",
    "plot_parity",
    "predict",
    "pyplot",
    "write_errors",
]
