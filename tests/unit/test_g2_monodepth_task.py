"""G2-MonoDepth's recipes, the terms of its losses, and which network a recipe or a file asks for."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from rgbd_files import write_pairs
from torch import Tensor
from torch.amp import GradScaler

from omma.commands.import_ import import_reference
from omma.commands.train import train
from omma.commands.weights import load_initial_weights, settings_of_file
from omma.core.depth_losses import absolute_loss, relative_losses, silog_loss, ssi_loss
from omma.engine.checkpoint import read_weights
from omma.engine.optim import build_optimizer
from omma.engine.state import Progress, TrainState
from omma.engine.task import StepInfo
from omma.errors import CheckpointError, ConfigError, UsageError
from omma.runs.console import RunLog
from omma.systems import get
from omma.systems.g2_monodepth.baselines import nearest_fill
from omma.systems.g2_monodepth.changes import draw_window, jitter_colours
from omma.systems.g2_monodepth.config import TERMS, G2System
from omma.systems.g2_monodepth.convert import from_reference, load_reference, settings_of, to_reference
from omma.systems.g2_monodepth.data import build
from omma.systems.g2_monodepth.losses import RULES, Answer, DepthLosses
from omma.systems.g2_monodepth.resnetsan import ResNetSAN
from omma.systems.g2_monodepth.spnet import SIZES, SPNet
from omma.systems.g2_monodepth.task import G2Task
from omma.systems.g2_monodepth.training_files import read_training_file, write_training_file
from omma.systems.g2_monodepth.unet import UNet
from omma.systems.recipes import open_recipe

NAME = "g2_monodepth"
SIZE = "data.image_size=[32, 32]"
UNET = ["system.network.layers=3", "system.network.features=4"]
SAN = ["system.pretrained=none"]


def tiny(recipe: str) -> list[str]:
    """Settings that make a recipe's network small where it can be."""
    if recipe.startswith("resnet_san"):
        return [SIZE, *SAN]
    return [SIZE] if recipe in ("spnet", "pacgdc") else [SIZE, *UNET]


def task_of(recipe: str, *words: str) -> G2Task:
    torch.manual_seed(0)
    return G2Task(open_recipe(f"{NAME}/{recipe}", [*tiny(recipe), *words]).config)


def step(task: G2Task) -> dict[str, Tensor]:
    return task.training_step(task.example_batch(2), StepInfo(0, 0, 0.0))


@pytest.mark.parametrize("recipe", get(NAME).recipes())
def test_two_steps_of_every_recipe(recipe: str) -> None:
    """Finite, a gradient for every parameter (DDP), weights that move, the total as the weighted sum."""
    task = task_of(recipe).train()
    optim = task.config.optim
    optimizer = build_optimizer(optim, task.param_groups(optim.lr, optim.weight_decay))
    before = torch.cat([p.detach().flatten().clone() for p in task.parameters()])
    for _ in range(2):
        optimizer.zero_grad()
        terms = step(task)
        assert tuple(terms) == ("loss", *task.train_terms)
        assert all(value.isfinite() and value.ndim == 0 for value in terms.values())
        terms["loss"].backward()
        assert [name for name, p in task.named_parameters() if p.grad is None] == []
        optimizer.step()
    assert not torch.equal(torch.cat([p.detach().flatten() for p in task.parameters()]), before)
    assert all(line in task.describe()[0] for line in task.train_terms)


def test_the_network_sees_given_depths_filled_in_where_a_recipe_says_so(tmp_path: Path) -> None:
    """The mask, the given depths and the losses stay as they are."""
    write_pairs(tmp_path / "val", 1)
    words = ["data.prefill=nearest", "data.max_depth=10", "data.units_per_metre=1000", "data.layout=folders"]
    task = task_of("base", *words, f"data.root={tmp_path}", "data.val_patterns=[uniform:5%]").eval()
    samples, collate = build(task.config, "val", augment=False)
    batch = collate([samples[0]])
    point, filled = batch["point"][0, 0].numpy(), batch["filled"][0, 0].numpy()
    assert 0 < (point > 0).mean() < 0.1
    np.testing.assert_array_equal(filled, nearest_fill(point))
    with torch.no_grad():
        expected = task.model(batch["rgb"].float() / 255, batch["filled"], batch["hole_point"])
        torch.testing.assert_close(task(batch), expected)
    assert any("filled in (nearest)" in line for line in task.describe())


class TestNumbers:
    """Section 6 of the spec; the guide's are in the rows' test."""

    @staticmethod
    def numbers(recipe: str) -> tuple[Any, ...]:
        config = open_recipe(f"{NAME}/{recipe}").config
        optim, train = config.optim, config.train
        kept = optim.name, optim.lr, optim.weight_decay, optim.decay, optim.grad_clip
        return (*kept, config.schedule.name, str(train.length), train.batch_size, config.data.image_size)

    def test_official(self) -> None:
        expected = ("adamw", 2e-4, 0.05, "all", None, "cosine", "100 epochs", 64, (320, 320))
        config = open_recipe(f"{NAME}/official").config
        assert self.numbers("official") == expected
        assert (config.train.precision, config.schedule.warmup.count) == ("16-mixed", 0)
        assert (str(config.save.every), config.system.loss.absolute_mask) == ("20 epochs", "raw")
        made = config.data.degradation
        assert (made.style, made.pattern, made.noise, made.blur, made.holes) == (
            *("code", "mixture"),
            *(0.5, 0.5, 0.8),
        )

    def test_resnet_san(self) -> None:
        expected = ("adam", 2e-4, 0, "all", 1.0, "step", "50 epochs", 12, (384, 640))
        assert self.numbers("resnet_san") == self.numbers("resnet_san_dual") == expected
        config = open_recipe(f"{NAME}/resnet_san").config
        assert (str(config.schedule.every), config.schedule.gamma) == ("30 epochs", 0.5)
        assert (config.train.precision, config.save.keep_last) == ("32", 50)
        loss = config.system.loss
        assert (loss.ssi, loss.silog, loss.gradient, loss.absolute, loss.scales) == (0.7, 0.3, 0.2, 0, 4)
        dual = open_recipe(f"{NAME}/resnet_san_dual").config.system.loss
        assert (dual.integer, dual.fractional, dual.l1, dual.gradient, dual.ssi) == (1, 10, 0.5, 0.2, 0)

    def test_successors(self) -> None:
        spnet, pacgdc = (open_recipe(f"{NAME}/{name}").config for name in ("spnet", "pacgdc"))
        assert (str(spnet.train.length), str(spnet.schedule.warmup)) == ("300 epochs", "15 epochs")
        assert (str(pacgdc.train.length), str(pacgdc.schedule.warmup)) == ("100 epochs", "1 epoch")
        assert (pacgdc.train.batch_size, pacgdc.system.network.name) == (192, "pacgdc")
        assert "none" not in spnet.data.degradation.pattern
        data, made = pacgdc.data, pacgdc.data.degradation
        assert (data.crop_area, data.jitter, made.noise, made.blur, made.holes) == (
            0.49,
            0.4,
            0.25,
            0.25,
            0.75,
        )

    def test_finetuning_and_modern(self) -> None:
        tuned, modern = (open_recipe(f"{NAME}/{name}").config for name in ("finetune", "modern"))
        assert (tuned.optim.lr, str(tuned.train.length), tuned.data.measured) == (2e-5, "5 epochs", 1.0)
        assert (modern.optim.decay, modern.train.ema, modern.schedule.warmup.count) == (
            "weights",
            0.999,
            1000,
        )
        assert (modern.train.precision, modern.optim.grad_clip) == ("bf16-mixed", 1.0)

    def test_alphas_do_not_decay_in_modern(self) -> None:
        task = task_of("modern")
        optim = task.config.optim
        groups = build_optimizer(optim, task.param_groups(optim.lr, optim.weight_decay)).param_groups
        rate = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
        rates = {name: rate[id(p)] for name, p in task.named_parameters()}
        assert {r for name, r in rates.items() if name.endswith(("alpha", "bias"))} == {0.0}
        assert {r for name, r in rates.items() if name.endswith("weight")} == {0.05}
        assert len(task.model.alphas()) == 3 * (3 + 2)
        assert set(task.model.alphas()) == {0.0}
        assert UNet(layers=3, features=4, block="batch_norm").alphas() == []


def weighted_sum(task: G2Task, terms: dict[str, Tensor]) -> float:
    weights = dict(
        zip(task.train_terms, [*task.losses.weights.values(), task.losses.consistency], strict=False)
    )
    return sum(weight * float(terms[name].detach()) for name, weight in weights.items() if name in terms)


def test_crops_and_colours_go_as_far_as_the_recipe_says() -> None:
    areas, changes = [], []
    image = np.full((64, 64, 3), 100, np.uint8)
    for seed in range(300):
        rng = np.random.default_rng(seed)
        _, _, height, width = draw_window(rng, (64, 64), (64, 64), area=0.3)
        areas.append(height * width / 64**2)
        changes.append(abs(float(jitter_colours(image, rng, strength=0.4).mean()) - 100))
    assert 0.29 < min(areas) < 0.35
    assert 35 < max(changes) < 45  # of a grey picture the contrast changes nothing


class TestLosses:
    @pytest.mark.parametrize(
        ("recipe", "words", "names"),
        [
            ("demo", [], "adepth rdepth rgrad"),
            ("demo", ["name=scale_adaptive"], "adepth rdepth rgrad"),
            ("demo", ["relative=0"], "adepth rgrad"),
            ("demo", ["name=terms", "l1=1", "mse=0.5", "abs_rel=2"], "l1 mse abs_rel"),
            ("demo", ["name=terms", "berhu=1", "gradient=0.2"], "rgrad berhu"),
            ("resnet_san", [], "rgrad silog ssi consistency"),
            ("resnet_san", ["ssi=0"], "rgrad silog consistency"),
            ("resnet_san", ["name=terms", "ssi_trim=3"], "ssi_trim consistency"),
            ("resnet_san_dual", [], "rgrad l1 integer fractional consistency"),
        ],
    )
    def test_total_is_the_weighted_sum_of_what_is_logged(
        self, recipe: str, words: list[str], names: str
    ) -> None:
        task = task_of(recipe, *(f"system.loss.{word}" for word in words))
        terms = step(task)
        assert task.train_terms == tuple(names.split())
        assert float(terms["loss"].detach()) == pytest.approx(weighted_sum(task, terms), rel=1e-5)
        assert all(float(value.detach()) > 0 for value in terms.values())

    def test_gradient_term_is_an_add_on_to_any_loss(self) -> None:
        """R31."""
        for recipe in ("resnet_san", "resnet_san_dual"):
            off, on = (step(task_of(recipe, f"system.loss.gradient={w}")) for w in (0, 0.2))
            difference = float((on["loss"] - off["loss"]).detach())
            assert difference == pytest.approx(0.2 * float(on["rgrad"].detach()), rel=1e-3)
            assert "rgrad" not in off

    def test_units(self) -> None:
        """Packnet's terms are of metres, whatever counts as 1; G2's are of depths over that."""
        generator = torch.Generator().manual_seed(0)
        gt_m = 1 + 9 * torch.rand(2, 1, 16, 16, generator=generator)
        pred_m = 1 + 9 * torch.rand(2, 1, 16, 16, generator=generator)
        network = {"name": "resnet_san", "min_depth": 0.5, "max_depth": 15.0}
        loss = {"name": "ssi_silog", "absolute": 1.0, "l1": 1.0}
        losses = DepthLosses(G2System.model_validate({"network": network, "loss": loss}))
        found = []
        for unit in (10.0, 20.0):
            batch = {"depth": gt_m / unit, "point": gt_m / unit, "max_depth": torch.full((2,), unit)}
            found.append(losses([Answer(pred_m / unit)], batch, torch.zeros(())))
        for name in ("silog", "ssi", "l1"):
            torch.testing.assert_close(found[0][name], found[1][name])
        torch.testing.assert_close(found[0]["adepth"], 2 * found[1]["adepth"])
        known = torch.ones_like(gt_m, dtype=torch.bool)
        torch.testing.assert_close(found[0]["l1"], absolute_loss(pred_m, gt_m, known))
        torch.testing.assert_close(found[0]["silog"], silog_loss(pred_m, gt_m, known))
        torch.testing.assert_close(found[0]["ssi"], ssi_loss(1 / pred_m, 1 / gt_m, known))

    def test_packnets_values(self) -> None:
        """Metres in the batch as parts of another maximal depth give the reference's totals."""
        file = Path(__file__).parents[1] / "parity" / "g2_monodepth" / "ours_losses.npz"
        arrays = {name: torch.from_numpy(value) for name, value in np.load(file).items()}
        batch = {name: arrays["gt"] / 20 for name in ("depth", "point")} | {
            "max_depth": torch.full((2,), 20.0)
        }
        dual = {"network": {"name": "resnet_san", "dual_head": True}, "loss": {"name": "dual_head"}}
        integer, fractional = arrays["dual.integer"], arrays["dual.fractional"]
        answer = Answer((15 * integer + fractional) / 20, (integer, fractional))
        terms = DepthLosses(G2System.model_validate(dual))([answer], batch, torch.zeros(()))
        assert float(terms["loss"]) == pytest.approx(float(arrays["dual.loss"]), rel=1e-5)
        single = {"network": {"name": "resnet_san"}, "loss": {"name": "ssi_silog"}}
        terms = DepthLosses(G2System.model_validate(single))(
            [Answer(arrays["pred"] / 20)], batch, torch.zeros(())
        )
        expected = float(arrays["ssi_silog_gw0.0.silog_component"])
        assert float(terms["silog"]) == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize("mask", ["gt", "raw", "raw_and_gt"])
    def test_g2_and_its_masks(self, mask: str) -> None:
        task = task_of("demo", f"system.loss.absolute_mask={mask}")
        batch = task.example_batch(2)
        batch["depth"][:, :, :4] = 0
        with torch.no_grad():
            terms, pred = task.training_step(batch, StepInfo(0, 0, 0.0)), task(batch)
        known, given = batch["depth"] != 0, batch["point"] != 0
        pixels = {"gt": known, "raw": given, "raw_and_gt": known & given}[mask]
        torch.testing.assert_close(terms["adepth"], absolute_loss(pred, batch["depth"], pixels))
        relative, gradient = relative_losses(pred, batch["depth"], known)
        torch.testing.assert_close(
            torch.stack([terms["rdepth"], terms["rgrad"]]), torch.stack([relative, gradient])
        )

    def test_unknown_truth_may_hold_anything_in_the_answer(self) -> None:
        """No term and no gradient of it is touched by what the network says there."""
        network = {"name": "resnet_san", "dual_head": True}
        weights = dict.fromkeys(TERMS, 1.0)
        losses = DepthLosses(
            G2System.model_validate({"network": network, "loss": {"name": "terms", **weights}})
        )
        gt = torch.rand(2, 1, 32, 32) + 0.1
        gt[:, :, :9] = 0
        batch = {"depth": gt, "point": gt, "max_depth": torch.full((2,), 10.0)}
        maps = [torch.where(gt > 0, 0.5, torch.nan).requires_grad_() for _ in range(3)]
        terms = losses([Answer(maps[0], (maps[1], maps[2]))], batch, torch.zeros(()))
        terms["loss"].backward()
        assert set(RULES) == set(TERMS)
        assert all(value.isfinite() for value in terms.values())
        assert all(values.grad.isfinite().all() and values.grad.any() for values in maps)

    def test_validation_counts_what_follows_from_the_depth(self) -> None:
        task = task_of("resnet_san_dual").eval()
        batch = task.example_batch(1)
        with torch.no_grad():
            meters = task.meters()
            task.validation_step(batch, meters)
            prediction = task.predict(batch)
            again = task.meters()
            task.score(prediction.arrays, batch, again)
        assert meters["loss"].compute() == pytest.approx(again["loss"].compute(), rel=1e-5)


class TestWrongCombinations:
    @pytest.mark.parametrize(
        ("recipe", "words", "message"),
        [
            ("base", ["system.loss.name=dual_head"], "integer and fractional are of a dual head.*this unet"),
            ("resnet_san", ["system.loss.name=dual_head"], "dual head, which this resnet_san has not"),
            ("base", ["system.loss.name=ssi_silog"], "silog needs depths above 0"),
            ("base", ["system.loss.name=terms"], "no term has a weight"),
            (
                "base",
                ["system.loss.name=scale_adaptive", "system.loss.absolute_mask=raw"],
                "scale_adaptive has gt throughout",
            ),
            ("resnet_san", ["system.network.min_depth=20"], "min_depth 20 is not below max_depth 15"),
        ],
    )
    def test_one_line_says_so(self, recipe: str, words: list[str], message: str) -> None:
        with pytest.raises(ConfigError, match=message) as caught:
            open_recipe(f"{NAME}/{recipe}", words)
        assert "\n" not in caught.value.message

    def test_ways_out_that_the_messages_name(self) -> None:
        task = task_of("base", "system.loss.name=ssi_silog", "system.network.activation=softplus")
        assert step(task)["loss"].isfinite()
        assert task_of(
            "resnet_san", "system.loss.name=dual_head", "system.network.dual_head=true"
        ).losses.names

    def test_pretrained_weights_of_a_network_without_any(self) -> None:
        with pytest.raises(ConfigError, match=r"system\.pretrained=timm: only resnet_san"):
            task_of("base", "system.pretrained=timm")


class TestResNetSAN:
    def test_depth_is_metric_whatever_counts_as_one(self) -> None:
        task = task_of("resnet_san").eval()
        batch = task.example_batch(1)
        other = {
            **batch,
            **{k: batch[k] / 2 for k in ("depth", "point")},
            "max_depth": 2 * batch["max_depth"],
        }
        with torch.no_grad():
            torch.testing.assert_close(task(batch) * 10, task(other) * 20)
            assert task(batch).min() * 10 >= 0.5
        assert "resnet_san answers 0.5 to 15 m" in task.describe()[-1]

    def test_both_passes_and_all_scales_are_trained(self) -> None:
        """Without depth in the batch both passes are one; with it, the sparse branch learns too."""
        task = task_of("resnet_san").train()
        step(task)["loss"].backward()
        assert isinstance(task.model, ResNetSAN)
        convs = [*task.model.head_convs["inverse"], task.model.sparse.stages[0].branches[0][0]]
        assert all(conv.weight.grad.abs().sum() > 0 for conv in convs)
        assert "consistency" not in task_of("resnet_san", "system.network.sparse=false").train_terms
        off = task_of("resnet_san", "system.network.consistency=0")
        assert "consistency" not in step(off)

    def test_weights_that_cannot_be_had(self, monkeypatch: pytest.MonkeyPatch) -> None:
        create = timm.create_model

        def offline(name: str, *, pretrained: bool = False, **options: Any) -> torch.nn.Module:
            if pretrained:
                raise OSError(name)
            return create(name, **options)

        monkeypatch.setattr(timm, "create_model", offline)
        with pytest.warns(UserWarning, match="starts from random weights"):
            task_of("resnet_san", "system.pretrained=auto")
        with pytest.raises(ConfigError, match="could not be downloaded"):
            task_of("resnet_san", "system.pretrained=timm")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            task_of("resnet_san")


def spnet_of(size: str, **options: Any) -> SPNet:
    width, depths = SIZES[size]
    return SPNet([width * 2**stage for stage in range(4)], depths, **options)


class TestFilesOfOthers:
    """What a file's network is, and its weights in a run or at the start of a training."""

    @pytest.mark.parametrize(
        ("model", "words"),
        [
            (UNet(layers=4, features=8), {"name": "unet", "layers": 4, "features": 8, "block": "rezero"}),
            (UNet(layers=3, features=4, block="batch_norm"), {"layers": 3, "block": "batch_norm"}),
            (spnet_of("tiny"), {"name": "spnet", "size": "tiny"}),
            (spnet_of("small", variant="pacgdc"), {"name": "pacgdc", "size": "small"}),
            (ResNetSAN(34, sparse=False), {"name": "resnet_san", "layers": 34, "dual_head": False}),
            (ResNetSAN(18, sparse=False, dual_head=True), {"layers": 18, "dual_head": True, "sparse": False}),
        ],
        ids="unet batch_norm spnet pacgdc resnet_san dual".split(),
    )
    def test_network_is_told_by_the_file(self, model: torch.nn.Module, words: dict[str, Any]) -> None:
        """Names there and back are equal, and the recipe's network takes them strictly."""
        state = to_reference(model)
        config = open_recipe(f"{NAME}/base", settings_of({"network": state})).config
        assert words.items() <= config.system.network.model_dump().items()
        built = G2Task(config).model
        built.load_state_dict(from_reference(state))
        again = to_reference(built)
        assert list(again) == list(state)
        assert all(torch.equal(again[name], value) for name, value in state.items())

    def test_sizes_that_no_setting_gives(self) -> None:
        with pytest.raises(CheckpointError, match="none of the sizes tiny, small, base, large"):
            settings_of(to_reference(SPNet((8, 16, 16, 24), (1, 1, 2, 1))))

    def test_import_infers_the_network(self, tmp_path: Path) -> None:
        model = UNet(layers=3, features=4, block="batch_norm")
        torch.save(
            {"state_dict": {f"model.{k}": v for k, v in to_reference(model).items()}}, tmp_path / "a.ckpt"
        )
        run = import_reference(NAME, tmp_path / "a.ckpt", f"{NAME}/base", [], tmp_path / "run")
        assert run.config()["system"]["network"]["block"] == "batch_norm"
        weights = read_weights(run.path / "checkpoints" / "best" / "model.safetensors")
        assert torch.equal(weights["model.head.weight"], model.head.weight)

    def test_what_fits_is_taken_and_counted(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file = tmp_path / "epoch_100.pth"
        torch.save({"network": to_reference(UNet(layers=3, features=4))}, file)
        recipe = open_recipe(f"{NAME}/base", ["system.network.layers=4", "system.network.features=4"])
        task, console = G2Task(recipe.config), RunLog(None)
        with pytest.raises(CheckpointError, match="do not fit"):
            load_initial_weights(task, recipe, str(file), console)
        load_initial_weights(task, recipe, str(file), console, partial=True)
        ours, whole = task.model.state_dict(), from_reference(torch.load(file, weights_only=True))
        fitting = [name for name, value in whole.items() if ours[name].shape == value.shape]
        assert f"{len(fitting)} of {len(ours)} tensors" in "".join(capsys.readouterr())
        assert torch.equal(ours["stem.weight"], whole["stem.weight"])
        assert settings_of_file(get(NAME), file) == settings_of(torch.load(file, weights_only=True))
        with pytest.raises(UsageError, match="--init"):
            train(f"{NAME}/base", partial=True)

    def test_reference_files_keep_moments_by_name_whatever_decays(self, tmp_path: Path) -> None:
        """Groups with and without decay put the optimiser's state in another order than the parameters'."""
        task = task_of("modern")
        optim = task.config.optim
        optimizer = build_optimizer(optim, task.param_groups(optim.lr, optim.weight_decay))
        step(task)["loss"].backward()
        optimizer.step()
        state = TrainState(task, optimizer, None, GradScaler(enabled=False), Progress(step=1, global_batch=1))
        file = write_training_file(tmp_path, task, state.original_project("step"))
        foreign = read_training_file(torch.load(file, weights_only=True), task)
        assert len(foreign.moments) == len(list(task.parameters()))
        for parameter, moments in zip(task.parameters(), foreign.moments, strict=True):
            assert torch.equal(moments["exp_avg"], optimizer.state[parameter]["exp_avg"])

    def test_sparse_convolutions_are_left_out_aloud(self) -> None:
        model = ResNetSAN(18, sparse=False)
        state = {f"model.depth_net.{name}": value for name, value in to_reference(model).items()}
        branch = {
            "mconvs.0.layer1.0.kernel": torch.ones(25, 1, 4),
            "mconvs.0.layer1.1.bn.weight": torch.ones(4),
        }
        content = {"state_dict": state | {f"model.depth_net.{name}": value for name, value in branch.items()}}
        with pytest.warns(UserWarning, match="mconvs is left out: sparse convolutions") as said:
            loaded = load_reference(content)
        assert len(said) == 1
        rgb = torch.rand(1, 3, 32, 32)
        with torch.no_grad():
            assert torch.equal(loaded(rgb), model.eval()(rgb))
