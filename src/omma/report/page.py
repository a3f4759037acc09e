"""The report's page: facts and plots laid out as one HTML file that refers to nothing outside itself."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from omma.config.yaml import dump_yaml
from omma.report import html
from omma.report.facts import Facts
from omma.report.plots import Plot, column_groups, readable_points

SECTIONS = {
    "curves": "Training",
    "validation": "Validation",
    "evaluation": "Evaluation",
    "pictures": "Pictures",
    "findings": "Diagnosis",
    "next": "How to go on",
    "config": "Configuration",
    "provenance": "Provenance",
    "log": "Log",
}
MANY_METRICS = 16
_STOPPED_EARLY = ("preempted", "failed", "created", "stopped (no heartbeat)")


def render(
    facts: Facts,
    plots: Mapping[str, Plot],
    eval_plots: Mapping[str, Sequence[Plot]],
    pictures: Sequence[Path],
    notes: Sequence[str],
) -> str:
    """The page.

    Args:
        facts: from `run_facts`.
        plots: column -> plot.
        eval_plots: split -> its plots.
        pictures: files to embed.
        notes: lines above everything else.

    Returns:
        a whole HTML document.
    """
    groups = column_groups(facts["curves"])
    parts = {
        "curves": _training(groups, plots),
        "validation": _validation(groups, plots),
        "evaluation": "".join(
            _evaluation(split, found, eval_plots[split]) for split, found in facts["evaluation"].items()
        ),
        "pictures": _pictures(pictures),
        "findings": "".join(_finding(item) for item in facts["findings"]),
        "next": html.preformatted("\n".join(next_commands(facts["run"]))),
        "config": html.folded(
            "config.yaml, which trains again as it is", html.preformatted(dump_yaml(facts["config"]))
        ),
        "provenance": _provenance(facts),
        "log": html.folded("last lines of log.txt", html.preformatted("\n".join(facts["log_tail"])))
        if facts["log_tail"]
        else "",
    }
    shown = {anchor: body for anchor, body in parts.items() if body}
    body = "".join(html.section(anchor, SECTIONS[anchor], body) for anchor, body in shown.items())
    title = f"{facts['run']['name']} – omma report"
    head = f"{_header(facts, notes)}\n{html.navigation({anchor: SECTIONS[anchor] for anchor in shown})}"
    return html.document(title, head, body, points=readable_points(facts))


def _header(facts: Facts, notes: Sequence[str]) -> str:
    about, hardware = facts["run"], facts["provenance"].get("hardware", {})
    state = about["state"]
    pill = f'<span class="pill {escape(state.partition(" ")[0])}">{escape(state)}</span>'
    items = [about["recipe"] or about["system"], _date(about["created"]), describe_hardware(hardware)]
    line = "".join(f"<span>{escape(item)}</span>" for item in items if item)
    error = html.message("error", "The run stopped with an error", about["error"]) if about["error"] else ""
    messages = error + "".join(html.message("note", note) for note in notes)
    cards = "".join(_card(entry, first=index == 0) for index, entry in enumerate(facts["headline"]))
    return (
        f'<header><h1>{escape(about["name"])}{pill}</h1><div class="about">{line}</div>{messages}'
        f'<div class="headline">{cards}</div></header>'
    )


def _date(moment: str | None) -> str:
    return moment[:16].replace("T", " ") + " UTC" if moment else ""


def describe_hardware(hardware: Mapping[str, Any]) -> str:
    """GPUs if there are any, else the processor and its cores."""
    gpus = [gpu["name"] for gpu in hardware.get("gpus", [])]
    if gpus:
        return ", ".join(f"{gpus.count(name)} × {name}" for name in dict.fromkeys(gpus))
    return f"{hardware['cpu']}, {hardware['cores']} cores, no GPU" if hardware.get("cpu") else ""


def _card(entry: Facts, *, first: bool) -> str:
    value, unit = entry["value"], entry["unit"]
    if unit == "duration":
        shown = html.number(value, html.duration_text(value))
    elif unit:
        shown = f"{html.number(value, f'{value:.3g}')} <small>{escape(unit)}</small>"
    else:
        shown = html.number(value)
    kind = ' class="first"' if first else ""
    at = "" if entry["at"] is None else f" {html.number(entry['at'])}"
    return (
        f'<div{kind}><div class="label">{escape(entry["label"])}</div><div class="value">{shown}</div>'
        f'<div class="note">{escape(entry["note"])}{at}</div></div>'
    )


def _training(groups: Mapping[str, list[str]], plots: Mapping[str, Plot]) -> str:
    rest = html.figures(plots[column] for column in groups["rest"])
    return html.figures(plots[column] for column in groups["loss"]) + (
        f"<h3>Learning rate, speed, memory</h3>{rest}" if rest else ""
    )


def _validation(groups: Mapping[str, list[str]], plots: Mapping[str, Plot]) -> str:
    families = [name for name in groups if name.endswith("/")]
    folded = [
        html.folded(
            f"{name.rstrip('_/')} in parts ({len(groups[name])} curves)",
            html.figures(plots[c] for c in groups[name]),
        )
        for name in families
    ]
    return html.figures(plots[column] for column in groups["validation"]) + "".join(folded)


def _evaluation(split: str, found: Facts, plots: Sequence[Plot]) -> str:
    title = f"<h3>{escape(split)}: checkpoint {html.cell(found['checkpoint'])}, "
    title += f"{html.cell(found['samples'])} samples</h3>"
    if found["setting"]:
        title += f'<p class="none">{escape(found["setting"])}</p>'
    metrics = _metrics(found["metrics"])
    per_class = html.table(found["per_class"], bars=True)
    parts = [
        title,
        f'<div class="beside"><div>{metrics}</div>{html.figures(plots)}</div>',
        f"<h3>By class</h3>{per_class}" if per_class else "",
        *(_study_table(study) for study in found["studies"].values() if "rows" in study),
        _extremes(found),
    ]
    return "".join(parts)


def _study_table(study: Facts) -> str:
    """The shown columns of a study's rows; a long table folds away."""
    rows = [{name: row.get(name) for name in study["shown"]} for row in study["rows"]]
    return html.folded(study["title"], html.table(rows), opened=len(rows) <= MANY_METRICS)


def _metrics(metrics: Mapping[str, float | None]) -> str:
    """The metrics as a table; of many, those in parts (`iou/car`) fold away."""
    rows = [{"metric": name, "value": value} for name, value in metrics.items()]
    main = [row for row in rows if len(rows) <= MANY_METRICS or "/" not in str(row["metric"])]
    parts = [row for row in rows if row not in main]
    folded = html.folded(f"{len(parts)} more, by part", html.table(parts)) if parts else ""
    return html.table(main) + folded


def _extremes(found: Facts) -> str:
    if not found["worst"]:
        return ""
    titles = {"worst": f"Worst samples ({found['worst_are']} {found['ranked_by']})", "best": "Best samples"}
    blocks = [
        f"<div><h3>{escape(title)}</h3>{html.table(found[key], bars=True)}</div>"
        for key, title in titles.items()
        if found[key]
    ]
    return f'<div class="columns">{"".join(blocks)}</div>'


def _pictures(files: Sequence[Path]) -> str:
    body = "".join(
        f'<figure><a href="{quote(f"vis/{file.name}")}">{html.picture(file)}</a>'
        f"<figcaption>{escape(file.name)}</figcaption></figure>"
        for file in files
    )
    return f'<div class="pictures">{body}</div>' if body else ""


def _finding(finding: Mapping[str, Any]) -> str:
    details = (finding.get("evidence"), finding.get("fix"))
    return html.message(finding["severity"], finding["title"], *(text for text in details if text))


def _provenance(facts: Facts) -> str:
    provenance = dict(facts["provenance"])
    packages = provenance.pop("packages", {})
    provenance.pop("format_version", None)
    about = {"command": facts["command"], **provenance, "data": facts["data"]}
    return html.pairs(about) + (html.folded("package versions", html.pairs(packages)) if packages else "")


def next_commands(about: Mapping[str, Any]) -> list[str]:
    """Commands that go on from this run, each with what it does."""
    name = shlex.quote(about["reference"])
    resume = (
        [(f"omma resume {name}", "continue where it stopped")] if about["state"] in _STOPPED_EARLY else []
    )
    commands = [
        *resume,
        (f"omma eval {name} --split val", "metrics of the best checkpoint"),
        (f"omma diagnose {name}", "what is wrong, and what to do next"),
        (f"omma predict {name} --indices 0-9 --out pictures", "draw predictions"),
        (f"omma compare {name} OTHER --out comparison", "curves and tables beside those of another run"),
        (f"omma export {name} --format onnx", "a file for other runtimes, checked against torch"),
    ]
    width = max(len(command) for command, _ in commands)
    return [f"{command:<{width}}  # {what}" for command, what in commands]
