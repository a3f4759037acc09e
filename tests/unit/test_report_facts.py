import csv
import json
from pathlib import Path

import pytest

from omma.errors import DataError
from omma.report.facts import MAX_POINTS, rings, run_facts, thin
from omma.runs.files import write_json_atomic
from omma.runs.folder import RunFolder
from omma.runs.metrics import MetricsLog


def write_csv(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def make_run(root: Path, system: str = "lss") -> RunFolder:
    return RunFolder.create(
        root, "run", config={"system": {"name": system}}, command=["omma", "train", "lss/demo"]
    )


def evaluate(run: RunFolder, samples: list[dict], metrics: dict | None = None) -> dict:
    folder = run.eval_dir("val")
    write_json_atomic(
        folder / "metrics.json", {"checkpoint": "best", "samples": len(samples), "metrics": metrics or {}}
    )
    write_csv(folder / "per_sample.csv", samples)
    return run_facts(run)["evaluation"]["val"]


def test_a_run_that_has_only_been_made_has_facts(tmp_path: Path) -> None:
    facts = run_facts(make_run(tmp_path))
    assert facts["run"]["state"] == "created"
    assert facts["command"] == "omma train lss/demo"
    assert facts["headline"] == []
    assert facts["curves"] == {}
    assert facts["evaluation"] == {}


def test_curves_headline_and_speed_come_from_metrics(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    log = MetricsLog(
        run.metrics_file, ["time_s", "lr", "loss", "iou", "step_time", "data_share"], resume_step=None
    )
    for step in (1, 2, 3):
        values = {
            "time_s": step * 0.5,
            "loss": 1 / step,
            "step_time": [9.0, 0.5, 0.5][step - 1],
            "data_share": 0.1,
        }
        log.write(step=step, epoch=0, phase="train", values=values)
    log.write(step=3, epoch=0, phase="val", values={"time_s": 1.6, "loss": 0.4, "iou": 0.25})
    log.close()
    run.set_status("finished", step=3, total=3, best={"metric": "val/iou", "value": 0.25, "step": 3})
    facts = run_facts(run)
    assert facts["curves"] == {
        "loss": {
            "train": {"steps": [1, 2, 3], "values": [1.0, 0.5, 1 / 3]},
            "val": {"steps": [3], "values": [0.4]},
        },
        "step_time": {"train": {"steps": [1, 2, 3], "values": [9.0, 0.5, 0.5]}},
        "data_share": {"train": {"steps": [1, 2, 3], "values": [0.1, 0.1, 0.1]}},
        "iou": {"val": {"steps": [3], "values": [0.25]}},
    }
    shown = {entry["label"]: entry["value"] for entry in facts["headline"]}
    assert shown == {
        "best iou": 0.25,
        "final iou": 0.25,
        "final training loss": 1 / 3,
        "steps": 3,
        "training time": 1.6,
        "time a step": 500.0,
        "waiting for data": pytest.approx(10.0),
    }


def test_thin_keeps_the_mean_and_the_last_step() -> None:
    steps = list(range(1, 10_001))
    few_steps, few_values = thin(steps, [float(step) for step in steps])
    assert len(few_steps) == MAX_POINTS
    assert few_steps[-1] == 10_000
    assert sum(few_values) / MAX_POINTS == pytest.approx(5000.5)
    assert thin([1, 2], [0.1, 0.2]) == ([1, 2], [0.1, 0.2])


def test_rings_are_sorted_from_near_to_far() -> None:
    metrics = {
        "iou": 0.3,
        "iou/ring_35_50m": 0.1,
        "iou/ring_0_20m": 0.5,
        "iou/car/ring_0_7.5m": 0.2,
        "f1/ring_0_1m": None,
    }
    found = rings(metrics)
    assert list(found["iou"].items()) == [("0 to 20 m", 0.5), ("35 to 50 m", 0.1)]
    assert found["iou/car"] == {"0 to 7.5 m": 0.2}
    assert set(found) == {"iou", "iou/car"}


def test_samples_are_ranked_by_the_systems_metric(tmp_path: Path) -> None:
    """lss ranks by IoU, where low is bad; the first float column is not it."""
    samples = [{"token": f"s{i:02d}", "loss": 1.0 - i / 64, "iou": i / 32, "cells": i} for i in range(20)]
    found = evaluate(make_run(tmp_path), samples)
    assert (found["ranked_by"], found["worst_are"]) == ("iou", "lowest")
    assert [row["token"] for row in found["worst"]] == [f"s{i:02d}" for i in range(8)]
    assert [row["token"] for row in found["best"]] == [f"s{i:02d}" for i in range(19, 11, -1)]


def test_few_samples_are_not_listed_twice_and_missing_values_not_at_all(tmp_path: Path) -> None:
    samples = [{"token": f"s{i}", "iou": value} for i, value in enumerate([0.5, "", 0.25, "nan"])]
    found = evaluate(make_run(tmp_path), samples)
    assert [row["token"] for row in found["worst"]] == ["s2", "s0"]
    assert found["best"] == []


def test_names_made_of_digits_stay_names(tmp_path: Path) -> None:
    samples = [{"image": "000139", "iou": 0.5}, {"image": "000285", "iou": 0.25}]
    found = evaluate(make_run(tmp_path), samples)
    assert [row["image"] for row in found["worst"]] == ["000285", "000139"]


def test_a_system_that_is_not_installed_still_gets_facts(tmp_path: Path) -> None:
    found = evaluate(make_run(tmp_path, system="from-elsewhere"), [{"token": "a", "score": 0.5}])
    assert found["ranked_by"] == "score"


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (run.path / "data.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"data\.json"):
        run_facts(run)


def test_facts_are_plain_json(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    evaluate(run, [{"token": "a", "iou": 0.5}], {"iou": 0.5})
    facts = run_facts(run)
    assert json.loads(json.dumps(facts)) == facts
