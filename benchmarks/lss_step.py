"""A whole training step of LSS: ours against a plain form of the same network with the same weights.

    python benchmarks/lss_step.py [--batch 1] [--threads 1] [--repeats 5] [--json FILE]

Plain: float32, default memory layout, a point for every depth, lifted features held, summed by running sums.
Ours: channels-last, one ray for every pixel, the splat that holds nothing; once in float32 and once with bf16
autocast around the network. Six cameras at 128 x 352, 200 x 200 cells, Adam, gradient clipping.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lift import rig, running_sum_splat
from measure import Steps, header, interleaved, print_header, print_table, write_json
from torch import Tensor

from omma.core.geometry import feature_pixels, frustum
from omma.core.grid import depth_bins
from omma.core.losses import binary_cross_entropy
from omma.systems.lss.model import LiftSplatShoot

TARGETS = {"ours, float32": 1.15, "ours, bf16 autocast": 1.7}


def plain_points(
    rots: Tensor, trans: Tensor, intrins: Tensor, post_rots: Tensor, post_trans: Tensor
) -> Tensor:
    """Ego points (B, N, D, h, w, 3), every depth bin through every matrix."""
    points = frustum(feature_pixels((128, 352), (8, 22)), torch.from_numpy(depth_bins(4, 45, 1))).to(
        rots.device
    )
    points = points - post_trans[:, :, None, None, None]
    points = (torch.inverse(post_rots)[:, :, None, None, None] @ points[..., None])[..., 0]
    points = torch.cat([points[..., :2] * points[..., 2:], points[..., 2:]], -1)
    rotation = (rots @ torch.inverse(intrins))[:, :, None, None, None]
    return (rotation @ points[..., None])[..., 0] + trans[:, :, None, None, None]


def plain_forward(model: LiftSplatShoot, imgs: Tensor, *calibration: Tensor) -> Tensor:
    """The same layers, step by step, in the default memory layout."""
    encoder = model.camencode
    fine, coarse = encoder.backbone(imgs.flatten(0, 1))
    features = encoder.depthnet(encoder.up1(coarse, fine)).unflatten(0, imgs.shape[:2])
    depth, context = features[:, :, : encoder.num_depths].softmax(2), features[:, :, encoder.num_depths :]
    return model.bevencode(running_sum_splat(depth, context, plain_points(*calibration), own_backward=True))


class Trainer:
    """One network with its optimiser; a step is forward, backward and update."""

    def __init__(
        self, model: LiftSplatShoot, forward: Callable[..., Tensor], batch: tuple[list[Tensor], Tensor]
    ) -> None:
        self.model, self.run = model.train(), forward
        self.inputs, self.target = batch
        self.adam = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-7)
        self.loss: Tensor | None = None
        self.first_loss: float | None = None

    def steps(self) -> list[Callable[[], Any]]:
        return [self.forward, self.backward, self.update]

    def forward(self) -> None:
        self.adam.zero_grad()
        torch.manual_seed(0)  # the same blocks are skipped in every form
        self.loss = binary_cross_entropy(self.run(self.model, *self.inputs), self.target, pos_weight=2.13)

    def backward(self) -> None:
        assert self.loss is not None
        if self.first_loss is None:
            self.first_loss = float(self.loss.detach())
        self.loss.backward()

    def update(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.adam.step()


def forms(batch: int, device: str) -> dict[str, Trainer]:
    torch.manual_seed(0)
    model = LiftSplatShoot().to(device)
    trans, (rots, intrins, post_rots, post_trans) = rig(batch, tilted=False)
    inputs = [torch.randn(batch, 6, 3, 128, 352), rots, trans, intrins, post_rots, post_trans]
    data = [t.to(device) for t in inputs], (torch.rand(batch, 1, 200, 200) > 0.95).float().to(device)

    def autocast(model: LiftSplatShoot, *args: Tensor) -> Tensor:
        with torch.autocast(device, dtype=torch.bfloat16):
            return model(*args)

    return {
        "plain, float32": Trainer(copy.deepcopy(model), plain_forward, data),
        "ours, float32": Trainer(copy.deepcopy(model), LiftSplatShoot.__call__, data),
        "ours, bf16 autocast": Trainer(model, autocast, data),
    }


def prepare(trainer: Trainer) -> Steps:
    return trainer.steps


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    state = header(options.device) | {"batch": options.batch}
    print_header("LSS training step", state)
    trainers = forms(options.batch, options.device)
    times = interleaved({name: prepare(t) for name, t in trainers.items()}, options.repeats, options.device)
    base = times["plain, float32"]
    rows = []
    for name, timing in times.items():
        speed = sum(base.wall_ms) / sum(timing.wall_ms), sum(base.cpu_ms) / sum(timing.cpu_ms)
        last = [*speed, TARGETS.get(name, 1.0), trainers[name].first_loss]
        rows.append([name, *timing.wall_ms, sum(timing.wall_ms), *last])
    columns = [
        "form",
        "forward ms",
        "backward ms",
        "update ms",
        "step ms",
        "speed-up",
        "in CPU time",
        "target",
    ]
    columns.append("first loss")
    print_table(columns, rows)
    table = [dict(zip(columns, row, strict=True)) for row in rows]
    write_json(options.json, {"machine": state, "rows": table})


if __name__ == "__main__":
    main()
