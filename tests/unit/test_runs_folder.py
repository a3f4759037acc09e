import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from omma.config.yaml import read_yaml
from omma.errors import ConfigError, DataError, UsageError
from omma.runs.folder import RunFolder, default_name, list_runs, runs_root, split_reference

CONFIG = {
    "system": {"name": "lss", "grid": {"x": [-50.0, 50.0, 0.5]}},
    "optim": {"lr": 1e-5, "betas": [0.9, 0.999], "grad_clip": None},
    "train": {"length": "100 epochs", "compile": False},
    "log": {"wandb": {"name": "회전 on"}},
}
COMMAND = ["omma", "train", "lss/demo", "data.root=/data/sim bev"]


def create(root: Path, name: str = "run", **options: Any) -> RunFolder:
    return RunFolder.create(root, name, config=CONFIG, command=COMMAND, **options)


def test_config_comes_back_equal_and_reads_as_a_recipe(tmp_path: Path) -> None:
    run = create(tmp_path)
    text = (run.path / "config.yaml").read_text(encoding="utf-8")
    assert text.splitlines()[0] == "# yaml: omma run config"
    assert "lr: 1.0e-05" in text
    assert run.config() == CONFIG
    assert read_yaml(run.path / "config.yaml") == CONFIG
    assert "format_version" not in text
    assert run.status()["format_version"] == 1


def test_command_is_one_line_to_paste_and_the_working_directory(tmp_path: Path) -> None:
    first, second = (create(tmp_path).path / "command.txt").read_text(encoding="utf-8").splitlines()
    assert first == "omma train lss/demo 'data.root=/data/sim bev'"
    assert second == f"# working directory: {Path.cwd()}"


@pytest.mark.parametrize(
    "name", ["한글 이름", "中文 名字 (2)", "a b c", "x" * 200, "lss-demo-20261121-101500", "v1.2"]
)
def test_names_of_any_script_work(tmp_path: Path, name: str) -> None:
    run = create(tmp_path, name)
    assert RunFolder.open(name, tmp_path) == run
    assert RunFolder.open(run.path, Path("elsewhere")).name == name
    assert not any(item.is_symlink() for item in run.path.rglob("*"))


def test_a_path_of_200_characters_with_hangul_and_spaces_works(tmp_path: Path) -> None:
    deep = tmp_path / "실험 폴더"
    while len(str(deep)) < 200:
        deep = deep / "긴 이름의 폴더 하나"
    run = create(deep, "첫 번째 실행")
    run.set_status("finished", step=7)
    assert [found.name for found in list_runs(deep)] == ["첫 번째 실행"]
    assert RunFolder.open("첫 번째 실행", deep).status()["step"] == 7


@pytest.mark.parametrize("character", [*':<>"|?*/\\@', "\n", "\x00"])
def test_a_character_that_windows_or_references_cannot_hold_is_named(tmp_path: Path, character: str) -> None:
    with pytest.raises(UsageError) as caught:
        create(tmp_path, f"a{character}b")
    assert repr(character) in caught.value.message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["con", "NUL", "com1", "Lpt9.txt", "end.", "end ", "", "  ", ".", ".."])
def test_reserved_and_empty_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        create(tmp_path, name)


@pytest.mark.parametrize("name", ["console", "com10", "nullable", "auxiliary"])
def test_names_that_only_begin_like_a_device_are_fine(tmp_path: Path, name: str) -> None:
    assert create(tmp_path, name).is_run()


def test_a_name_too_long_for_the_disk_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be made"):
        create(tmp_path, "이" * 200)


def test_a_folder_with_a_log_only_is_free(tmp_path: Path) -> None:
    """`omma train ... | tee RUN/out.log` opens its file before the run is made."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "train_1.log").touch()
    assert create(tmp_path, "a").is_run()
    with pytest.raises(UsageError):
        create(tmp_path, "a")


def test_another_programs_training_goes_on_in_its_folder(tmp_path: Path) -> None:
    file = tmp_path / "a" / "model_000500.pt"
    file.parent.mkdir()
    file.touch()
    with pytest.raises(UsageError):
        create(tmp_path, "a", continues=tmp_path / "b" / "model_000500.pt")
    assert create(tmp_path, "a", continues=file).is_run()
    assert file.is_file()
    with pytest.raises(UsageError):
        create(tmp_path, "a", continues=file)


def test_a_used_folder_is_refused_with_both_ways_on(tmp_path: Path) -> None:
    create(tmp_path, "a run")
    with pytest.raises(UsageError) as caught:
        create(tmp_path, "a run")
    assert "--overwrite" in str(caught.value)
    assert 'omma resume "a run"' in str(caught.value)


def test_overwrite_moves_the_earlier_run_aside(tmp_path: Path) -> None:
    (create(tmp_path).path / "metrics.csv").write_text("precious", encoding="utf-8")
    run = create(tmp_path, overwrite=True)
    assert not run.metrics_file.exists()
    (aside,) = tmp_path.glob("run.old-*")
    assert (aside / "metrics.csv").read_text(encoding="utf-8") == "precious"


def test_an_empty_folder_may_be_used(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert create(tmp_path).is_run()


def test_a_run_that_trains_right_now_is_not_moved(tmp_path: Path) -> None:
    run = create(tmp_path)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        rewrite_status(run, state="running", pid=child.pid)
        assert run.is_live()
        with pytest.raises(UsageError, match=str(child.pid)):
            create(tmp_path, overwrite=True)
    finally:
        child.communicate(b"\n")
    assert not run.is_live()
    create(tmp_path, overwrite=True)


def test_an_unknown_run_names_the_nearest(tmp_path: Path) -> None:
    create(tmp_path, "lss-demo-a")
    with pytest.raises(UsageError, match="did you mean lss-demo-a"):
        RunFolder.open("lss-dmo-a", tmp_path)


def test_a_folder_that_is_no_run_says_so(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    with pytest.raises(UsageError, match="is no run"):
        RunFolder.open("pictures", tmp_path)


def test_a_run_under_the_root_wins_over_a_folder_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = create(tmp_path / "runs", "lss")
    (tmp_path / "lss").mkdir()
    monkeypatch.chdir(tmp_path)
    assert RunFolder.open("lss", tmp_path / "runs") == run


def rewrite_status(run: RunFolder, **fields: object) -> None:
    file = run.path / "status.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | fields), encoding="utf-8")


def dead_pid() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def ago(seconds: int) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


@pytest.mark.parametrize(
    ("state", "age", "alive", "expected"),
    [
        ("running", 61, False, "stopped (no heartbeat)"),
        ("running", 61, True, "running"),
        ("running", 5, False, "running"),
        ("finished", 9999, False, "finished"),
    ],
)
def test_a_run_is_called_stopped_only_when_silent_and_dead(
    tmp_path: Path, state: str, age: int, alive: bool, expected: str
) -> None:
    run = create(tmp_path)
    rewrite_status(run, state=state, heartbeat=ago(age), pid=os.getpid() if alive else dead_pid())
    assert run.status()["state"] == expected


def test_status_keeps_earlier_fields(tmp_path: Path) -> None:
    run = create(tmp_path)
    run.set_status("running", step=10, best={"val/iou": 0.3})
    run.set_status("preempted", step=12)
    status = run.status()
    assert (status["state"], status["step"], status["best"]) == ("preempted", 12, {"val/iou": 0.3})
    assert status["pid"] == os.getpid()
    assert datetime.fromisoformat(status["heartbeat"]) >= datetime.fromisoformat(status["created"])


def test_an_unknown_state_is_a_bug(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        create(tmp_path).set_status("done")


def test_a_damaged_or_newer_status_is_a_clear_error(tmp_path: Path) -> None:
    run = create(tmp_path)
    rewrite_status(run, format_version=99)
    with pytest.raises(DataError, match="newer omma"):
        run.status()
    (run.path / "status.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"status\.json"):
        run.status()


def test_a_missing_config_is_a_clear_error(tmp_path: Path) -> None:
    run = create(tmp_path)
    (run.path / "config.yaml").unlink()
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        run.config()


def test_the_layout_is_the_documented_one(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    found = [run.checkpoints, run.log_file, run.metrics_file, run.events, run.eval_dir("val")]
    found += [run.vis, run.diagnose, run.export]
    names = [path.relative_to(tmp_path).as_posix() for path in found]
    assert names == [
        *("checkpoints", "log.txt", "metrics.csv", "events", "eval/val", "vis", "diagnose", "export"),
    ]


def test_list_runs_knows_runs_from_folders(tmp_path: Path) -> None:
    create(tmp_path, "b")
    create(tmp_path, "a")
    (tmp_path / "other").mkdir()
    assert [run.name for run in list_runs(tmp_path)] == ["a", "b"]
    assert list_runs(tmp_path / "missing") == []


def test_runs_root_prefers_option_then_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMMA_RUNS", raising=False)
    assert runs_root(None) == Path("runs")
    monkeypatch.setenv("OMMA_RUNS", "/disk/runs")
    assert runs_root(None) == Path("/disk/runs")
    assert runs_root("here") == Path("here")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a@best", ("a", "best")),
        ("runs/a b@step_500", ("runs/a b", "step_500")),
        ("a", ("a", None)),
        ("/data@lab/runs/a", ("/data@lab/runs/a", None)),
        ("/data@lab/runs/a@last", ("/data@lab/runs/a", "last")),
        ("a@", ("a@", None)),
    ],
)
def test_split_reference(text: str, parts: tuple[str, str | None]) -> None:
    assert split_reference(text) == parts


def test_default_names_are_legal(tmp_path: Path) -> None:
    name = default_name("diffbev", "literature/paper")
    assert name.startswith("diffbev-literature-paper-20")
    assert create(tmp_path, name).is_run()


def test_importing_runs_loads_no_torch() -> None:
    modules = ", ".join(
        f"omma.runs.{name}" for name in ("folder", "files", "metrics", "mirrors", "console", "provenance")
    )
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules or 'rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("split", "folder"),
    [
        ("val", "val"),
        ("v1.0-mini", "v1.0-mini"),
        ("/data/own/test.csv", "test"),
        ("D:\\own\\test.csv", "test"),
    ],
)
def test_a_table_given_by_its_path_is_evaluated_inside_the_run(tmp_path, split, folder):
    assert RunFolder(tmp_path).eval_dir(split) == tmp_path / "eval" / folder
