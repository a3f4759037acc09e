from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import omma.engine.checkpoint as checkpoint_module
from omma.engine.checkpoint import (
    Snapshot,
    find_checkpoint,
    find_last,
    load_train_state,
    load_weights,
    prune,
    read_meta,
    read_weights,
    save_checkpoint,
    save_weights,
)
from omma.errors import CheckpointError, OmmaError
from omma.runs.files import remove_abandoned
from omma.runs.folder import RunFolder
from toy import ToyTask, toy_config

CONFIG = toy_config()


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path, "run", config=CONFIG.as_dict(), command=["omma"])


def _snapshot(step: int, value: float | None = None) -> Snapshot:
    """Weights that all equal the step, and a training state that says so too."""
    value = step if value is None else value
    weights = {name: torch.full_like(t, int(value)) for name, t in ToyTask(CONFIG).state_dict().items()}
    state = {"progress": {"step": step}, "moment": torch.full((3,), float(value))}
    return Snapshot(weights, None, state, {"step": step, "epoch": 0, "metrics": {"iou": float("nan")}})


def _save(run: RunFolder, step: int) -> Path:
    return save_checkpoint(run, f"step_{step:06d}", _snapshot(step), CONFIG)


def _value(folder: Path) -> float:
    """The number that all of a checkpoint's contents agree on."""
    task = ToyTask(CONFIG)
    meta = load_weights(task, folder, system="toy")
    state = load_train_state(folder)
    values = {float(t.flatten()[0]) for t in task.state_dict().values()}
    assert values == {float(meta["step"])} == {float(state["moment"][0])}
    return values.pop()


def test_round_trip_and_pointer(run):
    folder = _save(run, 3)
    assert _value(folder) == 3
    assert (run.checkpoints / "last.txt").read_text(encoding="utf-8") == "step_000003\n"
    meta = read_meta(folder)
    assert meta["format_version"] == 1
    assert (meta["system"], meta["settings"]["width"], meta["world_size"]) == ("toy", 6, 1)
    assert meta["metrics"] == {"iou": None}
    assert load_train_state(folder)["format_version"] == 1
    assert sorted(p.name for p in folder.iterdir()) == ["meta.json", "model.safetensors", "train_state.pt"]


def test_names_find_their_folder_and_a_wrong_one_lists_what_there_is(run):
    _save(run, 3)
    save_weights(run, "best", ToyTask(CONFIG), system="toy", config=CONFIG, step=3)
    for which, name in (("last", "step_000003"), ("step_3", "step_000003"), ("best", "best")):
        assert find_checkpoint(run, which).name == name
    with pytest.raises(CheckpointError, match=r"no checkpoint step_7\n.*best, step_000003"):
        find_checkpoint(run, "step_7")
    with pytest.raises(CheckpointError, match="weights only"):
        load_train_state(find_checkpoint(run, "best"))


def test_pruning_keeps_the_newest_complete_ones(run):
    for step in (3, 6, 9, 12):
        _save(run, step)
    (run.checkpoints / "step_000012" / "model.safetensors").write_bytes(b"cut")
    prune(run, 2)
    assert sorted(p.name for p in run.checkpoints.glob("step_*")) == ["step_000006", "step_000009"]


def test_an_incomplete_newest_folder_is_passed_over(run):
    _save(run, 3)
    newest = _save(run, 6)
    (newest / "train_state.pt").unlink()
    assert find_last(run).name == "step_000003"
    shutil.rmtree(run.checkpoints / "step_000003")
    assert find_last(run) is None


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 10), "truncated, 10 of"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors: missing"),
        (lambda folder: (folder / "meta.json").write_text("{", encoding="utf-8"), "cannot be read"),
        (lambda folder: shutil.rmtree(folder), "no checkpoint here"),
        (
            lambda folder: (folder / "meta.json").write_text(
                '{"format_version": 99, "omma_version": "9.0"}', encoding="utf-8"
            ),
            "newer omma",
        ),
    ],
)
def test_damage_is_named(run, damage: Callable[[Path], Any], message):
    folder = _save(run, 3)
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        load_weights(ToyTask(CONFIG), folder, system="toy")


def test_damaged_contents_of_the_right_size(run):
    folder = _save(run, 3)
    for name, load in (("model.safetensors", read_weights), ("train_state.pt", None)):
        size = (folder / name).stat().st_size
        (folder / name).write_bytes(b"\xff" * size)
        with pytest.raises(CheckpointError, match=rf"{name}: damaged"):
            load(folder / name) if load else load_train_state(folder)


def test_another_system_is_refused(run):
    folder = _save(run, 3)
    with pytest.raises(CheckpointError, match="checkpoint of toy, not of lss"):
        load_weights(ToyTask(CONFIG), folder, system="lss")


def test_other_shapes_name_the_tensor_and_the_setting(run):
    folder = _save(run, 3)
    wide = toy_config(system={"width": 8, "norm": False})
    with pytest.raises(CheckpointError) as caught:
        load_weights(ToyTask(wide), folder, system="toy", settings=wide.as_dict()["system"])
    text = str(caught.value)
    assert "first `model.stem.0.weight` [6, 3, 3, 3], here [8, 3, 3, 3]" in text
    assert "10 unknown to this network, first `model.body.1.bias` [6]" in text
    assert "made with system.width=6, here it is 8" in text
    assert "made with system.norm=True, here it is False" in text


def test_tied_and_sliced_tensors_come_back(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    state = {"embed": base, "head": base, "row": base[1], "column": base[:, 1], "empty": torch.zeros(0)}
    checkpoint_module._write_weights(tmp_path / "w.safetensors", state)
    assert set(safetensors.torch.load_file(tmp_path / "w.safetensors")) == {"embed", "row", "column", "empty"}
    loaded = read_weights(tmp_path / "w.safetensors")
    assert all(torch.equal(loaded[name], state[name]) for name in state)


def test_averaged_weights_are_preferred(run):
    one, two = _snapshot(1), _snapshot(2)
    folder = save_checkpoint(run, "best", Snapshot(one.weights, two.weights, None, one.meta), CONFIG)
    task = ToyTask(CONFIG)
    load_weights(task, folder, system="toy")
    assert float(task.model.head.bias.detach()[0]) == 2
    load_weights(task, folder, system="toy", averaged=False)
    assert float(task.model.head.bias.detach()[0]) == 1


class Crash(BaseException):
    """The process is gone: no handler runs."""


def _crash_after(
    monkeypatch: pytest.MonkeyPatch, count: int, error: Callable[[], BaseException], *, once: bool = False
) -> list[int]:
    """Let all file operations after the first `count` fail, or `once` the next that writes; the counter."""
    counter = [0]

    def guard(module: Any, name: str) -> None:
        original = getattr(module, name)

        def operation(*args: Any, **kwargs: Any) -> Any:
            counter[0] += 1
            if counter[0] > count and not (once and counter[0] > count + 1):
                raise error()
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, operation)

    guard(os, "fsync")
    for name in ("replace", "open", "mkdir"):
        guard(Path, name)
    guard(safetensors.torch, "save_file")
    guard(torch, "save")
    for module, name in () if once else ((os, "open"), (Path, "unlink"), (shutil, "rmtree")):
        guard(module, name)
    return counter


def _operations_of_a_save(tmp_path: Path, step: int) -> int:
    run = RunFolder.create(tmp_path, "count", config=CONFIG.as_dict(), command=["omma"])
    _save(run, 3)
    with pytest.MonkeyPatch.context() as patch:
        counter = _crash_after(patch, 10_000, Crash)
        _save_and_prune(run, step)
        return counter[0]


def _save_and_prune(run: RunFolder, step: int) -> None:
    _save(run, step)
    prune(run, 1)


@pytest.mark.parametrize("step", [3, 6])
def test_a_crash_at_any_file_operation_leaves_a_loadable_checkpoint(tmp_path, step):
    """For every k: the k-th operation of saving and pruning and all later ones fail, as in a killed process.

    Step 3 replaces a folder of the same name, as a stop during validation does.
    """
    total = _operations_of_a_save(tmp_path, step)
    assert total > 12
    for count in range(total):
        run = RunFolder.create(tmp_path, f"run{count}", config=CONFIG.as_dict(), command=["omma"])
        _save(run, 3)
        with pytest.MonkeyPatch.context() as patch:
            _crash_after(patch, count, Crash)
            with pytest.raises(Crash):
                _save_and_prune(run, step)
        last = find_last(run)
        assert last is not None, f"nothing loads after operation {count}"
        assert _value(last) in (3, step)
        remove_abandoned(run.path)  # as the next process does when it goes on
        _save_and_prune(run, 9)
        assert _value(find_last(run)) == 9
        assert [p.name for p in run.checkpoints.iterdir() if p.is_dir()] == ["step_000009"]


def test_a_full_disk_is_one_line_and_leaves_nothing_behind(tmp_path, run):
    _save(run, 3)
    for count in range(8):
        with pytest.MonkeyPatch.context() as patch:
            _crash_after(patch, count, lambda: OSError(errno.ENOSPC, "No space left on device"), once=True)
            with pytest.raises(OmmaError, match="the disk or the quota is full") as caught:
                _save(run, 6)
        assert "\n" not in caught.value.message
        assert [path.name for path in run.checkpoints.iterdir() if path.is_dir()] == ["step_000003"]
    assert _value(find_last(run)) == 3


@pytest.mark.parametrize(
    "error",
    [
        safetensors.SafetensorError("I/O error: No space left on device (os error 28)"),
        RuntimeError("unexpected pos 576 vs 534"),
    ],
)
def test_a_full_disk_as_the_writers_report_it(run, monkeypatch, error):
    """safetensors says it in its text, torch.save in the error's context."""

    def full(*args: Any, **kwargs: Any) -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            raise error  # noqa: B904

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(OmmaError, match="full"):
        _save(run, 6)
