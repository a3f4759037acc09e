"""Losses between tokens, and how SDPose puts them together over cycles."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from omma.core.heatmap_losses import joints_mse
from omma.core.token_losses import (
    entropy_token_loss,
    entropy_weights,
    important_keep,
    num_kept,
    random_keep,
    token_loss,
)
from omma.errors import ConfigError
from omma.systems.sdpose.config import Distillation
from omma.systems.sdpose.losses import CycleLoss, token_terms
from omma.systems.sdpose.model import Cycle

B, K, N, D = 2, 5, 10, 8


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def cycle(seed: int, *, attention: bool = True) -> Cycle:
    keypoints, visual, heatmaps = normal(B, K, D, seed=seed), normal(B, N, D, seed=seed), normal(B, K, 4, 3)
    leaves = [values.requires_grad_() for values in (keypoints, visual, heatmaps)]
    return Cycle(*leaves, normal(B, N, seed=seed).softmax(1) if attention else None)


TARGET, WEIGHT = normal(B, K, 4, 3, seed=5), torch.ones(B, K, 1)


class TestKeptTokens:
    @pytest.mark.parametrize(
        ("tokens", "ratio", "kept"), [(256, 0.3, 180), (17, 0.3, 12), (100, 0.29, 71), (1, 0.9, 1), (4, 0, 4)]
    )
    def test_how_many(self, tokens: int, ratio: float, kept: int) -> None:
        assert num_kept(tokens, ratio) == kept
        assert important_keep(torch.zeros(1, tokens), ratio).shape == (1, kept)

    def test_highest_scores_and_of_equal_ones_the_first(self) -> None:
        scores = torch.tensor([[1.0, 3.0, 1.0, 2.0, 1.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
        assert important_keep(scores, 0.4).tolist() == [[0, 1, 3], [0, 1, 2]]

    def test_random_ones_differ_by_sample_and_repeat_with_the_seed(self) -> None:
        tokens = torch.zeros(400, 20, 1)
        keep = random_keep(tokens, 0.5, generator=torch.Generator().manual_seed(3))
        assert torch.equal(keep, random_keep(tokens, 0.5, generator=torch.Generator().manual_seed(3)))
        assert not torch.equal(keep, random_keep(tokens, 0.5, generator=torch.Generator().manual_seed(4)))
        assert (keep.diff(dim=1) > 0).all()
        assert len({tuple(row) for row in keep.tolist()}) > 390
        counts = keep.flatten().bincount(minlength=20)
        assert counts.min() > 160  # 200 expected, deviation 10
        assert counts.max() < 240


class TestTokenLoss:
    def test_only_kept_tokens_count(self) -> None:
        student, teacher = normal(B, N, D).requires_grad_(), normal(B, N, D, seed=1)
        keep = torch.tensor([[0, 3], [7, 9]])
        loss = token_loss(student, teacher, keep=keep)
        chosen = torch.stack([(student - teacher)[b, keep[b]] for b in range(B)])
        torch.testing.assert_close(loss, chosen.square().mean())
        loss.backward()
        moved = student.grad.abs().sum(2) > 0
        assert moved.nonzero().tolist() == [[0, 0], [0, 3], [1, 7], [1, 9]]

    def test_detached_teacher_and_no_mask_are_the_published_loss(self) -> None:
        student, teacher = normal(B, N, D).requires_grad_(), normal(B, N, D, seed=1).requires_grad_()
        everything = important_keep(torch.rand(B, N), 0.0)
        assert torch.equal(token_loss(student, teacher, keep=everything), token_loss(student, teacher))
        token_loss(student, teacher).backward()
        assert teacher.grad is None
        token_loss(student, teacher, detach_teacher=False).backward()
        torch.testing.assert_close(teacher.grad, -student.grad / 2)

    def test_bfloat16_is_summed_in_float32(self) -> None:
        student, teacher = normal(B, N, D).bfloat16(), normal(B, N, D, seed=1).bfloat16()
        loss = token_loss(student, teacher)
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, token_loss(student.float(), teacher.float()))


class TestEntropy:
    def test_the_least_sure_joint_weighs_most(self) -> None:
        heatmaps = torch.zeros(1, 3, 6, 5)
        heatmaps[0, 0, 2, 2], heatmaps[0, 1, 2, 2] = 9.0, 4.0
        weights = entropy_weights(heatmaps, 0.5, 2.0)
        torch.testing.assert_close(weights[0, [0, 2]], torch.tensor([0.5, 2.0]))
        assert 0.5 < weights[0, 1] < 2.0

    def test_equal_joints_weigh_the_least_and_extreme_maps_stay_finite(self) -> None:
        torch.testing.assert_close(
            entropy_weights(torch.zeros(1, 4, 2, 2), 0.5, 2.0), torch.full((1, 4), 0.5)
        )
        assert entropy_weights(1e4 * normal(2, 5, 4, 3), 0.5, 2.0).isfinite().all()

    def test_direction_not_length_counts(self) -> None:
        student, weights = normal(B, K, D), torch.ones(B, K)
        assert float(entropy_token_loss(student, 3 * student, weights)) == pytest.approx(0.0, abs=1e-6)
        assert float(entropy_token_loss(student, -student, weights)) == pytest.approx(2.0)

    def test_other_tokens_get_the_joints_mean(self) -> None:
        student, teacher, weights = normal(B, N, D), normal(B, N, D, seed=1), torch.rand(B, K)
        loss = entropy_token_loss(student, teacher, weights)
        apart = 1 - torch.cosine_similarity(student, teacher, dim=2)
        torch.testing.assert_close(loss, (apart * weights.mean(1, keepdim=True)).mean())


class TestHeatmaps:
    def test_weights_may_have_a_last_axis(self) -> None:
        heatmaps, weight = normal(B, K, 4, 3), torch.rand(B, K)
        expected = (weight[..., None, None] * (heatmaps - TARGET).square()).mean()
        torch.testing.assert_close(joints_mse(heatmaps, TARGET, weight), expected)
        assert torch.equal(
            joints_mse(heatmaps, TARGET, weight[..., None]), joints_mse(heatmaps, TARGET, weight)
        )


class TestCycleLoss:
    def test_sums_over_cycles_and_pairs(self) -> None:
        cycles = [cycle(seed) for seed in range(3)]
        loss = CycleLoss(Distillation(loss_weight=2.0, heatmap_weight=0.5))
        terms = loss(cycles, TARGET, WEIGHT)
        assert list(terms) == loss.names(3) == [
            *("heatmap_loss", "vis_dist_loss", "kpt_dist_loss", "heatmap_dist_loss")
        ]  # fmt: skip
        heatmaps = sum(joints_mse(c.heatmaps, TARGET, WEIGHT) for c in cycles)
        torch.testing.assert_close(terms["heatmap_loss"], heatmaps)
        apart = [(a.visual - b.visual).square().mean() for a, b in (cycles[:2], cycles[1:])]
        torch.testing.assert_close(terms["vis_dist_loss"], 2.0 * (apart[0] + apart[1]))

    def test_one_cycle_has_nothing_to_learn_from(self) -> None:
        loss = CycleLoss(Distillation(heatmap_weight=1.0))
        assert list(loss([cycle(0)], TARGET, WEIGHT)) == loss.names(1) == ["heatmap_loss"]

    def test_later_cycles_teach_and_do_not_learn_from_tokens(self) -> None:
        cycles = [cycle(0), cycle(1)]
        terms = CycleLoss(Distillation())(cycles, TARGET, WEIGHT)
        (terms["vis_dist_loss"] + terms["kpt_dist_loss"]).backward()
        assert cycles[0].visual.grad.any()
        assert cycles[0].keypoints.grad.any()
        assert cycles[1].visual.grad is None
        assert cycles[1].keypoints.grad is None

    def test_each_kind_of_token_has_its_own_settings(self) -> None:
        distill = Distillation(
            loss="masked", mask_ratio=0.5, visual={"loss": "none"}, keypoint={"mask_strategy": "importance"}
        )
        terms = token_terms(distill)
        assert [term.kind for term in terms] == ["keypoint"]
        assert (terms[0].mask_ratio, terms[0].importance, terms[0].needs_attention) == (0.5, "peak", False)
        assert CycleLoss(distill).names(2) == ["heatmap_loss", "kpt_dist_loss"]
        assert token_terms(Distillation(loss_weight=0.0)) == []

    def test_attention_is_asked_for_where_it_decides(self) -> None:
        importance = {"loss": "masked", "mask_strategy": "importance"}
        loss = CycleLoss(Distillation(**importance))
        assert loss.needs_attention
        assert not CycleLoss(Distillation(**importance, visual={"importance": "norm"})).needs_attention
        assert not CycleLoss(Distillation(loss="masked")).needs_attention
        student, teacher = cycle(0), cycle(1)
        keep = important_keep(teacher.attention, 0.3)
        expected = 5e-6 * token_loss(student.visual, teacher.visual, keep=keep)
        torch.testing.assert_close(loss([student, teacher], TARGET, WEIGHT)["vis_dist_loss"], expected)

    def test_masks_come_from_the_generator(self) -> None:
        loss, cycles = CycleLoss(Distillation(loss="masked", mask_ratio=0.5)), [cycle(0), cycle(1)]
        values = [
            loss(cycles, TARGET, WEIGHT, generator=torch.Generator().manual_seed(seed))[
                "vis_dist_loss"
            ].item()
            for seed in (1, 1, 2)
        ]
        assert values[0] == values[1] != values[2]

    def test_entropy_uses_the_teachers_heatmaps(self) -> None:
        cycles = [cycle(0), cycle(1)]
        terms = CycleLoss(Distillation(loss="entropy", entropy_range=(1.0, 1.0)))(cycles, TARGET, WEIGHT)
        apart = 1 - torch.cosine_similarity(cycles[0].keypoints, cycles[1].keypoints, dim=2)
        torch.testing.assert_close(terms["kpt_dist_loss"], 5e-6 * apart.mean())
        assert math.isfinite(terms["vis_dist_loss"].item())

    def test_scores_that_a_kind_of_token_has_not(self) -> None:
        with pytest.raises(ConfigError, match=r"visual\.importance: visual tokens have no peak"):
            CycleLoss(Distillation(visual={"importance": "peak"}))
