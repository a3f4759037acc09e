"""What a user is promised of G2-MonoDepth's training, row by row of the spec (R1 to R34, section 11)."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.commands import omma, rows_of, weights_of
from tests.parity.fill import load_case
from tests.unit.rgbd_files import scene, write, write_pairs
from torch import Tensor, nn

import omma as package
from omma.engine import launch
from omma.engine.schedule import Length, lr_factor
from omma.engine.task import StepInfo
from omma.systems.g2_monodepth import unet
from omma.systems.g2_monodepth.convert import load_reference
from omma.systems.g2_monodepth.task import G2Task
from omma.systems.recipes import open_recipe

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("no_report")]
RECIPE = "g2_monodepth/nyuv2"
TINY = [
    "system.network.layers=3", "system.network.features=4", "data.image_size=[32, 48]", "train.workers=0",
    "train.batch_size=4", "validate.batch_size=7", "train.device=cpu", "log.tensorboard=false", "log.every=1",
]  # fmt: skip
WITHOUT_REPORT = """
import omma.cli, omma.commands.train as train
train._finish = lambda *args: None
omma.cli.main()
"""
UNET_F8 = Path(__file__).parents[1] / "parity" / "g2_monodepth" / "unet_f8"


def _train(root: Path, name: str, data: Path, *words: str, recipe: str = RECIPE) -> Path:
    options = ["--name", name, "--runs-dir", root, f"data.root={data}", *TINY, *words]
    assert omma("train", recipe, *options) == 0
    return root / name


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Five training and seven validation pictures in the guide's folders, millimetres."""
    root = tmp_path_factory.mktemp("rows") / "nyu_v2"
    write_pairs(root / "train", 5)
    write_pairs(root / "val", 7, first=5)
    (root / "rgbd.json").write_text('{"units_per_metre": 1000, "max_depth": 10}', encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def four_epochs(data, tmp_path_factory) -> Path:
    """Four epochs of two steps with a file of the guide's after each."""
    words = ["train.length=4 epochs", "train.batch_size=2", "save.every=1 epoch", "log.tensorboard=true"]
    return _train(tmp_path_factory.mktemp("runs"), "four", data, *words, "save.keep_last=9")


def test_guides_numbers():
    """R10, R25: what the guide's Config says, under our names."""
    config = open_recipe(RECIPE).config
    network, data, train = config.system.network, config.data, config.train
    assert (network.name, network.layers, network.features) == ("unet", 7, 64)
    assert data.image_size == (480, 640)
    assert (config.optim.name, config.optim.lr, config.optim.weight_decay) == ("adam", 1e-4, 0)
    assert config.optim.betas == (0.9, 0.999)
    assert config.optim.grad_clip is None
    assert (train.batch_size, train.workers, train.precision) == (8, 4, "32")
    assert str(train.length) == "100 epochs"
    assert str(config.validation.every) == "1 epoch"
    assert (str(config.save.every), config.save.reference, config.log.every) == ("5 epochs", True, 100)
    weights = config.system.loss
    assert (weights.absolute, weights.relative, weights.gradient, weights.scales) == (1, 1, 0.5, 4)


@pytest.mark.parametrize(("epoch", "rate"), [(0, 1e-4), (19, 1e-4), (20, 5e-5), (40, 2.5e-5)])
def test_learning_rate_of_an_epoch(epoch, rate):
    """R11, over a whole epoch of 99 steps."""
    config = open_recipe(RECIPE).config
    for step in (99 * epoch, 99 * epoch + 98):
        assert config.optim.lr * lr_factor(config.schedule, step, Length(9900, 99)) == pytest.approx(rate)


def test_every_epoch_trains_on_whole_batches_validates_and_saves(four_epochs):
    """R12, R15, R16, R19, R23: of five pictures two batches of two; all seven are validated, once each."""
    training = rows_of(four_epochs, "train")
    assert [row["step"] for row in training] == list(range(1, 9))
    assert all({"loss", "adepth", "rdepth", "rgrad"} <= row.keys() for row in training)
    scores = rows_of(four_epochs, "val")
    assert [row["step"] for row in scores] == [2, 4, 6, 8]
    assert [row["images"] for row in scores] == [21] * 4  # seven pictures, three densities
    files = {file.name for file in four_epochs.glob("checkpoint_epoch*.pth")}
    assert files == {f"checkpoint_epoch00{epoch}.pth" for epoch in range(4)}


def test_tensorboard_shows_each_term(four_epochs):
    """R15, R26."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = next(four_epochs.rglob("events.out.tfevents.*")).parent
    tags = set(EventAccumulator(str(events)).Reload().Tags()["scalars"])
    assert {f"train/{name}" for name in ("loss", "adepth", "rdepth", "rgrad")} <= tags
    assert {"val/rmse", "val/abs_rel", "val/delta1", "train/lr"} <= tags


def test_files_of_the_guide_are_safe_and_complete(four_epochs):
    """R20: nothing but tensors and plain values, the guide's keys and `step`."""
    content = torch.load(four_epochs / "checkpoint_epoch003.pth", weights_only=True)
    guide = {"epoch", "model_state_dict", "optimizer_state_dict", "scheduler_state_dict", "config"}
    assert set(content) == guide | {"step"}
    assert (content["epoch"], content["step"]) == (3, 8)
    assert type(content["config"]) is dict
    assert not any(name.startswith(("module.", "model.")) for name in content["model_state_dict"])
    saved = load_reference(content).state_dict()
    ours = {name.removeprefix("model."): value for name, value in weights_of(four_epochs).items()}
    assert saved.keys() == ours.keys()
    assert all(torch.equal(value, ours[name]) for name, value in saved.items())


def test_five_epochs_are_counted_from_0(data, tmp_path):
    """R19: every five epochs, so the first file is that of epoch 4."""
    run = _train(tmp_path, "five", data, "train.length=10 epochs", "validate.every=10 epochs")
    files = {file.name for file in run.glob("checkpoint_epoch*.pth")}
    assert files == {"checkpoint_epoch004.pth", "checkpoint_epoch009.pth"}


def test_two_and_two_epochs_are_four(data, four_epochs, tmp_path):
    """R12, R21: the same bits, and so the same order of samples, after a resume."""
    words = ["train.batch_size=2", "save.every=1 epoch"]
    run = _train(tmp_path, "half", data, *words, "train.length=2 epochs")
    assert omma("resume", run, "train.length=4 epochs") == 0
    expected, found = weights_of(four_epochs), weights_of(run)
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    losses = [[row["loss"] for row in rows_of(one, "train")] for one in (four_epochs, run)]
    assert losses[0] == losses[1]
    assert len(set(losses[0])) == 8


def test_a_file_of_the_guide_goes_on_at_the_next_epoch(data, four_epochs, tmp_path):
    """R21: with the guide's five keys alone, epochs 2 and 3 end in the weights of the whole training."""
    content = torch.load(four_epochs / "checkpoint_epoch001.pth", weights_only=True)
    del content["step"]
    file = tmp_path / "elsewhere" / "checkpoint_epoch001.pth"
    file.parent.mkdir()
    torch.save(content, file)
    words = ["train.batch_size=2", "save.every=1 epoch", "train.length=4 epochs"]
    run = _train(tmp_path, "on", data, *words, "--resume", str(file))
    assert [row["step"] for row in rows_of(run, "train")] == [5, 6, 7, 8]
    expected, found = weights_of(four_epochs), weights_of(run)
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


def test_gradients_are_clipped(data, tmp_path):
    """R14: plain gradient descent moves the weights by the clipped gradient."""
    words = ["optim.name=sgd", "optim.momentum=0", "optim.lr=1", "train.length=1", "train.batch_size=2"]
    start = _train(tmp_path, "still", data, *words, "optim.lr=1e-30", "optim.grad_clip=1e-3")
    moved = _train(tmp_path, "moved", data, *words, "optim.grad_clip=1e-3")
    before, after = weights_of(start), weights_of(moved)
    step = sum(float((after[name] - value).square().sum()) for name, value in before.items()) ** 0.5
    assert 0.5e-3 < step <= 1.001e-3


@pytest.mark.multi
def test_two_processes_are_one_with_twice_the_batch(data, tmp_path, monkeypatch):
    """R2, R18, R22: weights to 1e-5, and the scores of seven pictures."""
    monkeypatch.setattr(launch, "_COMMAND", (sys.executable, "-c", WITHOUT_REPORT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    words = ["train.length=2 epochs", "validate.every=2 epochs", "data.val_patterns=['uniform:1%']"]
    one = _train(tmp_path, "one", data, *words)
    two = _train(tmp_path, "two", data, *words, "train.batch_size=2", "train.devices=2")
    expected, found = weights_of(one), weights_of(two)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-5)
    scores, others = rows_of(one, "val")[-1], rows_of(two, "val")[-1]
    assert scores["images"] == others["images"] == 7
    # inverse scores of an untrained network's depths near 0 magnify the last bit of its weights
    names = [n for n in scores if n.endswith(("rmse", "delta1", "abs_rel", "silog")) and "irmse" not in n]
    assert len(names) == 8  # rmse, delta1, abs_rel and silog, of images and pooled
    assert [others[name] for name in names] == pytest.approx([scores[name] for name in names], rel=1e-5)


@pytest.mark.parametrize(
    "size", [(480, 640), (375, 1242), (228, 304)], ids=lambda size: "x".join(map(str, size))
)
def test_sizes_that_do_not_fit_the_stride(size, tmp_path):
    """R24, R33: seven levels train on and predict pictures whose sides are no multiples of 64."""
    for index, split in enumerate(("train", "val")):
        image, depth = scene(index, size)
        write(tmp_path / "data" / split / "rgb" / "0.png", image)
        write(tmp_path / "data" / split / "depth" / "0.png", np.rint(depth * 1000).astype(np.uint16))
    note = '{"units_per_metre": 1000, "max_depth": 10}'
    (tmp_path / "data" / "rgbd.json").write_text(note, encoding="utf-8")
    words = [
        f"data.image_size={list(size)}",
        "train.batch_size=1",
        "train.length=1",
        "system.network.layers=7",
    ]
    run = _train(tmp_path, "run", tmp_path / "data", *words, "data.val_patterns=['uniform:1%']")
    prediction = package.load(f"{run}@final").predict(0)
    assert prediction.arrays["prediction"].shape == (1, *size)
    assert np.isfinite(prediction.arrays["prediction"]).all()


def test_sizes_that_fit_are_not_padded(monkeypatch):
    """R33: bit-equal to the network without any padding."""
    weights, arrays, _ = load_case(str(UNET_F8))
    model = load_reference(weights)
    inputs = [torch.from_numpy(arrays[key])[:1, :, :64, :128] for key in ("rgb", "raw", "mask")]
    with torch.no_grad():
        depth = model(*inputs)
        monkeypatch.setattr(unet, "pad_inputs", lambda joined, *args: joined)
        assert torch.equal(model(*inputs), depth)


@pytest.mark.parity
def test_golden_network_in_onnx_runtime(tmp_path):
    """Section 11.2."""
    onnxruntime = pytest.importorskip("onnxruntime")
    weights, arrays, _ = load_case(str(UNET_F8))
    model = load_reference(weights).eval()
    names = ["rgb", "raw", "mask"]
    inputs = tuple(torch.from_numpy(arrays[key]) for key in names)
    file = tmp_path / "unet.onnx"
    torch.onnx.export(
        model, inputs, file, input_names=names, dynamo=True, verbose=False, external_data=False
    )  # fmt: skip
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (depth,) = session.run(None, {name: arrays[name] for name in names})
    np.testing.assert_allclose(depth, arrays["out"], rtol=0, atol=1e-5)


class _Broken(nn.Module):
    """Predicts 0.3, and what is not finite where `unknown` says."""

    def __init__(self, unknown: Tensor) -> None:
        super().__init__()
        self.depth = nn.Parameter(torch.where(unknown, torch.nan, 0.3))

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.depth


def _task(unknown: Tensor, depth: Tensor) -> tuple[G2Task, dict[str, Tensor]]:
    task = G2Task(open_recipe(RECIPE, ["data.image_size=[32, 48]", *TINY[:2]]).config)
    task.model = _Broken(unknown)
    return task, task.example_batch(2) | {"depth": depth, "hole_point": (depth > 0).float(), "point": depth}


def test_what_is_unknown_does_not_reach_the_loss():
    """R13, section 11.4: a NaN where no depth is known, and pictures without any."""
    known = torch.zeros(2, 1, 32, 48, dtype=torch.bool)
    known[:, :, 4:28, 6:40] = True
    depth = torch.rand(known.shape, generator=torch.Generator().manual_seed(0)) * known
    task, batch = _task(~known, depth)
    terms = task.training_step(batch, StepInfo(0, 0, 0.0))
    terms["loss"].backward()
    assert all(torch.isfinite(value) and value > 0 for value in terms.values())
    gradient = task.model.depth.grad
    assert gradient.isfinite().all()
    assert not gradient[~known].any()
    assert gradient[known].any()
    task, batch = _task(known & False, torch.zeros_like(depth))
    terms = task.training_step(batch, StepInfo(0, 0, 0.0))
    terms["loss"].backward()
    assert all(float(value.detach()) == 0 for value in terms.values())
    assert torch.equal(task.model.depth.grad, torch.zeros_like(depth))


def test_official_weights_are_imported_and_fine_tuned(data, four_epochs, tmp_path):
    """R34: under the key `network` with prefixes of DDP and compile, as a run folder and as a start."""
    content = torch.load(four_epochs / "checkpoint_epoch003.pth", weights_only=True)
    names = {f"_orig_mod.module.{name}": value for name, value in content["model_state_dict"].items()}
    file = tmp_path / "epoch_100.pth"
    torch.save({"epoch": 100, "network": names}, file)
    words = ["--recipe", RECIPE, "--out", tmp_path / "imported", *TINY[:2]]
    assert omma("import", "g2_monodepth", file, *words) == 0
    expected = weights_of(four_epochs)
    assert all(
        torch.equal(value, expected[name]) for name, value in weights_of(tmp_path / "imported").items()
    )
    run = _train(tmp_path, "tuned", data, "--init", str(file), "optim.lr=1e-30", "train.length=1")
    assert all(torch.allclose(value, expected[name]) for name, value in weights_of(run).items())


def test_a_second_run_is_the_same(data, four_epochs, tmp_path):
    """R12, R30: order, degradation and validation depend on the seed alone, not on the machine's state."""
    words = ["train.batch_size=2", "train.length=2 epochs"]
    torch.manual_seed(99)
    again = _train(tmp_path, "again", data, *words)
    other = _train(tmp_path, "other", data, *words, "seed=1")
    first = [row["loss"] for row in rows_of(four_epochs, "train")][:4]
    assert [row["loss"] for row in rows_of(again, "train")] == first
    assert [row["loss"] for row in rows_of(other, "train")] != first
    assert rows_of(again, "val")[0]["rmse"] == rows_of(four_epochs, "val")[0]["rmse"]
