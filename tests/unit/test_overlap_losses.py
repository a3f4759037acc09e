"""Matches of tokens, losses between them, position codes and measures of consistency."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from omma.core.overlap_losses import (
    Matches,
    Terms,
    bilinear_weights,
    dense_contrast,
    token_matcher,
    total,
    vicreg,
    vicreg_local,
    vicreg_terms,
)
from omma.core.panorama import View, ring_yaws_deg
from omma.core.panorama_positions import DirectionCode, direction_features, token_directions
from omma.core.view_consistency import consistency, effective_rank, linear_cka, retrieval_accuracy
from omma.errors import ConfigError

GRID = (14, 14)
RING = [View(yaw, 0.0, (90.0, 90.0)) for yaw in ring_yaws_deg(90, 0.5)]


def field(views: list[View], grid: tuple[int, int] = GRID) -> Tensor:
    """Features that depend on the direction alone, of two samples."""
    directions = token_directions(views, grid)
    waves = [directions, directions.square(), torch.sin(2 * directions)]
    return torch.cat(waves, dim=-1).expand(2, -1, -1, -1)


def test_a_field_of_directions_is_invariant_with_geometric_pairs_only() -> None:
    features = field(RING)
    geometry, columns = (
        float(vicreg(token_matcher(RING, GRID, pairing=pairing)(features)).invariance)
        for pairing in ("geometry", "columns")
    )
    assert geometry < 1e-5
    assert columns > 500 * geometry


def test_rings_above_each_other_are_matched_too() -> None:
    views = [*RING, *(View(view.yaw_deg, 45.0, view.fov_deg) for view in RING)]
    matcher = token_matcher(views, GRID)
    assert len(matcher.joined) == 24
    assert float(vicreg(matcher(field(views))).invariance) < 1e-4


def test_the_whole_panorama_is_left_out() -> None:
    features = torch.cat([torch.full((2, 1, 196, 9), 7.0), field(RING)], dim=1)
    for pairing in ("geometry", "columns"):
        matcher = token_matcher([None, *RING], GRID, pairing=pairing)
        assert min(min(pair) for pair in matcher.joined) == 1
        assert all(float(side.max()) < 7 for pair in matcher(features) for side in pair)


@pytest.mark.parametrize("pairing", ["geometry", "columns"])
def test_views_without_overlap_are_refused(pairing: str) -> None:
    apart = [View(yaw, 0.0, (45.0, 45.0)) for yaw in ring_yaws_deg(45, 0.0)]
    with pytest.raises(ConfigError, match="no place in common"):
        token_matcher(apart, (16, 16), pairing=pairing)


def test_columns_pair_the_right_of_a_view_with_the_left_of_the_next() -> None:
    tokens = torch.arange(8 * 196.0).reshape(1, 8, 196, 1)
    first, second = token_matcher(RING, GRID, pairing="columns", overlap=0.25)(tokens)[7]
    assert first.shape == (1, 14 * 3, 1)
    assert first[0, :3, 0].tolist() == [7 * 196 + 11.0, 7 * 196 + 12, 7 * 196 + 13]
    assert second[0, :4, 0].tolist() == [0.0, 1, 2, 14]


def test_bilinear_weights() -> None:
    weights = bilinear_weights(torch.tensor([[1.25, 0.5], [2.0, 1.0]]), (2, 3))
    assert weights[0].tolist() == [0, 0.375, 0.125, 0, 0.375, 0.125]
    assert weights[1].tolist() == [0, 0, 0, 0, 0, 1]


def test_gradient_reaches_both_sides() -> None:
    tokens = torch.randn(1, 8, 196, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    total(vicreg(token_matcher(RING, GRID)(tokens))).backward()
    assert tokens.grad is not None
    assert bool((tokens.grad.abs().amax((0, 2, 3)) > 0).all())


def test_vicreg_by_hand() -> None:
    first = torch.tensor([[0.0, 0.0], [2.0, 2.0]])
    terms = vicreg_terms(first, first + 1, "seed97")
    assert float(terms.invariance) == 1
    assert float(terms.variance) == 0  # standard deviations are above 1
    assert float(terms.covariance) == pytest.approx(2 * (2 * 2**2) / 2)


def test_weights_of_the_total() -> None:
    assert float(total(Terms(1.0, 2.0, 3.0), Terms(10.0, 100.0, 1000.0))) == 3210


@pytest.mark.parametrize("distance", ["l2", "cosine"])
def test_local_vicreg(distance: str) -> None:
    features = field(RING)
    matcher = token_matcher(RING, GRID)
    alike = vicreg_local(matcher(features), distance)
    noisy = vicreg_local(matcher(features + torch.randn(features.shape)), distance)
    assert float(alike.invariance) < 1e-4 < 0.1 < float(noisy.invariance)
    assert float(noisy.variance) < float(alike.variance)
    assert float(noisy.covariance) >= 0


def test_local_vicreg_counts_pairs_of_ten_tokens() -> None:
    many = (torch.zeros(1, 12, 2), torch.ones(1, 12, 2))
    few = (torch.zeros(1, 9, 2), torch.full((1, 9, 2), 5.0))
    assert float(vicreg_local([many, few]).invariance) == 1
    assert float(vicreg_local([few]).invariance) == 25


def test_dense_contrast_falls_when_matches_stand_out() -> None:
    matcher = token_matcher(RING, GRID)
    alike = dense_contrast(matcher(torch.ones(1, 8, 196, 4)))
    told_apart = dense_contrast(matcher(direction_features(token_directions(RING, GRID))[None]))
    assert float(alike) == pytest.approx(math.log(matcher(field(RING))[0][0].shape[1]), abs=1e-4)
    assert float(told_apart) < float(alike) - 0.5


@pytest.mark.parametrize(
    "loss", [lambda m: total(vicreg(m)), dense_contrast, lambda m: total(vicreg_local(m))]
)
def test_losses_are_float32_under_autocast(loss: Callable[[Matches], Tensor]) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        matches = token_matcher(RING, GRID)(field(RING).bfloat16())
        found = loss(matches)
    assert found.dtype == torch.float32
    assert bool(found.isfinite())


class TestDirectionCode:
    def test_changes_nothing_at_the_start_and_learns(self) -> None:
        code = DirectionCode(6)
        found = code(token_directions(RING, (2, 2)))
        assert found.shape == (8, 4, 6)
        assert bool((found == 0).all())
        found.sum().backward()
        assert code.gate.grad is not None
        assert bool((code.gate.grad != 0).all())

    def test_open_code_has_unit_variance_at_the_horizon(self) -> None:
        torch.manual_seed(0)
        found = DirectionCode(512).proj(direction_features(token_directions(RING, (1, 1))))
        assert float(found.detach().var()) == pytest.approx(1, abs=0.1)

    def test_the_whole_panorama_has_no_code(self) -> None:
        directions = token_directions([None, RING[0]], (2, 2))
        assert bool((direction_features(directions)[0] == 0).all())
        assert bool((direction_features(directions)[1] != 0).any())

    def test_no_seam_at_the_back_nor_at_the_poles(self) -> None:
        step = 1e-4
        near = [(step, 0.0, -1.0), (-step, 0.0, -1.0), (step, 1.0, 0.0), (0.0, 1.0, -step)]
        features = direction_features(torch.nn.functional.normalize(torch.tensor(near), dim=-1))
        assert float((features[0] - features[1]).abs().max()) < 20 * step
        assert float((features[2] - features[3]).abs().max()) < 20 * step

    def test_directions_are_unit_vectors(self) -> None:
        directions = token_directions(RING, (3, 3))
        np.testing.assert_allclose(directions.norm(dim=-1), 1, atol=1e-6)
        np.testing.assert_allclose(directions[2, 4], (1, 0, 0), atol=1e-6)  # yaw 90


class TestConsistency:
    def test_measures_of_a_consistent_field(self) -> None:
        features = field(RING)
        measures = consistency(features, token_matcher(RING, GRID)(features), whole=features[:, 0])
        assert measures["overlap_cosine"] > 0.999
        assert measures["overlap_cka"] > 0.999
        assert measures["overlap_retrieval"] > 0.9
        assert measures["view_position"] == 1
        assert {"opposite_cka", "whole_cosine", "whole_cka", "token_std", "effective_rank"} <= set(measures)

    def test_one_sample_has_no_others(self) -> None:
        features = field(RING)[:1]
        measures = consistency(features, token_matcher(RING, GRID)(features))
        assert "view_position" not in measures
        assert "whole_cka" not in measures

    def test_collapsed_tokens_show(self) -> None:
        constant = torch.ones(2, 8, 196, 4)
        assert effective_rank(constant[:, :, 0].flatten(0, 1)) == pytest.approx(1, abs=1e-4)
        assert retrieval_accuracy(token_matcher(RING, GRID)(constant)) < 0.1

    def test_effective_rank_counts_equal_directions(self) -> None:
        assert effective_rank(3 * torch.eye(5)) == pytest.approx(5, abs=1e-5)

    def test_alignment_ignores_rotation_and_scale(self) -> None:
        features = torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
        turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(2)))[0]
        assert linear_cka(features, 4 * features @ turn + 1) == pytest.approx(1, abs=1e-5)
        other = torch.randn(50, 3, generator=torch.Generator().manual_seed(3))
        assert linear_cka(features, other) < 0.3
