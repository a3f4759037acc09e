"""`omma runs check`: whether a finished run holds everything that it should, readable and in agreement."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from omma.commands.runs import runs_at
from omma.errors import DataError, OmmaError
from omma.report.columns import best_metric
from omma.report.facts import eval_folders
from omma.runs.console import RunLog
from omma.runs.files import abandoned
from omma.runs.folder import RunFolder, runs_root
from omma.runs.metrics import read_metrics
from omma.systems.recipes import open_recipe

FORMAT_VERSION = 1  # the newest of every file that a run folder holds
WEIGHTS, TRAIN_STATE = "model.safetensors", "train_state.pt"
_BLOCK = 2**20

Check = Callable[[], object]
Row = Mapping[str, Any]


def check_runs(places: Sequence[str] = ()) -> None:
    """Say for each thing that a finished run should hold whether it is there and as it should be.

    Loads no torch: of weights and training states the headers are read. A problem is one line with its fix.

    Args:
        places: folders of runs, single runs or chains; none means the runs root.

    Raises:
        DataError: something is missing or damaged, or there is no run.
    """
    runs = runs_at(places)
    if not runs:
        raise DataError(
            f"no runs in {', '.join(places) or runs_root(None)}", "`omma runs check DIR` looks elsewhere"
        )
    say = RunLog(None, quiet=False).line
    problems = 0
    for run in runs:
        say(f"{run.name}: {_state(run)}")
        for name, problem in artefacts(run):
            problems += bool(problem)
            say(f"  {'MISSING' if problem else 'ok':<8}{name}{f' ({problem})' if problem else ''}")
    if problems:
        raise DataError(f"{problems} of the lines above say what is missing or damaged", "each names its fix")
    say(f"complete: {', '.join(run.name for run in runs)}")


def _state(run: RunFolder) -> str:
    try:
        return str(run.status()["state"])
    except OmmaError:
        return "status.json is damaged"


def artefacts(run: RunFolder) -> Iterator[tuple[str, str]]:
    """Everything that a finished run holds, each with "problem; fix", or with nothing if it is in order."""
    for name, check in _checks(run):
        yield name, _problem(check)


def _problem(check: Check) -> str:
    try:
        check()
    except OmmaError as error:
        reason = error.message.partition("\n")[0]
        return f"{reason}; {error.hint.partition(chr(10))[0]}" if error.hint else reason
    except (OSError, SafetensorError, zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
        return f"{str(error).partition(chr(10))[0] or type(error).__name__}; restore the file from a copy"
    return ""


def _checks(run: RunFolder) -> Iterator[tuple[str, Check]]:
    try:
        status = run.status()
    except OmmaError as error:
        yield "status.json", partial(_fail, error)
        return
    yield "status.json", partial(_finished, run, status)
    yield "config.yaml", lambda: open_recipe(str(run.path))
    yield "command.txt", partial(_text, run.path / "command.txt")
    yield "provenance.json", partial(_json, run.path / "provenance.json")
    if "imported" in status:  # weights of an original project, not trained here
        for name in ("best", "final"):
            yield f"checkpoints/{name}", partial(_checkpoint, run, run.checkpoints / name)
        return
    for left in abandoned(run.path):
        yield left.relative_to(run.path).as_posix(), partial(_left, run)
    yield "data.json", partial(_data, run.path / "data.json")
    yield "log.txt", partial(_text, run.log_file)
    yield "metrics.csv", partial(_metrics, run, status)
    yield from _checkpoints(run, status)
    for folder in eval_folders(run):
        yield f"eval/{folder.name}/metrics.json", partial(_json, folder / "metrics.json")
    yield "vis/", partial(_pictures, run)
    yield "report.html", partial(_report, run, status)


def _config(run: RunFolder) -> dict[str, Any]:
    """Config.yaml; empty where it is damaged, which its own check says."""
    try:
        return run.config()
    except OmmaError:
        return {}


def _fail(error: OmmaError) -> None:
    raise error


def _left(run: RunFolder) -> None:
    raise DataError("left by a process that was killed", f"delete it; `omma resume {run.name}` would, too")


def _finished(run: RunFolder, status: Mapping[str, Any]) -> None:
    step, total = status.get("step"), status.get("total")
    if status["state"] != "finished":
        raise DataError(f"{status['state']} at step {step} of {total}", f"`omma resume {run.name}` goes on")


def _text(path: Path) -> None:
    if not path.is_file() or not path.read_text(encoding="utf-8").strip():
        raise DataError("no such file" if not path.is_file() else "empty", "restore the file from a copy")


def _json(path: Path) -> Any:
    _text(path)
    content = json.loads(path.read_text(encoding="utf-8"))
    version = content.get("format_version", FORMAT_VERSION)
    if version > FORMAT_VERSION:
        raise DataError(f"format_version {version} is of a newer omma", "update omma")
    return content


def _data(path: Path) -> None:
    for split, found in _json(path).items():
        if not found["num_samples"] or not found["sha256"]:
            raise DataError(f"no fingerprint of {split}", "restore the file from a copy")


def _metrics(run: RunFolder, status: Mapping[str, Any]) -> None:
    """Rows in order, none doubled or left out, up to the last step; the best one is as status.json says."""
    rows = read_metrics(run.metrics_file)
    again = f"train it again: `omma train {run.path} --name NEW`"
    if not rows:
        raise DataError("no rows", again)
    for phase in ("train", "val"):
        _in_order([row["step"] for row in rows if row["phase"] == phase], phase, again)
    last = status.get("step")
    validated = [row["step"] for row in rows if row["phase"] == "val"]
    if not validated or validated[-1] != last:
        raise DataError(f"the last step, {last}, has no validation", again)
    every = _config(run).get("log", {}).get("every")
    if every and every <= last and not status.get("start", {}).get("resume_file"):
        _to_both_ends([row["step"] for row in rows if row["phase"] == "train"], last, every, again)
    if status.get("best"):
        _best_row(rows, status, run)


def _in_order(steps: Sequence[int], phase: str, fix: str) -> None:
    """Each step once; no interval larger than both of its neighbours, which may differ after a resume."""
    for before, after in pairwise(steps):
        if after <= before:
            raise DataError(f"{phase} step {after} stands twice or behind {before}", fix)
    intervals = [after - before for before, after in pairwise(steps)]
    for place in range(1, len(intervals) - 1):
        if intervals[place] > max(intervals[place - 1], intervals[place + 1]):
            raise DataError(f"no {phase} row between step {steps[place]} and {steps[place + 1]}", fix)


def _to_both_ends(steps: Sequence[int], last: Any, every: int, fix: str) -> None:
    """The first row is one interval after the start, the last one less than an interval before the end."""
    if len(steps) > 1 and steps[0] != steps[1] - steps[0]:
        raise DataError(f"no train row between step 0 and {steps[1]} but that of {steps[0]}", fix)
    if len(steps) > 1 and steps[-1] - steps[-2] > every:
        raise DataError(f"no train row between step {steps[-2]} and {steps[-1]}", fix)
    if not steps or last - steps[-1] >= every:
        raise DataError(f"no train row after step {steps[-1] if steps else 0} of {last}", fix)


def _best_row(rows: Sequence[Row], status: Mapping[str, Any], run: RunFolder) -> None:
    best = status["best"]
    name, mode = best_metric(status, str(_config(run).get("system", {}).get("name")), rows)
    counted = [row for row in rows if row["step"] > best.get("since", -1) or row["step"] == best["step"]]
    values = {row["step"]: row[name] for row in counted if row["phase"] == "val" and name in row}
    choose = min if mode == "min" else max
    finite = {step: value for step, value in values.items() if value == value}
    if not finite or best["value"] != choose(finite.values()) or finite.get(best["step"]) != best["value"]:
        raise DataError(
            f"{name} {best['value']} at step {best['step']} is the best in status.json, not in the rows",
            "`omma eval RUN@best` says what checkpoints/best reaches",
        )


def _checkpoints(run: RunFolder, status: Mapping[str, Any]) -> Iterator[tuple[str, Check]]:
    """Best of the best step; the newest step_N, which last.txt names, and final of the last step."""
    best, step = status.get("best"), status.get("step")
    if best:
        yield "checkpoints/best", partial(_checkpoint, run, run.checkpoints / "best", best["step"])
    pointer = run.checkpoints / "last.txt"
    yield "checkpoints/last.txt", partial(_pointer, run, pointer)
    if pointer.is_file():
        last = run.checkpoints / pointer.read_text(encoding="utf-8").strip()
        yield f"checkpoints/{last.name}", partial(_last, run, last, step)
        yield "checkpoints/final", partial(_final, run, last, step)


def _pointer(run: RunFolder, pointer: Path) -> None:
    fix = f"write the newest folder's name into {pointer}"
    if not pointer.is_file():
        raise DataError("no such file", fix)
    named = pointer.read_text(encoding="utf-8").strip()
    newest = max((path.name for path in run.checkpoints.glob("step_*")), default="nothing")
    if named != newest:
        raise DataError(f"names {named}, the newest is {newest}", fix)


def _last(run: RunFolder, folder: Path, step: int | None) -> None:
    _checkpoint(run, folder, step)
    state = folder / TRAIN_STATE
    if not state.is_file():
        raise DataError(f"{TRAIN_STATE} is not there", "the run cannot be lengthened; restore it from a copy")
    with zipfile.ZipFile(state) as archive:
        if not any(name.endswith("data.pkl") for name in archive.namelist()):
            raise DataError(f"{TRAIN_STATE} holds no state", "restore it from a copy")


def _final(run: RunFolder, last: Path, step: int | None) -> None:
    folder = run.checkpoints / "final"
    _checkpoint(run, folder, step)
    if (last / WEIGHTS).is_file() and not _same_weights(folder / WEIGHTS, last / WEIGHTS):
        raise DataError(f"{WEIGHTS} is not that of {last.name}", f"copy it from checkpoints/{last.name}")


def _same_weights(one: Path, other: Path) -> bool:
    """Whether two files hold the same bits behind their headers, whose words have no fixed order."""
    with one.open("rb") as first, other.open("rb") as second:
        for file in (first, second):
            file.seek(int.from_bytes(file.read(8), "little"), os.SEEK_CUR)
        while block := first.read(_BLOCK):
            if block != second.read(_BLOCK):
                return False
        return not second.read(1)


def _checkpoint(run: RunFolder, folder: Path, step: int | None = None) -> None:
    """Files of the sizes in meta.json, weights whose header can be read, of this run's network and step."""
    again = f"`omma resume {run.name}` or restore checkpoints/{folder.name} from a copy"
    if not (folder / "meta.json").is_file():
        raise DataError("no such checkpoint", again)
    meta = _json(folder / "meta.json")
    for name, size in meta["files"].items():
        if not (folder / name).is_file():
            raise DataError(f"{name} is not there", again)
        if (folder / name).stat().st_size != size:
            raise DataError(f"{name} is cut short", again)
        if name.endswith(".safetensors"):
            with safe_open(folder / name, framework="numpy") as weights:
                if not list(weights.keys()):
                    raise DataError(f"{name} holds no weights", again)
    if step is not None and meta["step"] != step:
        raise DataError(f"is of step {meta['step']}, status.json says {step}", again)
    system = _config(run).get("system", {})
    other = [key for key, value in meta.get("settings", {}).items() if system.get(key, value) != value]
    if other:
        raise DataError(f"was made with another system.{other[0]} than config.yaml has", again)


def _pictures(run: RunFolder) -> None:
    if not any(run.vis.glob("*.png")):
        raise DataError("no pictures", f"`omma predict {run.path} --out {run.vis}` draws them")


def _report(run: RunFolder, status: Mapping[str, Any]) -> None:
    fix = f"`omma report {run.path}` writes it"
    page, facts = run.path / "report.html", run.path / "report.json"
    for file in (page, facts):
        if not file.is_file() or not file.stat().st_size:
            raise DataError(f"{'no' if file == page else 'report.json: no'} such file", fix)
    step = _json(facts)["run"]["step"]
    if step != status.get("step"):
        raise DataError(f"is of step {step}, the run of {status.get('step')}", fix)
