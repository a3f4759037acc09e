"""Checkpoints of the original projects, Swin weights from elsewhere, and training files."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import swin_t

from omma.engine.checkpoint import TrainingState
from omma.engine.task import Task
from omma.errors import CheckpointError, ConfigError
from omma.systems.diffbev.config import DiffBEVData, DiffBEVSystem
from omma.systems.diffbev.convert import (
    from_reference,
    is_computed,
    load_reference,
    load_reference_part,
    to_reference,
)
from omma.systems.diffbev.keys import convert_merging, our_name, reference_name, swin_weights
from omma.systems.diffbev.model import BevSegmenter, build_model
from omma.systems.diffbev.pretrained import load_pretrained
from omma.systems.diffbev.swin import SwinTransformer
from omma.systems.diffbev.training_files import read_training_file, write_training_file

KEYS = Path(__file__).parents[1] / "parity" / "diffbev" / "fork_diffbev_small.keys.json"
SMALL: dict[str, Any] = {
    "backbone": {"embed_dim": 8, "depths": (1, 2, 1, 1), "num_heads": (1, 2, 2, 4), "window": 4},
    "grid": {"x": (-4.0, 4.0, 0.5), "z": (1.0, 9.0, 0.5), "depth": (1.0, 9.0, 1.0)},
    "channels": 16,
    "head": {"planes": (16, 32), "blocks": (1, 2)},
}
SIZE = (96, 128)
GRID = {"xbound": (-4, 4, 0.5), "ybound": (-10, 10, 20), "zbound": (1, 9, 0.5), "dbound": (1, 9, 1)}
TINY = {"embed_dim": 8, "depths": (1, 2, 1, 1), "num_heads": (1, 2, 2, 4), "window": 7}


def small(**settings: Any) -> BevSegmenter:
    torch.manual_seed(0)
    model = build_model(DiffBEVSystem(**(SMALL | settings)), DiffBEVData(image_size=SIZE)).eval()
    nn.init.normal_(model.head.classifier.weight, std=0.1)
    return model


def inputs() -> tuple[Tensor, Tensor]:
    matrix = torch.tensor([[[100.0, 0, 64], [0, 100.0, 48], [0, 0, 1]]])
    return torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(1)), matrix


class TestNames:
    def test_the_forks_names_there_and_back(self) -> None:
        meta = json.loads(KEYS.read_text(encoding="utf-8"))
        names = list(meta["shapes"])
        assert len(names) == 271
        assert [reference_name(our_name(name)) for name in names] == names
        assert not any(is_computed(name) for name in names)
        assert all(is_computed(name) for name in meta["computed"])

    def test_merging_channels_there_and_back(self) -> None:
        name = "backbone.stages.0.downsample.reduction.weight"
        theirs = torch.arange(24.0).expand(12, 24)
        ours = convert_merging(name, theirs)
        assert ours[0, :12].tolist() == [0, 4, 8, 12, 16, 20, 2, 6, 10, 14, 18, 22]
        assert torch.equal(convert_merging(name, ours, to_reference=True), theirs)
        assert convert_merging("head.topdown.0.0.downsample.0.weight", theirs) is theirs

    def test_official_and_hft_name_the_view_transformer(self) -> None:
        assert our_name("transformer.depthnet.weight") == our_name("neck.depthnet.weight")
        assert our_name("neck.fpn_convs.1.conv.bias") == "view.fpn.fpn_convs.1.conv.bias"
        assert our_name("transformer.transformers.2.fc.weight") == "view.pyramid.transformers.2.fc.weight"


class TestRoundTrip:
    @torch.no_grad()
    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {"diffusion": {"name": "fork_aux"}, "view": {"name": "lift_splat", "append_depth": True}},
            {"classes": ["vehicle"], "priors": [0.04]},
            {"view": {"name": "vpn", "hidden": 30}},
            {"view": {"name": "pyva", "size": 16}},
        ],
        ids=["baseline", "fork", "one class", "vpn", "pyva"],
    )
    def test_the_network_is_read_off_its_own_file(self, settings: dict[str, Any]) -> None:
        model = small(**settings)
        state = to_reference(model)
        told = "neck.frustum" in state  # only lift-splat's file tells grid and image size
        options: dict[str, Any] = {} if told else {"image_size": SIZE, "grid_conf": GRID}
        again = load_reference({"state_dict": state, "meta": {"epoch": 1}}, **options)
        assert not again.training
        assert type(again.view) is type(model.view)
        assert type(again.head) is type(model.head)
        torch.testing.assert_close(again(*inputs()), model(*inputs()), rtol=0, atol=0)

    @torch.no_grad()
    def test_pon(self) -> None:
        torch.manual_seed(0)
        grid = SMALL["grid"] | {"z": (1.0, 50.0, 0.5)}
        system = DiffBEVSystem(**(SMALL | {"view": {"name": "pon"}, "grid": grid}))
        model = build_model(system, DiffBEVData(image_size=(64, 800))).eval()
        nn.init.normal_(model.head.classifier.weight, std=0.1)
        state = to_reference(model)
        assert {key.split(".")[0] for key in state} == {"backbone", "neck", "transformer", "decode_head"}
        again = load_reference(state, image_size=(64, 800), grid_conf=GRID | {"zbound": (1, 50, 0.5)})
        image = torch.randn(1, 3, 64, 800)
        torch.testing.assert_close(again(image, inputs()[1]), model(image, inputs()[1]), rtol=0, atol=0)

    def test_what_the_reference_computes_is_written_as_it_has_it(self) -> None:
        state = to_reference(small(diffusion={"name": "fork_aux"}))
        assert state["neck.dx"].tolist() == [0.5, 20.0, 0.5]
        assert state["neck.bx"].tolist() == [-3.75, 0.0, 1.25]
        assert state["neck.nx"].tolist() == [16.0, 1.0, 16.0]
        assert tuple(state["neck.frustum"].shape) == (8, 3, 4, 3)
        assert state["neck.frustum"][-1, -1, -1].tolist() == [127.0, 95.0, 8.0]
        index = state["backbone.stages.0.blocks.0.attn.w_msa.relative_position_index"]
        assert index.shape == (16, 16)
        assert state["decode_head.alphas_cumprod"].shape == (1000,)

    def test_what_has_no_published_form_says_so(self) -> None:
        paper = small(diffusion={"name": "paper", "widths": (8, 8, 16)})
        with pytest.raises(ConfigError, match="paper has no published form"):
            to_reference(paper)
        with pytest.raises(ConfigError, match="cell_rounding=floor"):
            to_reference(small(view={"name": "lift_splat", "cell_rounding": "floor"}))


class TestWrongFiles:
    def test_missing_left_over_and_misshapen_keys_are_listed(self) -> None:
        state = to_reference(small())
        del state["backbone.norm3.weight"]
        state["decode_head.extra"] = torch.zeros(3)
        state["decode_head.classifier.bias"] = torch.zeros(3)
        with pytest.raises(CheckpointError) as caught:
            load_reference(state)
        message = str(caught.value)
        assert "1 missing: backbone.norms.3.weight" in message
        assert "1 left over: head.extra" in message
        assert "1 of another shape: head.classifier.bias" in message

    def test_settings_at_odds_with_the_file(self) -> None:
        state = to_reference(small())
        with pytest.raises(CheckpointError, match="made with zbound"):
            load_reference(state, grid_conf={"zbound": (1, 50, 0.5)})
        with pytest.raises(CheckpointError, match="made with image_size"):
            load_reference(state, image_size=(600, 800))
        with pytest.raises(ConfigError, match="has no xbounds"):
            load_reference(state, grid_conf={"xbounds": (1, 50, 0.5)})

    def test_depths_that_do_not_explain_the_channels(self) -> None:
        state = {key: v for key, v in to_reference(small()).items() if key != "neck.frustum"}
        with pytest.raises(CheckpointError, match="49 depths leave -25"):
            load_reference(state)

    def test_changed_code(self) -> None:
        state = to_reference(small(diffusion={"name": "fork_aux"}))
        changed = state | {"decode_head.betas": state["decode_head.betas"] * 2}
        with pytest.raises(CheckpointError, match=r"decode_head\.betas is not what"):
            load_reference(changed)

    def test_another_projects_file(self) -> None:
        with pytest.raises(CheckpointError, match="has no topdown"):
            load_reference({"conv1.weight": torch.zeros(3)})
        with pytest.raises(CheckpointError, match="epoch is a str"):
            load_reference({"epoch": "seven"})
        with pytest.raises(ConfigError, match="no part middle"):
            load_reference_part("middle", {})


def _official(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's names to those of official files: merging at the end of a stage, index buffers, other head."""
    official = {
        "layers.0.blocks.0.attn.relative_position_index": torch.zeros(49, 49, dtype=torch.int64),
        "layers.0.blocks.1.attn_mask": torch.zeros(64, 49, 49),
    }
    for key, value in weights.items():
        for stage in (1, 2, 3):
            if key.startswith(f"layers.{stage}.downsample."):
                key = key.replace(f"layers.{stage}", f"layers.{stage - 1}")
        official[key.replace("head.fc.", "head.")] = value
    return official


@pytest.fixture(scope="module")
def timm_model() -> nn.Module:
    torch.manual_seed(0)
    options = {"img_size": 224, "window_size": 7, "num_classes": 3}
    model = timm.models.SwinTransformer(embed_dim=8, depths=(1, 2, 1, 1), num_heads=(1, 2, 2, 4), **options)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
    return model.eval()


class TestPretrained:
    @torch.no_grad()
    @pytest.mark.parametrize("form", ["timm", "official", "ours", "reference"])
    def test_files_in_four_namings(self, timm_model: nn.Module, form: str, tmp_path: Path) -> None:
        """On 224 x 224, where timm's order of rolling and padding does not matter."""
        weights = dict(timm_model.state_dict())
        file = tmp_path / "weights.pth"
        if form == "timm":
            file = file.with_suffix(".safetensors")
            save_file(weights, file)
        elif form == "official":
            torch.save({"model": _official(weights)}, file)
        else:
            state = {f"backbone.{key}": value for key, value in swin_weights(weights).items()}
            if form == "reference":
                state = {
                    reference_name(key): convert_merging(key, value, to_reference=True)
                    for key, value in state.items()
                }
            torch.save({"state_dict": state}, file)
        swin = SwinTransformer(**TINY).eval()
        load_pretrained(swin, str(file))
        image = torch.randn(1, 3, 224, 224)
        features = timm_model.norm(timm_model.layers(timm_model.patch_embed(image)))
        swin.norms["3"].load_state_dict(timm_model.norm.state_dict())
        torch.testing.assert_close(swin(image)[0], features.permute(0, 3, 1, 2), rtol=1e-4, atol=1e-4)

    def test_torchvisions_file(self, tmp_path: Path) -> None:
        torch.save(swin_t().state_dict(), tmp_path / "swin_t.pth")
        swin = SwinTransformer()
        before = swin.norms["3"].weight.clone()
        load_pretrained(swin, str(tmp_path / "swin_t.pth"))
        assert torch.equal(swin.norms["3"].weight, before)

    @pytest.mark.parametrize("change", ["size", "missing", "left over"])
    def test_file_of_another_network(self, timm_model: nn.Module, change: str, tmp_path: Path) -> None:
        weights = dict(timm_model.state_dict())
        if change == "missing":
            del weights["layers.2.blocks.0.mlp.fc1.bias"]
        if change == "left over":
            weights["layers.0.blocks.7.mlp.fc1.bias"] = torch.zeros(32)
        torch.save(weights, tmp_path / "weights.pth")
        swin = SwinTransformer(**(TINY | {"embed_dim": 16 if change == "size" else 8}))
        expected = {
            "size": "tensors missing or of another shape, first patch_embed",
            "missing": r"1 of \d+ tensors missing or of another shape, first stages\.2\.blocks\.0\.mlp\.0",
            "left over": r"1 left over, first stages\.0\.blocks\.7",
        }
        with pytest.raises(CheckpointError, match=expected[change]):
            load_pretrained(swin, str(tmp_path / "weights.pth"))

    def test_missing_and_damaged_files(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="no such file"):
            load_pretrained(SwinTransformer(**TINY), str(tmp_path / "none.pth"))
        for name in ("damaged.pth", "damaged.safetensors"):
            (tmp_path / name).write_bytes(b"not weights")
            with pytest.raises(CheckpointError, match="cannot be read"):
                load_pretrained(SwinTransformer(**TINY), str(tmp_path / name))

    def test_without_a_connection(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(name: str, *, pretrained: bool) -> nn.Module:
            assert (name, pretrained) == ("swin_tiny_patch4_window7_224.ms_in1k", True)
            raise FileNotFoundError("offline")

        monkeypatch.setattr(timm, "create_model", fail)
        swin = SwinTransformer()
        with pytest.raises(ConfigError, match=r"could not be downloaded(.|\n)*backbone\.pretrained=none"):
            load_pretrained(swin, "timm")
        before = swin.stages[0].blocks[0].attn.qkv.weight.clone()
        with pytest.warns(UserWarning, match="starts from random weights"):
            load_pretrained(swin, "auto")
        assert torch.equal(swin.stages[0].blocks[0].attn.qkv.weight, before)

    def test_downloaded_weights_are_loaded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        create = timm.create_model
        monkeypatch.setattr(timm, "create_model", lambda name, pretrained: create(name))
        swin = SwinTransformer()
        for source in ("timm", "auto"):
            nn.init.zeros_(swin.stages[3].blocks[1].mlp[2].weight)
            load_pretrained(swin, source)
            assert swin.stages[3].blocks[1].mlp[2].weight.any()

    def test_sizes_that_timm_has_no_weights_for(self) -> None:
        with pytest.raises(ConfigError, match="no weights for an image encoder of this"):
            load_pretrained(SwinTransformer(**TINY), "timm")
        with pytest.warns(UserWarning, match="no weights for an image encoder of this"):
            load_pretrained(SwinTransformer(**TINY), "auto")


class SmallTask(Task):
    """A network and what the writer of training files reads beside it."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.model = small(**settings)
        self.classes = ["a", "b"]
        self.config = SimpleNamespace(save=SimpleNamespace(keep_last=2))


def _train(task: Task, steps: int = 1) -> torch.optim.Optimizer:
    adam = torch.optim.AdamW([p for p in task.parameters() if p.requires_grad], lr=1e-3)
    for _ in range(steps):
        out = task.model.forward_train(*inputs())
        loss = out.logits.square().mean() + (0 if out.diffusion is None else out.diffusion)
        loss.backward()
        adam.step()
        adam.zero_grad()
    return adam


class TestTrainingFiles:
    @pytest.mark.parametrize("diffusion", [{"name": "none"}, {"name": "paper", "widths": (8, 8, 16)}])
    def test_a_training_goes_on_from_its_file(self, diffusion: dict[str, Any], tmp_path: Path) -> None:
        task = SmallTask(diffusion=diffusion)
        adam = _train(task, steps=2)
        state = TrainingState("step", 500, 3, {"mIoU": 0.25}, adam.state_dict())
        file = write_training_file(tmp_path, task, state)
        assert file.name == "iter_500.pth"
        content = torch.load(tmp_path / "latest.pth", weights_only=True)
        assert content["iter"] == content["meta"]["iter"] == 500
        assert content["meta"]["mIoU"] == 0.25
        foreign = read_training_file(content, task)
        assert foreign.step == 500
        for name, value in task.model.state_dict().items():
            assert torch.equal(foreign.weights[name], value)
        parameters = [p for p in task.parameters() if p.requires_grad]
        assert len(foreign.moments) == len(parameters)
        for parameter, moments in zip(parameters, foreign.moments, strict=True):
            assert torch.equal(moments["exp_avg"], adam.state[parameter]["exp_avg"])

    def test_the_file_has_the_references_names_and_order(self, tmp_path: Path) -> None:
        task = SmallTask()
        write_training_file(tmp_path, task, TrainingState("step", 1, 0, {}, _train(task).state_dict()))
        content = torch.load(tmp_path / "iter_1.pth", weights_only=True)
        state, moments = content["state_dict"], content["optimizer"]["state"]
        assert load_reference(content).view.image_size == SIZE
        names = [n for n in state if not n.endswith(("_index", "running_mean"))]
        for number, name in enumerate(names):
            assert (number in moments) != name.startswith(("neck.dx", "neck.bx", "neck.nx", "neck.frustum"))
            if number in moments:
                assert moments[number]["exp_avg"].shape == state[name].shape

    def test_names_and_numbers_of_files(self, tmp_path: Path) -> None:
        task = SmallTask()
        optimizer = _train(task).state_dict()
        for kind, step in (("step", 9), ("step", 10), ("best", 10), ("step", 100), ("final", 100)):
            write_training_file(tmp_path, task, TrainingState(kind, step, 0, {}, optimizer))
        names = sorted(file.name for file in tmp_path.iterdir())
        assert names == ["best_mIoU.pth", "iter_10.pth", "iter_100.pth", "latest.pth"]
        best = torch.load(tmp_path / "best_mIoU.pth", weights_only=True)
        assert "optimizer" not in best
        with pytest.raises(CheckpointError, match="cannot be continued"):
            read_training_file(best, task)

    def test_file_of_another_network(self, tmp_path: Path) -> None:
        task = SmallTask()
        write_training_file(tmp_path, task, TrainingState("step", 1, 0, {}, _train(task).state_dict()))
        content = torch.load(tmp_path / "latest.pth", weights_only=True)
        with pytest.raises(CheckpointError, match="no weights for"):
            read_training_file(content, SmallTask(diffusion={"name": "fork_aux"}))

    def test_optimiser_of_other_parameters_starts_anew(self, tmp_path: Path) -> None:
        task = SmallTask()
        write_training_file(tmp_path, task, TrainingState("step", 1, 0, {}, _train(task).state_dict()))
        content = torch.load(tmp_path / "latest.pth", weights_only=True)
        del content["optimizer"]["state"][0]
        assert read_training_file(content, task).moments == []


def test_from_reference_is_what_loads(tmp_path: Path) -> None:
    model = small()
    wrapped = {f"module.model.{key}": value for key, value in to_reference(model).items()}
    other = small()
    other.load_state_dict(from_reference({"state_dict": wrapped}))
    expected = model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in other.state_dict().items())
