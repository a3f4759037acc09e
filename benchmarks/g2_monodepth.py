"""G2-MonoDepth against the straightforward forms: loading, loss, training step, inference.

    python benchmarks/g2_monodepth.py [--parts loading loss step inference] [--quick] [--json FILE]

The forms take turns in one process; pictures and weights are random. Straightforward means: loading decodes
both pictures whole, makes five float32 planes of them and calls torchvision and torch for every change; the
loss convolves residuals, subsampled by interpolation, with Sobel kernels; the step trains the network in
float32 and the default memory layout, with that loss and AdamW as it comes, on alpha times the result of each
block. Inference compares eager PyTorch with the exported ONNX file.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from loading import photo
from measure import interleaved, parts_parser, run_parts
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as V

from omma.engine.evaluate import autocast
from omma.engine.export import export_task
from omma.engine.optim import build_optimizer
from omma.engine.task import StepInfo
from omma.systems.g2_monodepth.changes import draw_window
from omma.systems.g2_monodepth.config import G2Config
from omma.systems.g2_monodepth.data import build
from omma.systems.g2_monodepth.losses import Answer
from omma.systems.g2_monodepth.prepare import rgbd_cache
from omma.systems.g2_monodepth.samples import TrainingSamples
from omma.systems.g2_monodepth.task import G2Task
from omma.systems.g2_monodepth.unet import SLOPE, ReZeroBottleneck

STORED = (480, 640)
UNITS, MAX_DEPTH_M = 1000.0, 10.0
TURNS = 24  # samples of a round: input depths are random, each form meets the same share of every kind
TARGETS = {
    "ours, decoded cache": 3.0,
    "ours, loss": 10.0,
    "ours, step": 1.3,
    "ours, step, bf16-mixed": 2.0,
}
Row = list[Any]


# --- loading ---


def write_data(root: Path, images: int) -> None:
    """Pictures as 8-bit and depths as 16-bit PNG of millimetres."""
    for name in ("rgb", "depth"):
        (root / "train" / name).mkdir(parents=True)
    rows, columns = np.indices(STORED) / np.array(STORED)[:, None, None]
    for index in range(images):
        noise = np.random.default_rng(index).normal(0, 8, STORED)
        depth = 2000 + 3000 * rows + 800 * np.sin(10 * columns + index) + noise
        depth[100:140, 200:300] = 0
        picture = cv2.resize(photo(index), STORED[::-1])
        for name, pixels in (("rgb", picture), ("depth", depth.astype(np.uint16))):
            data = cv2.imencode(".png", pixels)[1].tobytes()
            (root / "train" / name / f"{index:03}.png").write_bytes(data)
    note = {"units_per_metre": UNITS, "max_depth": MAX_DEPTH_M}
    (root / "rgbd.json").write_text(json.dumps(note), encoding="utf-8")


def samples_of(root: Path, size: tuple[int, int], **data: Any) -> TrainingSamples:
    config = G2Config.model_validate_json(
        json.dumps({"data": {"root": str(root), "image_size": size, **data}})
    )
    return build(config, "train", augment=True)[0]


def load_plainly(samples: TrainingSamples, index: int, rng: np.random.Generator) -> tuple[Tensor, ...]:
    """Picture (3, H, W), true and input depth (1, H, W), float32 in [0, 1]."""
    frame, size = samples.frames[index], samples.size
    torch.manual_seed(int(rng.integers(2**31)))
    image = cv2.cvtColor(cv2.imread(str(frame.image.files[0])), cv2.COLOR_BGR2RGB)
    stored = cv2.imread(str(frame.depth.files[0]), cv2.IMREAD_UNCHANGED)
    rgb = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    depth = torch.from_numpy(stored.astype(np.float32))[None] / UNITS / MAX_DEPTH_M
    planes = torch.cat([rgb, depth, (depth > 0).float()])
    planes = V.resized_crop(planes, *draw_window(rng, STORED, size), list(size), antialias=True)
    if rng.random() < 0.5:
        planes = V.horizontal_flip(planes)
    rgb, depth, known = planes.split([3, 1, 1])
    depth = torch.where(known > 0.999, depth, 0.0)
    steps = [V.adjust_brightness, V.adjust_contrast, V.adjust_saturation]
    for step in rng.permutation(3):
        rgb = steps[step](rgb, float(rng.uniform(0.8, 1.2)))
    largest = float(depth.max())
    depth = depth * rng.uniform(0.8, min(1.2, max(1.0, 1 / largest)))
    return rgb, depth, degrade_plainly(depth, rng)


def degrade_plainly(depth: Tensor, rng: np.random.Generator) -> Tensor:
    """Noise, blur, holes and sampling, each as an operation of torch or torchvision."""
    kind = rng.random()
    if kind > 0.6:
        return torch.zeros_like(depth)
    rate = 0.0 if kind < 0.2 else rng.uniform(0, 0.9) if kind < 0.4 else rng.uniform(0.9, 1)
    raw = depth.clone()
    if rng.random() < 0.5:
        noise = torch.randn_like(raw) * rng.uniform(0.01, 0.1)
        raw = raw + noise * (torch.rand_like(raw) > rng.random()) * (depth > 0)
    if rng.random() < (1.0 if rate == 0 else 0.5):
        small = F.interpolate(raw[None], scale_factor=1 / int(rng.choice([2, 4, 8, 16])), mode="nearest")
        raw = F.interpolate(small, size=raw.shape[-2:], mode="nearest")[0]
    raw = raw.clamp(0, 1)
    if rng.random() < 0.8:
        raw = raw * holes_plainly(raw.shape, rng)
    return raw * (torch.rand_like(raw) > rate)


def holes_plainly(shape: torch.Size, rng: np.random.Generator) -> Tensor:
    """Rectangles of zeros, turned, moved, scaled, sheared and mirrored (1, H, W)."""
    keep = torch.ones(shape)
    for _ in range(int(rng.integers(1, 9))):
        sides = [max(1, round(rng.uniform(0.05, 0.2) * side)) for side in shape[1:]]
        top, left = (int(rng.integers(0, side - own)) for side, own in zip(shape[1:], sides, strict=True))
        keep[:, top : top + sides[0], left : left + sides[1]] = 0
    keep = V.affine(
        keep,
        angle=float(rng.uniform(-180, 180)),
        translate=[float(rng.uniform(-0.5, 0.5) * side) for side in shape[:0:-1]],
        scale=float(rng.uniform(0.5, 4)),
        shear=[float(rng.uniform(-60, 60))],
        fill=1.0,
    )
    keep = V.horizontal_flip(keep) if rng.random() < 0.5 else keep
    return V.vertical_flip(keep) if rng.random() < 0.5 else keep


def loading(options: argparse.Namespace) -> tuple[list[str], list[Row]]:
    """Milliseconds for one sample, mean over pictures and random changes."""
    cv2.setNumThreads(0)
    size = (options.size, options.size)
    with tempfile.TemporaryDirectory() as folder:
        root, cache = Path(folder, "data"), Path(folder, "cache")
        write_data(root, options.images)
        rgbd_cache(root=root, out=cache, split="train", workers=1)
        plain, cached = samples_of(root, size), samples_of(root, size, cache=str(cache))
        loads: dict[str, Callable[..., Any]] = {
            "straightforward": partial(load_plainly, plain),
            "ours": plain.load,
            "ours, decoded cache": cached.load,
        }

        def round_of(load: Callable[..., Any]) -> None:
            for turn in range(TURNS):
                load(turn % options.images, np.random.default_rng(turn))

        steps = {name: lambda load=load: [partial(round_of, load)] for name, load in loads.items()}
        times = interleaved(steps, options.repeats, "cpu")
    per_sample = {name: (t.wall_ms[0] / TURNS, t.cpu_ms[0] / TURNS) for name, t in times.items()}
    base = per_sample["straightforward"][1]
    rows = [[name, wall, cpu, 1e3 / cpu, base / cpu, goal(name)] for name, (wall, cpu) in per_sample.items()]
    return ["form", "wall ms", "CPU ms", "samples a CPU second", "speed-up in CPU time", "target"], rows


# --- loss ---


class PlainLoss(nn.Module):
    """adepth + rdepth + 0.5 rgrad, all pixels of the batch together."""

    def __init__(self) -> None:
        super().__init__()
        sobel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
        self.register_buffer("kernels", torch.stack([sobel, sobel.T])[:, None])

    def forward(self, pred: Tensor, gt: Tensor) -> Tensor:
        mask = (gt != 0).float()
        count = mask.sum() + 1e-6
        adepth = self.residual(pred, gt, mask).abs().sum() / count
        residual = self.residual(self.standardized(pred, mask), self.standardized(gt, mask), mask)
        gradient = residual.new_zeros(())
        for scale in range(4):
            coarse = F.interpolate(residual, scale_factor=1 / 2**scale, mode="nearest")
            for kernel in self.kernels:
                gradient = gradient + F.conv2d(coarse, kernel[None]).abs().sum()
        return adepth + residual.abs().sum() / count + 0.5 * gradient / count

    def residual(self, pred: Tensor, gt: Tensor, mask: Tensor) -> Tensor:
        return mask * pred + (1 - mask) * gt - gt

    def standardized(self, depth: Tensor, mask: Tensor) -> Tensor:
        number = mask.sum((1, 2, 3), keepdim=True).clamp(min=1e-6)
        mean = (mask * depth).sum((1, 2, 3), keepdim=True) / number
        return (depth - mean) / ((mask * (depth - mean).abs()).sum((1, 2, 3), keepdim=True) / number + 1e-6)


def loss(options: argparse.Namespace) -> tuple[list[str], list[Row]]:
    """Forward and backward of the loss alone, four images."""
    task = network(options)
    batch = example(options, 4)
    pred = torch.rand_like(batch["depth"]).requires_grad_()
    plain = PlainLoss().to(options.device)
    forms: dict[str, Callable[[], Tensor]] = {
        "straightforward": lambda: plain(pred, batch["depth"]),
        "ours, loss": lambda: losses_of(task, pred, batch),
    }
    steps = {name: partial(forward_backward, form) for name, form in forms.items()}
    times = interleaved(steps, options.repeats, options.device)
    base, rows = times["straightforward"], []
    for name, form in forms.items():
        pred.grad = None
        value = form()
        value.backward()
        speed = sum(base.wall_ms) / sum(times[name].wall_ms), sum(base.cpu_ms) / sum(times[name].cpu_ms)
        rows.append([name, *times[name].wall_ms, sum(times[name].cpu_ms), *speed, goal(name), value.item()])
    columns = ["form", "forward ms", "backward ms", "CPU ms", "speed-up", "in CPU time", "target", "loss"]
    return columns, rows


def losses_of(task: G2Task, pred: Tensor, batch: dict[str, Any]) -> Tensor:
    return task.losses([Answer(pred)], batch)["loss"]


def forward_backward(form: Callable[[], Tensor]) -> list[Callable[[], Any]]:
    held: list[Tensor] = []
    return [lambda: held.append(form()), lambda: held[0].backward()]


# --- training step ---


def plain_block(self: ReZeroBottleneck, x: Tensor) -> Tensor:
    """As ReZeroBottleneck.forward, step by step."""
    active = F.leaky_relu(x, SLOPE)
    residual = F.leaky_relu(self.reduce(active), SLOPE)
    residual = F.leaky_relu(self.spatial(residual), SLOPE)
    return self.alpha * self.expand(residual) + self.shortcut(active)


class Trainer:
    """One network with its optimiser; a step is forward, backward and update."""

    def __init__(self, task: G2Task, batch: dict[str, Any], *, plain: bool, precision: str = "32") -> None:
        self.task, self.batch, self.precision = task.train(), batch, precision
        self.plain = PlainLoss().to(task.device) if plain else None
        if plain:
            for module in task.modules():
                if isinstance(module, ReZeroBottleneck):
                    module.forward = MethodType(plain_block, module)
            self.optimiser = torch.optim.AdamW(task.parameters(), lr=2e-4, weight_decay=0.05)
        else:
            task.model.to(memory_format=torch.channels_last)
            self.optimiser = build_optimizer(task.config.optim, task.param_groups(2e-4, 0.05))
        self.loss: Tensor | None = None
        self.first_loss: float | None = None

    def steps(self) -> list[Callable[[], Any]]:
        return [self.forward, self.backward, self.update]

    def forward(self) -> None:
        self.optimiser.zero_grad()
        with autocast(self.task.device, self.precision):
            if self.plain is None:
                self.loss = self.task.training_step(self.batch, StepInfo(0, 0, 0.0))["loss"]
            else:
                self.loss = self.plain(self.task(self.batch), self.batch["depth"])

    def backward(self) -> None:
        assert self.loss is not None
        if self.first_loss is None:
            self.first_loss = self.loss.item()
        self.loss.backward()

    def update(self) -> None:
        self.optimiser.step()


def network(options: argparse.Namespace) -> G2Task:
    """The published network, or a small one, whose blocks do something."""
    torch.manual_seed(0)
    small = {"layers": 5, "features": 16} if options.quick else {}
    content = {
        "system": {"network": {"name": "unet", **small}},
        "data": {"image_size": [options.size, options.size]},
        "optim": {"name": "adamw", "lr": 2e-4, "weight_decay": 0.05},
    }
    task = G2Task(G2Config.model_validate_json(json.dumps(content)))
    for module in task.modules():
        if isinstance(module, ReZeroBottleneck):
            nn.init.constant_(module.alpha, 0.1)
    return task.to(options.device)


def example(options: argparse.Namespace, batch: int) -> dict[str, Any]:
    return network(options).example_batch(batch)


def step(options: argparse.Namespace) -> tuple[list[str], list[Row]]:
    """A whole training step, batch 1."""
    task, batch = network(options), example(options, 1)
    trainers = {
        "straightforward": Trainer(copy.deepcopy(task), batch, plain=True),
        "ours, step": Trainer(copy.deepcopy(task), batch, plain=False),
        "ours, step, bf16-mixed": Trainer(task, batch, plain=False, precision="bf16-mixed"),
    }
    forms = {name: trainer.steps for name, trainer in trainers.items()}
    times = interleaved(forms, options.repeats, options.device)
    base, rows = times["straightforward"], []
    for name, timing in times.items():
        speed = sum(base.wall_ms) / sum(timing.wall_ms), sum(base.cpu_ms) / sum(timing.cpu_ms)
        last = [*speed, goal(name), trainers[name].first_loss]
        rows.append([name, *timing.wall_ms, sum(timing.wall_ms), *last])
    columns = ["form", "forward ms", "backward ms", "update ms", "step ms", "speed-up", "in CPU time"]
    return [*columns, "target", "first loss"], rows


# --- inference ---


def inference(options: argparse.Namespace) -> tuple[list[str], list[Row]]:
    """One image, on the CPU, float32."""
    import onnxruntime

    task = network(options).cpu().eval()
    inputs = task.example_inputs()
    fast = copy.deepcopy(task.model).to(memory_format=torch.channels_last)
    with tempfile.TemporaryDirectory() as folder:
        check = export_task(task, "onnx", Path(folder) / "model.onnx")
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(check.path, settings, providers=["CPUExecutionProvider"])
    feed = {name: value.numpy() for name, value in zip(check.inputs, inputs, strict=True)}

    def eager(model: nn.Module) -> None:
        with torch.inference_mode():
            model(*inputs)

    forms: dict[str, Callable[[], Any]] = {
        "PyTorch": partial(eager, task.model),
        "PyTorch, channels-last": partial(eager, fast),
        "ONNX Runtime": lambda: session.run(None, feed),
    }
    steps = {name: lambda form=form: [form] for name, form in forms.items()}
    times = interleaved(steps, options.repeats, "cpu")
    base = times["PyTorch"]
    rows = [
        [name, t.wall_ms[0], t.cpu_ms[0], base.wall_ms[0] / t.wall_ms[0], base.cpu_ms[0] / t.cpu_ms[0]]
        for name, t in times.items()
    ]
    largest = max(check.max_abs_difference, *check.other_shapes.values())
    rows[-1].append(f"{largest:.1e}")
    for row in rows[:-1]:
        row.append("-")
    return ["form", "wall ms", "CPU ms", "speed-up", "in CPU time", "largest difference"], rows


PARTS = {"loading": loading, "loss": loss, "step": step, "inference": inference}


def goal(form: str) -> float | str:
    return TARGETS.get(form, "-")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parts_parser(
        __doc__, PARTS, quick="a small network at 96 x 96, two repeats", device="of loss and step"
    )
    parser.add_argument("--size", type=int, default=320, help="of crops and network inputs")
    parser.add_argument("--images", type=int, default=6, help="of loading")
    options = parser.parse_args(arguments)
    if options.quick:
        options.size, options.repeats, options.images = 96, 2, 2
    run_parts("G2-MonoDepth", PARTS, options, lambda part: {"size": options.size}, one_thread=["loading"])


if __name__ == "__main__":
    main()
