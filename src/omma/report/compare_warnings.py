"""What keeps runs from being compared: other data, another split, other code, an unfinished run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Facts = dict[str, Any]
Runs = Sequence[Mapping[str, Any]]

_DECIDING_PACKAGES = ("omma", "torch")


def find_differences(loaded: Runs, metric: str) -> list[Facts]:
    """{"title", "evidence"} for everything that a reader of the numbers must know.

    Args:
        loaded: runs as `load_source` gives them.
        metric: the metric that is compared; empty without any.
    """
    return [
        {"title": title, "evidence": evidence}
        for find in (_unfinished, _systems, _data, _splits, _code, _evaluations)
        for title, evidence in find(loaded)
    ] + [{"title": title, "evidence": evidence} for title, evidence in _metrics(loaded, metric)]


def _listed(values: Mapping[str, Any]) -> str:
    return "; ".join(f"{name}: {value}" for name, value in values.items())


def _differing(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are there, if they are not all the same; else none."""
    there = {name: value for name, value in values.items() if value is not None}
    return there if len({json.dumps(value, sort_keys=True) for value in there.values()}) > 1 else {}


def _unfinished(loaded: Runs) -> Iterator[tuple[str, str]]:
    for item in loaded:
        if item["state"] != "finished":
            at = f"step {item['step']} of {item['total']}" if item["total"] else f"step {item['step']}"
            yield f"{item['name']} is not finished", f"{item['state']}, {at}"


def _systems(loaded: Runs) -> Iterator[tuple[str, str]]:
    if found := _differing({item["name"]: item["system"] for item in loaded}):
        yield "The runs are of different systems; what they share is compared", _listed(found)


def _data(loaded: Runs) -> Iterator[tuple[str, str]]:
    for part in dict.fromkeys(part for item in loaded for part in item["data"]):
        prints = {item["name"]: item["data"][part] for item in loaded if part in item["data"]}
        if not _differing({name: _identity(found) for name, found in prints.items()}):
            continue
        yield _data_difference(part, prints)
    if missing := [item["name"] for item in loaded if not item["data"]]:
        yield "Whether the data are the same is not known", f"no data.json in {', '.join(missing)}"


def _data_difference(part: str, prints: Mapping[str, Any]) -> tuple[str, str]:
    counts = {name: f"{found['num_samples']} samples" for name, found in prints.items()}
    if len(set(counts.values())) > 1:
        return f"The {part} data differ", _listed(counts)
    files = {name: f"{found['num_files']} files" for name, found in prints.items()}
    if len(set(files.values())) > 1:
        hint = "; in order where one reads what another does not need, such as depth"
        return f"The {part} samples are as many, but of other files", _listed(files) + hint
    return f"The {part} data differ", f"{_listed(counts)}, of other files or annotations"


def _identity(fingerprint: Mapping[str, Any]) -> list[Any]:
    return [fingerprint.get(key) for key in ("num_samples", "sha256", "annotations")]


def _splits(loaded: Runs) -> Iterator[tuple[str, str]]:
    for section, key in (("data", "val_split"), ("data", "limit"), ("validate", "limit")):
        values = {item["name"]: (item["config"].get(section) or {}).get(key) for item in loaded}
        if len(set(values.values())) > 1:
            shown = {name: "all" if value is None else value for name, value in values.items()}
            yield f"{section}.{key} differs", _listed(shown)


def _code(loaded: Runs) -> Iterator[tuple[str, str]]:
    git = {item["name"]: item["provenance"].get("git") or {} for item in loaded}
    if commits := _differing({name: state.get("sha") for name, state in git.items()}):
        yield "The code differs", _listed({name: f"commit {sha[:9]}" for name, sha in commits.items()})
    if changed := [name for name, state in git.items() if state.get("dirty")]:
        yield "Trained with changes of the code that are in no commit", ", ".join(changed)
    for package in _DECIDING_PACKAGES:
        packages = {item["name"]: item["provenance"].get("packages") or {} for item in loaded}
        if versions := _differing({name: known.get(package) for name, known in packages.items()}):
            yield f"The version of {package} differs", _listed(versions)


def _evaluations(loaded: Runs) -> Iterator[tuple[str, str]]:
    for split in dict.fromkeys(split for item in loaded for split in item["evaluation"]):
        for key, what in (("setting", "setting"), ("samples", "number of samples")):
            values = {item["name"]: (item["evaluation"].get(split) or {}).get(key) for item in loaded}
            if found := _differing(values):
                yield f"The {what} of the evaluation on {split} differs", _listed(found)


def _metrics(loaded: Runs, metric: str) -> Iterator[tuple[str, str]]:
    if not metric:
        yield "No run has a validation of its best metric", "losses are compared"
        return
    for item in loaded:
        other = item["best_metric"][0]
        if not other:
            yield f"{item['name']} has no validation of its best metric", f"{metric} is compared elsewhere"
        elif other != metric:
            yield f"{item['name']} is kept by another metric", f"{other} instead of {metric}"
