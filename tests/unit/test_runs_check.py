"""`omma runs check`: a whole run passes, and each thing that can be wrong is one line with its fix."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.fake_runs import fake_run, fingerprint, write_table

from omma.cli import _run
from omma.commands.runs import list_runs
from omma.commands.runs_check import check_runs
from omma.config.yaml import dump_yaml
from omma.errors import DataError, UsageError
from omma.report.run import build_report
from omma.runs.files import temporary_path, write_bytes_atomic, write_json_atomic, write_text_atomic
from omma.runs.folder import RunFolder
from omma.runs.metrics import MetricsLog, read_metrics
from omma.systems import systems
from omma.systems.recipes import open_recipe

SYSTEM = next(iter(systems().values()))
STEPS, EVERY = 12, 2


def whole_run(root: Path, name: str) -> RunFolder:
    """A finished run with everything that a training leaves: rows every 2 steps, validated every 4."""
    run = fake_run(root, name, steps=STEPS, samples=0, system=SYSTEM.name)
    words = [f"log.every={EVERY}", "log.tensorboard=false"]
    config = open_recipe(f"{SYSTEM.name}/base", words).config.as_dict()
    write_text_atomic(run.path / "config.yaml", dump_yaml(config))
    write_text_atomic(run.log_file, "training complete\n")
    write_json_atomic(run.path / "data.json", {"train": fingerprint(300), "val": fingerprint(60)})
    metric, _ = SYSTEM.best
    rows = [(step, "train", {"loss": 1 / step}) for step in range(EVERY, STEPS + 1, EVERY)]
    rows += [(step, "val", {metric: value}) for step, value in ((4, 0.5), (8, 0.25), (12, 0.5))]
    write_rows(run, rows)
    best = {"metric": metric, "value": 0.5, "step": 4}
    if SYSTEM.best[1] == "min":
        best |= {"value": 0.25, "step": 8}
    for checkpoint, step in (("best", best["step"]), ("final", STEPS), (f"step_{STEPS:06d}", STEPS)):
        write_weights(run.checkpoints / checkpoint, step, config["system"])
    write_bytes_atomic(run.vis / "sample_0000.png", b"png")
    run.set_status("finished", step=STEPS, total=STEPS, best=best)
    build_report_without_pictures(run)
    return run


def build_report_without_pictures(run: RunFolder) -> None:
    (run.vis / "sample_0000.png").rename(run.path / "aside")
    build_report(run)
    (run.path / "aside").rename(run.vis / "sample_0000.png")


def write_rows(run: RunFolder, rows: list[tuple[int, str, dict]]) -> None:
    run.metrics_file.unlink(missing_ok=True)
    log = MetricsLog(run.metrics_file, ["loss", SYSTEM.best[0]], resume_step=None)
    for step, phase, values in sorted(rows, key=lambda row: row[0]):
        log.write(step=step, epoch=0, phase=phase, values=values)
    log.close()


def write_weights(folder: Path, step: int, settings: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"weight": np.full(3, step, np.float32)}, folder / "model.safetensors")
    if folder.name.startswith("step_"):
        with zipfile.ZipFile(folder / "train_state.pt", "w") as archive:
            archive.writestr("train_state/data.pkl", b"state")
    sizes = {file.name: file.stat().st_size for file in folder.iterdir() if file.name != "meta.json"}
    meta = {"format_version": 1, "step": step, "settings": settings, "files": sizes}
    write_json_atomic(folder / "meta.json", meta)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_run(tmp_path_factory.mktemp("runs"), "whole").path


@pytest.fixture
def run(template: Path, tmp_path: Path) -> RunFolder:
    """A copy to damage."""
    return RunFolder(Path(shutil.copytree(template, tmp_path / "실행 1")))


def change(file: Path, **fields: object) -> None:
    write_json_atomic(file, json.loads(file.read_text(encoding="utf-8")) | fields)


def without(run: RunFolder, step: int, phase: str) -> None:
    kept = [row for row in read_metrics(run.metrics_file) if (row["step"], row["phase"]) != (step, phase)]
    header = ("step", "epoch", "phase", "loss", SYSTEM.best[0])
    write_table(run.metrics_file, [{name: row.get(name, "") for name in header} for row in kept])


def doubled(run: RunFolder, step: int) -> None:
    lines = run.metrics_file.read_text(encoding="utf-8").splitlines(keepends=True)
    twice = [line for line in lines if line.startswith(f"{step},0,train")]
    run.metrics_file.write_text("".join([*lines, *twice]), encoding="utf-8")


def scramble(file: Path, start: int) -> None:
    content = bytearray(file.read_bytes())
    content[start:] = b"\xff" * len(content[start:])
    file.write_bytes(content)


def test_a_whole_run_is_complete(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    for place in (run.path, run.path.parent):
        check_runs([str(place)])
        said = capsys.readouterr().out
        assert "MISSING" not in said
        assert "  ok      checkpoints/step_000012\n" in said
        assert said.endswith("complete: 실행 1\n")


DAMAGE = {
    "no report": (lambda run: (run.path / "report.html").unlink(), "report.html (no such file; `omma report"),
    "old report": (
        lambda run: change(run.path / "report.json", run={"step": 8}),
        "report.html (is of step 8, the run of 12; `omma report",
    ),
    "config": (lambda run: (run.path / "config.yaml").write_text("a: [", encoding="utf-8"), "config.yaml"),
    "command": (lambda run: (run.path / "command.txt").unlink(), "command.txt (no such file; restore"),
    "provenance": (
        lambda run: change(run.path / "provenance.json", format_version=9),
        "provenance.json (format_version 9 is of a newer omma; update omma",
    ),
    "fingerprint": (
        lambda run: change(run.path / "data.json", train=fingerprint(0)),
        "data.json (no fingerprint of train",
    ),
    "log": (lambda run: run.log_file.write_text("", encoding="utf-8"), "log.txt (empty"),
    "pictures": (lambda run: shutil.rmtree(run.vis), "vis/ (no pictures; `omma predict"),
    "no rows": (lambda run: run.metrics_file.write_text("step\n", encoding="utf-8"), "metrics.csv (no rows"),
    "gap": (lambda run: without(run, 6, "train"), "metrics.csv (no train row between step 4 and 8"),
    "gap at the start": (lambda run: without(run, 2, "train"), "metrics.csv (no train row between step 0"),
    "second row": (lambda run: without(run, 4, "train"), "metrics.csv (no train row between step 0 and 6"),
    "gap at the end": (lambda run: without(run, 12, "train"), "metrics.csv (no train row after step 10"),
    "row before the end": (lambda run: without(run, 10, "train"), "no train row between step 8 and 12"),
    "last validation": (lambda run: without(run, 12, "val"), "metrics.csv (the last step, 12, has no"),
    "doubled": (lambda run: doubled(run, 6), "metrics.csv (train step 6 stands twice"),
    "another best": (
        lambda run: run.set_status("finished", best=run.status()["best"] | {"value": 0.4}),
        f"{SYSTEM.best[0]} 0.4 at step ",
    ),
    "best of another step": (
        lambda run: change(run.checkpoints / "best" / "meta.json", step=12),
        "checkpoints/best (is of step 12, status.json says",
    ),
    "no final": (
        lambda run: (run.checkpoints / "final" / "meta.json").unlink(),
        "checkpoints/final (no such checkpoint; `omma resume 실행 1`",
    ),
    "cut": (
        lambda run: (run.checkpoints / "best" / "model.safetensors").write_bytes(b"short"),
        "checkpoints/best (model.safetensors is cut short",
    ),
    "header": (
        lambda run: scramble(run.checkpoints / "best" / "model.safetensors", 0),
        "checkpoints/best (",
    ),
    "other bits": (
        lambda run: scramble(run.checkpoints / "final" / "model.safetensors", -4),
        "checkpoints/final (model.safetensors is not that of step_000012; copy it",
    ),
    "training state": (
        lambda run: scramble(run.checkpoints / "step_000012" / "train_state.pt", 0),
        "checkpoints/step_000012 (File is not a zip file",
    ),
    "pointer": (
        lambda run: (run.checkpoints / "last.txt").unlink(),
        "checkpoints/last.txt (no such file; write",
    ),
    "another network": (
        lambda run: change(
            run.checkpoints / "best" / "meta.json", settings={"name": "another", "no_such_key": 1}
        ),
        "checkpoints/best (was made with another system.name than config.yaml has",
    ),
    "newer checkpoint": (
        lambda run: change(run.checkpoints / "final" / "meta.json", format_version=2),
        "checkpoints/final (format_version 2 is of a newer omma; update omma",
    ),
    "left": (
        lambda run: temporary_path(run.checkpoints / "best").mkdir(),
        " (left by a process that was killed; delete it; `omma resume 실행 1`",
    ),
    "unfinished": (
        lambda run: run.set_status("preempted", step=12),
        "status.json (preempted at step 12 of 12; `omma resume 실행 1`",
    ),
    "status": (lambda run: (run.path / "status.json").write_text("{", encoding="utf-8"), "status.json ("),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_each_damage_is_one_line_with_its_fix(run, kind, capsys) -> None:
    damage, line = DAMAGE[kind]
    damage(run)
    assert _run(["runs", "check", str(run.path)], debug=False) == 3
    captured = capsys.readouterr()
    missing = [text for text in captured.out.splitlines() if "MISSING" in text]
    assert len(missing) == 1, missing
    assert line in missing[0]
    assert ";" in missing[0] or kind == "status"
    assert captured.err.startswith("error: 1 of the lines above")


def test_intervals_may_change_with_a_resume(run: RunFolder) -> None:
    """`log.every` from 2 to 4 after step 4, and the other way round."""
    metric = {SYSTEM.best[0]: 0.5}
    for steps, every in (((2, 4, 8, 12), 4), ((4, 8, 10, 12), 2)):
        rows = [(step, "train", {"loss": 1.0}) for step in steps]
        write_rows(run, [*rows, *((step, "val", metric) for step in (4, 8, 12))])
        config = (run.path / "config.yaml").read_text(encoding="utf-8")
        changed = [f"  every: {every}" if line == "  every: 2" else line for line in config.splitlines()]
        write_text_atomic(run.path / "config.yaml", "\n".join(changed))
        run.set_status("finished", best={"metric": SYSTEM.best[0], "value": 0.5, "step": 4})
        change(run.checkpoints / "best" / "meta.json", step=4)
        check_runs([str(run.path)])


def test_a_metric_that_decides_since_a_resume_counts_from_there(run: RunFolder) -> None:
    """A better validation before it has no weights any more."""
    lower = SYSTEM.best[1] == "min"
    values = {4: 0.25 if lower else 0.5, 8: 0.5 if lower else 0.25, 12: 0.3 if lower else 0.4}
    rows = [(step, "train", {"loss": 1.0}) for step in range(EVERY, STEPS + 1, EVERY)]
    write_rows(run, [*rows, *((step, "val", {SYSTEM.best[0]: value}) for step, value in values.items())])
    best = {"metric": SYSTEM.best[0], "value": values[12], "step": 12}
    change(run.checkpoints / "best" / "meta.json", step=12)
    run.set_status("finished", best=best)
    with pytest.raises(DataError, match="1 of the lines"):
        check_runs([str(run.path)])
    run.set_status("finished", best=best | {"since": 9})
    check_runs([str(run.path)])


def test_weights_of_an_original_project_need_no_training(tmp_path: Path) -> None:
    config = open_recipe(f"{SYSTEM.name}/base").config.as_dict()
    run = RunFolder.create(tmp_path, "imported", config=config, command=["omma", "import"])
    write_json_atomic(run.path / "provenance.json", {"format_version": 1})
    for name in ("best", "final"):
        write_weights(run.checkpoints / name, 0, config["system"])
    run.set_status("finished", imported="model.pt", step=0)
    check_runs([str(run.path)])


def test_a_chain_is_its_stages(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    chain = run.path.parent / "three"
    chain.mkdir()
    stages = [{"run": run.name, "recipe": "r", "words": [], "init": None}]
    write_json_atomic(chain / "chain.json", {"stages": stages})
    check_runs([str(chain)])
    assert "complete: 실행 1" in capsys.readouterr().out
    write_json_atomic(chain / "chain.json", {"stages": [*stages, {**stages[0], "run": "later"}]})
    with pytest.raises(DataError, match=r"stage later has not been started\n.*omma resume three"):
        check_runs([str(chain)])


def test_listing_stays_as_it_was(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert "12/12" in list_runs([str(run.path.parent)])
    assert _run(["runs", str(run.path)], debug=False) == 0
    assert "실행 1" in capsys.readouterr().out
    with pytest.raises(UsageError, match="no such run"):
        list_runs([str(run.path) + "x"])


def test_nothing_to_check_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMMA_RUNS", str(tmp_path))
    with pytest.raises(DataError, match="no runs in"):
        check_runs()
