"""`omma card`: a run's model card, README.md in its folder, written from what the folder holds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open

from omma.config.yaml import dump_yaml
from omma.errors import CheckpointError, UsageError
from omma.report.facts import Facts, read_json, run_facts
from omma.report.html import duration_text
from omma.runs.files import write_text_atomic
from omma.runs.folder import RunFolder, runs_root
from omma.systems import get
from omma.version import __version__

FILE = "README.md"
_CHECKPOINTS = ("best", "final")
_SETTINGS = (
    "train.length",
    "train.batch_size",
    "train.accumulate",
    "train.devices",
    "train.precision",
    "train.ema",
    "optim.name",
    "optim.lr",
    "optim.weight_decay",
    "optim.grad_clip",
    "schedule.name",
    "schedule.warmup",
    "seed",
    "deterministic",
)
_PACKAGES = ("omma", "torch", "torchvision", "timm", "transformers", "lightning", "numpy")


def write_card(run: str, runs_dir: str | None = None) -> Path:
    """Write a run's model card and return its path; an earlier card is replaced.

    Args:
        run: the run's folder or name.
        runs_dir: where run names are looked up.

    Raises:
        UsageError: no such run, or the folder holds a README.md that is no card of omma's.
        CheckpointError: the run has no weights to describe yet.
        DataError, ConfigError: a file of the run is damaged.
    """
    folder = RunFolder.open(run, runs_root(runs_dir))
    file = folder.path / FILE
    if file.is_file() and "library_name: omma" not in file.read_text(encoding="utf-8", errors="replace"):
        raise UsageError(f"{file}: is there and no card of omma's", "move it away, then write the card")
    write_text_atomic(file, card_text(folder))
    return file


def card_text(run: RunFolder) -> str:
    """The card as Markdown with YAML front matter; numbers are those of the run's own files.

    Args:
        run: a run with weights; what is not there, such as an evaluation, is said.
    """
    facts = run_facts(run)
    weights = _weights(run)
    sections = {
        "What it is": _about(facts, weights, run.status().get("imported")),
        "How to load it": _loading(facts, weights),
        "Metrics": _metrics(facts),
        "Data": _data(facts),
        "Training": _training(facts),
        "Limits": _bullets(_limits(facts, run)),
        "Provenance": _provenance(facts),
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    return f"---\n{_front_matter(facts)}---\n\n# {facts['run']['name']}\n\n{body}\n"


def _front_matter(facts: Facts) -> str:
    """What a hub or a script reads; of the metrics those of the whole, not of classes or distances."""
    metrics = {
        split: {name: value for name, value in found["metrics"].items() if "/" not in name}
        for split, found in facts["evaluation"].items()
    }
    about = {
        "format_version": 1,
        "version": __version__,
        "recipe": facts["run"]["recipe"],
        "metrics": metrics,
    }
    return dump_yaml({"library_name": "omma", "tags": ["omma", facts["run"]["system"]], "omma": about})


def _weights(run: RunFolder) -> dict[str, Facts]:
    """Checkpoint name -> step, number of weights and size of its files; of best and final, else the last."""
    pointer = run.checkpoints / "last.txt"
    last = pointer.read_text(encoding="utf-8").strip() if pointer.is_file() else ""
    found = {}
    for name in (*_CHECKPOINTS, last):
        folder = run.checkpoints / name
        file = folder / "model.safetensors"
        if name and file.is_file() and not (name == last and found):
            with safe_open(file, framework="numpy") as tensors:
                shapes = [tensors.get_slice(key).get_shape() for key in tensors.keys()]  # noqa: SIM118
            meta = read_json(folder / "meta.json") or {}
            found[name] = {
                "step": meta.get("step"),
                "count": sum(_product(shape) for shape in shapes),
                "bytes": file.stat().st_size,
                "averaged": (folder / "model_ema.safetensors").is_file(),
            }
    if not found:
        raise CheckpointError(
            f"{run.path}: a card describes weights, and the run has saved none",
            f"`omma status {run.name}` says how it is doing",
        )
    return found


def _product(shape: Sequence[int]) -> int:
    number = 1
    for size in shape:
        number *= size
    return number


def _about(facts: Facts, weights: Mapping[str, Facts], imported: str | None) -> str:
    about = facts["run"]
    try:
        summary = get(about["system"]).summary
    except UsageError:
        summary = about["system"]
    rows = [
        {
            "checkpoint": name,
            "step": found["step"],
            "weights": f"{found['count'] / 1e6:.2f} M",
            "size": f"{found['bytes'] / 2**20:.1f} MiB",
            "averaged too": "yes" if found["averaged"] else "no",
        }
        for name, found in weights.items()
    ]
    origin = f"Weights of `{imported}`, a file of the original project, for" if imported else "Trained with"
    return f"{summary}.\n\n{origin} the recipe `{about['recipe']}` of omma.\n\n{_table(rows)}"


def _loading(facts: Facts, weights: Mapping[str, Facts]) -> str:
    name = facts["run"]["name"]
    which = next(iter(weights))
    return (
        "```python\nimport omma\n\n"
        f'model = omma.load("{name}@{which}")  # the name under ./runs, or the path of this folder\n'
        "prediction = model.predict(0)  # a sample of the validation data; also a file, or a batch\n"
        "picture = prediction.draw()  # (H, W, 3) uint8\n```\n\n"
        f'```bash\nomma predict "{name}" --indices 0-3 --out pictures\nomma eval "{name}"\n```'
    )


def _metrics(facts: Facts) -> str:
    parts = []
    for split, found in facts["evaluation"].items():
        setting = f" Measured with {found['setting']}." if found["setting"] else ""
        title = f"`{split}`: {found['samples']} samples, checkpoint `{found['checkpoint']}`.{setting}"
        rows = [{"metric": name, "value": _number(value)} for name, value in found["metrics"].items()]
        parts.append(f"{title}\n\n{_table(rows)}")
        if found["per_class"]:
            parts.append(_table([_numbers(row) for row in found["per_class"]]))
    if parts:
        return "\n\n".join(parts)
    best = facts["best"]
    if best is None:
        return "None: the run was neither validated nor evaluated. `omma eval` writes them."
    value = f"`{best['metric']}` {_number(best['value'])} at step {best['step']}"
    return f"No `omma eval` yet. The best validation during the training: {value}."


def _data(facts: Facts) -> str:
    config = facts["config"].get("data", {})
    rows = [
        {
            "part": config.get(f"{kind}_split", kind),
            "used for": {"train": "training", "val": "validation"}.get(kind, kind),
            "samples": found.get("num_samples"),
            "files": found.get("num_files"),
            "MiB": f"{found.get('bytes', 0) / 2**20:.1f}",
            "fingerprint (SHA-256)": f"`{found.get('sha256', '')[:16]}`",
        }
        for kind, found in facts["data"].items()
    ]
    if not rows:
        return "Not recorded: the weights were not trained here."
    folder = Path(str(config.get("root") or "").replace("\\", "/")).name
    note = "The fingerprint is over names and sizes of all files; the whole of it is in data.json."
    return f"Folder `{folder}`.\n\n{_table(rows)}\n\n{note}"


def _training(facts: Facts) -> str:
    rows = [
        {"setting": f"`{key}`", "value": f"`{json.dumps(value, ensure_ascii=False)}`"}
        for key in _SETTINGS
        if (value := _at(facts["config"], key)) is not None
    ]
    about, speed = facts["run"], facts["speed"]
    lines = [f"{about['step'] or 0} of {about['total'] or about['step'] or 0} steps"]
    if speed["training_s"] is not None:
        lines.append(duration_text(speed["training_s"]))
    hardware = facts["provenance"].get("hardware", {})
    gpus = [gpu["name"] for gpu in hardware.get("gpus", [])]
    lines.append(", ".join(gpus) or f"{hardware.get('cpu', 'an unknown processor')}, no GPU")
    return f"{'; '.join(lines)}.\n\n{_table(rows)}\n\nAll settings: config.yaml, which is a recipe."


def _limits(facts: Facts, run: RunFolder) -> Iterable[str]:
    """What keeps these numbers from saying more than they do; from the run's own files."""
    about, status, config = facts["run"], run.status(), facts["config"].get("data", {})
    if about["state"] != "finished":
        yield f"The training is not at its end: {about['state']} at step {about['step']} of {about['total']}."
    if not facts["evaluation"]:
        yield "No evaluation after the training."
    if facts["best"] and config.get("val_split") in facts["evaluation"]:
        yield (
            f"`best` was chosen among all validations on `{config['val_split']}`, so numbers of it measured "
            "there flatter a little."
        )
    yield f"One training with seed {facts['config'].get('seed')}: how much another seed changes is not known."
    if status.get("start", {}).get("overfit"):
        yield f"Trained and validated on the same {status['start']['overfit']} samples: a trial."
    if config.get("limit"):
        yield f"Only the first {config['limit']} training samples were used."
    if _procedural(config.get("root")):
        yield "The data are procedural (`omma world`): no number of them carries over to real sensors."
    if (facts["provenance"].get("git") or {}).get("dirty"):
        yield "The code had changes that no commit holds."
    for finding in facts["findings"]:
        if finding["severity"] in {"warning", "error"}:
            yield f"`omma diagnose`: {finding['title']} ({finding['evidence']})."


def _procedural(root: str | None) -> bool:
    return root is not None and (Path(root) / "world.json").is_file()


def _provenance(facts: Facts) -> str:
    found = facts["provenance"]
    git = found.get("git") or {}
    packages = found.get("packages", {})
    code = f"{git['sha'][:12]} ({git.get('branch')})" if git.get("sha") else "not in a repository"
    rows = [
        {"what": "commit of the working directory", "value": code},
        {
            "what": "packages",
            "value": ", ".join(f"{name} {packages[name]}" for name in _PACKAGES if name in packages),
        },
        {"what": "Python, system", "value": f"{found.get('python')}, {found.get('os')}"},
        {"what": "started", "value": facts["run"]["created"] or "unknown"},
    ]
    return f"{_table(rows)}\n\nMore: provenance.json."


def _at(values: Mapping[str, Any], key: str) -> Any:
    for part in key.split("."):
        if not isinstance(values, Mapping) or part not in values:
            return None
        values = values[part]
    return values


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() else f"{value:.4f}"
    return "none" if value is None else str(value)


def _numbers(row: Mapping[str, Any]) -> dict[str, str]:
    return {name: _number(value) for name, value in row.items()}


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table; a bar or a line end inside a cell stays inside it."""
    assert rows, "the caller has something to show"
    names = list(rows[0])
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    cells = [
        [str(row.get(name, "")).replace("|", "\\|").replace("\n", " ") for name in names] for row in rows
    ]
    return "\n".join([*lines, *(f"| {' | '.join(line)} |" for line in cells)])
