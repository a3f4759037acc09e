"""What stands still in a scene: raised blocks, buildings, trees, lamps and signals on a street plan."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from omma.world.assets.scenery import (
    NUM_FACADES,
    ROOFS,
    WALLS,
    building,
    bush,
    house,
    street_lamp,
    traffic_light,
    tree,
)
from omma.world.mesh import Material, Mesh, join, place
from omma.world.streets import (
    CORNER_M,
    CURB_HEIGHT_M,
    U_RANGE_M,
    V_RANGE_M,
    Block,
    Plan,
    Points,
    cut_quads,
)

CURB_ALBEDO = (0.42, 0.41, 0.39)
_FAR_M = 900.0
_DETAILED_M = 40.0

Parts = dict[str, list[Mesh]]


def _ground(plan: Plan, parts: Parts) -> None:
    """The road surface at z = 0 and the raised blocks with their curbs."""
    corners = np.array([(-_FAR_M, -_FAR_M), (_FAR_M, -_FAR_M), (_FAR_M, _FAR_M), (-_FAR_M, _FAR_M)])
    parts["road"].append(_surface(_triangles(corners[None], 0.0), Material.GROUND))
    for block, (curb, _) in zip(plan.blocks, plan.outlines, strict=True):
        border = block.border()
        rim = np.stack([border, np.roll(border, -1, axis=0)], 1)
        inner = np.clip(rim, np.array(block.low) + CORNER_M, np.array(block.high) - CORNER_M)
        rim_quads = cut_quads(np.stack([rim[:, 0], rim[:, 1], inner[:, 1], inner[:, 0]], 1))
        # rays pass small triangles faster than long ones
        top = plan.bend.xy(np.concatenate([rim_quads, block.tiles()]))
        parts["road"].append(_surface(_triangles(top, CURB_HEIGHT_M), Material.GROUND))
        parts["sidewalk"].append(_surface(_skirt(curb, CURB_HEIGHT_M), Material.MATTE))


def _triangles(quads: Points, z: float) -> Points:
    """(2 n, 3, 3) of flat quadrilaterals (n, 4, 2) at a height."""
    flat = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    return np.concatenate([flat, np.full((*flat.shape[:2], 1), z)], -1)


def _skirt(border: Points, top: float) -> Points:
    here = np.column_stack([border, np.zeros(len(border))])
    after = np.roll(here, -1, axis=0)
    up = np.array([0, 0, top])
    return np.concatenate(
        [np.stack([here, after, after + up], 1), np.stack([here, after + up, here + up], 1)]
    )


def _surface(corners: Points, material: Material) -> Mesh:
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    count = len(corners)
    return Mesh(
        corners.astype(np.float32),
        np.repeat(normal[:, None], 3, axis=1).astype(np.float32),
        np.tile(np.float32(CURB_ALBEDO), (count, 1)),
        np.full(count, material, np.uint8),
        np.zeros((count, 3, 3), np.float32),
    )


def landscape(rng: np.random.Generator, plan: Plan) -> dict[str, Mesh]:
    """Everything that stands still on the plan, in the scene frame, by class name."""
    parts: Parts = {
        "road": [],
        "sidewalk": [],
        "building": _skyline(rng),
        "vegetation": [],
        "pole": _signals(plan),
    }
    _ground(plan, parts)
    for block in plan.blocks:
        use = rng.choice(["offices", "houses", "park"], p=[0.4, 0.25, 0.35])
        if use == "park":
            parts["vegetation"] += _park(rng, plan, block)
        else:
            parts["building"] += _built_up(rng, plan, block, houses=use == "houses")
        _furnish_sidewalk(rng, plan, block, parts)
    return {name: join(meshes) for name, meshes in parts.items() if meshes}


def _clipped(block: Block, inset_m: float) -> tuple[Points, Points]:
    """The block's inside, no farther out than the planned range."""
    low = np.maximum(np.array(block.low) + inset_m, (U_RANGE_M[0], V_RANGE_M[0]))
    high = np.minimum(np.array(block.high) - inset_m, (U_RANGE_M[1], V_RANGE_M[1]))
    return low, high


def _stand(plan: Plan, mesh: Mesh, uv: ArrayLike, turn: float, along: int = 0) -> Mesh:
    """The mesh on the block at `uv`, turned by `turn` radians from the local direction of the streets."""
    x, y = plan.bend.xy(uv)
    return mesh.moved(place(x, y, CURB_HEIGHT_M, plan.bend.yaw(uv, along) + turn))


def _park(rng: np.random.Generator, plan: Plan, block: Block) -> list[Mesh]:
    low, high = _clipped(block, block.sidewalk_m + 2.5)
    if (high - low).min() < 6:
        return []
    count = int(min(np.prod(high - low) / 160, 18))
    spots = rng.uniform(low, high, (count, 2))
    turns = rng.uniform(0, 6.28, count)
    drawn = rng.integers(0, 16, count)
    kinds = [_tree(int(n), uv) if n < 12 else bush(int(n) - 12) for n, uv in zip(drawn, spots, strict=True)]
    return [_stand(plan, mesh, uv, turn) for mesh, uv, turn in zip(kinds, spots, turns, strict=True)]


def _tree(variant: int, uv: Points) -> Mesh:
    """A tree that is coarser away from the ego's street."""
    return tree(variant, 1 if abs(uv[1]) < _DETAILED_M else 0)


def _built_up(rng: np.random.Generator, plan: Plan, block: Block, *, houses: bool) -> list[Mesh]:
    low, high = _clipped(block, block.sidewalk_m + rng.uniform(1.5, 6.0))
    parts = []
    depth = 9.0 if houses else 13.0
    for axis, sign in ((0, -1), (0, 1), (1, -1), (1, 1)):
        clear = 0.0 if axis == 0 else depth + 4.0  # the sides along u take the corners
        position, end = low[axis] + clear, high[axis] - clear
        edge = (low if sign < 0 else high)[1 - axis] - sign * depth / 2
        if (high - low)[1 - axis] < 2 * depth + 6:
            continue
        while position < end - 8:
            width = min(rng.uniform(8, 12) if houses else rng.uniform(12, 26), end - position)
            uv = (
                np.array([position + width / 2, edge])
                if axis == 0
                else np.array([edge, position + width / 2])
            )
            if rng.random() < 0.7:
                parts.append(_stand(plan, _facade_of(rng, width, depth, houses), uv, _outlook(axis, sign)))
            position += width + rng.uniform(3, 10)
    return parts


def _outlook(axis: int, sign: int) -> float:
    """Turn that makes the -y side of a building look out of the block."""
    return {(0, -1): 0.0, (0, 1): np.pi, (1, -1): -np.pi / 2, (1, 1): np.pi / 2}[(axis, sign)]


def _facade_of(rng: np.random.Generator, width: float, depth: float, houses: bool) -> Mesh:
    wall = tuple(np.array(WALLS[rng.integers(len(WALLS))]) * rng.uniform(0.75, 1.1))
    if houses:
        return house((width - 1.0, depth), wall, ROOFS[rng.integers(len(ROOFS))])
    return building((width, depth, rng.uniform(7, 24)), wall, int(rng.integers(NUM_FACADES - 1)))


def _furnish_sidewalk(rng: np.random.Generator, plan: Plan, block: Block, parts: Parts) -> None:
    low, high = _clipped(block, 0.0)
    has_trees, kind = rng.random() < 0.7, int(rng.integers(12))
    for axis, sign in ((0, -1), (0, 1), (1, -1), (1, 1)):
        border = (block.low if sign < 0 else block.high)[1 - axis]
        if abs(border - (low if sign < 0 else high)[1 - axis]) > 1e-6:
            continue  # this border lies outside the planned range
        edge = border - sign * 0.9
        spots = np.arange(low[axis] + CORNER_M + 4, high[axis] - CORNER_M - 4, rng.uniform(8, 13))
        for number, spot in enumerate(spots):
            uv = np.array([spot, edge]) if axis == 0 else np.array([edge, spot])
            if number % 3 == 1:
                outwards = sign * np.pi / 2 if axis == 0 else (0.0 if sign > 0 else np.pi)
                parts["pole"].append(_stand(plan, street_lamp(), uv, outwards))
            elif has_trees and rng.random() < 0.55:
                parts["vegetation"].append(_stand(plan, _tree(kind, uv), uv, rng.uniform(0, 6.28)))


def _signals(plan: Plan) -> list[Mesh]:
    """Signals at the stop lines: green along u, red along v."""
    parts = []
    for street in plan.streets:
        mesh = traffic_light("green" if street.along == 0 else "red")
        for start, end in plan.stretches(street):
            for stop, sign in ((end, 1), (start, -1)):
                uv = street.uv(stop, -sign * (street.half_m + 0.8))
                if (uv > (U_RANGE_M[0], V_RANGE_M[0])).all() and (uv < (U_RANGE_M[1], V_RANGE_M[1])).all():
                    yaw = plan.bend.yaw(uv, street.along, sign) + np.pi
                    parts.append(mesh.moved(place(*plan.bend.xy(uv), CURB_HEIGHT_M, yaw)))
    return parts


def _skyline(rng: np.random.Generator) -> list[Mesh]:
    """Far blocks of the town, half lost in the haze."""
    parts = []
    for angle in np.arange(0, 2 * np.pi, 0.16) + rng.uniform(-0.05, 0.05, 40):
        if rng.random() < 0.6:
            radius, height = rng.uniform(290, 420), rng.uniform(14, 55)
            mesh = building(
                (rng.uniform(20, 60), rng.uniform(20, 40), height), WALLS[rng.integers(len(WALLS))], 0
            )
            x, y = radius * np.cos(angle) + np.mean(U_RANGE_M), radius * np.sin(angle)
            parts.append(mesh.moved(place(x, y, 0, angle + np.pi / 2)))
    return parts
