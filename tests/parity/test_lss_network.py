"""The LSS network with published weights' names against the reference's outputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fill import load_arrays, load_case
from torch import Tensor

from omma.core.losses import binary_cross_entropy
from omma.core.metrics import batch_iou
from omma.systems.lss.convert import load_reference, load_reference_part
from omma.systems.lss.model import LiftSplatShoot
from omma.systems.lss.reference_api import compile_model

pytestmark = pytest.mark.parity
CASES = Path(__file__).parent / "lss"
INPUTS = ("imgs", "rots", "trans", "intrins", "post_rots", "post_trans")


def load(name: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, Any]]:
    return load_case(str(CASES / name))


def tensors(arrays: dict[str, np.ndarray], keys: Sequence[str] = INPUTS) -> list[Tensor]:
    return [torch.from_numpy(arrays[key].astype(np.float32)) for key in keys]


@pytest.fixture(scope="module")
def full() -> tuple[LiftSplatShoot, dict[str, np.ndarray]]:
    weights, arrays, meta = load("full_eval_128x352")
    config = meta["config"]
    model = load_reference(weights, image_size=tuple(config["final_dim"]), grid_conf=config["grid_conf"])
    return model, arrays


@torch.no_grad()
def test_full_eval(full: tuple[LiftSplatShoot, dict[str, np.ndarray]]) -> None:
    model, arrays = full
    imgs, *calibration = tensors(arrays)
    np.testing.assert_allclose(model(imgs, *calibration).numpy(), arrays["out"], rtol=0, atol=1e-5)
    depth, context = model.lift(imgs)
    np.testing.assert_allclose(depth[0].sum((-2, -1)).numpy(), arrays["depth_sum_over_pixels"], atol=1e-4)
    lifted_sum = torch.einsum("bnduv,bncuv->bnc", depth, context)
    np.testing.assert_allclose(lifted_sum.numpy(), arrays["lifted_sum"], rtol=1e-5, atol=1e-3)
    points = model.points(*calibration)
    np.testing.assert_allclose(points[0, 1, :, 4].numpy(), arrays["geom_cam1_row4"], atol=2e-5)
    voxels = model.splat(depth, context, *calibration)
    np.testing.assert_allclose(voxels[0, :4].numpy(), arrays["voxels_b0_c0_3"], rtol=0, atol=3e-5)
    np.testing.assert_allclose(
        voxels.sum((2, 3)).numpy(), arrays["voxels_channel_sums"], rtol=1e-4, atol=1e-2
    )
    np.testing.assert_array_equal((voxels[0] != 0).any(0).numpy(), arrays["voxels_nonzero_cells"])


@torch.no_grad()
def test_the_guides_inference_snippet() -> None:
    """R33 to R35: compile_model with the original's two dicts, its checkpoint keys and its forward order."""
    weights, arrays, meta = load("full_eval_128x352")
    data_aug_conf = {
        "resize_lim": (0.9, 1.1),
        "final_dim": (128, 352),
        "rot_lim": (-5.4, 5.4),
        "H": 224,
        "W": 480,
        "rand_flip": True,
        "bot_pct_lim": (0.0, 0.0),
        "Ncams": 6,
    }
    model = compile_model(meta["config"]["grid_conf"], data_aug_conf, outC=1)
    checkpoint = {"model_state_dict": {name: torch.from_numpy(value) for name, value in weights.items()}}
    model.load_state_dict(checkpoint["model_state_dict"])
    model.eval()
    np.testing.assert_allclose(model(*tensors(arrays)).numpy(), arrays["out"], rtol=0, atol=1e-5)


@torch.no_grad()
def test_full_eval_depthnet_is_the_logits_behind_depth(
    full: tuple[LiftSplatShoot, dict[str, np.ndarray]],
) -> None:
    """Golden depthnet outputs (rounded to float16) give our depths and contexts."""
    model, arrays = full
    depth, context = model.lift(tensors(arrays)[0])
    expected = torch.from_numpy(arrays["depthnet_out"].astype(np.float32))
    np.testing.assert_allclose(context[0].numpy(), expected[:, 41:].numpy(), rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(depth[0].numpy(), expected[:, :41].softmax(1).numpy(), rtol=4e-3, atol=1e-5)


@torch.no_grad()
def test_camencode() -> None:
    weights, arrays, _ = load("camencode")
    encoder = load_reference_part("camencode", weights)
    x = tensors(arrays, ["x"])[0]
    stages = []
    hooks = [
        module.register_forward_hook(lambda _m, _i, out: stages.append(out))
        for module in (encoder.backbone.bn1, *encoder.backbone.blocks, encoder.up1.up, encoder.up1)
    ]
    depth, context = encoder(x)
    for hook in hooks:
        hook.remove()
    stem, b0, b1, b2, _, b4, _, b6, upsampled, up1 = (stage.numpy() for stage in stages)
    close = {"rtol": 0, "atol": 1e-5}
    np.testing.assert_allclose(stem[0, :8], arrays["stem_b0_c0_7"], **close)
    np.testing.assert_allclose(b0[0, :4], arrays["reduction_1_b0_c0_3"], **close)
    np.testing.assert_allclose(b1[0, :8], arrays["reduction_2_b0_c0_7"], **close)
    np.testing.assert_allclose(b2[0], arrays["reduction_3_b0"], **close)
    np.testing.assert_allclose(b4, arrays["reduction_4"], **close)
    np.testing.assert_allclose(b6, arrays["reduction_5"], **close)
    np.testing.assert_allclose(upsampled[0, :16], arrays["upsampled_b0_c0_15"], **close)
    np.testing.assert_allclose(up1[:, ::8], arrays["up1_out"], **close)
    np.testing.assert_allclose(context.numpy(), arrays["depthnet_out"][:, 41:], **close)
    np.testing.assert_allclose(depth.numpy(), arrays["depth"], **close)
    lifted_sum = (depth[:, None] * context[:, :, None]).sum(2)
    np.testing.assert_allclose(lifted_sum.numpy(), arrays["lifted_sum_d"], **close)


def test_train_steps() -> None:
    """Four Adam steps with clipping: losses, norms, batch IoU, and the logits after them."""
    weights, arrays, meta = load("train_steps")
    config = meta["config"]
    model = load_reference(weights, image_size=tuple(config["final_dim"]), grid_conf=config["grid_conf"])
    inputs, target = tensors(arrays), torch.from_numpy(arrays["target"]).float()
    adam = torch.optim.Adam(model.parameters(), lr=config["lr"], weight_decay=config["weight_decay"])
    losses, norms, ious = [], [], []
    for _ in range(config["steps"]):
        adam.zero_grad()
        logits = model(*inputs)
        loss = binary_cross_entropy(logits, target, pos_weight=config["pos_weight"])
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), config["max_grad_norm"])))
        adam.step()
        losses.append(float(loss.detach()))
        ious.append(float(batch_iou(logits.detach(), target)))
    np.testing.assert_allclose(losses, arrays["losses"], atol=1e-4)
    np.testing.assert_allclose(norms, arrays["grad_norm_before_clip"], rtol=1e-3)
    np.testing.assert_allclose(ious, arrays["train_iou"], atol=1e-6)
    bias = model.camencode.depthnet.bias.detach().numpy()
    np.testing.assert_allclose(bias, arrays["depthnet_bias_after"], atol=1e-4)
    with torch.no_grad():
        after = model(*inputs).numpy()
    np.testing.assert_allclose(after, arrays["logits_after"], rtol=0, atol=1e-3)


def test_two_height_bins_and_tilted_cameras_against_a_plain_float64_model() -> None:
    """Z = 2, four outputs, B2 N3, augmented cameras: logits and every gradient of a direct float64 splat."""
    weights, _, _ = load("full_eval_128x352")
    generator = np.random.default_rng(3)
    weights["bevencode.conv1.weight"] = _normal(generator, (64, 128, 7, 7), 128 * 49)
    weights["bevencode.up2.4.weight"] = _normal(generator, (4, 128, 1, 1), 128)
    weights["bevencode.up2.4.bias"] = _normal(generator, (4,), 1)
    grid_conf = {
        "xbound": (-16, 16, 0.5),
        "ybound": (-12, 12, 0.5),
        "zbound": (-2, 4, 3),
        "dbound": (4, 45, 1),
    }
    model = load_reference(weights, image_size=(64, 96), grid_conf=grid_conf)
    geometry = load_arrays(CASES / "geometry.npz")
    calibration = tensors({key[4:]: geometry[key] for key in geometry if key.startswith("aug_")}, INPUTS[1:])
    imgs = torch.from_numpy(generator.standard_normal((2, 3, 3, 64, 96), np.float32))
    target = torch.from_numpy(generator.random((2, 4, 64, 48)) > 0.9).float()

    logits = model(imgs, *calibration)
    assert logits.shape == (2, 4, 64, 48)
    binary_cross_entropy(logits, target, pos_weight=2.13).backward()
    ours = {name: p.grad.double() for name, p in model.named_parameters() if p.grad is not None}

    cells = model.cells(*calibration)
    plain = model.double()
    plain.zero_grad()
    depth, context = plain.lift(imgs.double())
    expected = plain.bevencode(_plain_splat(depth, context, cells, plain.grid.nx))
    pos_weight = torch.tensor(2.13, dtype=torch.float64)
    F.binary_cross_entropy_with_logits(expected, target.double(), pos_weight=pos_weight).backward()
    np.testing.assert_allclose(logits.detach().numpy(), expected.detach().numpy(), rtol=0, atol=1e-5)
    assert len(ours) == sum(1 for _ in plain.parameters())
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(ours[name].norm(), parameter.grad.norm(), rtol=1e-3, atol=1e-6, msg=name)


def _normal(generator: np.random.Generator, shape: tuple[int, ...], fan_in: int) -> np.ndarray:
    return (generator.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32)


def _plain_splat(depth: Tensor, context: Tensor, cells: Tensor, grid_size: tuple[int, int, int]) -> Tensor:
    """Lifted features held and summed point by point, height bins joined one after another."""
    B, C, (X, Y, Z) = len(depth), context.shape[2], grid_size
    lifted = depth[:, :, None] * context[:, :, :, None]
    lifted = lifted.permute(0, 1, 3, 4, 5, 2).reshape(-1, C)
    kept = cells.flatten() >= 0
    voxels = lifted.new_zeros(B * X * Y * Z, C).index_add(0, cells.flatten()[kept].long(), lifted[kept])
    bins = voxels.view(B, X, Y, Z, C).unbind(3)
    return torch.cat([height.permute(0, 3, 1, 2) for height in bins], dim=1)
