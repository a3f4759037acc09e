"""Networks of G2-MonoDepth and its relatives: image sizes, sparse branch, checkpoints, training files."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import resnet18

from omma.engine.checkpoint import TrainingState
from omma.engine.task import Task
from omma.errors import CheckpointError, ConfigError
from omma.systems.g2_monodepth.convert import (
    from_reference,
    load_reference,
    load_reference_part,
    published_name,
    reference_state,
    to_reference,
)
from omma.systems.g2_monodepth.inputs import join_inputs, pad_inputs
from omma.systems.g2_monodepth.pretrained import load_encoder
from omma.systems.g2_monodepth.resnetsan import ResNetSAN
from omma.systems.g2_monodepth.sparse import MaskedBatchNorm, SparseEncoder, pool_known
from omma.systems.g2_monodepth.spnet import Block, SPNet, SPNorm
from omma.systems.g2_monodepth.training_files import read_training_file, write_training_file
from omma.systems.g2_monodepth.unet import ReZeroBottleneck, UNet, level_widths


def unet(**options: Any) -> UNet:
    torch.manual_seed(0)
    model = UNet(**({"layers": 4, "features": 8} | options))
    for name, parameter in model.named_parameters():
        if name.endswith("alpha"):
            nn.init.constant_(parameter, 0.5)
    return model.eval()


def spnet(**options: Any) -> SPNet:
    torch.manual_seed(0)
    return SPNet(**({"dims": (8, 16, 16, 24), "depths": (1, 1, 2, 1)} | options)).eval()


def san(**options: Any) -> ResNetSAN:
    torch.manual_seed(0)
    return ResNetSAN(**options).eval()


def inputs(height: int = 40, width: int = 56, batch: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    rgb = torch.rand(batch, 3, height, width, generator=generator)
    raw = torch.rand(batch, 1, height, width, generator=generator)
    raw = torch.where(raw > 0.9, raw, 0.0)
    return rgb, raw, (raw != 0).float()


class TestInputs:
    def test_depth_is_unknown_beyond_the_image(self) -> None:
        padded = pad_inputs(join_inputs(*inputs(5, 7)), 4, "replicate")
        assert padded.shape == (2, 5, 8, 8)
        assert torch.equal(padded[:, :3, 5:, :7], padded[:, :3, 4:5, :7].expand(-1, -1, 3, -1))
        assert not padded[:, 3:, 5:].any()
        assert not padded[:, 3:, :, 7:].any()

    def test_ways_to_continue_an_image(self) -> None:
        joined = join_inputs(*inputs(6, 8))
        assert not pad_inputs(joined, 8, "zero")[:, :, 6:].any()
        assert torch.equal(pad_inputs(joined, 8, "reflect")[:, :3, 6], joined[:, :3, 4])
        assert pad_inputs(joined, 32, "reflect").shape[-2:] == (32, 32)  # more than there is to mirror
        assert pad_inputs(joined, 2, "replicate") is joined

    @pytest.mark.parametrize("model", [unet(), spnet(), san()], ids=["unet", "spnet", "resnetsan"])
    @torch.no_grad()
    def test_any_size_and_both_calls(self, model: nn.Module) -> None:
        for height, width in [(64, 64), (37, 50), (3, 65)]:
            rgb, raw, mask = inputs(height, width, batch=1)
            depth = model(rgb, raw, mask)
            assert depth.shape == (1, 1, height, width)
            assert torch.equal(model(torch.cat([rgb, raw, mask], 1)), depth)
            assert torch.equal(model(rgb, raw), depth)

    @pytest.mark.parametrize("model", [unet(), spnet(), san()], ids=["unet", "spnet", "resnetsan"])
    def test_bfloat16_and_channels_last(self, model: nn.Module) -> None:
        batch = inputs()
        with torch.no_grad():
            expected = model(*batch)
        model = copy.deepcopy(model).to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            depth = model(*(values.to(memory_format=torch.channels_last) for values in batch))
        assert float((depth - expected).abs().mean().detach()) < 0.01 * float(expected.abs().max())
        depth.float().mean().backward()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)

    @torch.no_grad()
    def test_padding_is_what_one_would_pad_by_hand(self) -> None:
        model, (rgb, raw, mask) = unet(pad="zero"), inputs(40, 56)
        part = model(rgb[..., :37, :50], raw[..., :37, :50], mask[..., :37, :50])
        by_hand = [torch.zeros_like(values) for values in (rgb, raw, mask)]
        for values, whole in zip(by_hand, (rgb, raw, mask), strict=True):
            values[..., :37, :50] = whole[..., :37, :50]
        torch.testing.assert_close(part, model(*by_hand)[..., :37, :50])


class TestUNet:
    def test_without_alpha_a_block_is_the_activation(self) -> None:
        x = torch.randn(1, 8, 4, 4)
        torch.testing.assert_close(ReZeroBottleneck(8, 8)(x), nn.functional.leaky_relu(x, 0.2))

    def test_first_weights(self) -> None:
        model = UNet(layers=4, features=16)
        weights = model.inner.down.weight
        assert float(weights.detach().std()) == pytest.approx((2 / 1.04 / (16 * 9)) ** 0.5, rel=0.05)
        assert not any(parameter.any() for name, parameter in model.named_parameters() if "bias" in name)

    @pytest.mark.parametrize(("layers", "features"), [(2, 8), (5, 2)])
    def test_too_small(self, layers: int, features: int) -> None:
        with pytest.raises(ConfigError, match="cannot be built"):
            level_widths(layers, features)

    @torch.no_grad()
    def test_head_activations(self) -> None:
        batch = inputs()
        plain = unet()(*batch)
        assert plain.min() < 0
        torch.testing.assert_close(unet(activation="relu")(*batch), plain.relu())
        torch.testing.assert_close(unet(activation="sigmoid")(*batch), plain.sigmoid())

    def test_every_parameter_learns_but_for_rezero(self) -> None:
        """At alpha 0 the left branches have no gradient yet, but a defined one: DDP needs that."""
        for model in (UNet(layers=4, features=8), unet(block="batch_norm"), spnet()):
            model.train()(*inputs()).square().mean().backward()
            assert all(parameter.grad is not None for parameter in model.parameters())

    def test_blocks_to_recompute(self) -> None:
        assert len(unet().checkpoint_blocks()) == 3 * (4 + 3)
        assert isinstance(spnet().checkpoint_blocks()[-1], Block)
        assert len(spnet().checkpoint_blocks()) == 5 + 3
        assert len(san().checkpoint_blocks()) == 8

    def test_onnx_with_padding(self) -> None:
        """onnxruntime gives what torch gives."""
        import onnxruntime

        model, batch = unet(layers=3), inputs(22, 27, batch=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.onnx warns about its own internals
            program = torch.onnx.export(model, batch, dynamo=True, verbose=False)
        session = onnxruntime.InferenceSession(
            program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        names = [given.name for given in session.get_inputs()]
        feed = {name: values.numpy() for name, values in zip(names, batch, strict=True)}
        with torch.no_grad():
            expected = model(*batch)
        torch.testing.assert_close(
            torch.from_numpy(session.run(None, feed)[0]), expected, atol=1e-5, rtol=1e-5
        )


class TestSPNet:
    @torch.no_grad()
    def test_norm_keeps_the_scale(self) -> None:
        norm, x = SPNorm(8), torch.randn(1, 8, 3, 3)
        torch.testing.assert_close(norm(10 * x), 10 * norm(x), rtol=1e-4, atol=1e-4)

    def test_dropped_paths_grow_and_leave_the_input(self) -> None:
        model = spnet(drop_path=1.0).train()
        blocks = [block for stage in model.stages for block in stage]
        assert [block.drop_path for block in blocks] == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0])
        block, x = Block(8, drop_path=0.5).train(), torch.randn(1, 8, 4, 4)
        expected = {0.0, float(2 * (block.eval()(x) - x).abs().mean().detach())}
        block.train()
        seen = {round(float((block(x) - x).abs().mean().detach()), 5) for _ in range(20)}
        assert seen == {round(value, 5) for value in expected}


class TestSparseBranch:
    def test_pooling_looks_at_known_pixels_only(self) -> None:
        depth, known = torch.full((1, 1, 6, 6), -1.0), torch.zeros(1, 1, 6, 6, dtype=torch.bool)
        known[..., 0, 0] = True
        pooled, where = pool_known(depth, known)
        assert where.sum() == 1
        assert pooled[0, 0, 0, 0] == -1.0
        assert not pooled[~where].any()

    def test_statistics_are_those_of_known_pixels(self) -> None:
        norm, x = MaskedBatchNorm(3).train(), 5 + torch.randn(2, 3, 8, 8)
        known = torch.rand(2, 1, 8, 8) > 0.5
        y = norm(x, known)
        values = y.movedim(1, -1)[known[:, 0]]
        torch.testing.assert_close(values.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
        torch.testing.assert_close(values.var(0, unbiased=False), torch.ones(3), atol=1e-3, rtol=0)
        assert not y[(~known).expand_as(y)].any()
        plain = nn.BatchNorm1d(3).train()
        plain(x.movedim(1, -1)[known[:, 0]])
        torch.testing.assert_close(norm.running_mean, plain.running_mean)
        torch.testing.assert_close(norm.running_var, plain.running_var)

    def test_a_batch_without_depth_leaves_the_statistics(self) -> None:
        norm = MaskedBatchNorm(3).train()
        norm(torch.randn(1, 3, 4, 4), torch.zeros(1, 1, 4, 4, dtype=torch.bool))
        assert not norm.running_mean.any()
        assert torch.equal(norm.running_var, torch.ones(3))

    @torch.no_grad()
    def test_unknown_depth_does_not_reach_the_features(self) -> None:
        encoder, known = SparseEncoder((4, 8)).eval(), torch.rand(1, 1, 16, 16) > 0.8
        depth = torch.rand(1, 1, 16, 16)
        fine, coarse = encoder(depth, known)
        assert (fine.shape, coarse.shape) == ((1, 4, 8, 8), (1, 8, 4, 4))
        torch.testing.assert_close(encoder(torch.where(known, depth, 9.0), known)[1], coarse)


class TestResNetSAN:
    @torch.no_grad()
    def test_a_sample_without_depth_is_an_image_alone(self) -> None:
        model, (rgb, raw, _) = san(), inputs()
        raw[1] = 0
        depth, alone = model(rgb, raw), model(rgb)
        assert (depth[0] - alone[0]).abs().max() > 1e-4
        torch.testing.assert_close(depth[1], alone[1])
        assert torch.equal(san(sparse=False)(rgb, raw), san(sparse=False)(rgb))

    @torch.no_grad()
    def test_depth_is_in_the_unit_of_the_bounds(self) -> None:
        rgb = inputs()[0]
        in_metres = san()(rgb)
        assert in_metres.min() >= 0.5
        assert in_metres.max() <= 15
        torch.testing.assert_close(san(min_depth=0.5 / 15, max_depth=1.0)(rgb), in_metres / 15)
        dual, whole = san(dual_head=True)(rgb), san(dual_head=True, max_depth=1.0, step=1 / 15)(rgb)
        torch.testing.assert_close(whole, dual / 15)

    @pytest.mark.parametrize("dual_head", [False, True])
    def test_training_pass(self, dual_head: bool) -> None:
        model, (rgb, raw, mask) = san(dual_head=dual_head).train(), inputs(37, 50)
        out = model.forward_train(rgb, raw, mask)
        assert out.depth.shape == out.image_depth.shape == (2, 1, 37, 50)
        assert set(out.heads) == ({"integer", "fractional"} if dual_head else {"inverse"})
        sides = [tuple(values.shape[-2:]) for values in next(iter(out.heads.values()))]
        assert sides == [(37, 50), (19, 25), (10, 13), (5, 7)]
        assert out.consistency > 0
        heads = [values.mean() for maps in out.heads.values() for values in maps]
        (sum(heads) + out.image_depth.mean() + out.consistency).backward()
        assert all(parameter.grad is not None for parameter in model.parameters())


class TestPretrained:
    @pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
    def test_torchvisions_file(self, suffix: str, tmp_path: Path) -> None:
        weights, file = resnet18().state_dict(), tmp_path / f"resnet18{suffix}"
        torch.save(weights, file) if suffix == ".pth" else save_file(weights, file)
        model = san(sparse=False)
        load_encoder(model, str(file))
        assert torch.equal(model.encoder.conv1.weight, weights["conv1.weight"])
        with pytest.raises(CheckpointError, match="tensors missing"):
            load_encoder(san(layers=34, sparse=False), str(file))

    def test_download(self, monkeypatch: pytest.MonkeyPatch) -> None:
        create = timm.create_model
        model = san(sparse=False)
        before = model.encoder.conv1.weight.clone()
        load_encoder(model, "none")
        assert torch.equal(model.encoder.conv1.weight, before)
        monkeypatch.setattr(timm, "create_model", lambda name, pretrained: create(name))
        load_encoder(model, "timm")
        assert not torch.equal(model.encoder.conv1.weight, before)

        def fail(name: str, *, pretrained: bool) -> nn.Module:
            raise FileNotFoundError(name)

        monkeypatch.setattr(timm, "create_model", fail)
        with pytest.raises(ConfigError, match="could not be downloaded"):
            load_encoder(model, "timm")

    def test_missing_and_damaged_files(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="no such file"):
            load_encoder(san(sparse=False), str(tmp_path / "none.pth"))
        for name in ("damaged.pth", "damaged.safetensors"):
            (tmp_path / name).write_bytes(b"not weights")
            with pytest.raises(CheckpointError, match="cannot be read"):
                load_encoder(san(sparse=False), str(tmp_path / name))


class TestCheckpoints:
    @pytest.mark.parametrize(
        ("container", "prefix"),
        [
            (None, ""),
            ("network", "module."),
            ("model_state_dict", ""),
            ("network_state_dict", "_orig_mod."),
            ("state_dict", "model."),
            ("state_dict", "net."),
            ("model", "_orig_mod.module."),
        ],
    )
    @torch.no_grad()
    def test_official_guide_and_lightning(self, container: str | None, prefix: str) -> None:
        model = unet()
        state: dict[str, Any] = {f"{prefix}{name}": value for name, value in to_reference(model).items()}
        content = {"epoch": 3, container: state} if container else state
        loaded = load_reference(content)
        assert not loaded.training
        batch = inputs()
        assert torch.equal(loaded(*batch), model(*batch))

    @torch.no_grad()
    def test_packnets_depth_network_beside_others(self) -> None:
        model = san(sparse=False, dual_head=True, layers=34)
        state = {f"model.depth_net.{name}": value for name, value in to_reference(model).items()}
        loaded = load_reference({"state_dict": state | {"model.pose_net.weight": torch.ones(1)}})
        rgb = inputs()[0]
        assert torch.equal(loaded(rgb), model(rgb))
        half = load_reference({"state_dict": state}, max_depth=7.5)
        assert (half(rgb) < model(rgb)).all()

    @pytest.mark.parametrize("variant", ["spnet", "pacgdc"])
    @torch.no_grad()
    def test_sizes_of_the_successors_are_read_off(self, variant: Any) -> None:
        model, batch = spnet(variant=variant, depths=(1, 2, 1, 1)), inputs()
        assert torch.equal(load_reference(to_reference(model))(*batch), model(*batch))

    def test_what_does_not_fit_is_named(self) -> None:
        state = to_reference(unet())
        del state["block.4.bias"]
        with pytest.raises(CheckpointError, match=r"1 missing: head\.bias"):
            load_reference(state)
        with pytest.raises(CheckpointError, match=r"1 left over: loss\.weight"):
            load_reference(to_reference(unet()) | {"loss.weight": torch.ones(1)})
        with pytest.raises(CheckpointError, match="of no network known here"):
            load_reference({"conv1.weight": torch.ones(1)})
        with pytest.raises(CheckpointError, match="epoch"):
            load_reference({"epoch": "three"})
        with pytest.raises(ConfigError, match="no part head"):
            load_reference_part("head", {"head.weight": torch.ones(1)})

    def test_no_published_form(self) -> None:
        with pytest.raises(ConfigError, match="sparse branch"):
            to_reference(san())
        with pytest.raises(ConfigError, match="activation"):
            to_reference(unet(activation="relu"))
        assert "sparse.stages.0.norm.weight" in reference_state(san())


def task_of(model: nn.Module, keep_last: int = 2) -> Task:
    task = Task()
    task.model = model
    task.config = SimpleNamespace(
        save=SimpleNamespace(keep_last=keep_last), as_dict=lambda: {"optim": {"lr": 1e-3}}
    )
    return task


def stepped(task: Task) -> torch.optim.Optimizer:
    optimizer = torch.optim.Adam([p for p in task.parameters() if p.requires_grad], lr=1e-3)
    if isinstance(task.model, ResNetSAN):
        heads = task.model.forward_train(*inputs()).heads
        loss = sum(values.mean() for scales in heads.values() for values in scales)
    else:
        loss = task.model(*inputs()).square().mean()
    loss.backward()
    optimizer.step()
    return optimizer


def state_of(optimizer: torch.optim.Optimizer, epoch: int, kind: str = "step") -> TrainingState:
    return TrainingState(kind, 10 * epoch, epoch, {}, optimizer.state_dict())


class TestTrainingFiles:
    @pytest.mark.parametrize(
        "model",
        [unet(block="batch_norm"), spnet(variant="pacgdc"), spnet(), san(sparse=False)],
        ids=["unet", "pacgdc", "spnet", "resnetsan"],
    )
    def test_there_and_back(self, model: nn.Module, tmp_path: Path) -> None:
        task = task_of(model)
        optimizer = stepped(task)
        file = write_training_file(tmp_path, task, state_of(optimizer, 5))
        assert file.name == "checkpoint_epoch004.pth"
        content = torch.load(file, weights_only=True)
        keys = {
            *("epoch", "step", "config", "model_state_dict"),
            *("optimizer_state_dict", "scheduler_state_dict"),
        }
        assert set(content) == keys
        assert content["epoch"] == 4
        foreign = read_training_file(content, task)
        assert foreign.step == 50
        for name, value in task.model.state_dict().items():
            assert torch.equal(foreign.weights[name], value), name
        saved = optimizer.state_dict()["state"]
        assert len(foreign.moments) == len(saved)
        assert all(torch.equal(m["exp_avg"], saved[i]["exp_avg"]) for i, m in enumerate(foreign.moments))

    def test_moments_go_by_name(self, tmp_path: Path) -> None:
        """The moment of a parameter is under its number among the original network's parameters."""
        task = task_of(spnet(variant="pacgdc"))
        optimizer = stepped(task)
        content = torch.load(write_training_file(tmp_path, task, state_of(optimizer, 1)), weights_only=True)
        names = list(content["model_state_dict"])
        ours = [name for name, _ in task.model.named_parameters()]
        for index, name in enumerate(ours):
            theirs = names.index(published_name(task.model, name))
            expected = optimizer.state_dict()["state"][index]["exp_avg"]
            assert torch.equal(content["optimizer_state_dict"]["state"][theirs]["exp_avg"], expected)

    def test_old_files_go_and_the_best_stays(self, tmp_path: Path) -> None:
        task = task_of(unet())
        optimizer = stepped(task)
        for epoch in (1, 2, 3):
            write_training_file(tmp_path, task, state_of(optimizer, epoch))
        write_training_file(tmp_path, task, state_of(optimizer, 3, "best"))
        write_training_file(tmp_path, task, state_of(optimizer, 3, "final"))
        names = {file.name for file in tmp_path.iterdir()}
        epochs = {"checkpoint_epoch001.pth", "checkpoint_epoch002.pth"}
        assert names == epochs | {"checkpoint_best.pth", "checkpoint_final.pth"}

    @pytest.mark.parametrize("lightning", [False, True])
    def test_official_and_lightning_trainings(self, lightning: bool) -> None:
        task = task_of(unet())
        optimizer = stepped(task)
        weights = to_reference(task.model)
        content = {"epoch": 1, "network": weights, "optimizer": optimizer.state_dict()}
        if lightning:
            state = {f"model.{name}": value for name, value in weights.items()}
            content = {"global_step": 7, "state_dict": state, "optimizer_states": [optimizer.state_dict()]}
        foreign = read_training_file(content, task)
        assert foreign.step == (7 if lightning else 1)
        assert len(foreign.moments) == len(list(task.parameters()))

    def test_what_cannot_be_continued(self) -> None:
        task = task_of(unet())
        weights = to_reference(task.model)
        with pytest.raises(CheckpointError, match="cannot be continued"):
            read_training_file({"network": weights}, task)
        larger = task_of(unet(layers=5))
        content = {"network": weights, "optimizer": stepped(task).state_dict()}
        with pytest.raises(CheckpointError, match="no weights for"):
            read_training_file(content, larger)


def test_from_reference_drops_the_classifier() -> None:
    state = to_reference(san(sparse=False))
    assert "encoder.encoder.fc.weight" in state
    assert set(from_reference(state)) == set(san(sparse=False).state_dict())
