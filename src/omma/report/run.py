"""`omma report`: one run's report.html, report.json and plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omma.report.facts import run_facts
from omma.report.page import render
from omma.report.plots import draw_curves, draw_evaluation
from omma.runs.files import write_json_atomic, write_text_atomic
from omma.runs.folder import RunFolder

MAX_PICTURES = 12


def build_report(run: RunFolder, *, notes: Sequence[str] = ()) -> Path:
    """Write report.html, report.json and plots/*.png into the run folder.

    Args:
        run: a run in any state; what is not there yet is left out.
        notes: lines to show above everything else.

    Returns:
        report.html: one file without outside references; its numbers are those of report.json.

    Raises:
        DataError, ConfigError: if a file of the run is damaged.
    """
    facts = run_facts(run)
    folder = run.path / "plots"
    plots = draw_curves(facts["curves"], facts["best"], folder)
    eval_plots = {
        split: draw_evaluation(split, found, folder) for split, found in facts["evaluation"].items()
    }
    pictures = _pictures(run)
    facts["notes"] = list(notes)
    facts["plots"] = sorted(
        f"plots/{plot.file}"
        for group in ([*plots.values()], *eval_plots.values())
        for plot in group
        if plot.file
    )
    facts["pictures"] = [f"vis/{file.name}" for file in pictures]
    write_json_atomic(run.path / "report.json", facts)
    page = run.path / "report.html"
    write_text_atomic(page, render(facts, plots, eval_plots, pictures, notes))
    return page


def _pictures(run: RunFolder) -> list[Path]:
    """The first pictures by name; animations first, as they say most."""
    files = [item for item in run.vis.glob("*") if item.suffix.lower() in {".png", ".gif", ".jpg", ".jpeg"}]
    return sorted(files, key=lambda item: (item.suffix.lower() != ".gif", item.name))[:MAX_PICTURES]
