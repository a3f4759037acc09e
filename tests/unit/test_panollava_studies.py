"""Turned panoramas and left-out views: curves against values worked out by hand, and their pictures."""

from __future__ import annotations

import csv
import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from pano_toy import LANGUAGE, TOWER
from PIL import Image
from torch import Tensor

from omma.commands.evaluate import _write_study
from omma.core.panorama import View
from omma.errors import DataError, UsageError
from omma.runs.console import RunLog
from omma.systems.panollava import studies
from omma.systems.panollava.attribution import HARMS, HELPS, draw_attribution
from omma.systems.panollava.config import PanoConfig
from omma.systems.panollava.data import build
from omma.systems.panollava.likelihood import GREY, Written
from omma.systems.panollava.samples import Collate, PanoSamples
from omma.systems.panollava.task import PanoTask

SIZE = (32, 64)
QUERIES = ("What is behind you?", "weather")


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


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two panoramas: brightness rises from the left edge to the right one, darker in the second."""
    folder = tmp_path_factory.mktemp("data")
    rows = ["url,query,annotation"]
    for number in range(2):
        ramp = np.linspace(0, 250 - 100 * number, SIZE[1]).astype(np.uint8)
        cv2.imwrite(
            str(folder / f"{number}.png"), np.repeat(np.repeat(ramp[None], SIZE[0], 0)[..., None], 3, 2)
        )
        rows += [f"{number}.png,{query},a wall" for query in QUERIES]
    (folder / "valid.csv").write_text("\n".join(rows), encoding="utf-8")
    (folder / "bare.csv").write_text("url,query\n0.png,weather\n", encoding="utf-8")
    return folder


def make(root: Path, stage: str = "finetune", split: str = "val") -> tuple[PanoTask, PanoSamples, Collate]:
    system = {
        "stage": stage,
        "vision": {"name": "random", "config": TOWER},
        "language": {"name": "random", "config": LANGUAGE},
        "resampler": {"name": "mlp", "width": 40, "norm": "layer"},
        "generate": {"max_new_tokens": 4},
    }
    settings = {"root": str(root), "views": {"image_size": (32, 32)}}
    config = PanoConfig.model_validate({"system": system, "data": settings, "train": {"batch_size": 5}})
    torch.manual_seed(0)
    task = PanoTask(config)
    data, collate = build(config, split, augment=False)
    return task, data, collate


def study(name: str, made: tuple[PanoTask, PanoSamples, Collate]) -> tuple[dict[str, Any], Lines]:
    lines = Lines()
    task, data, collate = made
    return getattr(studies, name)(task, task.config, data, collate, lines), lines


def brightness(task: PanoTask, batch: dict[str, Any]) -> Tensor:
    """Tokens that are the mean grey value of their view, (B, V, 1, 1)."""
    return batch["views"].float().mean((2, 3, 4))[..., None, None]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network whose loss is the brightness of the front view, and whose answer is whether that is high."""
    monkeypatch.setattr(studies, "encode_views", brightness)
    monkeypatch.setattr(studies, "grey_tokens", lambda task, tokens: torch.full_like(tokens, float(GREY)))
    monkeypatch.setattr(studies, "answer_losses", lambda model, tokens, batch: tokens[:, 0, 0, 0])
    monkeypatch.setattr(
        studies,
        "write_answers",
        lambda task, tokens, batch: [
            Written("light" if t > 100 else "dark", True) for t in tokens[:, 0, 0, 0]
        ],
    )


def test_turning_shows_other_views(root: Path, seen: None) -> None:
    made = make(root)
    found, _ = study("rotation", made)
    views = [made[1][index]["views"].float().mean((1, 2, 3)) for index in (0, 2)]
    x = found["rotation_loss"]["x"]
    assert x[0] == -180
    assert x[-1] == 180
    for kind in ("no direction asked", "direction asked"):
        losses = dict(zip(x, found["rotation_loss"]["series"][kind], strict=True))
        for turn, view in ((0, 0), (45, 1), (90, 2), (180, 4), (-90, 6), (-45, 7)):
            assert losses[turn] == pytest.approx(float(views[0][view] + views[1][view]) / 2, abs=0.5)
        assert losses[-180] == losses[180]
    same = dict(zip(x, found["rotation_same"]["series"]["no direction asked"], strict=True))
    expected = {turn: np.mean([bool(v[0] > 100) == bool(v[i] > 100) for v in views])
                for turn, i in ((0, 0), (90, 2), (-90, 6))}  # fmt: skip
    assert {turn: same[turn] for turn in expected} == expected
    assert expected[0] == 1 > expected[-90]
    assert made[0].training


def test_rotation_is_written_as_curves_and_tables(root: Path, seen: None, tmp_path: Path) -> None:
    found, _ = study("rotation", make(root))
    for key, one in found.items():
        _write_study(tmp_path, key, one, RunLog(None, quiet=True))
    for name in ("rotation_loss.png", "rotation_same.png"):
        assert np.asarray(Image.open(tmp_path / name)).std() > 5
    rows = list(csv.DictReader((tmp_path / "rotation_answers.csv").open(encoding="utf-8")))
    assert len(rows) == 4 * len(studies.TURNS_DEG)
    assert {row["answer"] for row in rows} == {"light", "dark"}
    table = json.loads((tmp_path / "rotation.json").read_text(encoding="utf-8"))
    assert [row["turn_deg"] for row in table["rows"]] == found["rotation_loss"]["x"]
    assert "files" not in table


def test_dropping_the_view_that_counts(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The loss counts grey views among those that look backwards, the middle one twice."""
    weights = torch.tensor([0.0, 0, 0, 1, 2, 1, 0, 0])
    monkeypatch.setattr(studies, "grey_tokens", lambda task, tokens: torch.full_like(tokens, -1.0))
    monkeypatch.setattr(
        studies,
        "answer_losses",
        lambda model, tokens, batch: (tokens[..., 0, 0] == -1).float() @ weights,
    )
    found, lines = study("view_drop", make(root))
    rows = found["view_drop"]["rows"]
    assert [row["loss_without"] for row in rows] == weights.tolist()
    assert [row["yaw/pitch"] for row in rows][:5] == ["0/0", "45/0", "90/0", "135/0", "180/0"]
    assert rows[4]["most_important"] == 1
    curve = found["view_drop_direction"]
    means = dict(zip(curve["x"], curve["series"]["direction asked"], strict=True))
    assert (means[0], means[45], means[-45], means[90]) == (2, 1, 1, 0)
    assert "in 100% of 2 questions, chance 38%" in lines.said[0]
    for key, one in found.items():
        _write_study(tmp_path, key, one, RunLog(None, quiet=True))
    pictures = sorted(tmp_path.glob("view_drop_0*.png"))
    assert len(pictures) == 4
    rows = list(csv.DictReader((tmp_path / "view_drop_questions.csv").open(encoding="utf-8")))
    assert [row["asked_deg"] for row in rows] == ["180.0", "", "180.0", ""]


def test_both_studies_of_a_real_network(root: Path) -> None:
    made = make(root)
    drops, _ = study("view_drop", made)
    losses = [row["loss_without"] for row in drops["view_drop"]["rows"]]
    assert len(set(losses)) == 8
    assert max(abs(loss) for loss in losses) < 1
    turned, _ = study("rotation", made)
    assert all(value > 1 for value in turned["rotation_loss"]["series"]["direction asked"])


def test_what_cannot_be_studied(root: Path) -> None:
    with pytest.raises(UsageError, match="stage vision"):
        study("rotation", make(root, "vision"))
    with pytest.raises(UsageError, match="stage vision"):
        study("view_drop", make(root, "vision"))
    with pytest.raises(DataError, match="no answers"):
        study("view_drop", make(root, split="bare"))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("What is in front of you?", 0),
        ("Which colour is the car to the right?", 90),
        ("Is there a person to the LEFT?", -90),
        ("left or right", None),
        ("frontier", None),
    ],
)
def test_direction_of_a_question(query: str, expected: float | None) -> None:
    assert studies.asked_deg(query) == expected


def test_bars_of_views() -> None:
    views = np.full((2, 16, 16, 3), 77, np.uint8)
    layout = [None, View(90, 0, (90, 90))]
    picture = draw_attribution(views, layout, [0.5, -0.25], title="t", lines=["question"])
    counts = [int((picture == colour).all(-1).sum()) for colour in (HELPS, HARMS)]
    assert counts[0] == pytest.approx(2 * counts[1], rel=0.2)
