"""COCO's ten numbers for keypoints, by pycocotools. User: sdpose."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omma.core.keypoints import SIGMAS

NUMBERS = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")
PERSON = 1  # category id of results


@dataclass(frozen=True)
class GroundTruth:
    """A people of I images, as they are annotated.

    Args:
        image_ids: (I,) int64.
        ids: (A,) int64 of the annotations.
        image_id: (A,) int64, the image of each.
        boxes: (A, 4) x, y, width, height in pixels.
        areas: (A,) square pixels.
        crowd: bool (A,), regions of many people.
        joints: (A, K, 3) x, y in pixels and 0 for absent, 1 for hidden, 2 for seen.
    """

    image_ids: NDArray[np.int64]
    ids: NDArray[np.int64]
    image_id: NDArray[np.int64]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    joints: NDArray[np.float64]

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Whether a person has joints and is no crowd, so that it should be found; (A,)."""
        return ~self.crowd & (self.joints[..., 2] > 0).any(-1)

    def rows(self, ids: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows of annotation ids, which must be there."""
        order = self.ids.argsort()
        return order[np.searchsorted(self.ids, ids, sorter=order)]

    def of(self, image_ids: Collection[int], annotation_ids: Collection[int] | None = None) -> GroundTruth:
        """Some images only; of these, if ids are given, only those people and the regions to ignore."""
        keep = np.isin(self.image_id, list(image_ids))
        if annotation_ids is not None:
            keep &= ~self.labelled | np.isin(self.ids, list(annotation_ids))
        return GroundTruth(
            self.image_ids[np.isin(self.image_ids, list(image_ids))],
            *(getattr(self, name)[keep] for name in ("ids", "image_id", "boxes", "areas", "crowd", "joints")),
        )


def coco_numbers(truth: GroundTruth, results: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Average precision and recall by OKS, over all images of the ground truth.

    Args:
        truth: joints as COCO numbers them.
        results: `{"image_id", "category_id": 1, "keypoints": [x, y, score, ...], "score"}` of each person.

    Returns:
        the numbers of `NUMBERS`; NaN where no annotated person falls into an area range.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        annotated = COCO()
        annotated.dataset = _dataset(truth)
        annotated.createIndex()
        found = annotated.loadRes([dict(result) for result in results]) if results else COCO()
        evaluation = COCOeval(annotated, found, "keypoints")
        evaluation.params.imgIds = truth.image_ids.tolist()
        evaluation.params.kpt_oks_sigmas = np.array(SIGMAS)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {
        name: float(value) if value >= 0 else float("nan")
        for name, value in zip(NUMBERS, evaluation.stats, strict=True)
    }


def _dataset(truth: GroundTruth) -> dict[str, Any]:
    """What pycocotools reads from an annotation file."""
    columns = zip(
        truth.ids.tolist(),
        truth.image_id.tolist(),
        truth.boxes.tolist(),
        truth.areas.tolist(),
        truth.crowd.tolist(),
        truth.joints.reshape(len(truth.ids), -1).tolist(),
        (truth.joints[..., 2] > 0).sum(-1).tolist(),
        strict=True,
    )
    names = ("id", "image_id", "bbox", "area", "iscrowd", "keypoints", "num_keypoints")
    annotations = [dict(zip(names, row, strict=True), category_id=PERSON) for row in columns]
    return {
        "images": [{"id": image} for image in truth.image_ids.tolist()],
        "categories": [{"id": PERSON, "name": "person"}],
        "annotations": annotations,
    }
