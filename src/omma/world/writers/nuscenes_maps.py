"""The map expansion of nuScenes and its coarse masks, with every scene at a place of its own in a location.

Areas are cut into convex pieces that follow the streets: what fills polygons as if they were convex, as the
reference labels do, then draws them right.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from omma.data.formats.nuscenes_maps import LOCATIONS, map_file
from omma.world.scene import Scene
from omma.world.streets import U_RANGE_M, V_RANGE_M, Block, Plan, Points, cut_quads
from omma.world.writers.files import write_json
from omma.world.writers.nuscenes_rig import MIDDLE_M, TILE_M, global_T_scene, location, tile, token

Areas = dict[str, list[Points]]  # by layer; pieces of as many corners lie in one array (n, corners, 2)

_HALF_M = np.array([122.5, 85.0])  # around MIDDLE_M lies all that the cameras can reach
_MASK_PX_PER_M = 10
_EMPTY_LAYERS = (
    *("line", "road_segment", "road_block", "lane", "stop_line", "road_divider", "lane_divider"),
    *("traffic_light", "lane_connector"),
)
_OWN_FIELDS = {
    "ped_crossing": {"road_segment_token": ""},
    "carpark_area": {"orientation": "", "road_block_token": ""},
}


def areas(scene: Scene) -> Areas:
    """Layer -> its pieces, global metres."""
    plan, pose = scene.plan, global_T_scene(scene)
    pavement = np.concatenate([_pavement(block) for block in plan.blocks])
    found = {
        "drivable_area": [plan.bend.xy(_roads(plan)), plan.bend.xy(_corners(plan))],
        "ped_crossing": [plan.crosswalks],
        "walkway": [plan.bend.xy(pavement)],
        "carpark_area": [plan.bend.xy(_parking(plan))],
    }
    return {
        layer: [(_near(pieces) @ pose[:2, :2].T + pose[:2, 3]).round(3) for pieces in groups]
        for layer, groups in found.items()
    }


def _near(pieces: Points) -> Points:
    return pieces[(np.abs(pieces.mean(1) - MIDDLE_M) < _HALF_M).all(1)]


def _roads(plan: Plan) -> Points:
    """(n, 4, 2) pieces of all streets between their curbs."""
    ranges = (U_RANGE_M, V_RANGE_M)
    return np.concatenate([s.quads(ranges[s.along], (-s.half_m, s.half_m)) for s in plan.streets])


def _corners(plan: Plan) -> Points:
    """(n, 3, 2) triangles between the round corners of the blocks and the streets' straight sides."""
    found = []
    for block in plan.blocks:
        (u0, v0), (u1, v1) = block.low, block.high
        tips = np.array([(u1, v0), (u1, v1), (u0, v1), (u0, v0)])
        arcs = block.border().reshape(4, -1, 2)
        tip = np.broadcast_to(tips[:, None], arcs[:, 1:].shape)
        found.append(np.stack([tip, arcs[:, :-1], arcs[:, 1:]], 2).reshape(-1, 3, 2))
    return np.concatenate(found)


def _pavement(block: Block) -> Points:
    """(n, 4, 2) pieces of a block's sidewalk, and of its inside where that is paved."""
    outer, inner = block.border(), block.border(block.sidewalk_m)
    ring = np.stack([outer, np.roll(outer, -1, 0), np.roll(inner, -1, 0), inner], 1)
    inside = [block.tiles(block.sidewalk_m)] if block.paved else []
    return np.concatenate([cut_quads(ring), *inside])


def _parking(plan: Plan) -> Points:
    """(n, 4, 2) pieces of the parking strips."""
    pieces = [np.zeros((0, 4, 2))]
    for street in plan.streets:
        strip = (street.half_m - street.parking_m, street.half_m)
        for stretch in plan.stretches(street) if street.parking_m else []:
            pieces += [street.quads(stretch, strip), street.quads(stretch, (-strip[1], -strip[0]))]
    return np.concatenate(pieces)


def write_maps(folder: Path, scenes: Mapping[int, Areas]) -> dict[str, str]:
    """Write map expansion and mask of every location that has a scene.

    Args:
        folder: of the data set.
        scenes: areas by scene number.

    Returns:
        Location -> its mask's token, the stem of the file in `maps/`.
    """
    masks = {}
    for name in LOCATIONS:
        here = {tile(number): found for number, found in scenes.items() if location(number) == name}
        if here:
            masks[name] = token("map", name)
            write_json(map_file(folder, name), _expansion(name, here), indent=None)
            _write_mask(folder / "maps" / f"{masks[name]}.png", here)
    return masks


def _expansion(name: str, tiles: Mapping[int, Areas]) -> dict[str, Any]:
    """A map file: every piece is a polygon of nodes that neighbours share."""
    nodes: dict[tuple[float, float], str] = {}
    polygons: list[dict[str, Any]] = []
    layers: dict[str, list[dict[str, Any]]] = {
        "drivable_area": [],
        "ped_crossing": [],
        "walkway": [],
        "carpark_area": [],
    }

    def polygon(piece: Points) -> str:
        rim = [nodes.setdefault((x, y), token("node", name, len(nodes))) for x, y in piece.tolist()]
        own = token("polygon", name, len(polygons))
        polygons.append({"token": own, "exterior_node_tokens": rim, "holes": []})
        return own

    for number, found in sorted(tiles.items()):
        for layer, groups in found.items():
            tokens = [polygon(piece) for pieces in groups for piece in pieces]
            if layer == "drivable_area":
                layers[layer].append({"token": token(layer, name, number), "polygon_tokens": tokens})
            else:
                fields = _OWN_FIELDS.get(layer, {})
                layers[layer] += [
                    {"token": token(layer, one), "polygon_token": one, **fields} for one in tokens
                ]
    return {
        "version": "1.3",
        "canvas_edge": [TILE_M, TILE_M * (max(tiles) + 1)],
        "node": [{"token": own, "x": x, "y": y} for (x, y), own in nodes.items()],
        "polygon": polygons,
        **layers,
        **{layer: [] for layer in _EMPTY_LAYERS},
        "connectivity": {},
        "arcline_path_3": {},
    }


def _write_mask(path: Path, tiles: Mapping[int, Areas]) -> None:
    """Streets and walkways in white at 0.1 m, north up, as a PNG written tile by tile."""
    side, count = round(TILE_M * _MASK_PX_PER_M), max(tiles) + 1
    path.parent.mkdir(parents=True, exist_ok=True)
    packer = zlib.compressobj(1)
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        _write_chunk(file.write, b"IHDR", struct.pack(">IIBBBBB", side, side * count, 8, 0, 0, 0, 0))
        for number in reversed(range(count)):
            rows = np.zeros((side, side + 1), np.uint8)  # every row begins with the number of its filter, 0
            rows[:, 1:] = _tile_mask(tiles.get(number, {}), number, side)
            _write_chunk(file.write, b"IDAT", packer.compress(rows.tobytes()))
        _write_chunk(file.write, b"IDAT", packer.flush())
        _write_chunk(file.write, b"IEND", b"")


def _tile_mask(found: Areas, number: int, side: int) -> NDArray[np.uint8]:
    mask = np.zeros((side, side), np.uint8)
    for layer in ("drivable_area", "walkway"):
        for pieces in found.get(layer, ()):
            for cells in np.floor((pieces - (0, number * TILE_M)) * _MASK_PX_PER_M).astype(np.int32):
                cv2.fillConvexPoly(mask, cells, 255)
    return mask[::-1]


def _write_chunk(write: Callable[[bytes], object], kind: bytes, data: bytes) -> None:
    write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))
