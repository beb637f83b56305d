"""The table of errors, as text and as JSON."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ampmm.evaluation.metrics import Errors

_QUANTITIES = {"energy": "energy, kJ/mol", "forces_qm": "QM forces, kJ/mol/Å", "forces_mm": "MM forces, kJ/mol/Å"}
_STATISTICS = {"mae": "MAE", "rmse": "RMSE", "max": "maximum"}
_WIDTH = 9


def error_table(errors: Mapping[str, Mapping[str, Any]], frames: Mapping[str, str]) -> str:
    """Errors by part, {part: {quantity: {"mae", "rmse", "max"}}}, as lines of text; force errors are per component.

    Args:
        frames: how many frames each part has, in words.
    """
    first = max([len("part"), *map(len, errors)])
    second = max([len("frames"), *map(len, frames.values())])
    group = _WIDTH * len(_STATISTICS)
    lines = [
        f"{'':{first}}  {'':{second}}" + "".join(f"   {title:^{group}}" for title in _QUANTITIES.values()),
        f"{'part':{first}}  {'frames':>{second}}"
        + ("   " + "".join(f"{name:>{_WIDTH}}" for name in _STATISTICS.values())) * len(_QUANTITIES),
    ]
    for part, quantities in errors.items():
        cells = [
            "".join(_cell(quantities.get(quantity, {}).get(statistic)) for statistic in _STATISTICS) for quantity in _QUANTITIES
        ]
        lines.append(f"{part:{first}}  {frames.get(part, ''):>{second}}   " + "   ".join(cells))
    return "\n".join(line.rstrip() for line in lines)


def write_errors(path: Path, errors: Mapping[str, Errors], frames: Mapping[str, int], about: Mapping[str, Any]) -> None:
    """The same numbers as JSON, with what they are about."""
    parts = {part: {"frames": frames[part], **each.to_dict()} for part, each in errors.items()}
    path.write_text(json.dumps({**about, "errors": parts}, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _cell(value: float | None) -> str:
    """Three significant digits where they are few, all of the integer part otherwise."""
    if value is None:
        return f"{'–':>{_WIDTH}}"
    decimals = 4 if value < 0.1 else 3 if value < 1.0 else 2 if value < 100.0 else 0
    return f"{value:{_WIDTH}.{decimals}f}"
