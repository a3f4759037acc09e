"""Run folders written by hand: what a training leaves, without training."""

import csv
import math
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from omma.runs.files import write_json_atomic, write_text_atomic
from omma.runs.folder import RunFolder
from omma.runs.metrics import MetricsLog

CLASSES = ("drivable_area", "ped_crossing", "walkway", "car", "truck", "pedestrian")
TERMS = ("Lwce", "Ldepth", "Ldiff")


def write_table(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def fake_run(
    root: Path,
    name: str,
    *,
    gain: float = 0.0,
    seed: int = 0,
    steps: int = 2000,
    terms: tuple[str, ...] = TERMS,
    samples: int = 60,
    system: str = "some-system",
    **more,
) -> RunFolder:
    """A finished run whose mIoU peaks at three quarters of the training; `more` goes into the config."""
    config = {"system": {"name": system}, "data": {"val_split": "val", **more}, "seed": seed}
    run = RunFolder.create(root, name, config=config, command=["omma", "train", f"{system}/recipe"])
    random = np.random.default_rng(seed + len(name))
    best = _write_metrics(run, steps, terms, gain, random)
    for checkpoint, step in ((f"step_{steps:06d}", steps), ("best", best["step"]), ("final", steps)):
        write_checkpoint(run, checkpoint, step)
    write_text_atomic(run.checkpoints / "last.txt", f"step_{steps:06d}\n")
    write_json_atomic(run.path / "data.json", {"train": fingerprint(300), "val": fingerprint(samples)})
    write_json_atomic(run.path / "provenance.json", provenance())
    if samples:
        write_evaluation(run, gain, samples, best)
    run.set_status("finished", step=steps, total=steps, recipe=f"{system}/recipe", best=best)
    return run


def fingerprint(samples: int, sha256: str = "ab12", files: int = 900) -> dict:
    return {"num_samples": samples, "num_files": files, "sha256": sha256, "annotations": {}}


def provenance(sha: str = "0123456789abcdef", *, dirty: bool = False) -> dict:
    return {"git": {"sha": sha, "branch": "main", "dirty": dirty}, "packages": {"omma": "1", "torch": "2"}}


def write_checkpoint(run: RunFolder, name: str, step: int) -> Path:
    folder = run.checkpoints / name
    folder.mkdir(parents=True)
    weights = folder / "model.safetensors"
    save_file({"weight": np.zeros(3, np.float32)}, weights)
    sizes = {weights.name: weights.stat().st_size}
    write_json_atomic(folder / "meta.json", {"format_version": 1, "step": step, "files": sizes})
    return folder


def _write_metrics(
    run: RunFolder, steps: int, terms: tuple[str, ...], gain: float, random: np.random.Generator
) -> dict:
    classes = [f"IoU_{name}" for name in CLASSES]
    names = [
        "time_s",
        "lr",
        "loss",
        *terms,
        *(f"{term}_raw" for term in terms),
        "step_time",
        "mIoU",
        *classes,
    ]
    log = MetricsLog(run.metrics_file, names, resume_step=None)
    best = {"metric": "val/mIoU", "value": -1.0, "step": 0}
    every = max(1, steps // 200)
    for step in range(every, steps + 1, every):
        part = step / steps
        values = {t: (0.6 / (i + 1)) * (math.exp(-3 * part) + 0.2) for i, t in enumerate(terms)}
        values = {t: value * float(1 + 0.15 * random.standard_normal()) for t, value in values.items()}
        raw = {f"{term}_raw": 10 * value for term, value in values.items()}
        rate = 2e-4 * min(1, 20 * part) * 0.5 * (1 + math.cos(math.pi * part))
        row = {"time_s": step * 0.3, "lr": rate, "loss": sum(values.values()), "step_time": 0.3}
        log.write(step=step, epoch=0, phase="train", values=row | values | raw)
        if (step // every) % 20 == 0:
            score = 0.3 + gain - 0.6 * (part - 0.75) ** 2
            by_class = {name: score + 0.08 * (2 - i) for i, name in enumerate(classes)}
            by_class["mIoU"] = sum(by_class.values()) / len(by_class)
            log.write(step=step, epoch=0, phase="val", values=by_class | {"loss": 0.9 - score})
            if by_class["mIoU"] > best["value"]:
                best |= {"value": by_class["mIoU"], "step": step}
    log.close()
    return best


def write_evaluation(run: RunFolder, gain: float, samples: int, best: dict, split: str = "val") -> None:
    """Counts by class whose pooled IoU is near the best value."""
    random = np.random.default_rng(round(1000 * gain))
    rows = []
    for index in range(samples):
        row = {"token": f"scene_{index:03d}", "mIoU": float(best["value"])}
        for place, name in enumerate(CLASSES):
            union = int(random.integers(80, 400))
            share = best["value"] + 0.08 * (2 - place) + 0.05 * random.standard_normal()
            tp = int(np.clip(share, 0.02, 0.98) * union)
            row |= {
                f"tp/{name}": tp,
                f"fp/{name}": (union - tp) // 2,
                f"fn/{name}": union - tp - (union - tp) // 2,
            }
        rows.append(row)
    folder = run.eval_dir(split)
    scores = []
    for name in CLASSES:
        tp, fp, fn = (sum(row[f"{kind}/{name}"] for row in rows) for kind in ("tp", "fp", "fn"))
        scores.append(tp / (tp + fp + fn))
    setting = "visible cells only, z 1 to 50 m, x -25 to 25 m, 0.25 m cells, threshold 0.5"
    about = {
        "checkpoint": "best",
        "samples": samples,
        "setting": setting,
        "metrics": {"mIoU": float(np.mean(scores))},
    }
    write_json_atomic(folder / "metrics.json", about)
    write_table(folder / "per_sample.csv", rows)
