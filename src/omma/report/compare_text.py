"""A comparison in words: verdicts for people in a hurry, and summary.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from omma.runs.metrics import direction

Facts = dict[str, Any]

VALUE_DIGITS = 4
TERM_DIGITS = 6


def verdicts(facts: Facts) -> list[Facts]:
    """What the comparison says, an entry for each experiment but the first: {"kind", "title", "evidence"}.

    Kind is "ok" for a clear gain, "warning" for a clear loss, else "note".
    """
    if not facts["metric"]:
        return [_entry("note", "The runs share no metric of quality; their losses are below")]
    row = next((row for row in facts["table"] if row["kind"] == "best"), None)
    if row is None:
        return []
    first, *others = facts["experiments"]
    if not others:
        return [_entry("note", _alone(facts, row, first["name"]), _standing(facts, first))]
    return [_verdict(facts, row, first, other) for other in others]


def _entry(kind: str, title: str, *evidence: str) -> Facts:
    return {"kind": kind, "title": title, "evidence": [text for text in evidence if text]}


def _alone(facts: Facts, row: Facts, name: str) -> str:
    cell = row["cells"][name]
    if cell["mean"] is None:
        return f"{name} has no {facts['metric']} yet"
    return f"{name} reaches {cell_text(cell, VALUE_DIGITS)} {facts['metric']}"


def _verdict(facts: Facts, row: Facts, first: Facts, other: Facts) -> Facts:
    metric, difference = facts["metric"], row["differences"][other["name"]]
    if difference is None:
        return _entry("note", f"{other['name']} and {first['name']} have no {metric} in common")
    standing = _standing(facts, other, first)
    single = len(first["runs"]) == len(other["runs"]) == 1
    interval = _interval_of(facts, other["runs"][0]) if single else None
    if interval is None:
        title = f"{_sentence(facts, other, first, difference)}{_seeds(row, other, first)}"
        more = _other_metrics(_intervals_of(facts, other["runs"][0])) if single else []
        hint = "" if not single else "No interval: `omma eval` of both runs writes the scores that it needs."
        return _entry("note", title, standing, *(more or [hint]))
    span = f"{signed(interval['low'])} to {signed(interval['high'])}"
    over = f"95 % interval {span}, {interval['samples']} samples of {interval['split']}"
    unclear = "" if interval["low"] > 0 or interval["high"] < 0 else "No clear difference: "
    kind = _kind(interval, facts["mode"])
    if interval["is_metric"]:
        sentence = _sentence(facts, other, first, interval["difference"])
        return _entry(kind, f"{unclear}{sentence} ({over}).", standing, _setting(interval))
    score = f"Of the same samples, {interval['score']} differs by {signed(interval['difference'])} ({over})."
    title = f"{unclear}{_sentence(facts, other, first, difference)}."
    return _entry(kind, title, score, standing, _setting(interval))


def _kind(interval: Facts, mode: str) -> str:
    better, worse = ("low", "high") if mode == "max" else ("high", "low")
    sign = 1 if mode == "max" else -1
    if sign * interval[better] > 0:
        return "ok"
    return "warning" if sign * interval[worse] < 0 else "note"


def _interval_of(facts: Facts, run: str) -> Facts | None:
    return next((entry for entry in _intervals_of(facts, run) if entry["metric"] == facts["metric"]), None)


def _intervals_of(facts: Facts, run: str) -> list[Facts]:
    return [entry for entry in facts["intervals"] if entry["second"] == run]


def _other_metrics(entries: Sequence[Facts]) -> list[str]:
    """Metrics that have an interval where the best metric has none, and in how many the run is better."""
    if not entries:
        return []
    parts, better = [], 0
    for entry in entries:
        span = f"{signed(entry['low'])} to {signed(entry['high'])}"
        parts.append(f"{entry['metric']} {signed(entry['difference'])} (95 % interval {span})")
        better += _kind(entry, direction(entry["metric"])) == "ok"
    one = entries[0]
    clearly = f"{one['second']} is clearly better than {one['first']} in {better} of {len(entries)} of these."
    return [f"On {one['samples']} samples of {one['split']}: {', '.join(parts)}.", clearly, _setting(one)]


def _sentence(facts: Facts, other: Facts, first: Facts, difference: float) -> str:
    if abs(difference) < 0.5 * 10**-VALUE_DIGITS:
        return f"{other['name']} and {first['name']} have the same {facts['metric']}"
    side = "above" if difference > 0 else "below"
    better = "" if facts["mode"] == "max" else " (lower is better)"
    amount = f"{abs(difference):.{VALUE_DIGITS}f} {facts['metric']}"
    return f"{other['name']} is {amount} {side} {first['name']}{better}"


def _seeds(row: Facts, other: Facts, first: Facts) -> str:
    cells = [row["cells"][group["name"]] for group in (other, first)]
    if all(cell["n"] == 1 for cell in cells):
        return "."
    texts = [cell_text(cell, VALUE_DIGITS) for cell in cells]
    return f": {texts[0]} against {texts[1]} (mean ± standard deviation over seeds)."


def _standing(facts: Facts, *groups: Facts) -> str:
    """Best value and step of every run of the groups."""
    by_name = {run["name"]: run for run in facts["runs"]}
    found = []
    for name in (name for group in groups for name in group["runs"]):
        best = by_name[name]["best"]
        if best:
            found.append(f"{name} {best['value']:.{VALUE_DIGITS}f} at step {best['step']}")
    return f"Best validations: {', '.join(found)}." if found else ""


def _setting(interval: Facts) -> str:
    settings = dict.fromkeys(setting for setting in interval["settings"] if setting)
    checkpoints = " and ".join(dict.fromkeys(map(str, interval["checkpoints"])))
    about = f"Evaluated on {interval['split']} with checkpoints {checkpoints}"
    return f"{about}; {'; '.join(settings)}." if settings else f"{about}."


def digits_of(row: Facts) -> int:
    """Decimals of a row of the joint table."""
    return TERM_DIGITS if row["kind"] == "average" else VALUE_DIGITS


def cell_text(cell: Facts, digits: int) -> str:
    """`0.4123`, or `0.4123 ± 0.0031 (3)` over several seeds."""
    if cell["mean"] is None:
        return "–"
    text = f"{cell['mean']:.{digits}f}"
    return text if cell["deviation"] is None else f"{text} ± {cell['deviation']:.{digits}f} ({cell['n']})"


def signed(value: float | None, digits: int = VALUE_DIGITS) -> str:
    """A difference with its sign."""
    return "–" if value is None else f"{value:+.{digits}f}".replace("-", "−")


def joined(names: Sequence[str]) -> str:
    """`A`, `A and B`, `A, B and C`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def summary(facts: Facts) -> str:
    """The whole comparison as Markdown."""
    names = [group["name"] for group in facts["experiments"]]
    lines = [f"# Comparison of {_safe(joined(names))}", ""]
    for verdict in facts["verdicts"]:
        lines += [f"**{_safe(verdict['title'])}**", "", *(f"{_safe(text)}  " for text in verdict["evidence"])]
        lines.append("")
    if facts["warnings"]:
        lines += ["## Warnings", ""]
        lines += [f"- {_safe(item['title'])}: {_safe(item['evidence'])}" for item in facts["warnings"]]
        lines.append("")
    lines += ["## Side by side", "", *_joint_table(facts), ""]
    if facts["intervals"]:
        lines += ["## Interval of the difference", "", *_intervals(facts), ""]
    for run in facts["runs"]:
        lines += _experiment(run, facts)
    if facts["settings"]:
        lines += ["## Settings that differ", "", *_markdown(facts["settings"]), ""]
    lines += ["## Plots", "", *(f"- [{_safe(file)}]({file})" for file in facts["plots"])]
    lines += ["", *(f"- {_safe(note)}" for note in facts["notes"])] if facts["notes"] else []
    return "\n".join(lines).rstrip() + "\n"


def joint_rows(facts: Facts) -> list[dict[str, str]]:
    """The joint table as text, a row each metric."""
    first = facts["experiments"][0]["name"]
    rows = []
    for row in facts["table"]:
        digits = digits_of(row)
        cells = {name: cell_text(cell, digits) for name, cell in row["cells"].items()}
        rows.append(
            {"metric": row["metric"], **cells}
            | {f"{name} − {first}": signed(value, digits) for name, value in row["differences"].items()}
        )
    return rows


def _joint_table(facts: Facts) -> list[str]:
    return _markdown(joint_rows(facts))


def _intervals(facts: Facts) -> list[str]:
    rows = [
        {
            "runs": f"{entry['second']} − {entry['first']}",
            "split": entry["split"],
            "score": entry["score"],
            "values": " and ".join(f"{value:.{VALUE_DIGITS}f}" for value in entry["values"]),
            "difference": signed(entry["difference"]),
            "95 % interval": f"{signed(entry['low'])} to {signed(entry['high'])}",
            "samples": entry["samples"],
        }
        for entry in facts["intervals"]
    ]
    note = "Paired bootstrap: test samples drawn anew 10,000 times, the same for both runs."
    return [*_markdown(rows), "", note]


def _experiment(run: Facts, facts: Facts) -> list[str]:
    rows: list[dict[str, Any]] = []
    if run["best"]:
        best = run["best"]
        rows.append(
            _value_row(f"{best['metric']} ({facts['mode']})", best["value"], best["step"], VALUE_DIGITS)
        )
    for term, average in run["averages"].items():
        rows.append(_value_row(f"{term}_avg", average["value"], average["step"], TERM_DIGITS))
    records = max((average["records"] for average in run["averages"].values()), default=0)
    lines = [f"## {_safe(run['name'])}", "", f"- directory: `{run['folder']}`"]
    lines.append(f"- {run['recipe'] or run['system']}, {run['state']}, seed {run['seed']}")
    lines.append(f"- {run['train_records']} training and {run['val_records']} validation records")
    lines += ["", *_markdown(rows), ""]
    if records:
        lines += [f"`_avg` is the mean of the last {records} training records.", ""]
    lines += ["Checkpoints:", ""] if run["checkpoints"] else ["No checkpoints.", ""]
    for item in run["checkpoints"]:
        lines.append(f"- {item['name']}, step {item['step']}: `{item['path']}`")
    return [*lines, ""] if run["checkpoints"] else lines


def _value_row(metric: str, value: float, step: int, digits: int) -> dict[str, Any]:
    return {"metric": metric, "best value": f"{value:.{digits}f}", "step": step}


def _markdown(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return ["nothing yet"]
    columns = list(rows[0])
    body = [_line(_plain(row[name]) for name in columns) for row in rows]
    return [_line(columns), _line("---" for _ in columns), *body]


def _plain(value: Any) -> str:
    return "–" if value is None else str(value)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(map(_safe, cells))} |"


def _safe(text: str) -> str:
    """Text that Markdown shows as it is."""
    for mark in "\\|<*`[":
        text = text.replace(mark, f"\\{mark}")
    return text.replace("\n", " ")
