"""SDPose as a task: cycles, losses, metrics and predictions (arXiv 2404.03518)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from omma.core.heatmap_losses import joints_mse
from omma.core.heatmaps import decode, encode, flip_back, to_image
from omma.core.joint_meter import JointMeter
from omma.core.keypoint_meter import KeypointMeter
from omma.core.keypoints import JOINTS, visible_weights
from omma.core.meter import MeanMeter, Meter
from omma.core.pck import heatmap_pck
from omma.data.formats.coco import read_ground_truth
from omma.engine.task import Batch, Prediction, StepInfo, Task
from omma.systems.sdpose.config import STRIDE, SDPoseConfig
from omma.systems.sdpose.losses import CycleLoss
from omma.systems.sdpose.model import build_model
from omma.systems.sdpose.viz import draw

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
EXAMPLE_SIDE_PX = 500.0


class SDPoseTask(Task):
    """The joints of one person in a crop. A batch is described at `samples.PersonSamples`."""

    def __init__(self, config: SDPoseConfig) -> None:
        super().__init__()
        self.config, self.cycles = config, config.system.cycles
        self.loss = CycleLoss(config.system.distill)
        self.train_terms = (*self.loss.names(self.cycles), "acc_pose")
        self.model = build_model(config.system, config.data)
        self.size = (config.data.image_size[0] // STRIDE, config.data.image_size[1] // STRIDE)
        for name, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, 255 * torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        """Heatmaps (B, 17, H / 4, W / 4) float32 of the first cycle, or its mean with mirrored crops."""
        image = self.normalise(batch["image"])
        if not self.config.evaluation.flip:
            return self.model(image).float()
        both = self.model(torch.cat([image, image.flip(-1)])).float()
        straight, mirrored = both.chunk(2)
        return (straight + flip_back(mirrored, shift=not self._udp)) / 2

    def training_step(self, batch: Batch, info: StepInfo) -> dict[str, Tensor]:
        """The loss and its weighted terms, which add up to it, and the share of joints that are found."""
        target, weight = self.targets(batch)
        image = self.normalise(batch["image"])
        cycles = self.model.forward_cycles(image, cycles=self.cycles, attention=self.loss.needs_attention)
        terms = self.loss(cycles, target, weight)
        with torch.no_grad():
            found = heatmap_pck(cycles[0].heatmaps.float(), target, weight)
        return {"loss": torch.stack(list(terms.values())).sum(), **terms, "acc_pose": found}

    def meters(self) -> dict[str, Meter]:
        """Loss of the heatmaps, COCO's numbers, and where joints are off."""
        rules = self.config.evaluation
        people = KeypointMeter(
            read_ground_truth, visible_score=rules.visible_score, nms=rules.nms, nms_oks=rules.nms_oks
        )
        return {"loss": MeanMeter("loss"), "people": people, "joints": JointMeter(udp=self._udp)}

    def validation_step(self, batch: Batch, meters: Mapping[str, Meter]) -> None:
        """See Task."""
        heatmaps = self(batch)
        if batch["boxes"] == "ground_truth":
            loss = joints_mse(heatmaps, *self.targets(batch))
            meters["loss"].update(float(loss), len(heatmaps))
        self._score(*self.to_joints(heatmaps, batch)[:2], batch, meters)

    def score(self, arrays: Mapping[str, np.ndarray], batch: Batch, meters: Mapping[str, Meter]) -> None:
        """Update the meters with one saved person: arrays "joints" (17, 2) in the photo, "scores" (17,)."""
        joints, scores = (torch.from_numpy(arrays[name])[None].float() for name in ("joints", "scores"))
        self._score(joints.to(self.device), scores.to(self.device), batch, meters)

    def result_files(self, meters: Mapping[str, Meter]) -> Mapping[str, str]:
        """The people as COCO's result files have them."""
        return {"result_keypoints.json": json.dumps(meters["people"].results())}

    def predict(self, inputs: Batch) -> Prediction:
        """Joints of one person in pixels of the photo, with what a picture needs."""
        joints, scores, cells = self.to_joints(self(inputs), inputs)
        arrays = {"joints": joints[0], "scores": scores[0], "in_crop": cells[0] * STRIDE}
        arrays |= {name: inputs[name][0] for name in ("image", "box")}
        if inputs["boxes"] == "ground_truth":
            arrays |= {"true_in_crop": inputs["joints"][0], "visible": inputs["visible"][0]}
            arrays["hidden"] = inputs["hidden"][0]
        meta = {"token": inputs["token"][0], "image_file": inputs["image_file"][0], "joints": JOINTS}
        return Prediction({name: value.cpu().numpy() for name, value in arrays.items()}, meta, draw)

    def describe(self) -> list[str]:
        """The cycles and what is distilled between them."""
        terms = [f"{term.kind} tokens {term.loss} x {term.loss_weight:g}" for term in self.loss.terms]
        teacher = "detached" if self.config.system.distill.detach_teacher else "moving"
        return [f"cycles: {self.cycles}; distilled: {', '.join(terms) or 'nothing'}; teacher {teacher}"]

    def setting(self) -> str:
        """Boxes, crop, flip test and decoding: numbers of other settings do not compare."""
        data, rules = self.config.data, self.config.evaluation
        boxes = "annotated boxes" if data.boxes == "ground_truth" else f"detector's boxes {data.boxes}"
        height, width = data.image_size
        flip = "flip test" if rules.flip else "no flip test"
        return f"{boxes}, {height}x{width}, {flip}, {self._decoding} decoding, NMS {rules.nms}"

    def example_inputs(self) -> tuple[Tensor, ...]:
        """A normalised crop (1, 3, H, W)."""
        return (self.normalise(self.example_batch(1)["image"]),)

    def example_batch(self, batch_size: int) -> dict[str, Any]:
        """Random crops and joints."""
        height, width = self.config.data.image_size
        generator = torch.Generator().manual_seed(0)
        image = torch.randint(0, 256, (batch_size, 3, height, width), generator=generator)
        corner = torch.tensor([width - 1.0, height - 1.0])
        joints = torch.rand((batch_size, len(JOINTS), 2), generator=generator) * corner
        visible = (torch.rand(joints.shape[:2], generator=generator) > 0.2).float()
        side = torch.full((batch_size,), EXAMPLE_SIDE_PX)
        tensors = {
            "image": image.to(torch.uint8),
            "joints": joints,
            "visible": visible,
            "hidden": torch.zeros_like(visible, dtype=torch.bool),
            "center": torch.stack([side / 2, side / 2], 1),
            "scale": torch.stack([side * width / height, side], 1) / 200,
            "box": torch.stack([0 * side, 0 * side, side, side], 1),
            "box_score": torch.ones(batch_size),
            "area": side.square(),
            **{name: torch.arange(batch_size) for name in ("image_id", "box_id", "annotation_id")},
        }
        tokens = [f"example {index}" for index in range(batch_size)]
        names = {"token": tokens, "image_file": tokens, "annotations": ""}
        names |= {"boxes": "ground_truth", "set_size": batch_size}
        return {key: value.to(self.device) for key, value in tensors.items()} | names

    def checkpoint_blocks(self) -> list[nn.Module]:
        """The network's blocks."""
        return self.model.checkpoint_blocks()

    @property
    def _udp(self) -> bool:
        return self.config.data.target.encoding == "udp"

    @property
    def _decoding(self) -> str:
        """Of targets that have a decoding of their own, that one."""
        encoding = self.config.data.target.encoding
        return encoding if encoding in ("udp", "megvii") else self.config.evaluation.decode

    def normalise(self, image: Tensor) -> Tensor:
        """What the network takes of crops (B, 3, H, W) uint8."""
        return (image.float() - self.mean) / self.std

    def targets(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Heatmaps (B, 17, h, w) and weights (B, 17, 1) of the joints."""
        rules = self.config.data.target
        target, weight = encode(
            batch["joints"], batch["visible"], self.size, encoding=rules.encoding, sigma=rules.sigma
        )
        return target, visible_weights(weight[..., 0])[..., None] if rules.joint_weights else weight

    def to_joints(self, heatmaps: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Joints (B, 17, 2) in pixels of the photos, their scores (B, 17), and joints in cells."""
        step = self.config.evaluation.largest_step
        cells, scores = decode(heatmaps, method=self._decoding, largest_step=step)
        return to_image(cells, batch["center"], batch["scale"], self.size, udp=self._udp), scores, cells

    def _score(self, joints: Tensor, scores: Tensor, batch: Batch, meters: Mapping[str, Meter]) -> None:
        if batch["annotations"]:  # photos of one's own and examples have none
            meters["people"].update(joints, scores, batch)
        meters["joints"].update(joints, scores, batch)
