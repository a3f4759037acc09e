"""DiffBEV and its baseline at 600 x 800 against the straightforward forms: loading, splat, step, evaluation.

    python benchmarks/diffbev.py [--parts loading splat step evaluation] [--threads 2] [--json FILE]

The forms take turns in one process; images, labels and weights are random. Straightforward means: loading
decodes, resizes, changes colours and normalises in float32 and unpacks the label to 15 int64 maps; the splat
holds the lifted features, sorts them by cell and takes differences of one float32 running sum; the step
recomputes every Swin block in the backward pass, with the attention's soft-max written out, over that splat;
evaluation keeps the probabilities of all images. Each evaluation has a process of its own (Linux only).
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import re
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any

import cv2
import numpy as np
import torch
from lift import RunningSumDifference, last_of_run, plain_lift
from loading import photo
from measure import header, interleaved, peak_mib, print_header, print_table, write_json
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from omma.core.bev_labels import expand_label
from omma.core.lift import lift_splat
from omma.core.losses import occupancy_loss
from omma.core.occupancy_meter import OccupancyMeter
from omma.data.formats.nuscenes_bev import CLASSES, IGNORE_BIT, encode_png
from omma.engine.evaluate import autocast
from omma.systems.diffbev.config import DiffBEVConfig, PaperDiffusion
from omma.systems.diffbev.data import CameraSamples, build
from omma.systems.diffbev.model import BevSegmenter, build_model
from omma.systems.diffbev.photometric import ColourChange, draw_colour_change
from omma.systems.diffbev.priors import class_priors
from omma.systems.diffbev.swin import WindowAttention
from omma.systems.diffbev.views.lift_splat import LiftSplatView

STORED, INPUT, CELLS = (900, 1600), (600, 800), (196, 200)
INTRINSICS = [[1266.0, 0.0, 816.0], [0.0, 1266.0, 491.0], [0.0, 0.0, 1.0]]  # of a front camera, 900 x 1600
MEAN, STD = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
FULL_SET = 35_886  # images of nuScenes' validation split
TARGETS = {"ours, one pass, resized copy": 3.0, "ours, plan cached": 4.0, "ours, step": 1 / 0.65}
Row = list[Any]


# --- loading ---


def write_data(root: Path, size: tuple[int, int], images: int) -> None:
    """JPEGs of a size with calibration and labels, folder layout."""
    pictures, labels = root / "img_dir" / "train", root / "ann_bev_dir" / "train"
    pictures.mkdir(parents=True)
    labels.mkdir(parents=True)
    scale = np.array([[size[1] / STORED[1]], [size[0] / STORED[0]], [1.0]])
    calibration = {}
    for index in range(images):
        token = f"{index:04}"
        image = cv2.resize(photo(index), size[::-1])
        encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
        (pictures / f"{token}.jpg").write_bytes(encoded.tobytes())
        (labels / f"{token}.png").write_bytes(encode_png(random_label(index)))
        calibration[token] = (np.array(INTRINSICS) * scale).tolist()
    (root / "calib.json").write_text(json.dumps(calibration), encoding="utf-8")


def random_label(seed: int) -> np.ndarray:
    """Rectangles of every class, and a wedge that counts; bits (Z, X)."""
    rng = np.random.default_rng(seed)
    bits = np.zeros(CELLS, np.uint16)
    for index in range(40):
        row, column = rng.integers(0, CELLS[0]), rng.integers(0, CELLS[1])
        height, width = rng.integers(2, 60 if index % len(CLASSES) < 4 else 15, 2)
        bits[row : row + height, column : column + width] |= 1 << (index % len(CLASSES))
    z, x = np.mgrid[: CELLS[0], : CELLS[1]]
    return bits | ((abs(x - CELLS[1] / 2) > 0.65 * z).astype(np.uint16) << IGNORE_BIT)


def samples_of(root: Path, **data: Any) -> CameraSamples:
    config = DiffBEVConfig.model_validate_json(json.dumps({"data": {"root": str(root), **data}}))
    return build(config, "train", augment=True)[0]


def load_plainly(samples: CameraSamples, index: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Image (3, H, W) float32 normalised and label (15, Z, X) int64."""
    folder, items = samples.items.folder, samples.items
    image = cv2.resize(cv2.imread(str(folder / items.images[index])), INPUT[::-1])
    image = cv2.cvtColor(change_plainly(image, draw_colour_change(rng)), cv2.COLOR_BGR2RGB)
    normalised = (image.astype(np.float32) - np.float32(MEAN)) / np.float32(STD)
    bits = cv2.imread(str(folder / str(items.labels[index])), cv2.IMREAD_UNCHANGED).astype(np.int64)
    planes = np.stack([(bits >> bit) & 1 for bit in range(IGNORE_BIT + 1)])
    return torch.from_numpy(normalised.transpose(2, 0, 1).copy()), torch.from_numpy(planes)


def change_plainly(image: np.ndarray, change: ColourChange) -> np.ndarray:
    """One step after the other over the pixels of a BGR image."""

    def scaled(levels: np.ndarray, factor: float, offset: float = 0.0) -> np.ndarray:
        return np.clip(levels.astype(np.float32) * factor + offset, 0, 255).astype(np.uint8)

    def in_hsv(image: np.ndarray, channel: int, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
        hsv[..., channel] = change(hsv[..., channel])
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)

    if change.brightness is not None:
        image = scaled(image, 1.0, change.brightness)
    if change.contrast is not None and change.contrast_first:
        image = scaled(image, change.contrast)
    if change.saturation is not None:
        image = in_hsv(image, 1, partial(scaled, factor=change.saturation))
    if change.hue is not None:
        image = in_hsv(image, 0, lambda hue: ((hue.astype(int) + change.hue) % 180).astype(np.uint8))
    if change.contrast is not None and not change.contrast_first:
        image = scaled(image, change.contrast)
    return image


def loading(options: argparse.Namespace) -> tuple[list[str], list[Row]]:
    """Milliseconds of processor time for one image, mean over colour changes and images."""
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as folder:
        original, resized = Path(folder, "original"), Path(folder, "resized")
        write_data(original, STORED, options.images)
        write_data(resized, INPUT, options.images)
        plain = samples_of(original)
        sets = {
            "ours": plain,
            "ours, one pass": samples_of(original, photometric="one_pass"),
            "ours, resized copy": samples_of(resized),
            "ours, one pass, resized copy": samples_of(resized, photometric="one_pass"),
        }
        loads: dict[str, Callable[..., Any]] = {"straightforward": partial(load_plainly, plain)}
        loads |= {name: samples.load for name, samples in sets.items()}

        def round_of(load: Callable[..., Any]) -> None:
            for turn in range(16):  # colour changes are random: each form meets the same sixteen
                load(turn % options.images, np.random.default_rng(turn))

        steps = {name: lambda load=load: [partial(round_of, load)] for name, load in loads.items()}
        times = interleaved(steps, options.repeats, "cpu")
    per_image = {name: (t.wall_ms[0] / 16, t.cpu_ms[0] / 16) for name, t in times.items()}
    base = per_image["straightforward"][1]
    rows = [[name, wall, cpu, base / cpu, goal(name)] for name, (wall, cpu) in per_image.items()]
    return ["form", "wall ms", "CPU ms", "speed-up", "target"], rows


# --- splat ---


def plain_splat(view: LiftSplatView, depth: Tensor, context: Tensor, intrinsics: Tensor) -> Tensor:
    """As LiftSplatView.splat: hold, sort, add up along the list, take differences, write into the grid."""
    rows = plain_lift(depth[:, None], context[:, None]).reshape(-1, context.shape[1])
    cells = view.cells(intrinsics).reshape(-1).long()
    kept = cells >= 0
    rows, cells = rows[kept], cells[kept]
    order = cells.argsort()
    rows, cells = rows[order], cells[order]
    sums = RunningSumDifference.apply(rows, cells)
    Z, X, _ = view.grid.nx
    grid = sums.new_zeros(len(depth) * Z * X, sums.shape[1]).index_copy(0, cells[last_of_run(cells)], sums)
    return grid.view(len(depth), Z, X, -1).permute(0, 3, 1, 2).contiguous()


def splat(options: argparse.Namespace) -> tuple[list[str], list[Row]]:
    """Forward and backward of the splat alone, batch 4, float32."""
    view = network().view
    intrinsics = calibration(4, options.device)
    generator = torch.Generator().manual_seed(0)
    h, w = view.feature_size
    depth = torch.randn(4, view.num_depths, h, w, generator=generator).softmax(1)
    context = torch.randn(4, view.channels, h, w, generator=generator)
    depth, context = (t.to(options.device).requires_grad_() for t in (depth, context))
    grad = torch.randn(4, view.channels, *view.grid.nx[:2], generator=generator).to(options.device)
    plan = view.plan(intrinsics)
    forms: dict[str, Callable[[], Tensor]] = {
        "straightforward": lambda: plain_splat(view, depth, context, intrinsics),
        "ours, plan cached": lambda: view.splat(depth, context, intrinsics),
        "ours, plan at hand": lambda: lift_splat(depth[:, None], context[:, None], plan),
    }
    exact = plain_splat(view, depth.detach().double(), context.detach().double(), intrinsics)
    steps = {name: partial(forward_backward, form, grad) for name, form in forms.items()}
    times = interleaved(steps, options.repeats, options.device)
    base, rows = sum(times["straightforward"].wall_ms), []
    for name, form in forms.items():
        memory = max(peak_mib(forward_backward(form, grad), options.device))
        error = float((form().detach() - exact).abs().max())
        total = sum(times[name].wall_ms)
        rows.append([name, *times[name].wall_ms, base / total, goal(name), memory, f"{error:.1e}"])
    return ["form", "forward ms", "backward ms", "speed-up", "target", "MiB", "largest error"], rows


def forward_backward(form: Callable[[], Tensor], grad: Tensor) -> list[Callable[[], Any]]:
    held: list[Tensor] = []
    return [lambda: held.append(form()), lambda: held[0].backward(grad)]


# --- training step ---


class Recomputed(nn.Module):
    """A Swin block that keeps its input only."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block, self.shift = block, block.shift

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return checkpoint(self.block, x, mask, use_reentrant=False)


def written_out(self: WindowAttention, tokens: Tensor, mask: Tensor | None) -> Tensor:
    """As WindowAttention.forward, with all scores held."""
    query, key, value = self.qkv(tokens).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
    scores = query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)
    scores = scores + self.bias_table[self.relative_index].permute(2, 0, 1)[None]
    if mask is not None:
        scores = scores.unflatten(0, (-1, len(mask))) + mask[None, :, None]
        scores = scores.flatten(0, 1)
    return self.proj((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))


def straightforward(model: BevSegmenter) -> BevSegmenter:
    """A copy with the same weights."""
    plain = copy.deepcopy(model)
    for stage in plain.backbone.stages:
        for index, block in enumerate(stage.blocks):
            block.attn.forward = MethodType(written_out, block.attn)
            stage.blocks[index] = Recomputed(block)
    plain.view.splat = MethodType(plain_splat, plain.view)
    return plain


class Trainer:
    """One network with its optimiser; a step is forward, backward and update."""

    def __init__(
        self, model: BevSegmenter, batch: dict[str, Tensor], *, expanded: bool = False, precision: str = "32"
    ) -> None:
        self.model, self.batch, self.expanded = model.train(), batch, expanded
        self.precision = precision
        priors = torch.tensor(class_priors(DiffBEVConfig().system))
        self.weights = {"priors": priors, "class_weights": priors.rsqrt()}
        self.optimiser = torch.optim.AdamW(model.parameters(), lr=2e-4, weight_decay=0.01)
        self.loss: Tensor | None = None
        self.first_loss: float | None = None

    def steps(self) -> list[Callable[[], Any]]:
        return [self.forward, self.backward, self.update]

    def forward(self) -> None:
        self.optimiser.zero_grad()
        torch.manual_seed(0)
        with autocast(self.batch["image"].device, self.precision):
            outputs = self.model.forward_train(self.batch["image"], self.batch["intrinsics"])
        if self.expanded:
            planes = self.batch["planes"]
            target, visible = planes[:, :-1] > 0, planes[:, -1:] == 0
        else:
            target, visible = expand_label(self.batch["label"], len(CLASSES))
        self.loss = occupancy_loss(outputs.logits, target, visible, **self.weights)
        if outputs.diffusion is not None:
            self.loss = self.loss + outputs.diffusion

    def backward(self) -> None:
        assert self.loss is not None
        if self.first_loss is None:
            self.first_loss = self.loss.item()
        self.loss.backward()

    def update(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 35.0)
        self.optimiser.step()


def network(paper: bool = False) -> BevSegmenter:
    """The baseline, or DiffBEV."""
    torch.manual_seed(0)
    config = DiffBEVConfig()
    system = config.system.model_copy(update={"diffusion": PaperDiffusion(name="paper")} if paper else {})
    return build_model(system, config.data)


def calibration(batch: int, device: str) -> Tensor:
    scale = torch.tensor([[INPUT[1] / STORED[1]], [INPUT[0] / STORED[0]], [1.0]])
    return (torch.tensor(INTRINSICS) * scale).expand(batch, 3, 3).to(device)


def step(options: argparse.Namespace) -> tuple[list[str], list[Row]]:
    """A whole training step, float32 unless the row says the recipe's bf16-mixed."""
    B = options.batch
    labels = torch.from_numpy(np.stack([random_label(i) for i in range(B)]).astype(np.int16))
    target, visible = expand_label(labels, len(CLASSES))
    batch = {
        "image": torch.randn(B, 3, *INPUT, generator=torch.Generator().manual_seed(0)),
        "intrinsics": calibration(B, "cpu"),
        "label": labels,
        "planes": torch.cat([target, ~visible], 1).long(),
    }
    batch = {name: tensor.to(options.device) for name, tensor in batch.items()}
    model = network().to(options.device)
    trainers = {
        "straightforward": Trainer(straightforward(model), batch, expanded=True),
        "ours, step": Trainer(model, batch),
        "ours, bf16-mixed": Trainer(copy.deepcopy(model), batch, precision="bf16-mixed"),
        "ours, DiffBEV's step": Trainer(network(paper=True).to(options.device), batch),
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


# --- evaluation ---


def evaluation_peak(form: str, images: int) -> float:
    """Largest memory of this process in MiB after scoring so many images."""
    torch.set_num_threads(1)
    meter, kept = OccupancyMeter(CLASSES), []
    generator = torch.Generator().manual_seed(0)
    target, visible = expand_label(torch.from_numpy(random_label(0).astype(np.int16))[None], len(CLASSES))
    for index in range(images):
        logits = torch.randn(1, len(CLASSES), *CELLS, generator=generator)
        if form == "ours":
            meter.update(logits, target, visible, [str(index)])
        else:
            kept.append((logits.sigmoid(), target.clone(), visible.clone()))
    status = Path("/proc/self/status").read_text("utf-8")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


def evaluation(options: argparse.Namespace) -> tuple[list[str], list[Row]]:
    """Peak memory of a process that scores few and many images, and what the full set would need."""
    few, many = 8 * options.images, 32 * options.images  # the first images fill the allocator
    rows: list[Row] = []
    for form in ("straightforward", "ours"):
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            peaks = [pool.apply(evaluation_peak, (form, images)) for images in (few, many)]
        growth = max(0.0, peaks[1] - peaks[0]) / (many - few)
        rows.append([form, *peaks, 1024 * growth, peaks[0] + growth * FULL_SET])
    columns = ["form", f"MiB, {few} images", f"MiB, {many} images", "KiB an image", f"MiB, {FULL_SET} images"]
    return columns, rows


PARTS = {"loading": loading, "splat": splat, "step": step, "evaluation": evaluation}


def goal(form: str) -> float | str:
    return TARGETS.get(form, "-")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--batch", type=int, default=1, help="of the training step")
    parser.add_argument(
        "--images", type=int, default=8, help="of loading; evaluation takes 8 and 32 times more"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cpu", help="of splat and step")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    tables: dict[str, Any] = {}
    for part in options.parts:
        torch.set_num_threads(1 if part == "loading" else options.threads)
        tables[part] = {"machine": header(options.device)}
        print_header(f"DiffBEV: {part}", tables[part]["machine"])
        columns, rows = PARTS[part](options)
        print_table(columns, rows)
        tables[part]["rows"] = [dict(zip(columns, row, strict=True)) for row in rows]
    write_json(options.json, tables)


if __name__ == "__main__":
    main()
