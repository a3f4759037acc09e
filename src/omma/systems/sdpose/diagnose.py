"""`omma diagnose` of an SDPose run: joints, peaks and sides, what cycles give and loss terms do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from omma.core.joint_meter import PEAK_BINS, JointMeter
from omma.core.keypoint_meter import GROUND_TRUTH, KeypointMeter
from omma.core.keypoints import JOINTS
from omma.data.dataset import Collate, Samples
from omma.engine.diagnosis import Diagnosis, Look, Options
from omma.engine.rng import seed_step
from omma.engine.task import Batch, StepInfo
from omma.errors import DataError, Finding
from omma.systems.sdpose.config import STRIDE
from omma.systems.sdpose.model import Cycle
from omma.systems.sdpose.prediction_checks import Person, Seen, judge
from omma.systems.sdpose.task import SDPoseTask
from omma.viz.several import Bars, plot_groups

PEAKS, BY_JOINT = "peaks.png", "joints.png"
GRADIENT_SAMPLES = 8
_BARS = 10  # of the histogram
_LISTED = 3


def run(task: SDPoseTask, data: Samples, collate: Collate, options: Options) -> Diagnosis:
    """Score some people, judge the sums, draw pictures.

    Args:
        task: in eval mode, on its device.
        data: a split, not augmented, with annotated boxes.
        collate: joins samples into a batch.
        options: how many samples and where to.
    """
    return _Look(task, data, collate, options).run()


class _Look(Look):
    """Joints, peaks and sides of the people; see `run`."""

    def __init__(self, task: SDPoseTask, data: Samples, collate: Collate, options: Options) -> None:
        super().__init__(task, data, collate, options)
        config = task.config
        self.seen = Seen(
            config.data.image_size,
            config.evaluation.visible_score,
            cycles=[self._meters() for _ in range(task.cycles)],
            evaluated=self._meters(),
        )
        self.mirrored: list[str] = []
        self.joints = 0

    def _meters(self) -> tuple[KeypointMeter, JointMeter]:
        meters = self.task.meters()
        people, joints = meters["people"], meters["joints"]
        assert isinstance(people, KeypointMeter)
        assert isinstance(joints, JointMeter)
        return people, joints

    def add(self, index: int) -> None:
        batch = self.batch(index)
        if batch["boxes"] != GROUND_TRUTH:
            title = "a detector's boxes have no joints to compare with"
            raise DataError(title, f"`omma diagnose {self.options.run} data.boxes={GROUND_TRUTH}`")
        self.readable.append(index)
        self.joints += int((batch["visible"] > 0).sum())
        if _looks_mirrored(batch):
            self.mirrored.append(self.data.name(index))
        if self.options.probe_only:
            return
        heatmaps = self._finite(self.task(batch))
        joints, scores, cells = self.task.to_joints(heatmaps, batch)
        for meter in self.seen.evaluated:
            meter.update(joints, scores, batch)
        self.seen.people.append(self._person(index, batch, cells[0] * STRIDE, scores[0]))
        self._add_cycles(batch)

    def _finite(self, heatmaps: Tensor) -> Tensor:
        self.seen.not_finite += int(not heatmaps.isfinite().all())
        return heatmaps.nan_to_num(0.0, 0.0, 0.0)

    def _person(self, index: int, batch: Batch, found: Tensor, peaks: Tensor) -> Person:
        """Lengths are in pixels of the crop, which the width fixes."""
        zoom = batch["image"].shape[-1] / (200 * batch["scale"][0, 0])
        return Person(
            self.data.name(index),
            found=found.cpu().numpy(),
            true=batch["joints"][0].cpu().numpy(),
            labelled=(batch["visible"][0] > 0).cpu().numpy(),
            side=float(batch["box"][0, 2:].max() * zoom),
            peaks=peaks.cpu().numpy(),
        )

    def _add_cycles(self, batch: Batch) -> None:
        """What each cycle predicts, and how far apart the tokens of neighbours are."""
        image = self.task.normalise(batch["image"])
        cycles = self.task.model.forward_cycles(image, cycles=self.task.cycles)
        for cycle, meters in zip(cycles, self.seen.cycles, strict=True):
            maps = cycle.heatmaps.float().nan_to_num(0.0, 0.0, 0.0)
            joints, scores, _ = self.task.to_joints(maps, batch)
            for meter in meters:
                meter.update(joints, scores, batch)
        for kind, tokens in (("visual", _visual(cycles)), ("keypoint", _keypoints(cycles))):
            pairs = self.seen.apart.setdefault(kind, [[] for _ in cycles[1:]])
            for place, values in enumerate(pairs):
                square = float((tokens[place] - tokens[place + 1]).square().mean())
                values.append((square, square / max(float(tokens[place + 1].square().mean()), 1e-12)))

    def _weigh_terms(self) -> None:
        """Each loss term and the length of its gradient in the encoder that all cycles share."""
        if not self.seen.people:
            return
        batch = self.batch(*self.readable[:GRADIENT_SAMPLES])
        shared = [p for p in self.task.model.head.encoder.parameters() if p.requires_grad]
        names = self.task.loss.names(self.task.cycles)
        seed_step(0, 0, 0, 0)
        with torch.enable_grad():
            losses = self.task.training_step(batch, StepInfo(0, 0, 0.0))
            for name in names:
                parts = torch.autograd.grad(losses[name], shared, retain_graph=True, allow_unused=True)
                squares = [part.double().square().sum() for part in parts if part is not None]
                self.seen.gradients[name] = float(torch.stack(squares).sum().sqrt())
                self.seen.terms[name] = float(losses[name].detach())

    def judge(self) -> None:
        self._weigh_terms()
        seen, run = self.seen, self.options.run
        if self.mirrored:
            evidence = f"who face the camera with the left eye on the image's left: {_some(self.mirrored)}"
            fix = f"left is the person's own left: `omma doctor {run} --out DIR` draws the labels"
            title = f"the labels of {len(self.mirrored)} people look mirrored"
            self.result.data.append(Finding("warning", title, evidence, fix))
        self.result.model += judge(seen, run)
        self.result.sections = {
            "config sanity": [f"samples: {self.samples}"],
            "GT distribution": [f"{self.joints} labelled joints of {len(self.readable)} people"],
            "prediction distribution": self._peak_lines(),
            "metrics": seen.metric_lines(),
            "joints": seen.joint_lines(),
            "loss terms": seen.loss_lines(),
        }

    def _peak_lines(self) -> list[str]:
        if not self.seen.people:
            return ["the network was not run"]
        peaks, labelled = self.seen.peaks, self.seen.labelled
        limit = self.seen.visible_score
        lines = []
        for name, chosen in (("labelled", labelled), ("absent", ~labelled)):
            if chosen.any():
                numbers = ", ".join(f"{v:.3f}" for v in np.percentile(peaks[chosen], (0, 5, 50, 95, 100)))
                above = f"{(peaks[chosen] > limit).mean():.1%} above evaluation.visible_score={limit:g}"
                lines.append(f"peaks of {name} joints, 0, 5, 50, 95 and 100 %: {numbers}; {above}")
        return lines

    def draw_sums(self) -> bool:
        if not self.seen.people:
            return False
        self._draw_peaks()
        self._draw_joints()
        return True

    def worst_first(self) -> Sequence[int]:
        scores = {row["token"]: row["OKS"] for row in self.seen.evaluated[0].per_sample()}
        return sorted(self.readable, key=lambda index: _known(scores[self.data.name(index)]))

    def _draw_peaks(self) -> None:
        """How high peaks are, of labelled joints and of absent ones."""
        counts = self.seen.evaluated[1].peak_histogram().sum(1).reshape(2, _BARS, -1).sum(-1)
        width = PEAK_BINS // _BARS
        names = [f"{bar * width / PEAK_BINS:.1f}-{(bar + 1) * width / PEAK_BINS:.1f}" for bar in range(_BARS)]
        bars = [
            Bars(f"{kind} joints", (own / max(1, own.sum())).tolist(), None, place)
            for place, (kind, own) in enumerate(zip(("labelled", "absent"), counts, strict=True))
            if own.any()
        ]
        title = f"share of joints by height of the peak, {len(self.seen.people)} people"
        self.figure(PEAKS, plot_groups(names, bars, title=title, size=(7.6, 3.4)))

    def _draw_joints(self) -> None:
        """How many of each joint are near, and how alike they are."""
        rows = self.seen.evaluated[1].per_class()
        names = [name.replace("_", " ") for name in JOINTS]
        bars = [
            Bars(name, [row[name] for row in rows], None, place)
            for place, name in enumerate(("PCK@0.1", "OKS"))
        ]
        title = f"joints that are found, {len(self.seen.people)} people"
        self.figure(BY_JOINT, plot_groups(names, bars, title=title, lying=True, size=(6.4, 7.2)))


def _visual(cycles: Sequence[Cycle]) -> list[Tensor]:
    return [cycle.visual.float() for cycle in cycles]


def _keypoints(cycles: Sequence[Cycle]) -> list[Tensor]:
    return [cycle.keypoints.float() for cycle in cycles]


def _looks_mirrored(batch: Batch) -> bool:
    """Nose and both eyes seen, and the left eye on the image's left."""
    seen = (batch["visible"][0] > 0) & ~batch["hidden"][0]
    joints = batch["joints"][0]
    return bool(seen[:3].all() and joints[1, 0] < joints[2, 0])


def _known(value: float | None) -> float:
    return 2.0 if value is None else value


def _some(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
