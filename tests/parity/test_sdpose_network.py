"""Networks of SDPose with the published names against the reference's outputs, and one training step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fill import load_arrays, load_case
from sampled import check_sampled, from_hundredths
from torch import Tensor, nn

from omma.config.base import Period, StepSchedule
from omma.core.heatmaps import flip_back
from omma.engine.schedule import Length, lr_factor
from omma.systems.sdpose.config import Distillation
from omma.systems.sdpose.convert import load_reference, load_reference_part, to_reference
from omma.systems.sdpose.keys import our_name
from omma.systems.sdpose.losses import CycleLoss
from omma.systems.sdpose.model import Cycle
from omma.systems.sdpose.positions import sine_table

pytestmark = pytest.mark.parity
CASES = Path(__file__).parent / "sdpose"
Arrays = dict[str, np.ndarray]
KEYPOINTS = 5  # of the small heads


def load(name: str) -> tuple[Arrays, Arrays, dict[str, Any]]:
    weights, arrays, meta = load_case(str(CASES / name))
    if "img__hundredths" in arrays:
        arrays["img"] = from_hundredths(arrays.pop("img__hundredths"))
    return weights, arrays, meta


def tensor(arrays: Arrays, key: str) -> Tensor:
    return torch.from_numpy(arrays[key])


def close(ours: Tensor, expected: np.ndarray, atol: float = 2e-6, rtol: float = 0.0) -> None:
    np.testing.assert_allclose(ours.detach().numpy(), expected, rtol=rtol, atol=atol)


def check(ours: Tensor, arrays: Arrays, name: str, rtol: float = 2e-5) -> None:
    check_sampled(ours.detach().numpy(), arrays, name, rtol)


def check_cycle(cycle: Cycle, arrays: Arrays, index: int) -> None:
    check(cycle.keypoints, arrays, f"kpt_token_{index}")
    check(cycle.visual, arrays, f"vis_token_{index}")
    attention = arrays[f"attn_{index}_mean"]
    close(cycle.attention[: len(attention)], attention)


class TestWholeNetworks:
    @pytest.mark.parametrize("name", ["model_t", "model_s_v1", "model_b"])
    @torch.no_grad()
    def test_every_cycle(self, name: str) -> None:
        weights, arrays, meta = load(name)
        model, image = load_reference(weights), tensor(arrays, "img")
        features = model.backbone(image)
        check(features[0, :4], arrays, "feat_slice")
        close(features.mean((0, 2, 3)), arrays["feat_mean_per_channel"], rtol=1e-6)
        close(features.std((0, 2, 3)), arrays["feat_std_per_channel"], rtol=1e-6)
        cycles = model.head.forward_cycles(features, cycles=meta["config"]["cycle_num"], attention=True)
        for index, cycle in enumerate(cycles):
            check_cycle(cycle, arrays, index)
            heatmaps = cycle.heatmaps
            every_other = f"pred_{index}_every_other_kpt__sums" in arrays
            name = f"pred_{index}_every_other_kpt" if every_other else f"pred_{index}"
            check(heatmaps[:, ::2] if every_other else heatmaps, arrays, name)
            sums = heatmaps.double().sum((2, 3)), heatmaps.double().square().sum((2, 3))
            close(sums[0], arrays[f"pred_{index}_sum"], rtol=1e-5, atol=1e-3)
            close(sums[1], arrays[f"pred_{index}_sqsum"], rtol=1e-5)
        flipped = flip_back(model(image.flip(-1)))
        check(((cycles[0].heatmaps + flipped) / 2)[:, ::3], arrays, "flip_test_heatmap_every3")

    def test_names_and_their_order_there_and_back(self) -> None:
        for name, count in {"model_t": 168, "model_s_v1": 234, "model_b": 1074}.items():
            weights, _, _ = load(name)
            reference = to_reference(load_reference(weights))
            assert len(reference) == count
            assert [key for key in reference if not key.endswith("pos_embedding")] == list(weights)
            assert all(np.array_equal(reference[key].numpy(), value) for key, value in weights.items())
            table = sine_table((16, 16), 192)
            assert torch.equal(reference["keypoint_head.tokenpose.pos_embedding"], table)


class TestParts:
    @pytest.mark.parametrize("name", ["stemnet_small", "hrnet3_w32_small"])
    @torch.no_grad()
    def test_backbones(self, name: str) -> None:
        weights, arrays, _ = load(name)
        check(load_reference_part("backbone", weights)(tensor(arrays, "img")), arrays, "feat")

    @pytest.mark.parametrize("name", ["head_sine", "head_sinefull", "head_linearhead"])
    @torch.no_grad()
    def test_heads(self, name: str) -> None:
        weights, arrays, meta = load(name)
        position = meta["config"]["pos_embedding_type"]
        head = load_reference_part("head", weights, heads=4, position=position)
        assert head.num_keypoints == KEYPOINTS
        cycles = head.forward_cycles(tensor(arrays, "x"), cycles=2, attention=True)
        for index, cycle in enumerate(cycles):
            check_cycle(cycle, arrays, index)
            check(cycle.heatmaps, arrays, f"pred_{index}")

    @torch.no_grad()
    def test_encoder(self) -> None:
        weights, arrays, _ = load("transformer_unit")
        encoder = load_reference_part("encoder", weights, heads=4)
        passed: dict[str, Tensor] = {}
        first = encoder.layers[0]
        first.norm2.register_forward_pre_hook(lambda _m, inputs: passed.update(attended=inputs[0]))
        first.register_forward_hook(lambda _m, _i, out: passed.update(out=out))
        keypoints = arrays["x"].shape[1] - arrays["pos"].shape[1]
        positions = nn.functional.pad(tensor(arrays, "pos"), (0, 0, keypoints, 0))
        out, attention = encoder(tensor(arrays, "x"), positions, attention_of=keypoints)
        close(passed["attended"], arrays["after_attn_0"])
        close(passed["out"], arrays["after_ffn_0"])
        close(out, arrays["out"])
        close(attention, arrays["attn_1"][:, :, :keypoints, keypoints:].mean((1, 2)), atol=1e-6)

    def test_sine_positions(self) -> None:
        arrays = load_arrays(CASES / "pos_sine.npz")
        check(sine_table((16, 16), 192), arrays, "v1_16x16_d192", rtol=1e-6)
        check(sine_table((32, 24), 192), arrays, "v2_32x24_d192", rtol=1e-6)
        check(sine_table((8, 6), 48), arrays, "odd_8x6_d48", rtol=1e-6)


class TestTraining:
    def test_one_step(self) -> None:
        """Losses, gradients, clipping, Adam and batch norm statistics."""
        weights, arrays, meta = load("train_step_small")
        model = load_reference(weights, heads=4).train()
        image = tensor(arrays, "img")
        cycles = model.forward_cycles(image, cycles=meta["config"]["cycle_num"])
        distill = Distillation(
            detach_teacher=False,
            visual={"loss_weight": meta["config"]["vis_loss_weight"]},
            keypoint={"loss_weight": meta["config"]["kpt_loss_weight"]},
        )
        target = torch.from_numpy(gaussians(arrays["centers_xy"], 32, 24))
        terms = CycleLoss(distill)(cycles, target, tensor(arrays, "target_weight"))
        for name, value in terms.items():
            np.testing.assert_allclose(float(value.detach()), arrays[name], rtol=1e-5)
        loss = torch.stack(list(terms.values())).sum()
        np.testing.assert_allclose(float(loss.detach()), arrays["loss"], rtol=1e-5)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        loss.backward()
        names = [name for name in weights if our_name(name, hrnet=False) in dict(model.named_parameters())]
        parameters = [dict(model.named_parameters())[our_name(name, hrnet=False)] for name in names]
        norms = [float(p.grad.norm()) for p in parameters]
        # 3e-7 with two threads; with one a ReLU at 0 tips over with the order of a sum
        np.testing.assert_allclose(norms, arrays["grad_norms"], rtol=3e-4, atol=1e-7)
        total = float(nn.utils.clip_grad_norm_(model.parameters(), 1.0))
        np.testing.assert_allclose(total, arrays["total_grad_norm"], rtol=1e-5)
        norms = [float(p.grad.norm()) for p in parameters]
        np.testing.assert_allclose(norms, arrays["grad_norms_after_clip1"], rtol=3e-4, atol=1e-7)
        optimizer.step()
        sums = [float(p.detach().double().sum()) for p in parameters]
        # Adam's first step has the gradient's sign: a gradient at 0 that tips over moves a weight by 2e-3
        np.testing.assert_allclose(sums, arrays["param_sums_after_adam_step"], rtol=1e-4, atol=2e-2)
        backbone = model.backbone
        close(backbone.bn1.running_mean, arrays["bn1_running_mean_after"])
        close(backbone.bn1.running_var, arrays["bn1_running_var_after"])
        close(backbone.layer1[0].bn3.running_var, arrays["layer1_0_bn3_running_var_after"])
        with torch.no_grad():
            after = model.eval()(image)
        check(after[:, :4], arrays, "pred_0_after_step_eval", rtol=1e-3)

    def test_learning_rate(self) -> None:
        arrays = load_arrays(CASES / "lr_schedule.npz")
        schedule = StepSchedule(
            name="step",
            at=[Period(int(epoch), "epochs") for epoch in arrays["steps"]],
            warmup=Period(int(arrays["warmup_iters"])),
            warmup_factor=float(arrays["warmup_ratio"]),
        )
        length = Length(300 * int(arrays["iters_per_epoch"]), int(arrays["iters_per_epoch"]))
        rates = [1e-3 * lr_factor(schedule, int(step), length) for step in arrays["iter"]]
        np.testing.assert_allclose(rates, arrays["lr"], rtol=1e-9)


def gaussians(centers: np.ndarray, height: int, width: int) -> np.ndarray:
    """Target heatmaps (B, K, h, w) float32 with sigma 2 around centres (B, K, 2) x, y in cells."""
    rows, columns = np.mgrid[:height, :width]
    x, y = centers[..., 0, None, None], centers[..., 1, None, None]
    return np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 8).astype(np.float32)
