"""Rules on curves, each at a curve that must and one that must not trip it."""

import math

import numpy as np
import pytest

from omma.doctor import run_checks
from omma.doctor.curves import Curves
from omma.doctor.loss_checks import loss_terms
from omma.doctor.run_checks import check_run

CONFIG = {
    "system": {"name": "toy"},
    "optim": {"lr": 1e-3, "weight_decay": 0.0, "grad_clip": None},
    "train": {"workers": 2},
}


def _curves(train, val=(), *, status=None, config=CONFIG) -> Curves:
    """Rows from columns of equal length; a train step each."""
    steps = range(len(next(iter(train.values()))))
    rows = [
        {"step": i + 1, "epoch": 0, "phase": "train", **{k: float(v[i]) for k, v in train.items()}}
        for i in steps
    ]
    rows += [{"step": i + 1, "epoch": 0, "phase": "val", **values} for i, values in enumerate(val)]
    return Curves(rows, status or {"state": "finished", "total": len(steps)}, config, ("iou", "max"), "r")


def _healthy(n=60, **more) -> dict:
    noise = np.random.default_rng(0).normal(0, 0.02, n)
    columns = {
        "lr": np.full(n, 1e-3),
        "loss": 0.2 + np.exp(-np.arange(n) / 20) + noise,
        "grad_norm": 1 + abs(noise),
        "data_share": np.full(n, 0.02),
        "step_time": np.full(n, 0.1),
    }
    return columns | more


def _titles(curves: Curves) -> list[str]:
    return [finding.title for finding in check_run(curves)]


def test_a_healthy_run_has_no_finding():
    val = [{"loss": 0.4, "iou": 0.5}, {"loss": 0.35, "iou": 0.6}, {"loss": 0.33, "iou": 0.65}]
    assert _titles(_curves(_healthy(), val)) == []


N = np.arange(60)
TRIPPED = {
    "the loss diverges": _healthy(loss=1 + N**1.5),
    "the loss is not finite": _healthy(loss=np.where(N > 40, np.nan, np.exp(-N / 20))),
    "the loss does not fall": _healthy(loss=np.full(60, 0.7)),
    "the loss is on a plateau": _healthy(loss=0.3 + np.exp(-N / 2.0)),
    "no gradient reaches the weights": _healthy(grad_norm=np.zeros(60)),
    "grad_norm has spikes": _healthy(grad_norm=np.where(N % 10 == 9, 200.0, 1.0)),
    "the learning rate was warming up for most of the training": _healthy(lr=(N + 1) * 1e-5),
    "training waits for data": _healthy(data_share=np.full(60, 0.7)),
    "wrong metric domain: iou": _healthy(iou=np.linspace(0, 1.7, 60)),
}


@pytest.mark.parametrize("title", TRIPPED)
def test_one_rule_trips(title):
    assert _titles(_curves(TRIPPED[title])) == [title]


@pytest.mark.parametrize(
    ("system", "there", "advice"),
    [
        ("lss", 8, "`omma train r train.workers=6`, or images prepared once: `omma prepare lss-resize`"),
        ("sdpose", 4, "`omma train r train.workers=4`"),
        ("panollava", 2, "a machine with more than 2 cores; `omma bench r` shows what loading takes"),
    ],
)
def test_waiting_for_data_is_told_what_there_is(system, there, advice, monkeypatch):
    monkeypatch.setattr(run_checks, "cores", lambda: there)
    config = CONFIG | {"system": {"name": system}}
    (finding,) = check_run(_curves(TRIPPED["training waits for data"], config=config))
    assert finding.fix == advice


def test_a_high_rate_is_a_divergence_already_in_a_trial_of_a_few_steps():
    short = {"loss": [1.4, 900, 4000, 700], "lr": [100] * 4, "grad_norm": [2, 9, 9, 9]}
    finding = check_run(_curves(short))[0]
    assert (finding.severity, finding.title) == ("error", "the loss diverges")
    assert "optim.lr=0.0001" in finding.fix


def test_a_loss_that_falls_and_comes_back_diverges_but_noise_does_not():
    back = np.concatenate([np.linspace(2, 0.1, 40), np.linspace(0.1, 2.1, 20)])
    assert _titles(_curves(_healthy(loss=back)))[0] == "the loss diverges"
    noisy = np.linspace(2, 0.5, 60) * np.random.default_rng(0).uniform(0.6, 1.4, 60)
    assert "the loss diverges" not in _titles(_curves(_healthy(loss=noisy)))


def test_a_failed_run_says_what_it_failed_of():
    status = {"state": "failed", "error": "the loss is not finite at step 7", "step": 6}
    finding = check_run(_curves(_healthy(6), status=status))[0]
    assert finding.title == "the loss or its gradient is not finite"
    assert "step 7" in finding.evidence
    data = {"state": "failed", "error": "x/label.npy: cut short", "step": 6}
    finding = check_run(_curves({"loss": []}, status=data))[0]
    assert finding.severity == "error"
    assert "x/label.npy" in finding.evidence


def test_validation_that_gets_worse_and_a_metric_that_is_not_a_number():
    train = _healthy(loss=np.linspace(1, 0.05, 60))
    val = [{"loss": value, "iou": 0.2} for value in (0.6, 0.5, 0.7, 0.9)]
    assert _titles(_curves(train, val)) == ["the gap between training and validation is large and grows"]
    gap = [{"loss": 0.3, "iou": 0.2}]
    assert _titles(_curves(_healthy(iou=np.full(60, 0.9)), gap)) == [
        "iou is far better in training than in validation"
    ]
    nan = check_run(_curves(_healthy(), [{"loss": 0.3, "iou": math.nan}]))
    assert [(f.severity, f.title) for f in nan] == [("error", "the metric iou is not a number")]


def test_terms_of_the_loss_are_those_that_add_up_to_it():
    loss = _healthy()["loss"]
    balanced = _healthy(seg=0.6 * loss, depth=0.4 * loss, depth_raw=0.04 * loss, iou=np.full(60, 0.5))
    assert loss_terms(_curves(balanced)) == ["seg", "depth"]
    found = check_run(_curves(balanced))
    assert [(f.severity, f.evidence) for f in found] == [("ok", "seg 60.0%, depth 40.0%")]
    drowned = _healthy(seg=0.01 * loss, depth=0.99 * loss)
    assert _titles(_curves(drowned)) == ["loss term depth drowns the others"]
    silent = _healthy(seg=loss, depth=np.zeros(60))
    assert _titles(_curves(silent)) == ["loss term depth is 0 all the time"]


def test_a_clip_far_below_the_gradients():
    config = CONFIG | {"optim": CONFIG["optim"] | {"grad_clip": 0.01}}
    assert _titles(_curves(_healthy(), config=config)) == ["nearly every gradient is clipped to a small part"]


def test_nothing_recorded_is_said():
    assert _titles(_curves({"loss": []})) == ["no training step is recorded"]


def test_every_finding_but_ok_names_a_command():
    for columns in TRIPPED.values():
        for finding in check_run(_curves(columns)):
            assert "`omma " in finding.fix
