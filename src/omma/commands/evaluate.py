"""`omma eval`: metrics of a checkpoint, or of predictions saved earlier."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omma.commands.build import Loaded, build_data, device_of, load_run
from omma.commands.flags import read_words
from omma.commands.tables import cell_text, csv_text, text_table
from omma.data.dataset import Collate, Samples
from omma.data.loader import to_device
from omma.engine.evaluate import EvalResult, evaluate
from omma.errors import DataError, UsageError
from omma.report.html import flatten
from omma.report.plots import study_figure
from omma.runs.console import RunLog
from omma.runs.files import write_json_atomic, write_text_atomic
from omma.runs.folder import RunFolder, runs_root, split_reference
from omma.systems import get
from omma.viz.curves import save_figure
from omma.viz.image import save_png


def evaluate_words(
    reference: str, words: Sequence[str], *, runs_dir: str | None = None, **options: Any
) -> EvalResult:
    """`omma eval` as typed: flags of the original tool become settings; prints the table."""
    run = (
        RunFolder.open(split_reference(reference)[0], runs_root(runs_dir))
        if not Path(reference).exists()
        else None
    )
    system = get(run.config()["system"]["name"]) if run else None
    overrides = read_words(words, system).overrides if system else list(words)
    return evaluate_run(reference, overrides, runs_dir=runs_dir, **options)


def evaluate_run(
    reference: str,
    overrides: Sequence[str] = (),
    *,
    split: str | None = None,
    predictions: Path | None = None,
    studies: Sequence[str] = (),
    runs_dir: str | None = None,
    quiet: bool = False,
) -> EvalResult:
    """Evaluate RUN, RUN@WHICH or a checkpoint on one split and write `eval/<split>/`.

    Args:
        reference: what to evaluate; a bare RUN means its best checkpoint.
        overrides: settings on top of the run's own.
        split: part of the data set; default data.val_split.
        predictions: folder of arrays that `omma predict` saved; they are scored instead of new predictions.
        studies: names of further studies, such as "robustness".
        runs_dir: where run names are looked up.
        quiet: print nothing.

    Returns:
        metrics and rows by sample and class.
    """
    loaded = load_run(reference, overrides, runs_dir=runs_dir, evaluating=True)
    _check_studies(loaded, studies)
    console = RunLog(None, quiet=quiet)
    split = split or loaded.recipe.config.data.val_split
    data, collate = build_data(loaded.recipe, split, augment=False)
    task = loaded.task.to(device_of(loaded.recipe))
    if predictions is not None:
        result = _score_predictions(loaded, data, collate, predictions)
    else:
        result = evaluate(task, data, collate, console=console, **_loader_options(loaded))
    folder = loaded.run.eval_dir(split)
    _write(folder, result, loaded, split, len(data), predictions)
    title = f"{loaded.run.name} ({loaded.checkpoint.name}) on {split}, {len(data)} samples"
    console.line(_table(result, ", ".join(filter(None, [title, task.setting()])), task.unavailable()))
    for name in studies:
        study = loaded.recipe.system.load(loaded.recipe.system.studies[name])
        for key, found in study(task, loaded.recipe.config, data, collate, console).items():
            _write_study(folder / "studies", key, found, console)
    console.line(f"written to {folder}")
    return result


def _loader_options(loaded: Loaded) -> dict[str, Any]:
    config = loaded.recipe.config
    size = config.validation.batch_size or config.train.batch_size
    return {
        "batch_size": size if isinstance(size, int) else 1,
        "workers": config.train.workers,
        "device": device_of(loaded.recipe),
        "precision": config.train.precision,
    }


def _check_studies(loaded: Loaded, studies: Sequence[str]) -> None:
    known = loaded.recipe.system.studies
    unknown = [name for name in studies if name not in known]
    if unknown:
        raise UsageError(
            f"--study {unknown[0]}: {loaded.recipe.system.name} has {', '.join(known) or 'no studies'}"
        )


def _score_predictions(loaded: Loaded, data: Samples, collate: Collate, folder: Path) -> EvalResult:
    """Meters over saved arrays; every sample of the split needs its file."""
    import torch

    meters = loaded.task.meters()
    with torch.no_grad():
        for arrays, batch in _pairs(data, collate, folder):
            loaded.task.score(arrays, to_device(batch, loaded.task.device), meters)
    return EvalResult.from_meters(meters)


def _pairs(
    data: Samples, collate: Collate, folder: Path
) -> Iterator[tuple[dict[str, np.ndarray], dict[str, Any]]]:
    for index in range(len(data)):
        file = folder / f"sample_{index:04d}.npz"
        if not file.is_file():
            raise DataError(
                f"{file}: no prediction for sample {index} ({data.name(index)})",
                f"`omma predict RUN --indices 0-{len(data) - 1} --out {folder}` writes all of them",
            )
        with np.load(file, allow_pickle=False) as arrays:
            yield dict(arrays), collate([data[index]])


def _write(
    folder: Path, result: EvalResult, loaded: Loaded, split: str, num_samples: int, predictions: Path | None
) -> None:
    missing = loaded.task.unavailable()
    about = {
        "format_version": 1,
        "split": split,
        "checkpoint": loaded.checkpoint.name,
        "samples": num_samples,
        "setting": loaded.task.setting(),
        "scored_by": _scored_by(loaded),
        "predictions": str(predictions) if predictions else None,
        "metrics": result.metrics | dict.fromkeys(missing),
    }
    if missing:
        about["unavailable"] = {name: f"unavailable: {reason}" for name, reason in missing.items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_json_atomic(folder / "metrics.json", about)
    for name, rows in (("per_class", result.per_class), ("per_sample", result.per_sample)):
        if rows:
            write_text_atomic(folder / f"{name}.csv", csv_text(rows))
    for name, text in loaded.task.result_files(result.meters).items():
        write_text_atomic(folder / name, text)


def _scored_by(loaded: Loaded) -> dict[str, Any]:
    """The settings that decide what the scores mean, for comparisons."""
    settings = flatten(loaded.recipe.config.as_dict())
    return {key: settings[key] for key in loaded.recipe.system.scored_by}


def _write_study(folder: Path, key: str, found: dict[str, Any], console: RunLog) -> None:
    """A study's numbers, with its rows as CSV too, or its curves as a picture, and its own files."""
    for name, content in found.pop("files", {}).items():
        if isinstance(content, str):
            write_text_atomic(folder / name, content)
        else:
            save_png(folder / name, content)
    write_json_atomic(folder / f"{key}.json", found)
    if "rows" not in found:
        save_figure(study_figure(found), folder / f"{key}.png")
        return
    write_text_atomic(folder / f"{key}.csv", csv_text(found["rows"]))
    shown = [{name: row.get(name) for name in found["shown"]} for row in found["rows"]]
    console.line(f"{found['title']}\n{text_table(shown)}")


def _table(result: EvalResult, title: str, missing: Mapping[str, str]) -> str:
    width = max(len(name) for name in (*result.metrics, *missing))
    rows = [f"  {name:<{width}}  {cell_text(value)}" for name, value in result.metrics.items()]
    rows += [f"  {name:<{width}}  unavailable: {reason}" for name, reason in missing.items()]
    return "\n".join([title, *rows])
