"""The study of densities: hand-computed scores, alignment, and that inputs depend on nothing else."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rgbd_files import scene, write, write_pairs
from torch import Tensor

from omma.commands.evaluate import _write_study
from omma.errors import DataError
from omma.runs.console import RunLog
from omma.systems.g2_monodepth import studies
from omma.systems.g2_monodepth.config import STUDY_PATTERNS, G2Config, ScoringSection
from omma.systems.g2_monodepth.data import build
from omma.systems.g2_monodepth.patterns import MEASURED
from omma.systems.g2_monodepth.samples import ValidationSamples
from omma.systems.g2_monodepth.studies import NETWORK, StudySamples, densities, without_depth
from omma.systems.g2_monodepth.task import G2Task
from omma.systems.recipes import open_recipe

Forward = Callable[[dict[str, Any]], Tensor]
Rows = dict[tuple[str, str], dict[str, Any]]
UNITS = ["data.units_per_metre=1000", "data.max_depth=10"]
TINY = ["system.network.layers=3", "system.network.features=8", "train.workers=0", *UNITS]
SIZE = (4, 6)


class Says(G2Task):
    """A task whose network is a function of the batch."""

    def __init__(self, config: G2Config, answer: Forward) -> None:
        super().__init__(config)
        self.answer = answer

    def forward(self, batch: dict[str, Any]) -> Tensor:
        """See the class."""
        return self.answer(batch)


class Lines:
    """A console that keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def line(self, text: str) -> None:
        """Keep it."""
        self.said.append(text)

    def progress(self, total: int, *, label: str) -> AbstractContextManager[Any]:
        """Count nothing."""
        return nullcontext(self)

    def update(self, done: int) -> None:
        """Nothing."""


@pytest.fixture
def steps(tmp_path: Path) -> Path:
    """One picture of 4 x 6 pixels, whose rows lie at 1, 2, 3 and 4 m."""
    depth = np.repeat(np.arange(1, 5)[:, None], SIZE[1], 1)
    write(tmp_path / "val" / "rgb" / "0.png", np.full((*SIZE, 3), 90, np.uint8))
    write(tmp_path / "val" / "depth" / "0.png", (depth * 1000).astype(np.uint16))
    return tmp_path


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    write_pairs(root / "val", 2)
    return root


def study(root: Path, patterns: list[str], answer: Forward | None, *words: str) -> dict[str, Any]:
    """What the study finds; without an answer of the untrained network."""
    listed = "[" + ", ".join(patterns) + "]"
    overrides = [*TINY, f"data.root={root.as_posix()}", f"data.study_patterns={listed}", *words]
    config = open_recipe("g2_monodepth/demo", overrides).config
    torch.manual_seed(0)
    task = G2Task(config) if answer is None else Says(config, answer)
    data, collate = build(config, "val", augment=False)
    return densities(task, config, data, collate, Lines())


def rows(*arguments: Any) -> Rows:
    return {(row["input"], row["method"]): row for row in study(*arguments)["densities"]["rows"]}


def perfect(batch: dict[str, Any]) -> Tensor:
    return batch["depth"]


def test_a_perfect_network_scores_0(steps: Path) -> None:
    found = rows(steps, list(STUDY_PATTERNS), perfect)
    of_network = {key: row for key, row in found.items() if key[1] == NETWORK}
    assert {key[0] for key in of_network} == set(STUDY_PATTERNS)
    for row in of_network.values():
        assert row["rmse"] == row["abs_rel"] == row["irmse"] == 0
        assert row["delta1"] == row["delta_1.02"] == 1
    assert of_network["none", NETWORK]["oe"] == 0
    assert of_network["none", NETWORK]["rmse_official"] is None
    assert of_network["full", NETWORK]["oe"] is None
    assert of_network["full", NETWORK]["rmse_official"] < 1  # predictions are cut to whole steps


@pytest.mark.parametrize(
    ("pattern", "method", "mae", "rmse", "points"),
    [
        # the upper rows are given, 1 and 2 m; the lower ones take 2 m
        ("bottom:50%", "nearest fill", 3 / 4, math.sqrt(5 / 4), 12),
        ("bottom:50%", "linear interpolation", 3 / 4, math.sqrt(5 / 4), 12),
        ("bottom:50%", "constant", 5 / 4, 1.5, 12),
        # rows 1 and 3, columns 1, 3 and 5 are given; above and left of them the nearest counts
        ("grid:2", "nearest fill", 1 / 2, math.sqrt(1 / 2), 6),
        ("grid:2", "linear interpolation", 7 / 24, math.sqrt(7 / 24), 6),
        ("grid:2", "constant", 1.0, math.sqrt(6 / 4), 6),
        ("none", "true median", 1.0, math.sqrt(5 / 4), 0),
        ("full", "nearest fill", 0, 0, 24),
    ],
)
def test_what_needs_no_network(
    steps: Path, pattern: str, method: str, mae: float, rmse: float, points: int
) -> None:
    row = rows(steps, [pattern], perfect)[pattern, method]
    assert row["mae"] == pytest.approx(mae, rel=1e-5)
    assert row["rmse"] == pytest.approx(rmse, rel=1e-5)
    assert (row["points"], row["images"]) == (points, 1)


def test_fillings_need_a_given_depth(steps: Path) -> None:
    found = rows(steps, ["none", "full"], perfect)
    methods = {pattern: [key[1] for key in found if key[0] == pattern] for pattern in ("none", "full")}
    aligned = ["network, median scaled", "network, scale and shift"]
    assert methods["none"] == ["network", *aligned, "true median"]
    assert methods["full"] == ["network", "nearest fill", "linear interpolation", "constant"]


def test_error_by_distance(steps: Path) -> None:
    found = study(
        steps, ["bottom:50%", "none", "full", "full with noise and holes"], lambda b: b["depth"] + 0.1
    )
    row = found["densities"]["rows"][1]
    assert (row["method"], row["mae/0_1px"], row["mae/4_16px"]) == ("nearest fill", 0, None)
    assert row["mae/1_4px"] == pytest.approx(1.5)
    curve = found[
        "densities_distance"
    ]  # of the first input alone: the others leave nothing out, or are spoilt
    assert curve["x"] == ["0 to 1", "1 to 4", "4 to 16", "16 to 64", "64 on"]
    assert curve["series"]["nearest fill"] == [0, pytest.approx(1.5), None, None, None]
    assert curve["series"][NETWORK] == [*[pytest.approx(1, rel=1e-5)] * 2, None, None, None]


def test_alignment_without_given_depth(steps: Path) -> None:
    found = rows(steps, ["none", "full"], lambda batch: 0.5 * batch["depth"])
    assert found["none", NETWORK]["mae"] == pytest.approx(1.25)
    assert found["none", "network, median scaled"]["mae"] == pytest.approx(0, abs=1e-5)
    shifted = rows(steps, ["none"], lambda batch: 0.5 * batch["depth"] + 0.3)
    assert shifted["none", "network, median scaled"]["mae"] > 0.3
    assert shifted["none", "network, scale and shift"]["mae"] == pytest.approx(0, abs=1e-5)


def test_only_depths_that_count(steps: Path) -> None:
    words = ("data.scoring.max_depth=3", "data.scoring.min_depth=1")
    found = rows(
        steps, ["none", "bottom:50%"], lambda b: torch.where(b["depth"] > 0.25, 1.0, b["depth"]), *words
    )
    assert found["none", NETWORK]["mae"] == pytest.approx(0, abs=1e-6)
    assert found["none", "network, scale and shift"]["mae"] == pytest.approx(0, abs=1e-6)
    assert found["bottom:50%", "constant"]["mae"] == pytest.approx(0.5)
    assert found["none", "true median"]["mae"] == pytest.approx(0, abs=1e-6)  # of the counted ones


def test_inputs_depend_on_nothing_else(scenes: Path) -> None:
    drawn = ["uniform:5%", "full with noise and holes", "sector:25%"]
    first = rows(scenes, drawn, None)
    again = rows(scenes, drawn, None)
    among = rows(scenes, ["none", "lidar:8", *drawn[::-1]], None, "seed=7")
    assert first == again
    for key, row in first.items():
        if key[1] != NETWORK:
            assert among[key] == row
        else:  # batches hold other samples, so the last digits may differ
            assert among[key]["rmse"] == pytest.approx(row["rmse"], rel=1e-5)


def test_batch_size_does_not_count(scenes: Path) -> None:
    inputs = ["none", "uniform:5%", "full", "bottom:25%"]
    positive = "system.network.activation=softplus"  # inverse depth near 0 would double the last digits
    whole, single = (rows(scenes, inputs, None, positive, f"validate.batch_size={size}") for size in (3, 1))
    for key, row in whole.items():
        numbers = {name: value for name, value in row.items() if isinstance(value, float)}
        assert {name: single[key][name] for name in numbers} == pytest.approx(numbers, rel=1e-4, abs=1e-5)


def test_the_same_inputs_as_in_validation(scenes: Path) -> None:
    config = open_recipe("g2_monodepth/demo", [*TINY, f"data.root={scenes.as_posix()}"]).config
    data, collate = build(config, "val", augment=False)
    pattern = "uniform:5% with outliers:20%"
    base = ValidationSamples(data.frames, None, patterns=["none", pattern])
    alone = StudySamples(base, ["full", pattern], ScoringSection(), collate)
    torch.testing.assert_close(alone[1]["samples"][1]["point"], base[3]["point"], rtol=0, atol=0)
    assert alone[1]["samples"][1]["pattern"] == base[3]["pattern"] == pattern
    assert (len(alone), alone.name(1), alone.files()) == (2, base.name(2).partition("@")[0], base.files())


def test_measured_depth_is_an_input_where_there_is_one(tmp_path: Path) -> None:
    write_pairs(tmp_path / "val", 2)
    raw = np.zeros((48, 64), np.uint16)
    raw[::8, ::8] = 3000
    for index in range(2):
        write(tmp_path / "val" / "raw" / f"{index:03d}.png", raw)
    found = rows(tmp_path, ["none", "none", MEASURED], perfect)
    assert len(study(tmp_path, ["none"], perfect)["densities"]["rows"]) == len(found) == 8
    assert found[MEASURED, "constant"]["points"] == 48
    true = np.stack([np.rint(scene(index)[1] * 1000) / 1000 for index in range(2)])
    assert found[MEASURED, "constant"]["mae"] == pytest.approx(np.abs(true - 3).mean(), rel=1e-5)


def test_measured_depth_that_is_not_there(steps: Path) -> None:
    with pytest.raises(DataError, match=r"val/0 has no measured depth"):
        study(steps, [MEASURED], perfect)


def test_a_picture_without_a_given_depth_is_left_out_of_the_fillings(steps: Path) -> None:
    found = rows(steps, ["uniform:0"], perfect)
    assert list(found) == [("uniform:0", NETWORK)]
    assert found["uniform:0", NETWORK]["srmse"] is None


def test_long_studies_say_how_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pairs(tmp_path / "val", 4, size=SIZE)
    monkeypatch.setattr(studies, "_LONG_S", 0.0)
    words = [*TINY, f"data.root={tmp_path.as_posix()}", "data.study_patterns=[none, full]"]
    config = open_recipe("g2_monodepth/demo", words).config
    data, collate = build(config, "val", augment=False)
    task = Says(config, perfect).train()
    densities(task, config, data, collate, RunLog(None))
    assert capsys.readouterr().out == "densities: 4 pictures with 2 inputs each, about 1 min\n"
    assert task.training


def test_patterns_without_depth() -> None:
    assert without_depth("none")
    assert without_depth("0.5*none+0.5*none&lidar:8")
    assert not any(map(without_depth, ("mixture", "full", "uniform:1%", MEASURED)))


def test_files_of_a_study(steps: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for key, found in study(steps, ["none", "grid:2"], perfect).items():
        _write_study(tmp_path, key, found, RunLog(None))
    with (tmp_path / "densities.csv").open(encoding="utf-8", newline="") as file:
        cells = list(csv.DictReader(file))
    assert [row["method"] for row in cells[-3:]] == ["nearest fill", "linear interpolation", "constant"]
    assert cells[0]["rmse_official"] == ""
    assert float(cells[-1]["mae"]) == pytest.approx(1.0)
    assert capsys.readouterr().out.startswith("Scores by given depth\ninput")
    names = {"densities", "densities_rmse", "densities_distance"}
    assert {file.stem for file in tmp_path.glob("*.json")} == names
    for name in names - {"densities"}:
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
