"""Meters of predicted people: COCO's numbers, and where joints are off. User: sdpose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from omma.core.coco_eval import NUMBERS, PERSON, GroundTruth, coco_numbers
from omma.core.meter import Meter
from omma.core.oks import closeness, oks_nms, rescore, soft_oks_nms

Nms = Literal["oks", "soft", "none"]

GROUND_TRUTH = "ground_truth"  # what a batch calls the annotated boxes
_PIXELS = 200.0  # unit of scales
_COLUMNS = ("image_id", "box_id", "annotation_id", "center", "scale", "box_score")
_SETTING = ("annotations", "boxes", "set_size")


class KeypointMeter(Meter):
    """COCO's ten numbers, NaN where no annotated person falls into an area range.

    The score of a person is its box's times the mean of its joints' above `visible_score`; doubles are
    suppressed with the area of the padded box. All images of the annotation file count, also those without a
    box. Where only a part of the set was seen (`validate.limit`, `--overfit`), only the images seen count,
    and with annotated boxes only the people seen.

    Args:
        read: ground truth of an annotation file, given its path.
        visible_score: see above.
        nms: how doubles are suppressed.
        nms_oks: people more alike than this are doubles.
    """

    names = NUMBERS

    def __init__(
        self,
        read: Callable[[str], GroundTruth],
        *,
        visible_score: float = 0.2,
        nms: Nms = "oks",
        nms_oks: float = 0.9,
    ) -> None:
        self._read, self._visible_score = read, visible_score
        self._nms, self._nms_oks = nms, nms_oks
        self._parts: list[dict[str, NDArray[Any]]] = []
        self._tokens: list[str] = []
        self._setting: dict[str, Any] = {}

    def update(self, coords: Tensor, scores: Tensor, batch: Mapping[str, Any]) -> None:
        """Add one batch.

        Args:
            coords: (B, K, 2) x, y in pixels of the images.
            scores: (B, K).
            batch: image_id, box_id, annotation_id, box_score (B,); center, scale (B, 2); token; and
                annotations, boxes, set_size.
        """
        part = {name: batch[name].cpu().numpy() for name in _COLUMNS}
        part |= {"coords": coords.float().cpu().numpy(), "scores": scores.float().cpu().numpy()}
        self._parts.append(part)
        self._tokens += list(batch["token"])
        self._setting = {name: batch[name] for name in _SETTING}

    def state(self) -> dict[str, Any]:
        """The people so far, and which set they are of."""
        return {"people": self._joined(), "tokens": list(self._tokens), "setting": dict(self._setting)}

    def merge(self, states: Sequence[dict[str, Any]]) -> None:
        """Replace the people by those of `states`; of one box seen twice the first stays."""
        states = [state for state in states if state["tokens"]]
        self._parts = [state["people"] for state in states]
        self._tokens = [token for state in states for token in state["tokens"]]
        self._setting = states[0]["setting"] if states else {}
        people = self._joined()
        if not people:
            return
        keys = np.stack([people["image_id"], people["box_id"]], 1)
        first = np.sort(np.unique(keys, axis=0, return_index=True)[1])
        self._parts = [{name: column[first] for name, column in people.items()}]
        self._tokens = [self._tokens[index] for index in first]

    def compute(self) -> dict[str, float]:
        """The ten numbers."""
        if not self._tokens:
            return dict.fromkeys(NUMBERS, float("nan"))
        return coco_numbers(self._truth(), self.results())

    def results(self) -> list[dict[str, Any]]:
        """The people kept, by image, as COCO's result files have them.

        Returns:
            image_id, category_id, keypoints (x, y, score of each joint), score, center and scale.
        """
        people = self._joined()
        if not people:
            return []
        scores = self._scores()
        keypoints = np.concatenate([people["coords"], people["scores"][..., None]], -1)
        order = np.lexsort((people["box_id"], people["image_id"]))
        starts = np.flatnonzero(np.diff(people["image_id"][order])) + 1
        kept = [group[place] for group in np.split(order, starts) for place in self._kept(group, scores)]
        return [
            {
                "image_id": int(people["image_id"][index]),
                "category_id": PERSON,
                "keypoints": keypoints[index].ravel().tolist(),
                "score": float(scores[index]),
                "center": people["center"][index].tolist(),
                "scale": people["scale"][index].tolist(),
            }
            for index in kept
        ]

    def per_sample(self) -> list[dict[str, Any]]:
        """token, OKS, score and mean distance in pixels of every box.

        OKS of an annotated box is that with its own person, of a detector's box the best of its image; the
        latter has no distance.
        """
        if not self._tokens:
            return []
        own = self._setting["boxes"] == GROUND_TRUTH
        similarity, error = self._own_errors() if own else self._best_similarity()
        columns = (similarity.tolist(), self._scores().tolist(), error.tolist())
        return [
            {"token": token, "OKS": _known(oks), "score": score, "error_px": _known(distance)}
            for token, oks, score, distance in zip(self._tokens, *columns, strict=True)
        ]

    def _joined(self) -> dict[str, NDArray[Any]]:
        """Name -> (people, ...); one piece from now on."""
        if not self._parts:
            return {}
        if len(self._parts) > 1:
            names = self._parts[0]
            self._parts = [{name: np.concatenate([part[name] for part in self._parts]) for name in names}]
        return self._parts[0]

    def _scores(self) -> NDArray[np.float64]:
        people = self._joined()
        return rescore(people["box_score"], people["scores"], visible_score=self._visible_score)

    def _kept(self, group: NDArray[np.int64], scores: NDArray[np.float64]) -> list[int]:
        """Places in `group`, the people of an image, that are kept."""
        if self._nms == "none":
            return list(range(len(group)))
        people = self._joined()
        suppress = oks_nms if self._nms == "oks" else soft_oks_nms
        areas = people["scale"][group].prod(-1) * _PIXELS**2
        return suppress(people["coords"][group], areas, scores[group], threshold=self._nms_oks)

    def _truth(self) -> GroundTruth:
        """What should have been found."""
        people, truth = self._joined(), self._read(self._setting["annotations"])
        if len(self._tokens) == self._setting["set_size"]:
            return truth
        own = self._setting["boxes"] == GROUND_TRUTH
        seen = np.unique(people["image_id"]).tolist()
        return truth.of(seen, people["annotation_id"].tolist() if own else None)

    def _own_errors(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """OKS and mean distance in pixels (people,) from the annotated person of the box."""
        people, truth = self._joined(), self._read(self._setting["annotations"])
        rows = truth.rows(people["annotation_id"])
        joints, labelled = truth.joints[rows, :, :2], truth.joints[rows, :, 2] > 0
        squares = ((people["coords"] - joints) ** 2).sum(-1)
        alike = closeness(squares, truth.areas[rows])
        return _masked_mean(alike, labelled), _masked_mean(np.sqrt(squares), labelled)

    def _best_similarity(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The largest OKS (people,) with an annotated person of the same image; NaN as distance."""
        people, truth = self._joined(), self._read(self._setting["annotations"])
        best = np.full(len(self._tokens), np.nan)
        for image in np.unique(people["image_id"]):
            rows = np.flatnonzero((truth.image_id == image) & truth.labelled)
            if rows.size:
                own = people["image_id"] == image
                squares = ((people["coords"][own][:, None] - truth.joints[rows, :, :2]) ** 2).sum(-1)
                alike = closeness(squares, truth.areas[rows])
                best[own] = _masked_mean(alike, truth.joints[rows, :, 2] > 0).max(-1)
        return best, np.full_like(best, np.nan)


def _masked_mean(values: NDArray[np.floating], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Means over the last axis where the mask holds; NaN where it holds nowhere."""
    counts = mask.sum(-1)
    sums = np.where(mask, values, 0).sum(-1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value
