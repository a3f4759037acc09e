"""Tables for the console: what has no value is a dash."""

import math

from omma.commands.evaluate import _table
from omma.commands.tables import text_table
from omma.engine.evaluate import EvalResult


def test_a_metric_without_samples_is_a_dash():
    result = EvalResult({"iou": 0.25, "distinct1": math.nan}, [], [], {})
    lines = _table(result, "run on val", {"spice": "needs Java"}).splitlines()
    assert lines == [
        "run on val",
        "  iou        0.2500",
        "  distinct1  -",
        "  spice      unavailable: needs Java",
    ]


def test_absent_values_of_rows_are_dashes():
    rows = [{"run": "first", "iou": 0.5}, {"run": "second", "iou": math.nan}, {"run": "third"}]
    assert text_table(rows).splitlines() == ["run     iou", "first   0.5000", "second  -", "third   -"]
