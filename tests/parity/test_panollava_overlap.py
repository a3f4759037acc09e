"""Overlap losses, position codes and measures of consistency against the reference."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from fill import load_arrays, load_case
from torch import Tensor

from omma.core.overlap_losses import (
    ColumnMatcher,
    Matches,
    dense_contrast,
    global_local,
    standardise,
    tile_contrast,
    total,
    vicreg,
    vicreg_terms,
)
from omma.core.panorama_positions import (
    SphereFourier,
    column_code,
    reference_points,
    shifted_ids,
    strip_ids,
)
from omma.core.view_consistency import (
    effective_rank,
    linear_cka,
    overlap_measures,
    position_accuracy,
)

pytestmark = pytest.mark.parity
CASES = Path(__file__).parent / "panollava"
RING = [(0, 1), (1, 2), (2, 3), (3, 0)]


def tensors(name: str) -> dict[str, Tensor]:
    return {
        key: torch.from_numpy(np.array(array)) for key, array in load_arrays(CASES / f"{name}.npz").items()
    }


def columns(tokens: Tensor, overlap: float, grid: tuple[int, int] = (4, 4)) -> Matches:
    return ColumnMatcher(RING, grid, overlap)(tokens.unflatten(0, (-1, 4)))


def flattened(matches: Matches) -> tuple[Tensor, Tensor]:
    first, second = (torch.cat([pair[side].flatten(0, 1) for pair in matches]) for side in (0, 1))
    return first, second


def gradient(loss: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, inputs)


def close(found: Tensor, expected: Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(found, expected.to(found.dtype), atol=atol, rtol=1e-6)


@pytest.mark.parametrize("form", ["seed97", "aug31", "aug4e", "head"])
def test_vicreg_of_matrices(form: str) -> None:
    case = tensors("vicreg")
    first, second = case["flat_x"].requires_grad_(), case["flat_y"].requires_grad_()
    terms = vicreg_terms(first, second, form)
    close(total(terms), case[f"flat_{form}_loss"])
    by_first, by_second = gradient(total(terms), first, second)
    close(by_first, case[f"flat_{form}_gradx"])
    close(by_second, case[f"flat_{form}_grady"])
    if form == "seed97":
        close(torch.stack([torch.as_tensor(term) for term in terms]), case["flat_seed97_terms"])


def test_vicreg_of_one_row() -> None:
    case = tensors("vicreg")
    loss = total(vicreg_terms(case["flat_x"][:1], case["flat_y"][:1]))
    close(loss, case["edge_n1_head"])


def test_vicreg_of_constant_features() -> None:
    case = tensors("vicreg")
    constant = torch.ones(40, 16)
    close(total(vicreg_terms(constant, constant, "seed97")), case["edge_collapsed_seed97"])
    close(total(vicreg_terms(constant, constant, "head")), case["edge_collapsed_head"])


@pytest.mark.parametrize("form", ["seed97", "aug31"])
@pytest.mark.parametrize("overlap", [0.5, 0.25])
def test_overlap_of_the_seed(form: str, overlap: float) -> None:
    case = tensors("vicreg")
    tokens = case["ov_feats"].requires_grad_()
    prepared = standardise(tokens) if form == "seed97" else tokens
    loss = total(vicreg_terms(*flattened(columns(prepared, overlap)), form))
    close(loss, case[f"ov_{form}_r{overlap}_loss"], atol=2e-5)
    if overlap == 0.5:
        close(gradient(loss, tokens)[0], case[f"ov_{form}_r0.5_grad"])


@pytest.mark.parametrize("overlap", [0.5, 0.25])
def test_class_token_counts_in_the_standard(overlap: float) -> None:
    case = tensors("vicreg")
    tokens = standardise(case["ov_feats_cls"])[:, 1:]
    loss = total(vicreg_terms(*flattened(columns(tokens, overlap)), "seed97"))
    close(loss, case[f"ov_seed97_cls_r{overlap}_loss"], atol=2e-5)


def test_overlap_on_a_wide_grid() -> None:
    case = tensors("vicreg")
    matches = columns(standardise(case["ov_feats_2x3"]), 0.5, (2, 3))
    close(total(vicreg_terms(*flattened(matches), "seed97")), case["ov_seed97_2x3_r0.5_loss"], atol=2e-5)


@pytest.mark.parametrize("scope", ["pairwise", "batchwise"])
@pytest.mark.parametrize("overlap", [0.5, 0.25, 0.1])
def test_overlap_of_head(scope: str, overlap: float) -> None:
    case = tensors("vicreg")
    tokens = case["ov_feats"].requires_grad_()
    loss = total(vicreg(columns(tokens, overlap), scope))
    close(loss, case[f"ov_head_{scope}_r{overlap}_loss"], atol=2e-5)
    if overlap == 0.5:
        close(gradient(loss, tokens)[0], case[f"ov_head_{scope}_r0.5_grad"])


@pytest.mark.parametrize("scope", ["pairwise", "batchwise"])
def test_collapsed_overlap_of_head(scope: str) -> None:
    expected = tensors("vicreg")[f"ov_head_{scope}_collapsed_loss"]
    close(total(vicreg(columns(torch.ones(8, 16, 16), 0.5), scope)), expected)


def test_overlap_of_adapters() -> None:
    case = tensors("overlap_losses")
    matches = columns(case["pa_feats"], 0.5)
    close(dense_contrast(matches), case["pa_densecl"])
    close(total(vicreg(matches, "pairwise")), case["pa_vicreg_pairwise"], atol=2e-5)
    close(total(vicreg(matches, "batchwise")), case["pa_vicreg_batchwise"], atol=2e-5)


@pytest.mark.parametrize("overlap", [0.5, 0.25])
@pytest.mark.parametrize("temperature", [0.07, 0.2])
def test_dense_contrast(overlap: float, temperature: float) -> None:
    case = tensors("overlap_losses")
    tokens = case["feats"].requires_grad_()
    loss = dense_contrast(columns(tokens, overlap), temperature)
    close(loss, case[f"densecl_r{overlap}_t{temperature}_loss"])
    if (overlap, temperature) == (0.5, 0.07):
        close(gradient(loss, tokens)[0], case["densecl_r0.5_t0.07_grad"])


def test_dense_contrast_of_constant_features() -> None:
    loss = dense_contrast(columns(torch.ones(8, 16, 16), 0.5))
    close(loss, tensors("overlap_losses")["densecl_collapsed_loss"])
    assert float(loss) == pytest.approx(math.log(16))


def test_contrast_of_two_passes() -> None:
    case = tensors("overlap_losses")
    first, second = case["z1"], case["z2"]
    pairs = zip(columns(first, 0.5), columns(second, 0.5), strict=True)
    across = dense_contrast([(one[0], other[1]) for one, other in pairs])
    within = tile_contrast(*(side.unflatten(0, (-1, 4)) for side in (first, second)))
    close(across, case["contrastive_overlap"])
    close(within, case["contrastive_tile"])
    close(across + 0.1 * within, case["contrastive_loss"])


@pytest.mark.parametrize(("distance", "name"), [("cosine", "cosine"), ("l2", "mse")])
def test_global_local(distance: str, name: str) -> None:
    case = tensors("overlap_losses")
    views = case["feats"].unflatten(0, (-1, 4))
    close(global_local(case["global_feats"], views, distance), case[f"globallocal_{name}"])


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
def test_column_code(overlap: float) -> None:
    case = tensors("pano_pe")
    close(column_code(4, (4, 4), 12, overlap=overlap), case[f"pe_ov{overlap}_cont1"], atol=1e-6)
    close(column_code(4, (4, 4), 12, overlap=0), case[f"pe_ov{overlap}_cont0"], atol=1e-6)


def test_column_code_of_odd_width_and_without_places() -> None:
    case = tensors("pano_pe")
    close(column_code(4, (3, 2), 7), case["pe_odd_d7_s6"], atol=1e-6)
    close(column_code(4, (4, 4), 12, spatial=False), case["pe_nospatial"], atol=1e-6)


def test_sphere_fourier() -> None:
    weights, case, _ = load_case(CASES / "pano_pe")
    code = SphereFourier(12, bands=3)
    code.load_state_dict({key.removeprefix("_"): torch.from_numpy(value) for key, value in weights.items()})
    close(code(reference_points(4, (4, 4), 0.5)), torch.from_numpy(case["pe2"]))


@pytest.mark.parametrize(
    ("name", "grid", "overlap", "closed"),
    [
        ("4x4_r0.5_wrap1", (4, 4), 0.5, True),
        ("4x4_r0.5_wrap0", (4, 4), 0.5, False),
        ("3x5_r0.25_wrap1", (3, 5), 0.25, True),
    ],
)
def test_strip_ids(name: str, grid: tuple[int, int], overlap: float, closed: bool) -> None:
    expected = tensors("panorope")[f"ids_V8_{name}"]
    assert torch.equal(strip_ids(8, grid, overlap, closed=closed), expected)


@pytest.mark.parametrize("whole", [True, False])
def test_shifted_ids(whole: bool) -> None:
    case = tensors("panorope")
    found = shifted_ids(case["rope1d_in"], case["rope1d_input_ids"] == 9, 4, overlap=0.5, whole=whole)
    assert torch.equal(found, case[f"rope1d_out_global{int(whole)}"])


def test_measures_of_neighbours() -> None:
    case = tensors("diagnostics")
    tokens = case["vicreg_features"].unflatten(0, (3, 4))
    found = overlap_measures(ColumnMatcher(RING[:3], (4, 4), 0.5)(tokens))
    expected = {"cosine": "adj_cos", "mse": "adj_mse", "cka": "adj_cka", "retrieval": "overlap_ret_acc"}
    for name, theirs in expected.items():
        assert found[f"overlap_{name}"] == pytest.approx(float(case[f"val_{theirs}"]), abs=1e-6)
    assert float(tokens.std(-1).mean()) == pytest.approx(float(case["val_feat_std"]), abs=1e-6)


@pytest.mark.parametrize(
    ("features", "prefix"), [("vicreg_features", "val_"), ("resampler_features", "val_r_")]
)
def test_measures_of_views(features: str, prefix: str) -> None:
    case = tensors("diagnostics")
    tokens = case[features].unflatten(0, (3, 4))
    means = tokens.mean(2)
    opposite = linear_cka(tokens[:, 0].flatten(0, 1), tokens[:, 2].flatten(0, 1))  # of the first view only
    name = "inter_view_cka" if prefix == "val_" else "inter_cka"
    assert opposite == pytest.approx(float(case[prefix + name]), abs=1e-6)
    assert effective_rank(means.flatten(0, 1)) == pytest.approx(float(case[prefix + "eff_rank"]), abs=1e-5)
    assert position_accuracy(means) == pytest.approx(float(case[prefix + "hungarian_acc"]), abs=1e-6)


def test_measures_of_the_whole_panorama() -> None:
    case = tensors("diagnostics")
    whole = case["global_features"].mean(1)
    views = case["vicreg_features"].unflatten(0, (3, 4)).mean((1, 2))
    cosine = torch.nn.functional.cosine_similarity(whole, views).mean()
    close(cosine, case["val_gl_cos"])
    assert linear_cka(whole, views) == pytest.approx(float(case["val_gl_cka"]), abs=1e-6)
