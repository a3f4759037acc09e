"""Depth targets, the loss of a depth distribution, and labels as bits."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from omma.core.bev_labels import expand_label
from omma.core.depth import depth_cross_entropy, nearest_depth


class TestNearestDepth:
    def test_the_smallest_known_depth_of_each_block(self) -> None:
        depth_m = torch.zeros(1, 1, 64, 96)
        depth_m[0, 0, 0, 0], depth_m[0, 0, 31, 31], depth_m[0, 0, 32, 31] = 20.0, 7.5, 3.0
        nearest = nearest_depth(depth_m, (2, 3))
        assert nearest.tolist() == [[[7.5, 0.0, 0.0], [3.0, 0.0, 0.0]]]

    def test_rows_beyond_the_blocks_are_cut_and_missing_ones_unknown(self) -> None:
        depth_m = torch.full((2, 1, 40, 32), 9.0)
        depth_m[:, :, 32:] = 1.0
        assert nearest_depth(depth_m, (1, 1)).flatten().tolist() == [9.0, 9.0]
        assert nearest_depth(depth_m, (3, 2))[0].tolist() == [[9.0, 0.0], [1.0, 0.0], [0.0, 0.0]]


class TestDepthCrossEntropy:
    def test_is_one_for_a_uniform_distribution(self) -> None:
        nearest_m = torch.tensor([[[1.0, 12.3], [0.0, 49.99]]])
        assert float(depth_cross_entropy(torch.zeros(1, 49, 2, 2), nearest_m)) == pytest.approx(1.0)

    def test_against_the_definition(self) -> None:
        logits = torch.randn(2, 49, 3, 4, generator=torch.Generator().manual_seed(0))
        nearest_m = torch.zeros(2, 3, 4)
        nearest_m[0, 1, 2], nearest_m[1, 0, 3], nearest_m[1, 2, 0] = 1.0, 25.9, 60.0
        wanted = [(0, 0, 1, 2), (1, 24, 0, 3), (1, 48, 2, 0)]
        log_p = logits.log_softmax(1)
        expected = -sum(float(log_p[place]) for place in wanted) / 3 / math.log(49)
        assert float(depth_cross_entropy(logits, nearest_m)) == pytest.approx(expected, rel=1e-6)

    def test_bins_of_half_a_metre(self) -> None:
        logits = torch.zeros(1, 98, 1, 1)
        logits[0, 49] = 100.0  # from 25.5 m to 26 m
        loss = [
            float(depth_cross_entropy(logits, torch.full((1, 1, 1), depth_m), low=1.0, step=0.5))
            for depth_m in (25.4, 25.6, 26.1)
        ]
        assert loss[1] == pytest.approx(0.0, abs=1e-6)
        assert min(loss[0], loss[2]) > 10.0

    def test_nothing_known_gives_zero_and_zero_gradients(self) -> None:
        logits = torch.randn(1, 49, 2, 2, requires_grad=True)
        loss = depth_cross_entropy(logits, torch.zeros(1, 2, 2))
        loss.backward()
        assert float(loss.detach()) == 0.0
        assert logits.grad is not None
        assert not logits.grad.any()

    def test_half_precision_logits_are_summed_in_float32(self) -> None:
        logits = torch.randn(1, 49, 4, 4).bfloat16()
        nearest_m = torch.full((1, 4, 4), 10.0)
        loss = depth_cross_entropy(logits, nearest_m)
        bins = torch.full((1, 4, 4), 9)
        assert loss.dtype == torch.float32
        assert float(loss) == pytest.approx(float(F.cross_entropy(logits.float(), bins)) / math.log(49))


class TestExpandLabel:
    def test_classes_and_cells_that_do_not_count(self) -> None:
        label = torch.tensor([[[0b1, 0b10001], [1 << 14, (1 << 14) | (1 << 13)]]], dtype=torch.int16)
        target, visible = expand_label(label, 14)
        assert target.shape == (1, 14, 2, 2)
        assert target.dtype == visible.dtype == torch.bool
        assert visible[0, 0].tolist() == [[True, True], [False, False]]
        assert target[0, :, 0, 1].nonzero().flatten().tolist() == [0, 4]
        assert target[0, :, 1, 1].nonzero().flatten().tolist() == [13]
        assert target.sum() == 4

    def test_fewer_classes(self) -> None:
        label = torch.tensor([[[0b11]]], dtype=torch.int16)
        target, visible = expand_label(label, 1, ignore_bit=1)
        assert target.tolist() == [[[[True]]]]
        assert visible.tolist() == [[[[False]]]]
