"""How `omma doctor` prints what it finds, and what it checks of a chain of trainings."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from omma.commands import doctor
from omma.commands.findings import finding_text, summary_text
from omma.doctor import environment
from omma.errors import ConfigError, DataError, Finding


def test_short_good_news_are_one_line_and_anything_else_says_what_to_do() -> None:
    assert finding_text(Finding("ok", "split train", "6 samples")) == "ok       split train: 6 samples"
    assert finding_text(Finding("ok", "split train", "x" * 200)).count("\n") == 1
    wrong = finding_text(Finding("warning", "labels are empty", "6 labels", "make them again"))
    assert wrong.splitlines() == [
        "WARNING  labels are empty",
        "         6 labels",
        "         fix: make them again",
    ]
    assert finding_text(Finding("info", "no clipping", "", "optim.grad_clip=1")).endswith(
        "hint: optim.grad_clip=1"
    )


def test_lines_are_wrapped_at_the_width_and_paths_stay_whole() -> None:
    path = "/data/" + "a" * 60
    lines = finding_text(Finding("error", f"{path}: no such folder", "one two three " * 9), 60).splitlines()
    assert all(len(line) <= 60 or path in line for line in lines)
    assert all(line.startswith("         ") for line in lines[1:])


def test_errors_and_warnings_are_counted() -> None:
    found = [Finding("error", "a"), Finding("warning", "b"), Finding("warning", "c"), Finding("ok", "d")]
    assert summary_text(found) == "1 error, 2 warnings"
    assert summary_text(found[3:]) == "nothing is wrong"


def test_each_stage_of_a_chain_gets_its_own_settings() -> None:
    words = ["data.root=D", "resampler:train.batch_size=4"]
    stages = doctor._stages(doctor._Asked("panollava/all", words, None, "p", None, None))
    assert [stage.recipe for stage in stages] == [
        "panollava/vision", "panollava/resampler", "panollava/finetune"
    ]  # fmt: skip
    assert [stage.name for stage in stages] == ["p_vision", "p_resampler", "p_finetune"]
    assert [stage.words for stage in stages] == [
        ["data.root=D"], ["data.root=D", "train.batch_size=4"], ["data.root=D"]
    ]  # fmt: skip


def test_a_recipe_without_data_ends_with_a_count_and_exit_code_3(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for check in ("_packages", "_device"):
        monkeypatch.setattr(environment, check, lambda: iter(()))
    monkeypatch.setenv("OMMA_RUNS", str(tmp_path))
    words = [f"data.root={tmp_path / 'none'}", "system.backbone=resnet18", "data.image_size=[32, 64]"]
    with pytest.raises(DataError, match="none: no such folder"):
        doctor.run_doctor("lss/demo", words, None)
    said = capsys.readouterr().out
    assert said.splitlines()[-2:] == ["1 error", "--out DIR also draws what the network is fed"]
    assert said.count("no such folder") == 1
    assert "this machine\nok       Python" in said


def test_only_a_part_that_is_to_be_fetched_excuses_an_estimate() -> None:
    away = ConfigError("the tower cannot be had")
    away.__cause__ = OSError("no connection")
    assert not doctor._is_not_here(away)
    away.__cause__.__cause__ = LocalEntryNotFoundError("not in the cache")
    assert doctor._is_not_here(away)
