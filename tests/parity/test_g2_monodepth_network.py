"""Networks, losses and training steps of G2-MonoDepth and its relatives against the reference's values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fill import load_arrays, load_case
from torch import Tensor, nn

from omma.core.depth_losses import (
    absolute_loss,
    berhu_loss,
    dual_head_losses,
    gradient_loss,
    mean_and_deviation,
    relative_losses,
    silog_loss,
    split_depth,
    ssi_loss,
    standardize,
    subsample,
    trimmed_loss,
)
from omma.systems.g2_monodepth.convert import (
    load_reference,
    load_reference_part,
    published_name,
    to_reference,
)
from omma.systems.g2_monodepth.unet import UNet, level_widths

pytestmark = pytest.mark.parity
CASES = Path(__file__).parent / "g2_monodepth"
Arrays = dict[str, np.ndarray]
INPUTS = ("rgb", "raw", "mask")


def arrays_of(name: str) -> Arrays:
    return load_arrays(CASES / f"{name}.npz")


def load(name: str, **options: Any) -> tuple[Any, Arrays, dict[str, np.ndarray]]:
    weights, arrays, _ = load_case(str(CASES / name))
    return load_reference(weights, **options), arrays, weights


def tensor(arrays: Arrays, key: str) -> Tensor:
    return torch.from_numpy(arrays[key])


def close(ours: Tensor, expected: np.ndarray, atol: float = 2e-5, rtol: float = 0.0) -> None:
    np.testing.assert_allclose(ours.detach().numpy(), expected, rtol=rtol, atol=atol)


def outputs_of(modules: dict[str, nn.Module]) -> dict[str, Tensor]:
    """What the modules last returned, by name."""
    outputs: dict[str, Tensor] = {}
    for name, module in modules.items():
        module.register_forward_hook(lambda _m, _i, out, name=name: outputs.__setitem__(name, out))
    return outputs


def check_features(outputs: dict[str, Tensor], arrays: Arrays, rtol: float = 0.0, atol: float = 2e-5) -> None:
    for name, values in outputs.items():
        if name in arrays:
            close(values, arrays[name], rtol=rtol, atol=atol)
            continue
        close(values.mean(), arrays[f"{name}_mean"], rtol=rtol, atol=atol)
        close(values.abs().mean(), arrays[f"{name}_absmean"], rtol=rtol, atol=atol)
        corner = arrays[f"{name}_corner"]
        channels, rows, columns = corner.shape[-3:]
        found = values if corner.ndim == 4 else values[0]
        close(found[..., :channels, :rows, :columns], corner, rtol=rtol, atol=atol)


class TestUNet:
    @pytest.mark.parametrize(
        ("case", "rtol", "atol"),
        [("unet_f8", 0.0, 2e-5), ("unet_f8_bn", 1e-5, 5e-5), ("unet_full", 0.0, 2e-5)],
    )
    @torch.no_grad()
    def test_output_and_every_level(self, case: str, rtol: float, atol: float) -> None:
        """With batch norm, values are of the order of 10; with two threads they are bit-equal."""
        model, arrays, _ = load(case)
        levels = model.levels()
        modules = {f"enc{i}": level.before for i, level in enumerate(levels)}
        modules |= {f"dec{i}": level.after for i, level in enumerate(levels[:-1])}
        outputs = outputs_of(modules)
        depth = model(*(tensor(arrays, key) for key in INPUTS))
        close(depth, arrays["out"], rtol=rtol, atol=atol)
        assert len(outputs) == 13
        check_features(outputs, arrays, rtol, atol)
        if case == "unet_full":
            assert sum(p.numel() for p in model.parameters()) == 18_161_672

    @torch.no_grad()
    def test_one_tensor_and_no_mask_are_the_same_call(self) -> None:
        model, arrays, _ = load("unet_f8")
        inputs = [tensor(arrays, key)[:1, :, :64, :64] for key in INPUTS]
        depth = model(*inputs)
        assert torch.equal(model(torch.cat(inputs, 1)), depth)
        assert torch.equal(model(*inputs[:2]), depth)

    @torch.no_grad()
    def test_channels_last_and_bfloat16(self) -> None:
        model, arrays, _ = load("unet_f8")
        model.to(memory_format=torch.channels_last)
        inputs = torch.cat([tensor(arrays, key) for key in INPUTS], 1).to(memory_format=torch.channels_last)
        close(model(inputs), arrays["out"])
        with torch.autocast("cpu", torch.bfloat16):
            close(model(inputs).float(), arrays["out"], atol=1e-2)

    @pytest.mark.parametrize(
        "name", "bneck_same bneck_proj bneck_same_bn bneck_proj_bn stack_proj first unet_mod".split()
    )
    @torch.no_grad()
    def test_parts(self, name: str) -> None:
        weights, arrays, _ = load_case(str(CASES / "blocks"))
        part = load_reference_part(name, weights)
        features = tensor(arrays, f"{name}.in")
        before = features.clone()
        close(part(features), arrays[f"{name}.out"])
        assert torch.equal(features, before)  # the reference overwrites it: in_after

    def test_widths(self) -> None:
        assert level_widths(7, 64) == [64, 128, 256, 512, 512, 512, 512]
        assert level_widths(4, 8) == [8, 16, 32, 32]


class TestSPNet:
    @pytest.mark.parametrize("case", ["spnet_reduced", "pacgdc_reduced"])
    @torch.no_grad()
    def test_output(self, case: str) -> None:
        model, arrays, _ = load(case)
        close(model(*(tensor(arrays, key) for key in INPUTS)), arrays["out"])

    @torch.no_grad()
    def test_features(self) -> None:
        model, arrays, _ = load("spnet_reduced")
        features = model.encode(torch.cat([tensor(arrays, key) for key in INPUTS], 1))
        check_features({f"enc{i}": values for i, values in enumerate(features)}, arrays)


class TestResNetSAN:
    @torch.no_grad()
    def test_single_head(self) -> None:
        model, arrays, weights = load("resnetsan_single")
        rgb = tensor(arrays, "rgb")
        heads = model.heads(rgb)["inverse"]
        for scale, values in enumerate(heads):
            close(values, arrays[f"sigmoid{scale}"])
        close(model.inverse_depth(heads[0]), arrays["inv_depth_linear"])
        close(1 / model(rgb), arrays["inv_depth_linear"])
        in_log = load_reference(weights, space="log")
        close(1 / in_log(rgb), arrays["inv_depth_log"])

    @torch.no_grad()
    def test_dual_head_and_features(self) -> None:
        model, arrays, _ = load("resnetsan_dual")
        rgb = tensor(arrays, "rgb")
        features = model.encoder((rgb - 0.45) / 0.225)
        for level, values in enumerate(features):
            assert list(values.shape) == arrays[f"skip{level}_shape"].tolist()
            close(values.mean(), arrays[f"skip{level}_mean"])
            close(values[:, :8, :2, :2], arrays[f"skip{level}_corner"])
        for name, scales in model.heads(rgb).items():
            for scale, values in enumerate(scales):
                close(values, arrays[f"{name}{scale}"])
        close(model(rgb), arrays["depth"])


@pytest.mark.parametrize(
    "case", "unet_f8 unet_f8_bn spnet_reduced pacgdc_reduced resnetsan_single resnetsan_dual".split()
)
def test_names_there_and_back(case: str) -> None:
    """Same names, order and values; the unused classifier of ResNetSAN01 comes back as zeros."""
    model, _, weights = load(case)
    back = to_reference(model)
    assert list(back) == list(weights)
    for name, value in back.items():
        if name.startswith("encoder.encoder.fc."):
            assert value.shape == weights[name].shape
        else:
            np.testing.assert_array_equal(value.numpy(), weights[name], err_msg=name)


class TestLosses:
    def test_standardization(self) -> None:
        arrays = arrays_of("standardize")
        mask = tensor(arrays, "mask")
        pred = tensor(arrays, "pred").requires_grad_()
        gt = tensor(arrays, "gt")
        for name, depth in (("pred", pred), ("gt", gt)):
            mean, deviation = mean_and_deviation(depth, mask)
            close(mean, arrays[f"{name}_mean"], atol=1e-7, rtol=1e-5)
            close(deviation, arrays[f"{name}_mad"], atol=1e-7, rtol=1e-5)
            close(standardize(depth, mask), arrays[f"sta_{name}"], rtol=1e-5)
        total = (standardize(pred, mask) - standardize(gt, mask)).square().mul(mask).sum()
        np.testing.assert_allclose(float(total.detach()), arrays["sumsq"], rtol=1e-5)
        total.backward()
        close(pred.grad, arrays["grad_sumsq_wrt_pred"], atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize("case", ["random", "sparse", "empty", "full", "one_sample_empty"])
    def test_absolute(self, case: str) -> None:
        arrays = arrays_of("data_loss")
        pred = tensor(arrays, f"{case}.pred").requires_grad_()
        loss = absolute_loss(pred, tensor(arrays, f"{case}.gt"), tensor(arrays, f"{case}.mask"))
        loss.backward()
        np.testing.assert_allclose(float(loss.detach()), arrays[f"{case}.loss"], rtol=1e-5)
        close(pred.grad, arrays[f"{case}.grad"], atol=1e-9, rtol=1e-4)

    def test_what_is_masked_out_does_not_count(self) -> None:
        arrays = arrays_of("data_loss")
        pred, gt, mask = (tensor(arrays, f"nonfinite_masked_out.{key}") for key in ("pred", "gt", "mask"))
        assert np.isnan(arrays["nonfinite_masked_out.loss"])  # of the reference
        pred.requires_grad_()
        terms = (absolute_loss(pred, gt, mask), *relative_losses(pred, gt, mask, scales=2))
        sum(terms).backward()
        assert all(term.isfinite() for term in terms)
        assert pred.grad.isfinite().all()

    @pytest.mark.parametrize("operator", ["sobel", "difference"])
    @pytest.mark.parametrize("case", ["even", "odd", "min24", "sparse", "empty", "full320"])
    def test_gradient(self, case: str, operator: Any) -> None:
        arrays, name = arrays_of("msgrad_loss"), "sobel" if operator == "sobel" else "diff"
        pred = tensor(arrays, f"{case}.pred").requires_grad_()
        gt, mask = tensor(arrays, f"{case}.gt"), tensor(arrays, f"{case}.mask")
        loss = gradient_loss(pred, gt, mask, operator=operator)
        loss.backward()
        np.testing.assert_allclose(float(loss.detach()), arrays[f"{case}.{name}_loss"], rtol=1e-5)
        if case == "full320":
            total = float(pred.grad.abs().sum())
            np.testing.assert_allclose(total, arrays[f"{case}.{name}_grad_abssum"], rtol=1e-4)
        else:
            close(pred.grad, arrays[f"{case}.{name}_grad"], atol=1e-8, rtol=1e-4)
        sums = [float(gradient_loss(pred, gt, mask, operator=operator, scales=n).detach()) for n in (1, 2, 3)]
        first = arrays[f"{case}.{name}_per_scale_sum"].cumsum()[:3] / max(float(mask.sum()), 1)
        np.testing.assert_allclose(sums, first, rtol=1e-5)

    def test_isolated_pixel_and_odd_sizes(self) -> None:
        arrays = arrays_of("msgrad_loss")
        pred, gt, mask = (tensor(arrays, f"isolated.{key}") for key in ("pred", "gt", "mask"))
        np.testing.assert_allclose(gradient_loss(pred, gt, mask), arrays["isolated.sobel_loss"], rtol=1e-5)
        residual = (tensor(arrays, "odd.pred") - tensor(arrays, "odd.gt")) * tensor(arrays, "odd.mask")
        for scale in range(4):
            close(subsample(residual, 2**scale), arrays[f"odd.residual_scale{scale}"], atol=1e-7)

    def test_packnets_losses(self) -> None:
        arrays = arrays_of("ours_losses")
        pred, gt = tensor(arrays, "pred"), tensor(arrays, "gt")
        mask = gt > 0
        inv_pred, inv_gt = 1 / pred, torch.where(mask, 1 / gt, 0.0)
        ssi = ssi_loss(inv_pred, inv_gt, mask)
        silog = silog_loss(pred.clamp(0.5, 15.0), gt.clamp(0.5, 15.0), mask, eps=1e-8)
        found = {
            "silog": silog_loss(pred, gt, mask),
            "berhu": berhu_loss(pred, gt, mask),
            "ssi_trim": trimmed_loss(inv_pred, inv_gt, mask),
            "ssi_silog_gw0.0.ssi_component": ssi,
            "ssi_silog_gw0.0.silog_component": silog,
            "ssi_silog_gw0.0": 0.4 * ssi + 0.4 * silog,
        }
        for name, value in found.items():
            rtol = 2e-5 if name == "ssi_trim" else 1e-5  # least squares in float32 there
            np.testing.assert_allclose(float(value), arrays[name], rtol=rtol, err_msg=name)

    def test_dual_head(self) -> None:
        arrays = arrays_of("ours_losses")
        gt = tensor(arrays, "gt")
        for part, expected in zip(split_depth(gt, 15.0), ("integer_gt", "fractional_gt"), strict=True):
            close(part, arrays[expected], atol=1e-6)
        heads = tensor(arrays, "dual.integer"), tensor(arrays, "dual.fractional")
        terms = dual_head_losses(*heads, gt, gt > 0, max_depth=15.0)
        for term, name in zip(terms, ("integer", "fractional", "consistency"), strict=True):
            np.testing.assert_allclose(float(term), arrays[f"dual.{name}_loss"], rtol=1e-5)
        total = sum(weight * term for weight, term in zip((1.0, 10.0, 0.5), terms, strict=True))
        np.testing.assert_allclose(float(total), arrays["dual.loss"], rtol=1e-5)


class TestTraining:
    """Three steps on a batch of a sample without depth, one with points and one with dense depth.

    An alpha's derivative is a sum over pixels that nearly cancel: 7e-6 off with one thread, 1e-7 with two.
    Adam makes steps of the learning rate, 2e-4, of the sign alone of such derivatives.
    """

    @staticmethod
    def step(model: UNet, arrays: Arrays) -> tuple[Tensor, list[float]]:
        gt, raw = tensor(arrays, "gt"), tensor(arrays, "raw")
        pred = model(tensor(arrays, "rgb"), raw)
        absolute = absolute_loss(pred, gt, raw != 0)
        relative, gradient = relative_losses(pred, gt, gt != 0)
        total = absolute + relative + 0.5 * gradient
        return total, [float(term.detach()) for term in (absolute, relative, gradient, total)]

    def test_losses_gradients_and_weights(self) -> None:
        model, arrays, _ = load("train_step")
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1000)
        losses = []
        for step in range(3):
            optimizer.zero_grad()
            total, terms = self.step(model, arrays)
            losses.append(terms)
            total.backward()
            if step == 0:
                norms = {published_name(model, n): float(p.grad.norm()) for n, p in model.named_parameters()}
            optimizer.step()
            schedule.step()
        np.testing.assert_allclose(losses, arrays["losses_adepth_rdepth_rgrad_total"], rtol=1e-4)
        names = [str(name) for name in arrays["param_names"]]
        np.testing.assert_allclose([norms[n] for n in names], arrays["grad_norm"], rtol=1e-4, atol=1e-5)
        weights = to_reference(model)
        sums = [float(weights[name].double().sum()) for name in names]
        np.testing.assert_allclose(sums, arrays["param_sum_after3"], rtol=1e-4, atol=2e-3)

    @torch.no_grad()
    def test_masks_of_the_absolute_loss(self) -> None:
        model, arrays, _ = load("train_step")
        gt, raw = tensor(arrays, "gt"), tensor(arrays, "raw")
        pred = model(tensor(arrays, "rgb"), raw)
        close(pred, arrays["pred0"])
        masks = {"raw": raw != 0, "gt": gt != 0, "raw_and_gt": (raw != 0) & (gt != 0)}
        for name, mask in masks.items():
            loss = float(absolute_loss(pred, gt, mask))
            np.testing.assert_allclose(loss, arrays[f"abs_mask_{name}"], rtol=1e-5)
        assert int(((raw != 0) & (gt == 0)).sum()) == arrays["raw_valid_where_gt_invalid"]
