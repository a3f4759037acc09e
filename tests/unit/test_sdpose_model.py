"""SDPose's network: cycles, tokens, attention, first weights, and checkpoints from elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from omma.engine.recompute import recompute_activations
from omma.errors import CheckpointError, ConfigError
from omma.systems.sdpose.config import SDPoseData, SDPoseSystem
from omma.systems.sdpose.convert import (
    from_reference,
    load_reference,
    load_reference_part,
    to_reference,
)
from omma.systems.sdpose.encoder import EncoderLayer
from omma.systems.sdpose.hrnet import HRNet
from omma.systems.sdpose.keys import is_hrnet, our_name, reference_name
from omma.systems.sdpose.model import SDPose, TokenHead, build_model
from omma.systems.sdpose.positions import sine_table
from omma.systems.sdpose.pretrained import load_imagenet
from omma.systems.sdpose.readout import patch_blobs
from omma.systems.sdpose.stemnet import StemNet

KEYS = Path(__file__).parents[1] / "parity" / "sdpose"
SIZE = (64, 48)
SMALL: dict[str, Any] = {"dim": 48, "depth": 2, "heads": 2, "patch": (4, 3)}
TABLE = "keypoint_head.tokenpose.pos_embedding"


def small(**settings: Any) -> SDPose:
    torch.manual_seed(0)
    return build_model(SDPoseSystem(**(SMALL | settings)), SDPoseData(image_size=SIZE)).eval()


def image(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, *SIZE, generator=torch.Generator().manual_seed(1))


class TestNetwork:
    @pytest.mark.parametrize(
        ("settings", "trainable"),
        [
            ({"depth": 6, "cycles": 3}, 4_398_528),
            ({}, 6_620_736),
            ({"patch": (2, 2)}, 6_227_520),
            ({"backbone": {"name": "hrnet_w32", "pretrained": "none"}}, 13_145_984),
        ],
        ids=["T", "S-V1", "S-V2", "B"],
    )
    def test_published_sizes(self, settings: dict[str, Any], trainable: int) -> None:
        model = build_model(SDPoseSystem(**settings), SDPoseData())
        assert sum(parameter.numel() for parameter in model.parameters()) == trainable

    @torch.no_grad()
    def test_prediction_is_the_first_of_all_cycles(self) -> None:
        model = small()
        cycles = model.forward_cycles(image(), cycles=3)
        assert torch.equal(model(image()), cycles[0].heatmaps)
        assert [tuple(part.shape) for part in cycles[2][:3]] == [(2, 17, 48), (2, 16, 48), (2, 17, 16, 12)]
        assert cycles[0].attention is None
        tokens = torch.cat(cycles[0][:2], dim=1)
        again, _ = model.head.encoder(tokens, model.head.positions)
        torch.testing.assert_close(again[:, :17], cycles[1].keypoints)

    @pytest.mark.parametrize("patch", [(4, 3), (2, 2)])
    @torch.no_grad()
    def test_patches_are_a_strided_convolution(self, patch: tuple[int, int]) -> None:
        head = TokenHead(6, size=(16, 12), patch=patch, dim=48, depth=1, heads=2, position="sine")
        features = torch.randn(2, 6, 16, 12)
        weight = head.patch_to_token.weight.unflatten(1, (*patch, 6)).permute(0, 3, 1, 2)
        expected = F.conv2d(features, weight, head.patch_to_token.bias, stride=patch)
        expected = expected.flatten(2).transpose(1, 2) + sine_table(head.grid, 48)
        passed: list[Tensor] = []
        head.encoder.layers[0].register_forward_pre_hook(lambda _m, inputs: passed.append(inputs[0]))
        head(features)
        torch.testing.assert_close(passed[0][:, 17:], expected)
        torch.testing.assert_close(passed[0][:, :17], head.keypoint_token.expand(2, -1, -1))

    @torch.no_grad()
    def test_fused_attention_is_attention(self) -> None:
        layer, x = EncoderLayer(24, 3, 48), torch.randn(2, 9, 24)
        tokens = layer.norm1(x)
        parts = [layer.qkv.weight[24 * third : 24 * (third + 1)] for third in range(3)]
        query, key, value = ((tokens @ part.T).view(2, 9, 3, 8).transpose(1, 2) for part in parts)
        weights = (query @ key.transpose(2, 3) / 8**0.5).softmax(-1)
        y = x + layer.proj((weights @ value).transpose(1, 2).reshape(2, 9, 24))
        torch.testing.assert_close(layer(x), y + layer.mlp(layer.norm2(y)))
        torch.testing.assert_close(layer.attention(x, 4), weights[:, :, :4, 4:].mean((1, 2)))

    def test_attention_has_no_gradient_and_changes_nothing(self) -> None:
        model = small()
        plain = model.forward_cycles(image(), cycles=2)
        asked = model.forward_cycles(image(), cycles=2, attention=True)
        assert torch.equal(plain[1].heatmaps, asked[1].heatmaps)
        for cycle in asked:
            assert not cycle.attention.requires_grad
            assert cycle.attention.shape == (2, 16)
            assert (cycle.attention.sum(1) < 1).all()

    @torch.no_grad()
    def test_where_positions_are_added(self) -> None:
        """sine before the first layer of the first cycle, sine-full also before the second layer of each."""
        counts = {}
        for position in ("sine", "sine-full"):
            model = small(position=position)
            for layer in model.head.encoder.layers:
                nn.init.zeros_(layer.proj.weight)
                nn.init.zeros_(layer.mlp[2].weight)
            cycle = model.forward_cycles(image(), cycles=2)[1]
            table = sine_table((4, 4), 48)
            start = model.head.patch_to_token(patches(model))
            counts[position] = ((cycle.visual - start) / table).flatten().median().round().item()
            torch.testing.assert_close(cycle.keypoints, model.head.keypoint_token.expand(2, -1, -1))
        assert counts == {"sine": 1, "sine-full": 3}

    def test_learned_positions(self) -> None:
        model = small(position="learnable")
        assert dict(model.named_parameters())["head.positions"].shape == (1, 17 + 16, 48)
        model(image()).sum().backward()
        assert model.head.positions.grad.any()

    @torch.no_grad()
    def test_tokens_that_start_as_readers_of_places(self) -> None:
        """A token that holds the position of a patch draws its blob there."""
        head = small(init="readout", position="learnable").head
        drawn = head.output(head.positions[0, head.num_keypoints :])
        torch.testing.assert_close(drawn, patch_blobs(head.grid, head.patch, 2.0), atol=0.05, rtol=0)
        at = drawn[6].argmax().item()  # second row and third column of patches of 4 x 3 cells
        assert (at // 12 // 4, at % 12 // 3) == (1, 2)

    def test_readers_of_places_leave_the_weights_of_hrnet(self) -> None:
        backbone = {"name": "hrnet_w32", "pretrained": "none"}
        weights = [
            small(backbone=backbone, init=init).backbone.stem.conv1.weight
            for init in ("published", "readout")
        ]
        assert torch.equal(*weights)

    def test_image_of_another_size(self) -> None:
        with pytest.raises(ConfigError, match="the image is 32 x 48, the network was built for 64 x 48"):
            small()(torch.zeros(1, 3, 32, 48))

    def test_first_weights(self) -> None:
        torch.manual_seed(0)
        model = build_model(SDPoseSystem(depth=2), SDPoseData())
        assert model.backbone.conv2.weight.std().item() == pytest.approx(0.001, rel=0.05)
        assert model.head.output[3].weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert model.head.keypoint_token.std().item() == pytest.approx(0.02, rel=0.1)
        linear = [module for module in model.head.modules() if isinstance(module, nn.Linear)]
        assert not any(module.bias.any() for module in linear if module.bias is not None)

    @pytest.mark.parametrize(
        ("backbone", "blocks"),
        [({"name": "stemnet"}, 4), ({"name": "hrnet_w32", "pretrained": "none"}, 9)],
        ids=["stemnet", "hrnet"],
    )
    def test_recomputed_activations_change_nothing(self, backbone: dict[str, Any], blocks: int) -> None:
        gradients = []
        for recompute in (False, True):
            model = small(backbone=backbone).train()
            if recompute:
                recompute_activations(SimpleNamespace(checkpoint_blocks=model.checkpoint_blocks))
            cycles = model.forward_cycles(image(), cycles=2, attention=True)
            sum(cycle.heatmaps.square().mean() for cycle in cycles).backward()
            gradients.append([parameter.grad for parameter in model.parameters()])
        assert len(model.checkpoint_blocks()) == blocks + 2
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other)

    def test_bfloat16_and_channels_last(self) -> None:
        model = small()
        with torch.no_grad():
            expected = model(image())
            model = model.to(memory_format=torch.channels_last)
            torch.testing.assert_close(model(image().to(memory_format=torch.channels_last)), expected)
            with torch.autocast("cpu", torch.bfloat16):
                rough = model.forward_cycles(image(), cycles=2, attention=True)
        assert rough[0].attention.dtype == torch.float32
        torch.testing.assert_close(rough[0].heatmaps.float(), expected, atol=0.02, rtol=0.05)

    def test_hrnet_gives_its_finest_map(self) -> None:
        backbone = HRNet(64).eval()
        with torch.no_grad():
            assert backbone(torch.randn(1, 3, 64, 48)).shape == (1, 32, 16, 12)
        assert sum(parameter.numel() for parameter in backbone.parameters()) == 7_685_632
        assert len(backbone.checkpoint_blocks()) == 4 + 1 + 4


def patches(model: SDPose) -> Tensor:
    """What `patch_to_token` is given."""
    passed: list[Tensor] = []
    hook = model.head.patch_to_token.register_forward_pre_hook(lambda _m, inputs: passed.append(inputs[0]))
    model(image())
    hook.remove()
    return passed[0]


class TestNames:
    @pytest.mark.parametrize("name", ["model_t", "model_s_v1", "model_b", "train_step_small"])
    def test_published_ones_there_and_back(self, name: str) -> None:
        names = json.loads((KEYS / f"{name}.keys.json").read_text(encoding="utf-8"))["shapes"]
        ours = [our_name(key, hrnet=is_hrnet(names)) for key in names]
        assert len(set(ours)) == len(ours)
        assert [reference_name(key) for key in ours] == list(names)

    def test_tokenposes_encoder_and_unknown_names(self) -> None:
        start = "keypoint_head.tokenpose.transformer"
        for end in ("layers.3.0.fn.fn.to_qkv.weight", "layers.11.1.fn.norm.bias"):
            same = {our_name(f"{start}{one}{end}", hrnet=False) for one in (".", "_layer1.")}
            assert len(same) == 1
        assert our_name("rubbish.weight", hrnet=False) == "rubbish.weight"


class TestCheckpoints:
    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {"patch": (2, 2)},
            {"position": "learnable"},
            {"dim": 24, "heads": 1},
            {"backbone": {"name": "hrnet_w32", "pretrained": "none"}},
        ],
        ids=["S-V1", "S-V2", "learnable", "narrow", "B"],
    )
    @torch.no_grad()
    def test_network_is_read_off_the_file(self, settings: dict[str, Any]) -> None:
        model = small(**settings)
        reference = {f"module.{key}": value for key, value in to_reference(model).items()}
        loaded = load_reference({"meta": {"epoch": 3}, "state_dict": reference, "optimizer": {}})
        assert loaded.head.patch == model.head.patch
        assert loaded.head.position == model.head.position
        torch.testing.assert_close(loaded(image()), model(image()), rtol=0, atol=0)

    @torch.no_grad()
    def test_other_heads_and_positions_are_options(self) -> None:
        model = small(heads=4, position="sine")
        reference = to_reference(model)
        assert torch.equal(load_reference(reference, heads=4, position="sine")(image()), model(image()))
        assert not torch.allclose(load_reference(reference, position="sine")(image()), model(image()))

    @torch.no_grad()
    def test_tokenpose_of_the_same_repository(self) -> None:
        model = small()
        reference = {
            key.replace("transformer_layer1.", "transformer."): value.numpy()
            for key, value in to_reference(model).items()
            if key != TABLE
        }
        assert torch.equal(load_reference(reference)(image()), model(image()))

    def test_weights_fit_any_number_of_cycles(self) -> None:
        weights = from_reference(to_reference(small(cycles=3)))
        small(cycles=2).load_state_dict(weights)
        assert "head.positions" not in weights

    def test_parts(self) -> None:
        model = small()
        reference = to_reference(model)
        assert isinstance(load_reference_part("backbone", reference), StemNet)
        encoder = load_reference_part("encoder", reference, heads=2)
        ours = model.head.encoder.state_dict()
        assert all(torch.equal(value, ours[key]) for key, value in encoder.state_dict().items())
        with pytest.raises(ConfigError, match="SDPose has no part neck"):
            load_reference_part("neck", reference)

    def test_original_tokenpose_is_refused(self) -> None:
        names = {"conv1.weight": torch.zeros(1), "transformer.keypoint_token": torch.zeros(1)}
        with pytest.raises(CheckpointError, match="original TokenPose, whose network S divides attention"):
            load_reference(names)

    def test_what_does_not_fit_is_named(self) -> None:
        reference = to_reference(small())
        with pytest.raises(
            CheckpointError, match=r"names \(first: fc.weight\) are those of no network known"
        ):
            from_reference({"fc.weight": torch.zeros(1)})
        lacking = {key: value for key, value in reference.items() if "bn2.weight" not in key}
        with pytest.raises(CheckpointError, match=r"5 missing: backbone\.bn2\.weight"):
            load_reference(lacking)
        with pytest.raises(
            CheckpointError, match="192 heatmap cells and 12 of them a token, which patches of"
        ):
            load_reference(reference, patch=(2, 2))
        with pytest.raises(CheckpointError, match=r"of another shape: head\.positions"):
            load_reference(reference | {TABLE: reference[TABLE] + 1})
        with pytest.raises(CheckpointError, match="no transformer layers"):
            load_reference({key: value for key, value in reference.items() if "transformer" not in key})


@pytest.fixture(scope="module")
def imagenet() -> dict[str, Tensor]:
    """Random weights under timm's names."""
    torch.manual_seed(0)
    return timm.create_model("hrnet_w32").state_dict()


class TestImageNet:
    def test_the_wide_stage_takes_all(self, imagenet: dict[str, Tensor], tmp_path: Path) -> None:
        save_file(imagenet, tmp_path / "model.safetensors")
        backbone = HRNet(64)
        load_imagenet(backbone, str(tmp_path / "model.safetensors"))
        ours = backbone.state_dict()
        assert all(torch.equal(v, imagenet[key.removeprefix("stem.")]) for key, v in ours.items())

    def test_the_published_stage_loses_some_and_says_so(
        self, imagenet: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        create = lambda *_a, **_k: SimpleNamespace(state_dict=lambda: imagenet)  # noqa: E731
        monkeypatch.setattr(timm, "create_model", create)
        backbone = HRNet(32)
        with pytest.warns(UserWarning, match=r"67 of \d+ tensors of the backbone stay random, as published"):
            load_imagenet(backbone, "imagenet")
        assert torch.equal(backbone.stem.conv1.weight, imagenet["conv1.weight"])
        last = "stage3.3.fuse_layers.0.2.0.weight"
        assert torch.equal(backbone.state_dict()[last], imagenet[last])
        assert backbone.stem.layer1[0].conv2.weight.std().item() == pytest.approx(0.001, rel=0.1)

    def test_without_connection(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_args: Any, **_options: Any) -> None:
            raise OSError

        monkeypatch.setattr(timm, "create_model", fail)
        with pytest.raises(ConfigError, match="hrnet_w32 could not be downloaded") as error:
            load_imagenet(HRNet(), "imagenet")
        assert "huggingface.co/timm/hrnet_w32" in error.value.hint
        with pytest.warns(UserWarning, match="the image encoder starts from random weights: the weights of"):
            load_imagenet(HRNet(), "auto")

    def test_files_that_are_none(self, imagenet: dict[str, Tensor], tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="no such file of an image encoder's weights"):
            load_imagenet(HRNet(), str(tmp_path / "no.pth"))
        (tmp_path / "bad.pth").write_bytes(b"no weights")
        with pytest.raises(CheckpointError, match=r"bad\.pth: cannot be read: UnpicklingError"):
            load_imagenet(HRNet(), str(tmp_path / "bad.pth"))
        torch.save({k: v for k, v in imagenet.items() if "stage3" not in k}, tmp_path / "part.pth")
        with pytest.raises(CheckpointError, match=r"missing or of another shape, first stage3\.0"):
            load_imagenet(HRNet(), str(tmp_path / "part.pth"))
