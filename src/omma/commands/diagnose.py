"""`omma diagnose`: what is wrong with a run, most severe first, each finding with what to do next."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omma.commands.build import (
    Loaded,
    build_data,
    build_task,
    checkpoint_inside,
    device_of,
    load_run,
    run_recipe,
)
from omma.commands.findings import finding_text
from omma.commands.flags import read_words
from omma.doctor.curves import Curves, run_reference
from omma.doctor.run_checks import check_run, is_share, wrong_domain
from omma.engine.diagnosis import Diagnosis, Options
from omma.engine.task import Task
from omma.errors import Finding, OmmaError, UsageError
from omma.runs.console import RunLog
from omma.runs.files import write_json_atomic, write_text_atomic
from omma.runs.folder import RunFolder, runs_root, split_reference
from omma.runs.metrics import read_metrics
from omma.systems import get
from omma.systems.recipes import Recipe

_SEVERITIES = ("error", "warning", "info", "ok")


def diagnose_words(
    reference: str | None,
    words: Sequence[str],
    *,
    checkpoint: str | None,
    config: str | None,
    device: str | None,
    **options: Any,
) -> list[Finding]:
    """`omma diagnose` as typed, with the options of the original tool; see `diagnose`.

    Raises:
        UsageError: neither a run nor a checkpoint is given.
    """
    if checkpoint is not None:
        reference, words = checkpoint, [*([reference] if reference else []), *words]
    if reference is None:
        raise UsageError("give a RUN or a checkpoint", "`omma runs` lists the runs")
    if config is not None:
        print(f"--config {config} is not read: a run has its own config.yaml")  # noqa: T201
    device_words = [f"train.device={device}"] if device else []
    return diagnose(reference, [*words, *device_words], **options)


def diagnose(
    reference: str,
    words: Sequence[str] = (),
    *,
    split: str | None = None,
    camera: str | None = None,
    out: Path | None = None,
    num_samples: int = 50,
    vis_num: int = 8,
    seed: int = 42,
    probe_only: bool = False,
    runs_dir: str | None = None,
    quiet: bool = False,
) -> list[Finding]:
    """Look for what is wrong with a run: its data, its curves and its predictions.

    Writes findings.json, summary.txt and pictures. What cannot be read is a finding, not a failure.

    Args:
        reference: RUN, RUN@WHICH or a checkpoint; a bare RUN means its best checkpoint.
        words: settings on top of the run's own, or flags of the original tool.
        split: part of the data set; default data.val_split.
        camera: look at this camera only; sets data.cameras.
        out: folder to write to; default RUN/diagnose.
        num_samples: samples to look at.
        vis_num: samples to draw pictures of.
        seed: of the choice of samples.
        probe_only: look at config, curves and labels, do not run the network.
        runs_dir: where run names are looked up.
        quiet: print nothing.

    Returns:
        the findings, most severe first, and of equal severity causes before effects.

    Raises:
        UsageError: there is no such run.
        ConfigError: a setting does not fit.
    """
    run, name = _find_run(reference, runs_dir)
    console = RunLog(None, quiet=quiet)
    read = read_words(words, get(run.config()["system"]["name"]))
    for line in read.read_as:
        console.line(line)
    overrides = [*read.overrides, *_camera_words(run, camera)]
    recipe = run_recipe(run, overrides)
    if out is None:
        out = run.diagnose
        _clear(out)
    options = Options(
        run=name,
        out=out,
        num_samples=num_samples,
        vis_num=vis_num,
        seed=seed,
        probe_only=probe_only,
        console=console,
    )
    look = _Look(run, recipe, options, split or recipe.config.data.val_split)
    loaded = look.load(reference, overrides, runs_dir)
    findings = look.findings(loaded)
    head = f"omma diagnose {name}: {look.checkpoint} on {look.split}"
    _write(out, findings, look.result, head)
    console.line("\n".join([head, *map(finding_text, findings), f"written to {out}"]))
    return findings


def _find_run(reference: str, runs_dir: str | None) -> tuple[RunFolder, str]:
    """The run, and what commands call it."""
    inside = checkpoint_inside(Path(reference))
    if inside is not None:
        return inside[0], run_reference(str(inside[0].path))
    name = split_reference(reference)[0]
    return RunFolder.open(name, runs_root(runs_dir)), run_reference(name)


def _clear(folder: Path) -> None:
    """Take away the pictures of an earlier diagnosis, which may be of other samples."""
    for picture in folder.glob("*.png"):
        picture.unlink()


def _camera_words(run: RunFolder, camera: str | None) -> list[str]:
    if camera is None:
        return []
    if "cameras" not in run.config()["data"]:
        raise UsageError(f"--camera {camera}: this system's data has no cameras to choose from")
    return [f"data.cameras={json.dumps([camera])}"]


class _Look:
    """One diagnosis under way.

    Args:
        run: whose.
        recipe: its config, with overrides.
        options: see `Options`.
        split: part of the data set.
    """

    def __init__(self, run: RunFolder, recipe: Recipe, options: Options, split: str) -> None:
        self.run, self.recipe, self.options, self.split = run, recipe, options, split
        self.checkpoint = "no checkpoint"
        self.broken: list[Finding] = []
        self.result = Diagnosis()

    def load(self, reference: str, overrides: Sequence[str], runs_dir: str | None) -> Loaded | None:
        """The run with its weights; None, and a finding, if there are none to load."""
        try:
            loaded = load_run(reference, overrides, runs_dir=runs_dir)
        except OmmaError as error:
            fix = error.hint or f"`omma resume {self.options.run}` trains on"
            self.broken.append(Finding("error", "no checkpoint can be loaded", error.message, fix))
            return None
        self.checkpoint = loaded.checkpoint.name
        return loaded

    def findings(self, loaded: Loaded | None) -> list[Finding]:
        """All findings in their order; fills `result`."""
        options = self.options if loaded else replace(self.options, probe_only=True)
        task = loaded.task if loaded else build_task(self.recipe, fresh=False)
        self.result = self._look_at_samples(task.to(device_of(self.recipe)).eval(), options)
        self.result.sections.setdefault("config sanity", [])[:0] = self._about(task)
        found = [
            *self._doctor(),
            *self.result.data,
            *check_run(self._curves()),
            *self._evaluations(),
            *self.broken,
            *self.result.model,
        ]
        if all(finding.severity in ("info", "ok") for finding in found):
            found.append(Finding("ok", "nothing suspicious", f"next: `omma eval {self.options.run}`"))
        return sorted(found, key=lambda finding: _SEVERITIES.index(finding.severity))

    def _look_at_samples(self, task: Task, options: Options) -> Diagnosis:
        """The system's own part; empty where it has none."""
        system = self.recipe.system
        if system.diagnose is None:
            return Diagnosis()
        try:
            data, collate = build_data(self.recipe, self.split, augment=False)
            return system.load(system.diagnose)(task, data, collate, options)
        except OmmaError as error:
            fix = error.hint or f"`omma doctor {options.run}` says more"
            return Diagnosis(
                data=[Finding("error", f"split {self.split} cannot be looked at", error.message, fix)]
            )

    def _doctor(self) -> Iterator[Finding]:
        """What the system's doctor has against the data."""
        system = self.recipe.system
        if system.doctor is None:
            return
        more = f"more: `omma doctor {self.options.run} --out {run_reference(str(self.options.out))}`"
        for finding in system.load(system.doctor)(self.recipe.config, None):
            if finding.severity in ("error", "warning"):
                yield replace(finding, fix=f"{finding.fix}; {more}" if finding.fix else more)

    def _curves(self) -> Curves:
        metric, mode = self.recipe.system.best
        best = ((self.recipe.config.save.best or metric).removeprefix("val/"), mode)
        rows = read_metrics(self.run.metrics_file)
        return Curves(rows, self.run.status(), self.recipe.config.as_dict(), best, self.options.run)

    def _evaluations(self) -> Iterator[Finding]:
        """Saved metrics outside of their range."""
        for file in sorted((self.run.path / "eval").glob("*/metrics.json")):
            metrics: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["metrics"]
            for name, value in metrics.items():
                if is_share(name) and value is not None and not 0 <= value <= 1:
                    evidence = f"{value:.4g} in eval/{file.parent.name}/metrics.json, expected 0 to 1"
                    yield wrong_domain(name, evidence, self.options.run)

    def _about(self, task: Task) -> list[str]:
        config = self.recipe.config
        about = {
            "system": self.recipe.system.name,
            "run": f"{self.run.status()['state']}, checkpoint {self.checkpoint}",
            "data": f"{config.data.root}, split {self.split}",
            "training": f"lr {config.optim.lr:g}, schedule {config.schedule.name}, precision "
            f"{config.train.precision}, batch size {config.train.batch_size} x {config.train.accumulate}",
            "metrics": task.setting(),
        }
        return [*(f"{what}: {value}" for what, value in about.items()), *task.describe()]


def _write(out: Path, findings: Sequence[Finding], result: Diagnosis, head: str) -> None:
    sections = {"findings": [finding_text(finding) for finding in findings], **result.sections}
    artifacts = ["findings.json", "summary.txt", *(file.name for file in result.figures)]
    sections["artifacts"] = [f"in {out}:", *artifacts]
    parts = ["\n".join([title, "-" * len(title), *lines]) for title, lines in sections.items()]
    out.mkdir(parents=True, exist_ok=True)
    write_json_atomic(out / "findings.json", [finding.as_dict() for finding in findings])
    write_text_atomic(out / "summary.txt", "\n\n".join([head, *parts]) + "\n")
