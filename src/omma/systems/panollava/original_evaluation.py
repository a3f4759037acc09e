"""eval_comprehensive.py of the original: answers and metrics of one stage, or of two side by side."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omma.data.io import read_json
from omma.data.outputs import write_whole
from omma.errors import UsageError
from omma.systems.originals import Command, Flag, Program, Typed, opened
from omma.systems.panollava.aliases import ALIASES
from omma.systems.panollava.original_places import PLACES, now, run_folder, run_reference, stage_name

DATA_IS_USAGE = {3: 2}  # wrong data ends the original's commands as a wrong option does
_BOTH = "both"
_COMPARED = ("resampler", "finetune")
_DECODING = ("--max-new-tokens", "--temperature", "--top-p", "--top-k", "--repetition-penalty")
_TRAINING_TABLES = {"train": "data.train_csv", "val": "data.val_csv", "valid": "data.val_csv"}
# higher is better; lengths and shares of words say nothing about right and wrong
COUNTED = ("bleu4", "rouge_l", "meteor_exact_stem", "cider", "clip_s", "ref_clip_s")


def _evaluate(typed: Typed) -> Iterator[Command]:
    stage = stage_name("--stage", typed.value("--stage") or _COMPARED[1], _BOTH)
    stages = _COMPARED if stage == _BOTH else (stage,)
    if "--dry-run" in typed.flags:
        lines = {"csv": _named_table(typed), "output-dir": _out(typed)}
        lines |= {name: _source(name, typed) for name in stages} | {"settings": " ".join(_settings(typed))}
        print("\n".join(f"{name:<12}  {value}" for name, value in lines.items()))  # noqa: T201
        return
    table = _table(typed)
    runs, told, time = [], {}, now()
    for name in stages:
        run, before = _open(name, typed)
        yield from before
        yield ["eval", run, *_split(table), *_settings(typed)]
        runs.append(run)
        told[name] = _keep(name, Path(run.partition("@")[0]) / "eval" / table.stem, typed, time)
    if stage == _BOTH:
        folders = [run.partition("@")[0] for run in runs]
        out = _out(typed) / f"comparison_{time}"
        yield ["compare", *folders, "--out", str(out), "--names", ",".join(stages)]
        text = comparison(told)
        write_whole(out / "comparison.txt", f"{text}\n".encode())
        print(text)  # noqa: T201


def _table(typed: Typed) -> Path:
    """The table of questions.

    Raises:
        UsageError: it is not there.
    """
    file = _named_table(typed)
    if file.is_file() and file.suffix.lower() in (".csv", ".tsv"):
        return file
    problem = "no such file" if not file.is_file() else "no .csv or .tsv file"
    raise UsageError(f"{file}: {problem}", "give the table of questions: its path behind the command")


def _named_table(typed: Typed) -> Path:
    return Path(typed.words[0] if typed.words else typed.value("--csv") or "data/quic360/test.csv")


def _split(table: Path) -> list[str]:
    """The table as a split of its own name, so that results of other tables stay."""
    key = _TRAINING_TABLES.get(table.stem)
    setting = f"{key}={table}" if key else f"data.root={table.parent}"
    return ["--split", table.stem, setting]


def _settings(typed: Typed) -> list[str]:
    """Batch size, workers and how answers are written."""
    keys = {"--batch-size": "validate.batch_size", "--num-workers": "train.workers"}
    keys |= {flag: ALIASES[flag].key for flag in _DECODING}
    words = [f"{key}={typed.value(flag)}" for flag, key in keys.items() if flag in typed.flags]
    return [*words, *typed.settings]


def _source(stage: str, typed: Typed) -> str:
    """What is evaluated: as typed, else the stage's run."""
    named = typed.value(f"--{stage}-ckpt")
    if named is None and typed.value("--stage") != _BOTH:
        named = typed.value("--ckpt")
    return named or str(run_folder(stage, typed))


def _open(stage: str, typed: Typed) -> tuple[str, list[Command]]:
    """The run with its best checkpoint, unless another one was named; of a foreign file a run is made."""
    source = _source(stage, typed)
    run = run_reference(source, typed)
    if run is None:
        return opened(source, "panollava", f"panollava/{stage}", typed.settings, typed.scratch)
    if "@" in run:
        return run, []
    best = Path(run) / "checkpoints" / "best"
    if not best.is_dir():
        raise UsageError(f"{best}: no such checkpoint", f"train stage {stage} first, or name one: --ckpt")
    return f"{run}@best", []


def _keep(stage: str, folder: Path, typed: Typed, time: str) -> Mapping[str, Any]:
    """Copy answers and metrics under the original's names; a few answers are shown.

    Returns:
        metric -> value, None where it is not to be had.
    """
    out = _out(typed)
    about = read_json(folder / "metrics.json")
    answers = folder / "predictions.jsonl"
    files = [out / f"{stage}_metrics_{time}.json"]
    metrics: dict[str, Any] = about["metrics"]
    rest = {name: value for name, value in about.items() if name not in ("metrics", "format_version")}
    write_whole(files[0], json.dumps({**metrics, "stage": stage, **rest}, indent=1).encode())
    if answers.is_file():  # stage vision has none
        files.insert(0, out / f"{stage}_evaluation_{time}.jsonl")
        write_whole(files[0], answers.read_bytes())
        _show(answers.read_text(encoding="utf-8").splitlines()[: _number("--save-samples", typed)])
    print(f"copied to {' and '.join(map(str, files))}")  # noqa: T201
    return metrics


def _number(flag: str, typed: Typed) -> int:
    text = typed.value(flag) or "0"
    if not text.isdecimal():
        raise UsageError(f"{flag} {text}: not a number")
    return int(text)


def _show(lines: Sequence[str]) -> None:
    for line in lines:
        answer = json.loads(line)
        print(f"{answer['image_path']}\n  {answer['query']}\n  {answer['prediction'] or '(nothing)'}")  # noqa: T201


def comparison(told: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of all metrics and who is better in those that count.

    Args:
        told: stage -> metric -> value, of two stages.
    """
    (one, first), (other, second) = told.items()
    wins = {one: 0, other: 0}
    rows = [("metric", one, other, "difference", "better")]
    for name in first:
        values = (first[name], second.get(name))
        if None in values or any(map(math.isnan, values)):
            continue
        difference, better = values[1] - values[0], ""
        if name in COUNTED:
            better = "equal" if abs(difference) < 1e-9 else other if difference > 0 else one
            wins |= {better: wins[better] + 1} if better in wins else {}
        rows.append((name, *(f"{value:.4f}" for value in values), f"{difference:+.4f}", better))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    number = sum(name in COUNTED for name, *_ in rows)
    best = max(wins.values())
    winner = [name for name, count in wins.items() if count == best]
    verdict = f"the winner is {winner[0]}" if len(winner) == 1 else "no winner"
    counts = ", ".join(f"{name} is better in {count}" for name, count in wins.items())
    return "\n".join([*(line.rstrip() for line in lines), f"{counts} of {number} metrics: {verdict}"])


def _out(typed: Typed) -> Path:
    return Path(typed.value("--output-dir") or "eval_results")


EVALUATION = Program(
    "Answers and metrics of a stage's best checkpoint, or of both stages with answers side by side.",
    _evaluate,
    {
        "--stage": Flag(f"finetune, the default, resampler, vision or {_BOTH}"),
        "--ckpt": Flag("RUN, its checkpoint or FILE; default: the best of the stage's run"),
        **{f"--{stage}-ckpt": Flag(f"the same of stage {stage}") for stage in _COMPARED},
        "--csv": Flag("table of panoramas with questions and answers, default data/quic360/test.csv"),
        **PLACES,
        "--output-dir": Flag("folder of the results, default eval_results"),
        "--save-samples": Flag("so many answers are printed; the files have all"),
        "--batch-size": Flag("validate.batch_size"),
        "--num-workers": Flag("train.workers"),
        **{flag: Flag(ALIASES[flag].key) for flag in _DECODING},
        "--dry-run": Flag("print what would be evaluated", 0),
    },
    optional=("CSV",),
    exits=DATA_IS_USAGE,
)
