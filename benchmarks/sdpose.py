"""SDPose against the straightforward forms: memory, step, inference, scores of tokens, decoding, photos.

    python benchmarks/sdpose.py [--parts memory step inference importance decoding photos] [--quick]

The forms take turns in one process; crops, photos and weights are random. Straightforward means: attention
is written out and gives its maps, so that they are kept for the backward pass; inference runs every cycle,
and once more for the mirrored crops; tokens are scored by the mean of the whole map; heatmaps are blurred by
OpenCV and decoded one after the other; every person's photo is decoded.
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
from loading import photo
from measure import interleaved, parts_parser, peak_mib, run_parts
from numpy.typing import NDArray
from torch import Tensor

from omma.core.heatmaps import decode, flip_back
from omma.engine.estimate import estimate_memory
from omma.engine.evaluate import autocast
from omma.engine.optim import build_optimizer
from omma.engine.task import StepInfo
from omma.systems.recipes import open_recipe
from omma.systems.sdpose import samples as crops
from omma.systems.sdpose.data import build
from omma.systems.sdpose.encoder import EncoderLayer
from omma.systems.sdpose.task import SDPoseTask

PHOTO = (480, 640)
BORDER = 5  # of an 11 x 11 blur
# Largest share of the straightforward form's memory or time; of decoding, the smallest speed-up.
TARGETS = {"memory": 0.4, "step": 0.8, "inference": 0.65, "decoding": 20.0}
Row = list[Any]


def network(recipe: str, options: argparse.Namespace) -> SDPoseTask:
    """The published network, or a small one."""
    small = ["system.dim=48", "system.depth=2", "system.heads=2"] if options.quick else []
    torch.manual_seed(0)
    return SDPoseTask(open_recipe(f"sdpose/{recipe}", small).config).to(options.device)


def written_out(task: SDPoseTask) -> SDPoseTask:
    """The same network with attention written out."""
    task = copy.deepcopy(task)
    for layer in task.model.head.encoder.layers:
        layer.forward = MethodType(plain_layer, layer)
    return task


def plain_layer(self: EncoderLayer, x: Tensor) -> Tensor:
    """As EncoderLayer.forward, with the attention's maps (B, heads, T, T) held in `maps`."""
    query, key, value = (self._split(part) for part in self.qkv(self.norm1(x)).chunk(3, -1))
    scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
    self.maps = scores.softmax(-1)
    x = x + self.proj((self.maps @ value).transpose(1, 2).flatten(2))
    return x + self.mlp(self.norm2(x))


def both_forms(recipe: str, options: argparse.Namespace) -> dict[str, SDPoseTask]:
    task = network(recipe, options)
    return {"straightforward": written_out(task), "ours": task}


def shares(times: dict[str, Any], name: str) -> list[float]:
    """Of the straightforward form's time on the clock, and of its processor time."""
    base, own = times["straightforward"], times[name]
    return [sum(own.wall_ms) / sum(base.wall_ms), sum(own.cpu_ms) / sum(base.cpu_ms)]


# --- training: memory and time of S-V2 ---


def step_of(task: SDPoseTask, batch: dict[str, Any], precision: str = "32") -> list[Callable[[], Any]]:
    """Forward, backward and update."""
    losses: list[Tensor] = []

    def forward() -> None:
        with autocast(task.device, precision):
            losses.append(task.training_step(batch, StepInfo(0, 0, 0.0))["loss"])

    optimiser = build_optimizer(task.config.optim, task.param_groups(1e-4, 0.0))
    task.zero_grad()
    return [forward, lambda: losses[0].backward(), optimiser.step]


def memory(options: argparse.Namespace) -> tuple[list[str], list[Row]]:
    """What one more sample of S-V2 keeps for the backward pass, and the peak of a step of two samples."""
    rows = []
    for name, task in both_forms("s_v2", options).items():
        estimate = estimate_memory(task.train(), task.config)
        peak = max(peak_mib(step_of(task, task.example_batch(2)), options.device))
        rows.append([name, estimate.per_sample / 2**20, peak])
    for row in rows:
        row += [row[1] / rows[0][1], row[2] / rows[0][2], goal("memory", row[0])]
    return ["form", "kept a sample MiB", "peak of two MiB", "share", "share of the peak", "target"], rows


def step(options: argparse.Namespace) -> tuple[list[str], list[Row]]:
    """A whole training step of S-V2."""
    forms = {name: (task.train(), "32") for name, task in both_forms("s_v2", options).items()}
    forms["ours, bf16-mixed"] = copy.deepcopy(forms["ours"][0]), "bf16-mixed"
    steps = {
        name: partial(step_of, task, task.example_batch(options.batch), precision)
        for name, (task, precision) in forms.items()
    }
    times = interleaved(steps, options.repeats, options.device)
    rows = [
        [name, *t.wall_ms, sum(t.cpu_ms), *shares(times, name), goal("step", name)]
        for name, t in times.items()
    ]
    return [
        "form",
        "forward ms",
        "backward ms",
        "update ms",
        "CPU ms",
        "share",
        "in CPU time",
        "target",
    ], rows


# --- inference of S-V1 ---


@torch.no_grad()
def predict_plainly(task: SDPoseTask, batch: dict[str, Any]) -> Tensor:
    """Heatmaps as SDPoseTask.forward gives them, by all cycles of the crops and of the mirrored crops."""
    image = (batch["image"].float() - task.mean) / task.std
    straight = task.model.forward_cycles(image, cycles=task.cycles)[0].heatmaps
    mirrored = task.model.forward_cycles(image.flip(-1), cycles=task.cycles)[0].heatmaps
    return (straight + flip_back(mirrored)) / 2


@torch.no_grad()
def predict(task: SDPoseTask, batch: dict[str, Any]) -> Tensor:
    return task(batch)


def inference(options: argparse.Namespace) -> tuple[list[str], list[Row]]:
    """Heatmaps of a batch of crops, averaged with the mirrored ones."""
    tasks = {name: task.eval() for name, task in both_forms("s_v1", options).items()}
    batch = tasks["ours"].example_batch(options.batch)
    forms: dict[str, Callable[[], Tensor]] = {
        "straightforward": partial(predict_plainly, tasks["straightforward"], batch),
        "all cycles, two calls, fused attention": partial(predict_plainly, tasks["ours"], batch),
        "ours": partial(predict, tasks["ours"], batch),
    }
    times = interleaved({name: lambda f=f: [f] for name, f in forms.items()}, options.repeats, options.device)
    expected, rows = forms["straightforward"](), []
    for name, form in forms.items():
        off = float((form() - expected).abs().max() / expected.abs().max())
        wall, cpu = (ms[0] / options.batch for ms in (times[name].wall_ms, times[name].cpu_ms))
        rows.append([name, wall, cpu, *shares(times, name), goal("inference", name), f"{off:.1e}"])
    columns = ["form", "ms a crop", "CPU ms a crop", "share", "in CPU time", "target"]
    return [*columns, "largest difference"], rows


# --- scores of tokens for importance masking ---


@torch.no_grad()
def attention_plainly(layer: EncoderLayer, x: Tensor, num_keypoints: int) -> Tensor:
    """As EncoderLayer.attention, from the whole map."""
    query, key, _ = (layer._split(part) for part in layer.qkv(layer.norm1(x)).chunk(3, -1))
    scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
    return scores.softmax(-1)[:, :, :num_keypoints, num_keypoints:].mean((1, 2))


def importance(options: argparse.Namespace) -> tuple[list[str], list[Row]]:
    """How much the keypoints look at each visual token, S-V2's 768."""
    head = network("s_v2", options).model.head
    layer, K = head.encoder.layers[-1], head.num_keypoints
    x = torch.randn(options.batch, K + head.grid[0] * head.grid[1], head.keypoint_token.shape[-1])
    x = x.to(options.device)
    forms: dict[str, Callable[[], Tensor]] = {
        "straightforward": partial(attention_plainly, layer, x, K),
        "ours": partial(layer.attention, x, K),
    }
    times = interleaved({name: lambda f=f: [f] for name, f in forms.items()}, options.repeats, options.device)
    expected, rows = forms["straightforward"](), []
    for name, form in forms.items():
        off = float((form() - expected).abs().max() / expected.max())
        peak = max(peak_mib([form], options.device))
        rows.append(
            [name, *times[name].wall_ms, *times[name].cpu_ms, *shares(times, name), peak, f"{off:.1e}"]
        )
    return ["form", "ms", "CPU ms", "share", "in CPU time", "peak MiB", "largest difference"], rows


# --- decoding ---


def decode_plainly(maps: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Coordinates (B, K, 2) and scores (B, K) of maps (B, K, h, w), one map after the other."""
    B, K, height, width = maps.shape
    coords, scores = np.full((B, K, 2), -1, np.float32), np.zeros((B, K), np.float32)
    for person in range(B):
        for joint in range(K):
            heatmap = maps[person, joint]
            row, column = np.unravel_index(heatmap.argmax(), heatmap.shape)
            scores[person, joint] = heatmap[row, column]
            if scores[person, joint] <= 0:
                continue
            coords[person, joint] = column, row
            if 1 < column < width - 2 and 1 < row < height - 2:
                logarithm = np.log(np.maximum(blur_plainly(heatmap), 1e-10))
                coords[person, joint] += newton_plainly(logarithm, row, column)
    return coords, scores


def blur_plainly(heatmap: NDArray[np.float32]) -> NDArray[np.float32]:
    padded = np.pad(heatmap, BORDER)
    blurred = cv2.GaussianBlur(padded, (2 * BORDER + 1, 2 * BORDER + 1), 0)[BORDER:-BORDER, BORDER:-BORDER]
    return blurred * (heatmap.max() / blurred.max())


def newton_plainly(log: NDArray[np.float32], y: int, x: int) -> NDArray[np.float32]:
    slope = 0.5 * np.array([log[y, x + 1] - log[y, x - 1], log[y + 1, x] - log[y - 1, x]])
    xx = 0.25 * (log[y, x + 2] - 2 * log[y, x] + log[y, x - 2])
    yy = 0.25 * (log[y + 2, x] - 2 * log[y, x] + log[y - 2, x])
    xy = 0.25 * (log[y + 1, x + 1] - log[y - 1, x + 1] - log[y + 1, x - 1] + log[y - 1, x - 1])
    curvature = np.array([[xx, xy], [xy, yy]])
    return -np.linalg.inv(curvature) @ slope if np.linalg.det(curvature) != 0 else np.zeros(2)


def decoding(options: argparse.Namespace) -> tuple[list[str], list[Row]]:
    """Joints of 64 people from heatmaps of 64 x 48 with a little noise; in a second set a fifth is noise."""
    people = 8 if options.quick else 64
    task = network("s_v1", options)
    batch = task.example_batch(people)
    rows: list[Row] = []
    for kind, visible in (("", torch.ones_like(batch["visible"])), (", with noise", batch["visible"])):
        maps = 0.8 * task.targets(batch | {"visible": visible})[0]
        maps = maps + 0.01 * torch.randn_like(maps)
        on_cpu = maps.cpu().numpy()
        forms: dict[str, Callable[[], Any]] = {
            "straightforward": partial(decode_plainly, on_cpu),
            "ours": partial(decode, maps, method="unbiased"),
        }
        steps = {name: lambda form=form: [form] for name, form in forms.items()}
        times = interleaved(steps, options.repeats, options.device)
        expected = decode_plainly(on_cpu)[0][visible.cpu() > 0]
        for name, form in forms.items():
            found = torch.as_tensor(form()[0]).cpu().numpy()[visible.cpu() > 0]
            wall, cpu = (1 / share for share in shares(times, name))
            each = [ms[0] / people for ms in (times[name].wall_ms, times[name].cpu_ms)]
            off = f"{float(np.abs(found - expected).max()):.1e}"
            rows.append([f"{name}{kind}", *each, wall, cpu, goal("decoding", name), off])
    columns = ["form", "ms a person", "CPU ms a person", "speed-up", "in CPU time", "target"]
    return [*columns, "largest difference, cells"], rows


# --- photos ---


def write_data(root: Path, photos: int, people: int) -> None:
    """COCO's folders: photos of 480 x 640 with as many people each."""
    (root / "val2017").mkdir(parents=True)
    (root / "annotations").mkdir()
    images, annotations = [], []
    rng = np.random.default_rng(0)
    for number in range(photos):
        name = f"{number:012d}.jpg"
        encoded = cv2.imencode(".jpg", cv2.resize(photo(number), PHOTO[::-1]))[1]
        (root / "val2017" / name).write_bytes(encoded.tobytes())
        images.append({"id": number, "file_name": name, "height": PHOTO[0], "width": PHOTO[1]})
        for person in range(people):
            x, y, width, height = rng.uniform((0, 0, 60, 120), (500, 300, 140, 180)).round(1).tolist()
            annotations.append(
                {
                    "id": number * people + person, "image_id": number, "category_id": 1, "iscrowd": 0,
                    "area": width * height, "bbox": [x, y, width, height], "num_keypoints": 17,
                    "keypoints": [x + width / 2, y + height / 2, 2] * 17,
                }
            )  # fmt: skip
    content = {
        "images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]
    }  # fmt: skip
    file = root / "annotations" / "person_keypoints_val2017.json"
    file.write_text(json.dumps(content), encoding="utf-8")


def photos(options: argparse.Namespace) -> tuple[list[str], list[Row]]:
    """Crops of all people for an evaluation, 21 boxes a photo as of the usual detector's file."""
    number, people = (2, 5) if options.quick else (12, 21)
    decoded = [0]
    read = crops.read_image

    def counted(*args: Any, **keywords: Any) -> NDArray[np.uint8]:
        decoded[0] += 1
        return read(*args, **keywords)

    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder), number, people)
        data = build(open_recipe("sdpose/s_v1", [f"data.root={folder}"]).config, "val", augment=False)[0]

        def load(*, forget: bool) -> None:
            decoded[0] = 0
            for index in range(len(data)):
                if forget:
                    data._decoded = None
                data.load(index, np.random.default_rng(0))

        forms = {"straightforward": partial(load, forget=True), "ours": partial(load, forget=False)}
        crops.read_image = counted
        try:
            times = interleaved({name: lambda f=f: [f] for name, f in forms.items()}, options.repeats, "cpu")
            rows = []
            for name, form in forms.items():
                data._decoded = None
                form()
                wall, cpu = (ms[0] / len(data) for ms in (times[name].wall_ms, times[name].cpu_ms))
                rows.append([name, wall, cpu, *shares(times, name), decoded[0], number])
        finally:
            crops.read_image = read
    return ["form", "ms a crop", "CPU ms a crop", "share", "in CPU time", "decoded", "photos"], rows


PARTS = {
    "memory": memory,
    "step": step,
    "inference": inference,
    "importance": importance,
    "decoding": decoding,
    "photos": photos,
}


def goal(part: str, form: str) -> float | str:
    return TARGETS.get(part, "-") if form == "ours" else "-"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parts_parser(__doc__, PARTS, quick="a small network, two repeats", device="of all but photos")
    parser.add_argument("--batch", type=int, default=2, help="crops of a step, of inference and of scores")
    options = parser.parse_args(arguments)
    if options.quick:
        options.repeats, options.batch = 2, 2
        TARGETS.clear()  # they are for the published networks
    run_parts("SDPose", PARTS, options, lambda part: {"batch": options.batch})


if __name__ == "__main__":
    main()
