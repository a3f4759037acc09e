"""Counts, thresholds, rings and the meters that sum them."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omma.core.meter import BinaryIoUMeter, MeanMeter
from omma.core.metrics import (
    SIMBEV_THRESHOLDS,
    batch_iou,
    confusion_counts,
    iou,
    simbev_iou,
    threshold_counts,
)


def logit(probability: float) -> float:
    return float(torch.logit(torch.tensor(probability)))


def maps(seed: int, batch: int = 3, classes: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, classes, 6, 5)
    return torch.randn(shape, generator=generator), (torch.rand(shape, generator=generator) > 0.7).float()


def test_confusion_counts_by_hand() -> None:
    predicted = torch.tensor([[True, True], [False, False]])[None, None]
    target = torch.tensor([[0.2, 0.0], [3.0, 0.0]])[None, None]
    assert [int(count) for count in confusion_counts(predicted, target)] == [1, 1, 1]
    mask = torch.tensor([[True, False], [True, True]])[None, None]
    assert [int(count) for count in confusion_counts(predicted, target, mask)] == [1, 0, 1]


def test_logit_zero_is_negative_and_empty_is_one() -> None:
    assert batch_iou(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)) == 0
    assert batch_iou(torch.full((1, 1, 2, 2), -1.0), torch.zeros(1, 1, 2, 2)) == 1


@given(st.integers(0, 10**6), st.booleans())
@settings(deadline=None, max_examples=25)
def test_histogram_counts_equal_one_pass_a_threshold(seed: int, masked: bool) -> None:
    """Also where probabilities sit exactly on a threshold."""
    logits, target = maps(seed)
    probability = (logits.sigmoid() * 20).round() / 20
    thresholds = torch.tensor(SIMBEV_THRESHOLDS)
    mask = maps(seed + 1, classes=1)[0] > 0 if masked else None
    fast = threshold_counts(probability, target, thresholds, mask)
    for column, threshold in enumerate(thresholds):
        slow = confusion_counts(probability >= threshold, target, mask)
        for ours, expected in zip(fast, slow, strict=True):
            assert torch.equal(ours[:, column], expected.sum(0))


def test_simbev_scores_an_absent_class_zero() -> None:
    values = simbev_iou(torch.zeros(1, 2, 4, 4), torch.stack([torch.zeros(4, 4), torch.ones(4, 4)])[None])
    assert values.shape == (2, 9)
    assert not values.any()


class TestBinaryIoUMeter:
    def test_names_are_what_compute_gives(self) -> None:
        ring = np.zeros((6, 5), np.int64)
        meter = BinaryIoUMeter(["car", "road"], ring_index=ring)
        assert tuple(meter.compute()) == meter.names
        assert meter.names == (
            "iou", "iou/car", "iou/road", "iou_max", "precision", "recall",
            "iou/ring_0_20m", "iou/ring_20_35m", "iou/ring_35_50m",
        )  # fmt: skip
        assert "iou/ring_0_20m" not in BinaryIoUMeter(["car"]).names

    def test_iou_pools_cells_of_all_batches_then_averages_classes(self) -> None:
        meter, batches = BinaryIoUMeter(["car", "road"]), [maps(0), maps(1, batch=1)]
        for logits, target in batches:
            meter.update(logits, target)
        logits, target = (torch.cat(parts) for parts in zip(*batches, strict=True))
        expected = [float(batch_iou(logits[:, [c]], target[:, [c]])) for c in range(2)]
        values = meter.compute()
        assert [values["iou/car"], values["iou/road"]] == pytest.approx(expected)
        assert values["iou"] == pytest.approx(np.mean(expected))

    def test_merging_parts_equals_one_meter(self) -> None:
        """States pickle; two processes give what one gives, rows in order."""
        ring = np.arange(30).reshape(6, 5) % 4 - 1
        whole, parts = (
            BinaryIoUMeter(["car", "road"], ring_index=ring),
            [BinaryIoUMeter(["car", "road"], ring_index=ring) for _ in range(2)],
        )
        for index, meter in enumerate(parts):
            logits, target = maps(index)
            for target_meter in (whole, meter):
                target_meter.update(logits, target, tokens=[f"{index}-{k}" for k in range(3)])
        states = [pickle.loads(pickle.dumps(meter.state())) for meter in parts]
        parts[0].merge(states)
        assert parts[0].compute() == whole.compute()
        assert parts[0].per_sample() == whole.per_sample()
        assert parts[0].per_class() == whole.per_class()

    def test_state_does_not_change_with_later_updates(self) -> None:
        meter = BinaryIoUMeter(["car", "road"])
        before = meter.state()
        meter.update(*maps(0), tokens=["a", "b", "c"])
        assert not before["cells"].any()
        assert not before["rows"]

    def test_threshold_and_best_threshold(self) -> None:
        """The only good threshold is 0.3: `iou` at 0.5 misses half, `iou_max` does not."""
        logits = torch.tensor([logit(0.35), logit(0.8), logit(0.25), logit(0.05)]).view(1, 1, 2, 2)
        target = torch.tensor([1.0, 1.0, 0.0, 0.0]).view(1, 1, 2, 2)
        meter = BinaryIoUMeter(["car"])
        meter.update(logits, target)
        values, row = meter.compute(), meter.per_class()[0]
        assert (values["iou"], values["iou_max"], values["precision"], values["recall"]) == (0.5, 1, 1, 0.5)
        assert row["iou_max_threshold"] == 0.3
        assert row["iou@0.2"] == pytest.approx(2 / 3)
        assert (row["tp"], row["fp"], row["fn"]) == (1, 0, 1)

    def test_rings_count_only_their_cells(self) -> None:
        ring = np.array([[0, 0], [1, -1]])
        meter = BinaryIoUMeter(["car"], rings_m=((0, 20), (20, 35)), ring_index=ring)
        logits = torch.tensor([[1.0, 1.0], [1.0, 1.0]])[None, None]
        meter.update(logits, torch.tensor([[1.0, 0.0], [0.0, 0.0]])[None, None])
        values = meter.compute()
        assert (values["iou/ring_0_20m"], values["iou/ring_20_35m"]) == (0.5, 0.0)
        assert values["iou"] == 0.25

    def test_masked_cells_do_not_count_anywhere(self) -> None:
        logits, target = maps(0)
        mask = maps(5, classes=1)[0] > 0
        ring = np.zeros((6, 5), np.int64)
        one, two = (BinaryIoUMeter(["car", "road"], ring_index=ring) for _ in range(2))
        one.update(logits, target, mask=mask, tokens=["a", "b", "c"])
        two.update(logits, torch.where(mask, target, 1 - target), mask=mask, tokens=["a", "b", "c"])
        assert one.compute() == two.compute()
        assert one.per_sample() == two.per_sample()

    def test_nothing_there_and_nothing_found_is_one_but_only_found_is_zero(self) -> None:
        meter = BinaryIoUMeter(["empty", "ghost", "missed"])
        logits = torch.tensor([-1.0, 1.0, -1.0]).view(1, 3, 1, 1)
        meter.update(logits, torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1))
        rows = {row["class"]: row for row in meter.per_class()}
        assert [rows[name]["iou"] for name in ("empty", "ghost", "missed")] == [1, 0, 0]
        assert [rows[name]["precision"] for name in ("empty", "ghost", "missed")] == [1, 0, 0]

    def test_rows_of_samples(self) -> None:
        logits, target = maps(3)
        meter = BinaryIoUMeter(["car", "road"])
        meter.update(logits, target, tokens=["a", "b", "c"])
        rows = meter.per_sample()
        assert [row["token"] for row in rows] == ["a", "b", "c"]
        assert rows[1]["iou"] == pytest.approx(float(batch_iou(logits[[1]], target[[1]])))
        counts = confusion_counts(logits > 0, target)
        assert [rows[2][key] for key in ("tp", "fp", "fn")] == [int(count[2].sum()) for count in counts]


def test_iou_of_counts_in_float64() -> None:
    counts = confusion_counts(
        torch.ones(1, 1, 3, 1, dtype=torch.bool), torch.tensor([1.0, 0, 0]).view(1, 1, 3, 1)
    )
    assert iou(counts).dtype == torch.float64
    assert float(iou(counts)) == 1 / 3


class TestMeanMeter:
    def test_weights_and_merge(self) -> None:
        meter = MeanMeter("loss")
        assert np.isnan(meter.compute()["loss"])
        meter.update(2.0, 3)
        meter.update(6.0)
        assert meter.compute() == {"loss": 3.0}
        meter.merge([meter.state(), {"sum": 8.0, "weight": 1.0}])
        assert meter.compute() == {"loss": 4.0}
