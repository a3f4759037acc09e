"""What is said while a training runs and found afterwards: jumps, falls of the metric, waiting for data."""

from __future__ import annotations

import math

import numpy as np
import pytest
from test_diagnose_curves import _curves, _healthy

from omma.doctor.run_checks import check_run
from omma.engine.watch import Watch, fallen, jumped
from omma.errors import Finding


def said(losses: list[float], share: float = 0.0) -> list[str]:
    watch = Watch()
    return [line for loss in losses for line in watch.train_row({"loss": loss, "data_share": share})]


def find(loss: np.ndarray) -> list[Finding]:
    return [found for found in check_run(_curves(_healthy(loss=loss))) if "jumped" in found.title]


def test_a_jump_is_more_than_twice_the_mean_of_five() -> None:
    assert not jumped([1.0] * 5, 2.0)
    assert jumped([1.0] * 5, 2.01)
    assert jumped([100.0, *[1.0] * 5], 2.01)
    assert not jumped([1.0] * 4, 9.0)
    assert not jumped([0.0] * 5, 1.0)


def test_one_line_for_one_jump() -> None:
    lines = said([1.0] * 10 + [3.0] + [1.0] * 10)
    assert len(lines) == 1
    assert lines[0].startswith("warning: the loss 3 is 3.0 times the mean of the last 5 logged")
    assert len(said([1.0] * 6 + [9.0, 90.0, 900.0] + [1.0] * 10)) == 1
    assert said(np.linspace(1, 0.1, 50).tolist()) == []
    assert said([1.0] * 6 + [math.nan] + [1.0] * 6) == []


def test_a_metric_below_its_best() -> None:
    watch = Watch()
    assert watch.val_row(0.60, ("AP", 0.64, 10)) == []
    assert watch.val_row(0.58, ("AP", 0.64, 10)) == ["warning: AP 0.58 is 0.06 below its best at step 10"]
    assert watch.val_row(math.nan, ("AP", 0.64, 10)) == []
    assert watch.val_row(0.1, ("AP", None, 0)) == []
    assert not fallen(20.0, 30.0)  # decibels
    assert not fallen(0.5, 0.2)  # an error, of which less is better


def test_one_hint_about_waiting_for_data() -> None:
    lines = said([1.0] * 9, share=0.4)
    assert lines == ["hint: 40% of the time waits for data; more train.workers may help"]
    assert said([1.0] * 9, share=0.3) == []
    assert said([1.0] * 2, share=0.9) == []


def test_a_jump_that_went_away_and_one_that_stayed() -> None:
    loss = 0.2 + np.exp(-np.arange(60) / 20)
    once = loss.copy()
    once[30] = 3.0
    [gone] = find(once)
    assert (gone.severity, gone.title) == ("info", "the loss jumped and came back")
    assert gone.evidence.startswith("1 of 60 logged steps")
    stays = loss.copy()
    stays[40:] += 0.7
    [found] = find(stays)
    assert (found.severity, found.title) == ("warning", "the loss jumped and did not come back")
    assert "optim.lr=0.0001" in found.fix
    assert find(loss) == []


@pytest.mark.parametrize(("last", "titles"), [(0.58, ["iou fell after its best"]), (0.62, [])])
def test_a_metric_that_fell(last: float, titles: list[str]) -> None:
    val = [{"loss": 0.4, "iou": 0.5}, {"loss": 0.35, "iou": 0.65}, {"loss": 0.35, "iou": last}]
    found = check_run(_curves(_healthy(), val))
    assert [one.title for one in found] == titles
