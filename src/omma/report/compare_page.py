"""The page of a comparison: verdict first, then tables and plots; refers to nothing outside itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from omma.report import html
from omma.report.columns import PER_CLASS
from omma.report.compare_plots import Selection, readable_points
from omma.report.compare_text import cell_text, digits_of, joined, signed
from omma.report.plots import Plot

Facts = dict[str, Any]

SECTIONS = {
    "table": "Side by side",
    "curves": "Curves",
    "interval": "Interval of the difference",
    "settings": "Settings that differ",
    "runs": "Runs and checkpoints",
}
MAX_CARDS = 6


def render(facts: Facts, plots: Mapping[str, Plot], selection: Selection) -> str:
    """The page.

    Args:
        facts: from `compare_runs`, with "verdicts", "notes" and "plots".
        plots: column or family -> plot.
        selection: what was drawn.

    Returns:
        a whole HTML document.
    """
    charts = [plots[family + PER_CLASS] for family in selection.families]
    parts = {
        "table": _joint_tables(facts, charts),
        "curves": html.figures(plots[column] for column in selection.columns) + _notes(facts),
        "interval": _intervals(facts),
        "settings": html.table(facts["settings"]),
        "runs": "".join(_run(run) for run in facts["runs"]),
    }
    shown = {anchor: SECTIONS[anchor] for anchor, body in parts.items() if body}
    body = "".join(html.section(anchor, title, parts[anchor]) for anchor, title in shown.items())
    names = joined([group["name"] for group in facts["experiments"]])
    head = f"{_header(facts, names)}\n{html.navigation(shown)}"
    return html.document(f"{names} – omma comparison", head, body, points=readable_points(facts, selection))


def _header(facts: Facts, names: str) -> str:
    runs = facts["runs"]
    about = [f"{len(runs)} runs" if len(runs) > 1 else "1 run", *dict.fromkeys(run["system"] for run in runs)]
    if facts["metric"]:
        about.append(f"{facts['metric']}, {'higher' if facts['mode'] == 'max' else 'lower'} is better")
    line = "".join(f"<span>{escape(item)}</span>" for item in about if item)
    verdicts = "".join(html.message(v["kind"], v["title"], *v["evidence"]) for v in facts["verdicts"])
    warnings = "".join(html.message("warning", item["title"], item["evidence"]) for item in facts["warnings"])
    cards = "".join(_cards(facts))
    return (
        f'<header><h1>{escape(names)}</h1><div class="about">{line}</div>'
        f'<div class="verdict">{verdicts}</div>{warnings}<div class="headline">{cards}</div></header>'
    )


def _cards(facts: Facts) -> list[str]:
    """The best value of each experiment, with its colour."""
    row = next((row for row in facts["table"] if row["kind"] == "best"), None)
    if row is None:
        return []
    by_name = {run["name"]: run for run in facts["runs"]}
    cards = []
    for index, group in enumerate(facts["experiments"][:MAX_CARDS]):
        cell, best = row["cells"][group["name"]], by_name[group["runs"][0]]["best"]
        value = _fixed(cell["mean"], digits_of(row))
        if cell["deviation"] is not None:
            value += f" <small>± {_fixed(cell['deviation'], digits_of(row))}</small>"
        note = f"{escape(facts['metric'])}, "
        if cell["n"] > 1:
            note += f"mean of {html.number(cell['n'])} seeds"
        else:
            note += f"step {html.number(best['step'])}" if best else "no validation yet"
        label = f"{_swatch(index)}{escape(group['name'])}"
        cards.append(
            f'<div><div class="name">{label}</div><div class="value">{value}</div>'
            f'<div class="note">{note}</div></div>'
        )
    return cards


def _fixed(value: float | None, digits: int) -> str:
    return html.cell(None if value is None else html.Shown(value, f"{value:.{digits}f}"))


def _swatch(index: int) -> str:
    return f'<i class="swatch" style="background:var(--c{index % 8})"></i>'


def _joint_tables(facts: Facts, charts: Sequence[Plot]) -> str:
    """Quality beside its bars by class, then the parts of the loss."""
    quality = [row for row in facts["table"] if row["kind"] != "average"]
    losses = [row for row in facts["table"] if row["kind"] == "average"]
    first = escape(facts["experiments"][0]["name"])
    delta = f'<p class="none">Δ is the difference to {first}.</p>' if len(facts["experiments"]) > 2 else ""
    parts = [
        f'<div class="beside"><div>{_joint_table(quality)}</div>{html.figures(charts)}</div>'
        if quality
        else "",
        f"<h3>Mean of the last training records</h3>{_joint_table(losses)}" if losses else "",
    ]
    return "".join(parts) + delta


def _joint_table(rows: Sequence[Facts]) -> str:
    shown = []
    for row in rows:
        digits = digits_of(row)
        line: dict[str, Any] = {"metric": row["metric"]}
        for name, cell in row["cells"].items():
            line[name] = _shown(cell["mean"], cell_text(cell, digits))
        for name, value in row["differences"].items():
            line["difference" if len(row["cells"]) == 2 else f"Δ {name}"] = _shown(
                value, signed(value, digits)
            )
        shown.append(line)
    return html.table(shown)


def _shown(value: float | None, text: str) -> html.Shown | None:
    return None if value is None else html.Shown(value, text)


def _notes(facts: Facts) -> str:
    return "".join(f'<p class="none">{escape(note)}</p>' for note in facts["notes"])


def _intervals(facts: Facts) -> str:
    rows = [
        {
            "runs": f"{entry['second']} − {entry['first']}",
            "split": entry["split"],
            "metric": entry["metric"],
            "difference": _shown(entry["difference"], signed(entry["difference"])),
            "95 % from": _shown(entry["low"], signed(entry["low"])),
            "to": _shown(entry["high"], signed(entry["high"])),
            "samples": entry["samples"],
        }
        for entry in facts["intervals"]
    ]
    scores = "; ".join(dict.fromkeys(entry["score"] for entry in facts["intervals"]))
    note = (
        f"The difference of {scores}. Paired bootstrap: the test samples are drawn anew 10,000 times, the "
        "same for both runs; 95 % of the differences lie in the interval. It speaks of other samples, not of "
        "other seeds."
    )
    return f'{html.table(rows)}<p class="none">{escape(note)}</p>' if rows else ""


def _run(run: Facts) -> str:
    state = run["state"]
    pill = f'<span class="pill {escape(state.partition(" ")[0])}">{escape(state)}</span>'
    about: dict[str, Any] = {
        "folder": run["folder"],
        "recipe": run["recipe"] or run["system"],
        "seed": run["seed"],
        "steps": run["step"],
        "training records": run["train_records"],
        "validation records": run["val_records"],
    }
    if run["best"]:
        about |= {f"best {run['best']['metric']}": run["best"]["value"], "at step": run["best"]["step"]}
    for split, found in run["evaluation"].items():
        about[f"evaluated on {split}"] = found["setting"] or "yes"
    checkpoints = [
        {"checkpoint": c["name"], "step": c["step"], "path": c["path"]} for c in run["checkpoints"]
    ]
    listed = html.folded(f"{len(checkpoints)} checkpoints", html.table(checkpoints)) if checkpoints else ""
    return f"<h3>{escape(run['name'])}{pill}</h3>{html.pairs(about)}{listed}"
