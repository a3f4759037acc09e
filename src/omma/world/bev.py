"""Bird's-eye-view ground truth in SimBEV orientation: rows along -x, columns along -y of the ego frame."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from omma.core.poses import invert_rigid
from omma.world.scene import Snapshot
from omma.world.streets import Points


def bev_masks(
    snapshot: Snapshot, classes: Sequence[str], cells: int, cell_m: float, *, with_ego: bool = True
) -> NDArray[np.bool_]:
    """Which cells around the ego vehicle each class covers; classes overlap (a car stands on the road).

    Args:
        snapshot: the scene at an instant.
        classes: names, e.g. of `simbev_layout.CLASSES_BY_COUNT`.
        cells: rows and columns.
        cell_m: size of a cell.
        with_ego: whether the ego vehicle counts as a car.

    Returns:
        (C, cells, cells) bool.
    """
    draw = _Drawing(snapshot, cells, cell_m)
    return np.stack([draw.surface(name) | draw.actors([name], with_ego=with_ego) for name in classes])


def fill_polygons(
    mask: NDArray[np.uint8], polygons: Iterable[NDArray[np.floating]], cell_m: float, value: int = 1
) -> None:
    """Fill polygons as SimBEV does: corners truncated to cells, all touched cells of the outline included.

    Args:
        mask: (d, d) uint8, changed in place; its middle is the ego vehicle.
        polygons: (n, 2) each, x and y in the ego frame, metres.
        cell_m: size of a cell.
        value: what to write.
    """
    half_m = mask.shape[0] * cell_m / 2
    for polygon in polygons:
        cells = np.clip((half_m - polygon) / cell_m, -32000, 32000).astype(np.int32)
        cv2.fillPoly(mask, [cells[:, ::-1]], value)


def visibility_map(
    snapshot: Snapshot, levels: dict[int, int], cells: int, cell_m: float, empty: int
) -> NDArray[np.uint8]:
    """(cells, cells) uint8 visibility level of the actor in each cell, the best where several meet.

    Args:
        snapshot: the scene at an instant.
        levels: level by instance; only these actors count.
        cells: rows and columns.
        cell_m: size of a cell.
        empty: value of cells without an actor.
    """
    draw = _Drawing(snapshot, cells, cell_m)
    mask = np.full((cells, cells), empty, np.uint8)
    drawn = [a for a in (*snapshot.actors, snapshot.ego) if a.instance in levels]
    for actor in sorted(drawn, key=lambda a: levels[a.instance]):
        fill_polygons(mask, [draw.ego_xy(actor.footprint)], cell_m, levels[actor.instance])
    return mask


class _Drawing:
    def __init__(self, snapshot: Snapshot, cells: int, cell_m: float) -> None:
        self._snapshot, self._cells, self._cell_m = snapshot, cells, cell_m
        self._ego_T_scene = invert_rigid(snapshot.ego.scene_T_actor)
        self._reach_m = cells * cell_m / 2 * np.sqrt(2) + 10

    def ego_xy(self, xy: Points) -> Points:
        """Scene positions (..., 2) in the ego frame."""
        return xy @ self._ego_T_scene[:2, :2].T + self._ego_T_scene[:2, 3]

    def _filled(self, polygons: Iterable[Points]) -> NDArray[np.uint8]:
        mask = np.zeros((self._cells, self._cells), np.uint8)
        fill_polygons(mask, polygons, self._cell_m)
        return mask

    def _near(self, quads: Points) -> Points:
        moved = self.ego_xy(quads)
        return moved[np.abs(moved).max((1, 2)) < self._reach_m]

    def surface(self, name: str) -> NDArray[np.bool_]:
        """Mask of what is painted or built on the ground; empty for classes of actors."""
        plan = self._snapshot.scene.plan
        if name in ("road", "sidewalk"):
            raised, paved = self._blocks()
            return ~raised if name == "road" else paved
        if name == "road_line":
            return self._filled(self._near(np.concatenate([plan.white, plan.yellow]))).astype(bool)
        if name == "crosswalk":
            return self._filled(self._near(plan.crosswalks)).astype(bool)
        if name == "hazard":
            return self._filled([self.ego_xy(p) for p in self._snapshot.scene.hazards]).astype(bool)
        return np.zeros((self._cells, self._cells), bool)

    def _blocks(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        raised = np.zeros((self._cells, self._cells), np.uint8)
        paved = raised.copy()
        for curb, lawn in self._snapshot.scene.plan.outlines:
            for mask in (raised, paved):
                fill_polygons(mask, [self.ego_xy(curb)], self._cell_m)
            if lawn is not None:
                fill_polygons(paved, [self.ego_xy(lawn)], self._cell_m, 0)
        return raised.astype(bool), paved.astype(bool)

    def actors(self, class_names: Sequence[str], *, with_ego: bool) -> NDArray[np.bool_]:
        """Mask of the footprints of actors."""
        present = [*self._snapshot.actors, *([self._snapshot.ego] if with_ego else [])]
        chosen = [self.ego_xy(a.footprint) for a in present if a.class_name in class_names]
        return self._filled(chosen).astype(bool)
