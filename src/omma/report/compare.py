"""`omma compare`: several runs as plots, summary.md, report.html and report.json."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from omma.errors import DataError, UsageError
from omma.report.compare_facts import Facts, Source, compare_runs, load_source
from omma.report.compare_page import render
from omma.report.compare_plots import Picture, Selection, draw, missing_in, select
from omma.report.compare_text import joined, summary, verdicts
from omma.runs.files import write_json_atomic, write_text_atomic

Say = Callable[[str], None]


def build_comparison(
    sources: Sequence[Source],
    out: Path,
    *,
    metrics: Sequence[str] = (),
    picture: Picture | None = None,
    say: Say,
) -> Facts:
    """Write plots/*.png, summary.md, report.html and report.json into `out`.

    Args:
        sources: at least one run; the first is what the others are compared with.
        out: folder to write to; made if missing.
        metrics: what to draw, see `select`.
        picture: size and resolution of the PNG files.
        say: gets a line for each thing done, and every warning.

    Returns:
        what report.json holds.

    Raises:
        DataError: no run has rows in its metrics.csv.
        UsageError: none of the metrics asked for exists.
    """
    loaded, left_out = _load_all(sources, say)
    facts = compare_runs(loaded)
    facts["warnings"] = left_out + facts["warnings"]
    selection = select(facts, metrics)
    if metrics and not selection.columns and not selection.families:
        raise UsageError(f"--metrics: no run has {', '.join(selection.unknown)}", "--metrics all draws all")
    facts["notes"] = _notes(facts, selection)
    facts["verdicts"] = verdicts(facts)
    for item in facts["warnings"][len(left_out) :]:
        say(f"warning: {item['title']} ({item['evidence']})")
    for note in facts["notes"]:
        say(f"note: {note}")
    _write(facts, selection, out, picture or Picture(), say)
    for verdict in facts["verdicts"]:
        say(verdict["title"].replace("−", "-"))  # consoles of old code pages have no minus sign
    say(f"All plots and summary generated in: {out}")
    return facts


def _load_all(sources: Sequence[Source], say: Say) -> tuple[list[Facts], list[Facts]]:
    """The runs that have something to show, and a warning for each of the others."""
    loaded, left_out = [], []
    for source in sources:
        say(f"Loading metrics from: {source.run.path} ({source.name})")
        try:
            item = load_source(source)
        except DataError as error:
            say(f"  warning: {error.message}; {source.name} is left out")
            left_out.append({"title": f"{source.name} is left out", "evidence": error.message})
            continue
        say(f"  Loaded {len(item['rows'])} records")
        say(f"  Found {len(item['checkpoints'])} checkpoints")
        loaded.append(item)
    if not loaded:
        raise DataError(
            "none of the runs has rows in its metrics.csv", "train first; `omma status RUN` says how it goes"
        )
    return loaded, left_out


def _notes(facts: Facts, selection: Selection) -> list[str]:
    """What is not drawn, and for which runs."""
    notes = [f"no run has {name}" for name in selection.unknown]
    missing: dict[str, list[str]] = {}
    for column in selection.columns:
        missing.setdefault(joined(missing_in(facts, column) or [""]), []).append(column)
    return notes + [f"not in {runs}: {', '.join(columns)}" for runs, columns in missing.items() if runs]


def _write(facts: Facts, selection: Selection, out: Path, picture: Picture, say: Say) -> None:
    say("Generating plots...")
    plots = {}
    for plot in draw(facts, selection, out / "plots", picture):
        plots[plot.name] = plot
        say(f"  Generated: {out / 'plots' / plot.file}")
    facts["plots"] = [f"plots/{plot.file}" for plot in plots.values()]
    write_text_atomic(out / "summary.md", summary(facts))
    write_text_atomic(out / "report.html", render(facts, plots, selection))
    write_json_atomic(out / "report.json", facts)
    for name in ("summary.md", "report.html", "report.json"):
        say(f"  Generated: {out / name}")
