"""The LSS network: sizes, backbones, precision, export, and conversion of checkpoints."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from omma.errors import CheckpointError, ConfigError
from omma.systems.lss import model as model_module
from omma.systems.lss.backbone import build_backbone
from omma.systems.lss.convert import (
    from_reference,
    load_reference,
    load_reference_part,
    our_name,
    reference_name,
    to_reference,
)
from omma.systems.lss.model import LiftSplatShoot

KEYS = Path(__file__).parents[1] / "parity" / "lss" / "full_eval_128x352.keys.json"
SMALL: dict[str, Any] = {
    "xbound": (-8.0, 8.0, 1.0),
    "ybound": (-8.0, 8.0, 0.5),
    "dbound": (2.0, 8.0, 1.0),
    "image_size": (32, 64),
    "context_channels": 8,
    "backbone": "resnet10t",
    "neck_channels": 16,
    "bev_width": 8,
    "drop_path": 0.0,
}


def small(**settings: Any) -> LiftSplatShoot:
    torch.manual_seed(0)
    return LiftSplatShoot(**(SMALL | settings)).eval()


def inputs(batch: int = 2, cameras: int = 2, image_size: tuple[int, int] = (32, 64)) -> list[Tensor]:
    """Images, and cameras that look ahead and to the left from 1.6 m."""
    generator = torch.Generator().manual_seed(0)
    front = torch.tensor([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
    left = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
    rots = torch.stack([front, left] * 3)[:cameras]
    K = torch.tensor([[40.0, 0, image_size[1] / 2], [0, 40.0, image_size[0] / 2], [0, 0, 1]])
    rig = (rots, torch.tensor([0.5, 0.1, 1.6]), K, torch.eye(3), torch.zeros(3))
    shapes = ((3, 3), (3,), (3, 3), (3, 3), (3,))
    matrices = [m.expand(batch, cameras, *shape).clone() for m, shape in zip(rig, shapes, strict=True)]
    return [torch.randn(batch, cameras, 3, *image_size, generator=generator), *matrices]


class TestSizes:
    def test_published_size(self) -> None:
        """12 598 758 parameters: those of the published network without its unused classifier."""
        assert sum(p.numel() for p in LiftSplatShoot().parameters()) == 14_291_918 - 1_693_160

    @torch.no_grad()
    @pytest.mark.parametrize("cameras", [1, 3])
    def test_any_number_of_cameras_outputs_and_height_bins(self, cameras: int) -> None:
        model = small(out_channels=3, zbound=(-2.0, 4.0, 2.0))
        assert model(*inputs(cameras=cameras)).shape == (2, 3, 16, 32)
        assert model.bevencode.conv1.in_channels == 3 * 8

    @pytest.mark.parametrize("name", ["resnet18", "resnet34", "tf_efficientnet_b0", "mobilenetv3_small_050"])
    def test_backbones(self, name: str) -> None:
        model = small(backbone=name)
        with torch.no_grad():
            assert model(*inputs()).shape == (2, 1, 16, 32)

    @pytest.mark.parametrize(
        ("setting", "message"),
        [
            ({"image_size": (32, 80)}, "width 80 is not a multiple of 32"),
            ({"xbound": (-6.0, 6.0, 1.0)}, "axis x has 12 cells, not a multiple of 8"),
            ({"ybound": (-8.0, 8.0, 0.7)}, "grid axis y"),
            ({"backbone": "resnet1818"}, "no model resnet1818"),
            ({"backbone": "vit_tiny_patch16_224"}, "strides"),
        ],
    )
    def test_what_cannot_be_built_is_named(self, setting: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            small(**setting)

    def test_images_of_another_size_are_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"32 x 96.*32 x 64"):
            small()(*inputs(image_size=(32, 96)))


class TestForward:
    @torch.no_grad()
    def test_depth_is_a_distribution_and_in_float32(self) -> None:
        model = small()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits, depth = model.forward_with_depth(*inputs())
        assert depth.shape == (2, 2, 6, 2, 4)
        assert depth.dtype == torch.float32
        torch.testing.assert_close(depth.sum(2), torch.ones(2, 2, 2, 4))
        torch.testing.assert_close(logits.float(), model(*inputs()), rtol=0.1, atol=0.1)

    @torch.no_grad()
    def test_order_of_cameras_is_irrelevant(self) -> None:
        model, batch = small(), inputs()
        torch.testing.assert_close(model(*(t.flip(1) for t in batch)), model(*batch))

    @torch.no_grad()
    def test_a_camera_feeds_the_side_it_looks_at(self) -> None:
        """Features of a camera that looks ahead arrive at x > 0, of one to the left at y > 0."""
        model, (_, *rig) = small(), inputs(batch=1)
        for camera, axis in ((0, 2), (1, 3)):
            depth, context = torch.ones(1, 1, 6, 2, 4), torch.ones(1, 1, 8, 2, 4)
            features = model.splat(depth, context, *(m[:, [camera]] for m in rig))
            hit = (features > 0).any(1).nonzero()[:, axis - 1]
            assert len(hit) > 0
            assert hit.min() >= features.shape[axis] // 2

    @torch.no_grad()
    def test_plan_is_made_once_for_a_rig(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made: list[int] = []
        plan_splat = model_module.plan_splat
        monkeypatch.setattr(model_module, "plan_splat", lambda *a: made.append(1) or plan_splat(*a))
        model, batch = small(), inputs()
        first = model(*batch)
        assert torch.equal(model(*batch), first)
        assert len(made) == 1
        batch[2] = batch[2] + 1.0
        assert not torch.equal(model(*batch), first)
        assert len(made) == 2

    def test_copies_and_state_hold_weights_only(self) -> None:
        """No buffers but those of batch normalisation; a copy made after a forward pass works."""
        model = small()
        expected = model(*inputs())
        assert torch.equal(copy.deepcopy(model)(*inputs()), expected)
        assert all("running" in name or "num_batches" in name for name, _ in model.named_buffers())

    def test_recomputed_blocks_give_the_same_gradients(self) -> None:
        for name in ("resnet10t", "tf_efficientnet_b0"):
            model, batch = small(backbone=name), inputs()
            model(*batch).square().sum().backward()
            expected = {key: p.grad.clone() for key, p in model.named_parameters()}
            model.zero_grad()
            blocks = model.checkpoint_blocks()
            seen = [p for block in blocks for p in block.parameters()]
            assert len({id(p) for p in seen}) == len(seen), "blocks must not contain each other"
            for block in blocks:
                block.forward = _recomputing(block.forward)
            model(*batch).square().sum().backward()
            for key, parameter in model.named_parameters():
                torch.testing.assert_close(parameter.grad, expected[key], msg=key)

    def test_dropout_only_where_asked_for(self) -> None:
        batch = inputs()
        for settings, random in (({}, False), ({"context_dropout": 0.5}, True), ({"bev_dropout": 0.5}, True)):
            model = small(**settings).train()
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
            assert torch.equal(model(*batch), model(*batch)) != random

    def test_starts_as_the_published_initialisation(self) -> None:
        """The last normalisation of each residual block of the grid encoder is zero."""
        model = small()
        blocks = [block for layer in (model.bevencode.layer1, model.bevencode.layer3) for block in layer]
        assert not any(block.bn2.weight.any() for block in blocks)
        assert all(block.bn1.weight.all() for block in blocks)


def _recomputing(forward: Any) -> Any:
    return lambda *args: checkpoint(forward, *args, use_reentrant=False)


class TestExport:
    @torch.no_grad()
    def test_exported_program_agrees(self) -> None:
        model, batch = small(), inputs(batch=1)
        program = torch.export.export(model, tuple(batch))
        torch.testing.assert_close(program.module()(*batch), model(*batch), rtol=1e-4, atol=1e-5)

    @torch.no_grad()
    def test_onnx_agrees_for_another_rig(self) -> None:
        """Calibration is an input of the graph: other values than the traced ones work."""
        import onnxruntime

        model, batch = small(), inputs(batch=1)
        program = torch.onnx.export(model, tuple(batch), dynamo=True, verbose=False)
        session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
        batch[2] = batch[2] + torch.tensor([0.3, -0.2, 0.1])
        feeds = {node.name: t.numpy() for node, t in zip(session.get_inputs(), batch, strict=True)}
        np.testing.assert_allclose(session.run(None, feeds)[0], model(*batch).numpy(), rtol=1e-3, atol=1e-4)


class TestBackboneWeights:
    @torch.no_grad()
    def test_depthwise_convolutions_stay_in_float32_under_cpu_autocast(self) -> None:
        """Also in a copy, which must use its own weights."""
        backbone, _ = build_backbone("tf_efficientnet_b0", "none", 0.0, None)
        twin = copy.deepcopy(backbone)
        twin.blocks[0][0].conv_dw.weight.zero_()
        x = torch.randn(1, 32, 8, 8)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            ours, copied = (model.blocks[0][0].conv_dw(x) for model in (backbone, twin))
        assert ours.dtype == torch.float32
        assert torch.equal(ours, backbone.blocks[0][0].conv_dw(x))
        assert not copied.any()

    def test_momentum_follows_the_weights(self, tmp_path: Path) -> None:
        path = tmp_path / "resnet10t.pth"
        torch.save(timm.create_model("resnet10t").state_dict(), path)
        assert build_backbone("resnet10t", "none", 0.0, None)[0].bn1.momentum == 0.1
        assert build_backbone("resnet10t", str(path), 0.0, None)[0].bn1.momentum == 0.01
        assert build_backbone("resnet10t", str(path), 0.0, 0.2)[0].bn1.momentum == 0.2

    @pytest.mark.parametrize("name", ["tf_efficientnet_b0", "convnext_atto"])
    def test_a_file_of_timm_fills_every_tensor(self, name: str, tmp_path: Path) -> None:
        """Also where feature extraction renames modules."""
        source = timm.create_model(name)
        for tensor in source.state_dict().values():
            tensor.copy_(torch.full_like(tensor, 2))
        save_file(source.state_dict(), tmp_path / "model.safetensors")
        backbone, _ = build_backbone(name, str(tmp_path / "model.safetensors"), 0.2, None)
        values = {k: v for k, v in backbone.state_dict().items() if not k.endswith("num_batches_tracked")}
        assert all((value == 2).all() for value in values.values())

    def test_a_file_of_efficientnet_pytorch_is_read(self, tmp_path: Path) -> None:
        shapes = json.loads(KEYS.read_text("utf-8"))["shapes"]
        trunk = {
            key.removeprefix("camencode.trunk."): shape for key, shape in shapes.items() if ".trunk." in key
        }
        torch.save({key: torch.full(shape, 3.0) for key, shape in trunk.items()}, tmp_path / "b0.pth")
        backbone, channels = build_backbone("tf_efficientnet_b0", str(tmp_path / "b0.pth"), 0.2, None)
        assert channels == [112, 320]
        assert all((parameter == 3).all() for parameter in backbone.parameters())

    def test_missing_or_wrong_files_are_named(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"nowhere\.pth: no such file"):
            build_backbone("resnet10t", "nowhere.pth", 0.0, None)
        path = tmp_path / "other.pth"
        torch.save(timm.create_model("resnet18").state_dict(), path)
        with pytest.raises(CheckpointError, match=r"other\.pth: .* tensors of resnet10t are missing"):
            build_backbone("resnet10t", str(path), 0.0, None)
        path.write_bytes(b"no weights")
        with pytest.raises(CheckpointError, match=r"other\.pth: cannot be read"):
            build_backbone("resnet10t", str(path), 0.0, None)

    def test_a_failed_download_says_what_to_put_where(self, monkeypatch: pytest.MonkeyPatch) -> None:
        create = timm.create_model

        def offline(name: str, *, pretrained: bool = False, **options: Any) -> nn.Module:
            if pretrained:
                raise FileNotFoundError("no connection")
            return create(name, **options)

        monkeypatch.setattr(timm, "create_model", offline)
        with pytest.raises(
            ConfigError, match=r"(?s)tf_efficientnet_b0.aa_in1k.*copy it here.*pretrained=none"
        ):
            build_backbone("tf_efficientnet_b0.aa_in1k", "timm", 0.2, None)
        with pytest.warns(UserWarning, match="starts from random weights"):
            backbone, _ = build_backbone("resnet10t", "auto", 0.0, None)
        assert backbone.bn1.momentum == 0.1


def published(**settings: Any) -> LiftSplatShoot:
    """A small grid with the published layers and random weights, running statistics included."""
    settings = {"xbound": (-8.0, 8.0, 1.0), "ybound": (-8.0, 8.0, 0.4), "image_size": (32, 64)} | settings
    torch.manual_seed(1)
    model = LiftSplatShoot(**settings)
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    return model.eval()


class TestConvert:
    def test_round_trip_with_two_height_bins(self) -> None:
        """Grid, depths, image size and channels are read off the checkpoint alone."""
        settings = {
            "zbound": (-2.0, 4.0, 3.0),
            "dbound": (2.0, 9.0, 0.5),
            "out_channels": 4,
            "context_channels": 32,
        }
        model = published(**settings)
        again = load_reference(to_reference(model))
        assert (again.grid, again.dbound, again.image_size) == (model.grid, model.dbound, (32, 64))
        assert not again.training
        with torch.no_grad():
            assert torch.equal(again(*inputs()), model(*inputs()))

    def test_written_keys_and_shapes_are_the_published_ones(self) -> None:
        state = to_reference(LiftSplatShoot())
        shapes = json.loads(KEYS.read_text("utf-8"))["shapes"]
        expected = shapes | {"dx": [3], "bx": [3], "nx": [3], "frustum": [41, 8, 22, 3]}
        assert {key: list(value.shape) for key, value in state.items()} == expected
        assert state["nx"].tolist() == [200, 200, 1]
        assert state["nx"].dtype == torch.int64
        assert state["frustum"][3, 7, 21].tolist() == [351, 127, 7]
        assert not state["camencode.trunk._fc.weight"].any()

    @pytest.mark.parametrize("prefix", ["module.", "model.", "module.model."])
    def test_training_files_and_prefixes(self, prefix: str) -> None:
        model = published()
        state = {prefix + key: value.numpy() for key, value in to_reference(model).items()}
        again = load_reference({"model_state_dict": state, "counter": 5, "optimizer_state_dict": {}})
        assert torch.equal(again.bevencode.conv1.weight, model.bevencode.conv1.weight)

    def test_names_go_both_ways(self) -> None:
        model = published()
        for key in model.state_dict():
            assert our_name(reference_name(key)) == key
        assert set(from_reference(to_reference(model))) == set(model.state_dict())

    def test_frustum_of_another_image_size_does_not_stop_loading(self) -> None:
        state = to_reference(published())
        assert load_reference(state, image_size=(64, 96)).image_size == (64, 96)

    def test_settings_at_odds_with_the_checkpoint(self) -> None:
        state = to_reference(published())
        with pytest.raises(CheckpointError, match="made with xbound"):
            load_reference(state, grid_conf={"xbound": (-16.0, 16.0, 1.0)})
        with pytest.raises(CheckpointError, match="frustum"):
            load_reference(state | {"frustum": state["frustum"] + 1})
        with pytest.raises(ConfigError, match="grid_conf has no xbounds"):
            load_reference(state, grid_conf={"xbounds": (-16.0, 16.0, 1.0)})

    def test_without_computed_keys_the_published_grid_or_the_given_one(self) -> None:
        state = from_reference(to_reference(LiftSplatShoot()))
        bare = {reference_name(key): value for key, value in state.items()}
        assert load_reference(bare).grid.nx == (200, 200, 1)
        assert load_reference(bare, grid_conf={"xbound": (-8, 8, 1)}).grid.nx == (16, 200, 1)
        odd = to_reference(published(dbound=(2.0, 9.0, 0.5)))
        bare = {key: value for key, value in odd.items() if key not in ("dx", "bx", "nx", "frustum")}
        with pytest.raises(ConfigError, match="give grid_conf with dbound"):
            load_reference(bare, grid_conf={"zbound": (-10, 10, 20)})

    def test_missing_left_over_and_foreign_keys_are_listed(self) -> None:
        state = to_reference(published())
        with pytest.raises(CheckpointError, match=r"1 left over: bevencode\.extra"):
            load_reference(state | {"bevencode.extra": torch.zeros(1)})
        missing = {key: value for key, value in state.items() if key != "bevencode.up2.4.bias"}
        with pytest.raises(CheckpointError, match=r"1 missing: bevencode\.up2\.4\.bias"):
            load_reference(missing)
        with pytest.raises(CheckpointError, match=r"camencode\.trunk\._blocks\.16"):
            load_reference(state | {"camencode.trunk._blocks.16._bn0.weight": torch.zeros(1)})
        with pytest.raises(CheckpointError, match="not one of Lift-Splat-Shoot"):
            load_reference({"weight": torch.zeros(1)})

    def test_only_the_published_network_can_be_written(self) -> None:
        with pytest.raises(ConfigError, match="resnet10t"):
            to_reference(small())

    @torch.no_grad()
    def test_parts(self) -> None:
        model = published(out_channels=3, zbound=(-2.0, 4.0, 3.0))
        state = to_reference(model)
        bev = load_reference_part("bevencode", {k: v for k, v in state.items() if k.startswith("bevencode.")})
        grid = torch.randn(1, 128, 16, 40)
        assert torch.equal(bev(grid), model.bevencode(grid))
        inside = {k.removeprefix("camencode."): v for k, v in state.items() if k.startswith("camencode.")}
        camera = load_reference_part("camencode", inside)
        images = torch.randn(1, 3, 32, 64)
        for ours, expected in zip(camera(images), model.camencode(images), strict=True):
            assert torch.equal(ours, expected)
        with pytest.raises(ConfigError, match="camencode and bevencode"):
            load_reference_part("trunk", inside)
