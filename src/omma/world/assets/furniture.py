"""Furniture from a few solids: seats, tables, storage, beds, screens, lamps and plants.

Every piece stands on z = 0 around its origin with its front along +x; where it belongs to a wall, its back
along -x; metres. Texture coordinates carry a pattern of `omma.world.finishes`.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import trimesh
from numpy.typing import ArrayLike

from omma.world.finishes import Pattern, patterned
from omma.world.mesh import Colour, Material, Mesh, box, join, loft, place, quad, rod, solid

WOODS: tuple[Colour, ...] = (
    *((0.40, 0.22, 0.10), (0.18, 0.085, 0.04), (0.55, 0.37, 0.20), (0.075, 0.04, 0.025)),
    *((0.62, 0.50, 0.34), (0.70, 0.69, 0.66)),
)
FABRICS: tuple[Colour, ...] = (
    *((0.30, 0.27, 0.23), (0.10, 0.14, 0.24), (0.34, 0.08, 0.07), (0.52, 0.46, 0.36), (0.09, 0.16, 0.11)),
    *((0.045, 0.045, 0.05), (0.42, 0.26, 0.08), (0.58, 0.56, 0.53), (0.24, 0.11, 0.19), (0.16, 0.30, 0.34)),
)
_STEEL: Colour = (0.42, 0.42, 0.43)
_DARK: Colour = (0.018, 0.018, 0.02)
_WHITE: Colour = (0.72, 0.71, 0.68)


def soft_box(size: ArrayLike, centre: ArrayLike, colour: Colour, *, square: float = 0.35) -> Mesh:
    """A padded block of cloth; the smaller `square` the sharper its edges."""
    shape = trimesh.creation.icosphere(subdivisions=3)
    points = np.sign(shape.vertices) * np.abs(shape.vertices) ** square
    points /= np.abs(points).max(0)
    shape = trimesh.Trimesh(points * np.asarray(size, float) / 2, shape.faces, process=False)
    local = solid(shape, colour, crease_deg=70.0)
    return patterned(local, Pattern.CLOTH).moved(place(*np.asarray(centre, float), 0.0))


def board(size: ArrayLike, centre: ArrayLike, colour: Colour, material: Material = Material.MATTE) -> Mesh:
    """A wooden board with its grain along the longest side."""
    return patterned(box(size, centre, colour, material), Pattern.WOOD)


def pick(rng: np.random.Generator, colours: tuple[Colour, ...]) -> Colour:
    """One of the colours, slightly varied."""
    colour = np.array(colours[rng.integers(len(colours))]) * rng.uniform(0.85, 1.15)
    return tuple(np.clip(colour, 0.01, 0.85).tolist())


def chair(rng: np.random.Generator) -> Mesh:
    """A dining chair."""
    wood, seat = pick(rng, WOODS), pick(rng, FABRICS)
    w, d, h, top = 0.42, 0.42, 0.45, float(rng.uniform(0.85, 1.02))
    parts = [
        rod((x, y, 0), (x * 0.95, y * 0.95, h), 0.018, wood) for x in (0.18, -0.19) for y in (0.18, -0.18)
    ]
    parts.append(board((d, w, 0.03), (0, 0, h), wood))
    if rng.random() < 0.5:
        parts.append(soft_box((0.40, 0.40, 0.06), (0, 0, h + 0.03), seat))
    posts = [rod((-0.19, y, h), (-0.25, y, top), 0.017, wood) for y in (0.18, -0.18)]
    if rng.random() < 0.5:
        bars = [board((0.02, 0.36, 0.06), (-0.2 - 0.012 * k, 0, h + 0.15 + 0.13 * k), wood) for k in range(3)]
    else:
        bars = [soft_box((0.05, 0.38, 0.32), (-0.235, 0, top - 0.17), seat, square=0.3)]
    return join([*parts, *posts, *bars])


def office_chair(rng: np.random.Generator) -> Mesh:
    """A swivel chair on five feet."""
    cloth = pick(rng, FABRICS)
    turns = np.arange(5) * 2 * np.pi / 5
    feet = [rod((0, 0, 0.1), (0.3 * np.cos(t), 0.3 * np.sin(t), 0.05), 0.022, _DARK) for t in turns]
    wheels = [box((0.05, 0.05, 0.05), (0.3 * np.cos(t), 0.3 * np.sin(t), 0.025), _DARK) for t in turns]
    arms = [soft_box((0.26, 0.06, 0.04), (0.0, y, 0.66), _DARK) for y in (0.27, -0.27)]
    stays = [rod((0, y * 0.9, 0.46), (0, y, 0.65), 0.014, _DARK) for y in (0.27, -0.27)]
    post = rod((0, 0, 0.08), (0, 0, 0.45), 0.03, _STEEL, Material.METAL)
    seat = soft_box((0.48, 0.5, 0.1), (0, 0, 0.47), cloth)
    back = soft_box((0.08, 0.46, 0.55), (-0.24, 0, 0.82), cloth)
    return join([*feet, *wheels, *arms, *stays, post, seat, back])


def table(rng: np.random.Generator, size: tuple[float, float, float]) -> Mesh:
    """A table of length along y; `size` is (x, y, z)."""
    wood = pick(rng, WOODS)
    x, y, h = size
    material = Material.PAINT if rng.random() < 0.3 else Material.MATTE
    top = board((x, y, 0.035), (0, 0, h - 0.0175), wood, material)
    dx, dy = x / 2 - 0.06, y / 2 - 0.06
    if rng.random() < 0.3:
        legs = [
            rod((a * dx, b * dy, 0), (a * dx, b * dy, h - 0.03), 0.018, _STEEL, Material.METAL)
            for a in (1, -1)
            for b in (1, -1)
        ]
        return join([top, *legs])
    legs = [
        board((0.06, 0.06, h - 0.03), (a * dx, b * dy, h / 2 - 0.015), wood) for a in (1, -1) for b in (1, -1)
    ]
    aprons = [board((0.02, y - 0.12, 0.08), (a * dx, 0, h - 0.075), wood) for a in (1, -1)]
    return join([top, *legs, *aprons])


def round_table(rng: np.random.Generator, radius: float, height: float) -> Mesh:
    """A round table on one foot."""
    wood = pick(rng, WOODS)
    top = rod((0, 0, height - 0.03), (0, 0, height), radius, wood, Material.PAINT, sides=36)
    foot = rod((0, 0, 0), (0, 0, 0.03), 0.55 * radius, wood, sides=28)
    return join([patterned(top, Pattern.WOOD), rod((0, 0, 0), (0, 0, height - 0.03), 0.05, wood), foot])


def sofa(rng: np.random.Generator, seats: int) -> Mesh:
    """A sofa, or an armchair of one seat."""
    cloth, width = pick(rng, FABRICS), 0.62 * seats
    depth, arm = 0.88, 0.17
    parts = [
        soft_box((depth - 0.06, width + 2 * arm - 0.04, 0.26), (0, 0, 0.22), cloth, square=0.2),
        soft_box((0.24, width + 2 * arm, 0.72), (-depth / 2 + 0.12, 0, 0.46), cloth, square=0.25),
    ]
    parts += [
        soft_box((depth, arm, 0.56), (0.0, side * (width + arm) / 2, 0.34), cloth, square=0.25)
        for side in (1, -1)
    ]
    middles = (np.arange(seats) - (seats - 1) / 2) * 0.62
    parts += [soft_box((0.62, 0.61, 0.17), (0.1, y, 0.42), cloth, square=0.25) for y in middles]
    parts += [soft_box((0.2, 0.59, 0.42), (-0.2, y, 0.66), cloth, square=0.35) for y in middles]
    for y in middles[rng.random(seats) < 0.6]:
        tilt = place(-0.04, float(y) + rng.uniform(-0.1, 0.1), 0.66, rng.uniform(-0.4, 0.4))
        pillow = patterned(
            soft_box((0.14, 0.4, 0.36), (0, 0, 0), pick(rng, FABRICS), square=0.5), Pattern.STRIPES
        )
        parts.append(pillow.moved(tilt))
    return join(parts)


def bed(rng: np.random.Generator, width: float) -> Mesh:
    """A made bed with its head at the wall."""
    wood, sheet, cover = pick(rng, WOODS), pick(rng, (_WHITE, (0.6, 0.58, 0.52))), pick(rng, FABRICS)
    frame = board((2.04, width + 0.06, 0.2), (0, 0, 0.2), wood)
    head = board((0.05, width + 0.1, float(rng.uniform(0.8, 1.15))), (-1.03, 0, 0.5), wood)
    mattress = soft_box((1.98, width, 0.22), (0, 0, 0.4), sheet, square=0.15)
    duvet = patterned(
        soft_box((1.42, width + 0.12, 0.24), (0.29, 0, 0.46), cover, square=0.2),
        Pattern.STRIPES if rng.random() < 0.4 else Pattern.CLOTH,
    )
    sides = (0.0,) if width < 1.2 else (-width / 4, width / 4)
    pillows = [soft_box((0.42, 0.62, 0.15), (-0.72, y, 0.57), sheet, square=0.5) for y in sides]
    return join([frame, head, mattress, duvet, *pillows])


def shelf(rng: np.random.Generator, width: float, height: float) -> Mesh:
    """A bookcase with books and oddments."""
    wood, depth = pick(rng, WOODS), 0.3
    parts = [board((depth, 0.025, height), (0, s * (width - 0.025) / 2, height / 2), wood) for s in (1, -1)]
    parts.append(board((0.012, width, height), (-depth / 2 + 0.006, 0, height / 2), wood))
    rows = int(height / 0.36)
    levels = np.linspace(0.06, height - 0.015, rows + 1)
    parts += [board((depth, width - 0.05, 0.022), (0, 0, z), wood) for z in levels]
    for z, above in pairwise(levels):
        parts += _shelved(rng, float(z) + 0.011, float(above - z) - 0.03, width / 2 - 0.03)
    return join(parts)


def _shelved(rng: np.random.Generator, z: float, room: float, half: float) -> list[Mesh]:
    """What stands on one board."""
    found, y, filled = [], -half, float(rng.uniform(0.3, 1.0))
    while y < half * (2 * filled - 1):
        if rng.random() < 0.05:
            found.append(
                rod((0, y + 0.07, z), (0, y + 0.07, z + 0.16), 0.05, pick(rng, FABRICS), Material.PAINT)
            )
            y += 0.15
            continue
        thick = float(rng.uniform(0.018, 0.05))
        tall, deep = min(float(rng.uniform(0.17, 0.3)), room), float(rng.uniform(0.13, 0.2))
        colour = tuple(rng.uniform(0.02, 0.4) * rng.uniform(0.5, 1.2, 3))
        found.append(box((deep, thick - 0.002, tall), (0.12 - deep / 2, y + thick / 2, z + tall / 2), colour))
        y += thick
    return found


def cupboard(rng: np.random.Generator, size: tuple[float, float, float], rows: int = 1) -> Mesh:
    """A cupboard or chest with doors or drawers in `rows` rows; `size` is (x, y, z)."""
    wood, (x, y, z) = pick(rng, WOODS), size
    front = pick(rng, WOODS) if rng.random() < 0.3 else wood
    parts = [board((x, y, z), (0, 0, z / 2), wood)]
    columns = max(1, round(y / 0.5))
    wide, tall = y / columns, (z - 0.08) / rows
    for column in range(columns):
        for row in range(rows):
            cy, cz = (column + 0.5) * wide - y / 2, 0.06 + (row + 0.5) * tall
            parts.append(board((0.018, wide - 0.014, tall - 0.014), (x / 2 + 0.009, cy, cz), front))
            at = (x / 2 + 0.035, cy if rows > 1 else cy + (0.4 - 0.8 * (column % 2)) * wide, cz)
            bar = (0.012, 0.1, 0.012) if rows > 1 else (0.012, 0.012, 0.12)
            parts.append(box(bar, at, _STEEL, Material.METAL))
    return join(parts)


def kitchen(rng: np.random.Generator, length: float) -> Mesh:
    """A row of kitchen cupboards with a worktop, an oven, a sink tap and cupboards above."""
    front, top = pick(rng, ((0.62, 0.6, 0.56), (0.35, 0.2, 0.1), (0.2, 0.26, 0.27))), pick(rng, WOODS)
    parts = [board((0.6, length, 0.04), (0, 0, 0.9), top, Material.PAINT)]
    parts.append(box((0.56, length - 0.02, 0.1), (-0.02, 0, 0.05), _DARK))
    units = max(2, int(length / 0.6))
    oven, wide = int(rng.integers(units)), length / units
    for unit in range(units):
        y = (unit + 0.5) * wide - length / 2
        parts.append(box((0.58, wide - 0.006, 0.78), (0, y, 0.49), front, Material.PAINT))
        parts.append(box((0.02, 0.2, 0.014), (0.31, y, 0.82), _STEEL, Material.METAL))
        if unit == oven:
            parts.append(box((0.03, wide - 0.06, 0.5), (0.29, y, 0.45), _DARK, Material.GLASS))
            parts.append(box((0.5, 0.5, 0.012), (0, y, 0.926), _DARK, Material.GLASS))
        elif rng.random() < 0.75:
            parts.append(box((0.34, wide - 0.01, 0.62), (-0.13, y, 1.75), front, Material.PAINT))
    return join([*parts, rod((-0.2, 0.1, 0.9), (-0.2, 0.1, 1.2), 0.014, _STEEL, Material.METAL)])


def fridge(rng: np.random.Generator) -> Mesh:
    """A tall fridge with two doors."""
    steel = rng.random() < 0.4
    colour, material = (_STEEL, Material.METAL) if steel else (_WHITE, Material.PAINT)
    doors = [box((0.03, 0.58, h), (0.315, 0, z), colour, material) for h, z in ((0.6, 0.36), (1.1, 1.23))]
    grips = [rod((0.35, 0.24, z), (0.35, 0.24, z + 0.35), 0.012, _STEEL, Material.METAL) for z in (0.27, 0.8)]
    return join([box((0.6, 0.6, 1.8), (0, 0, 0.9), colour, Material.MATTE), *doors, *grips])


def screen(width: float) -> Mesh:
    """A television or monitor on its foot."""
    height = width * 0.58
    frame = box((0.04, width, height), (0, 0, height / 2 + 0.08), _DARK)
    glass = box((0.006, width - 0.03, height - 0.03), (0.022, 0, height / 2 + 0.08), _DARK, Material.GLASS)
    return join(
        [frame, glass, box((0.2, 0.3, 0.015), (0, 0, 0.008), _DARK), rod((0, 0, 0), (0, 0, 0.1), 0.02, _DARK)]
    )


def desk(rng: np.random.Generator) -> Mesh:
    """A desk with a monitor, a keyboard and papers; one sits at its front."""
    top = table(rng, (0.7, 1.4, 0.73))
    monitor = screen(0.55).moved(place(-0.18, rng.uniform(-0.25, 0.25), 0.73, rng.uniform(-0.2, 0.2)))
    keys = box((0.14, 0.42, 0.018), (0.12, 0.0, 0.742), _DARK)
    sheets = [
        box((0.3, 0.21, 0.003), (rng.uniform(-0.1, 0.2), s * 0.5, 0.734), _WHITE, yaw=rng.uniform(-0.5, 0.5))
        for s in (1, -1)
    ]
    return join([top, monitor, keys, *sheets])


def lampshade(radius: float, height: float, colour: Colour) -> Mesh:
    """A shining shade around the origin."""
    turn = np.arange(20) * 2 * np.pi / 20
    rings = [
        np.stack([r * np.cos(turn), r * np.sin(turn), np.full(20, z)], 1)
        for r, z in ((radius, -height / 2), (0.65 * radius, height / 2))
    ]
    return loft(rings, colour, Material.GLOW)


def floor_lamp(height: float) -> Mesh:
    """Foot and pole of a lamp; its shade is separate."""
    foot = rod((0, 0, 0), (0, 0, 0.025), 0.14, _DARK, sides=20)
    return join([foot, rod((0, 0, 0), (0, 0, height), 0.012, _STEEL, Material.METAL)])


def plant(rng: np.random.Generator) -> Mesh:
    """A pot plant of leaves on a stem."""
    turn = np.arange(16) * 2 * np.pi / 16
    pot = [
        np.stack([r * np.cos(turn), r * np.sin(turn), np.full(16, z)], 1)
        for r, z in ((0.11, 0.0), (0.16, 0.3), (0.14, 0.3), (0.13, 0.27))
    ]
    tall = float(rng.uniform(0.7, 1.6))
    green = np.array([0.07, 0.19, 0.05]) * rng.uniform(0.7, 1.5)
    leaves = []
    for _ in range(int(rng.integers(35, 60))):
        yaw, rise = rng.uniform(0, 2 * np.pi), rng.uniform(-0.3, 1.1)
        root = np.array([0, 0, rng.uniform(0.35, 1.0) * tall])
        way = np.array([np.cos(yaw) * np.cos(rise), np.sin(yaw) * np.cos(rise), np.sin(rise)])
        aside = np.array([-np.sin(yaw), np.cos(yaw), rng.uniform(-0.5, 0.5)])
        reach, broad = rng.uniform(0.18, 0.42), rng.uniform(0.03, 0.08)
        middle = root + way * reach * 0.55 + np.array([0, 0, 0.02])
        tip = root + way * reach - np.array([0, 0, 0.3 * reach * rng.random()])
        corners = [root, middle - aside * broad, tip, middle + aside * broad]
        leaves.append(quad(corners, tuple(green * rng.uniform(0.6, 1.3)), Material.MATTE))
    earth: Colour = (0.05, 0.035, 0.025)
    stem = rod((0, 0, 0.25), (0, 0, 0.9 * tall), 0.012, (0.12, 0.09, 0.05))
    return join(
        [
            loft(pot, pick(rng, FABRICS), Material.MATTE),
            rod((0, 0, 0.26), (0, 0, 0.27), 0.13, earth),
            stem,
            *leaves,
        ]
    )


def oddment(rng: np.random.Generator) -> Mesh:
    """A small thing for a table: mug, bottle, bowl, books or box."""
    colour = pick(rng, FABRICS)
    makers: tuple[Callable[[], Mesh], ...] = (
        lambda: rod((0, 0, 0), (0, 0, 0.1), 0.04, colour, Material.PAINT, sides=16),
        lambda: join(
            [
                rod((0, 0, 0), (0, 0, 0.19), 0.037, colour, Material.PAINT, sides=14),
                rod((0, 0, 0.19), (0, 0, 0.28), 0.014, colour, Material.PAINT),
            ]
        ),
        lambda: soft_box((0.24, 0.24, 0.1), (0, 0, 0.05), colour, square=0.8),
        lambda: join(
            [
                box(
                    (0.24, 0.17, 0.03),
                    (0, 0, 0.015 + 0.03 * k),
                    pick(rng, FABRICS),
                    yaw=rng.uniform(-0.4, 0.4),
                )
                for k in range(int(rng.integers(1, 5)))
            ]
        ),
        lambda: box((0.12, 0.18, 0.14), (0, 0, 0.07), colour, yaw=rng.uniform(0, 1.5)),
    )
    return makers[int(rng.integers(len(makers)))]()


def curtain(width: float, height: float, colour: Colour) -> Mesh:
    """A hanging sheet with folds, width along y, its top at z = height."""
    columns = max(6, int(width / 0.025))
    y = np.linspace(-width / 2, width / 2, columns)
    x = 0.035 * np.sin(y * 2 * np.pi / 0.14) + 0.01 * np.sin(y * 17)
    points = np.concatenate(
        [np.stack([x * s, y, np.full(columns, z)], 1) for s, z in ((1.2, 0.0), (0.8, height))]
    )
    here = np.arange(columns - 1)
    lower = np.stack([here, here + 1, here + 1 + columns], 1)
    upper = np.stack([here, here + 1 + columns, here + columns], 1)
    sheet = trimesh.Trimesh(points, np.concatenate([lower, upper]), process=False)
    return solid(sheet, colour, crease_deg=180.0)


def picture(rng: np.random.Generator, width: float, height: float) -> Mesh:
    """A framed picture whose middle is the origin; its back is at x = 0."""
    wood = pick(rng, WOODS)
    image = quad(
        [(0.021, y * width / 2, z * height / 2) for y, z in ((-1, -1), (1, -1), (1, 1), (-1, 1))],
        tuple(rng.uniform(0.15, 0.6, 3)),
        texture=[
            (a, b, Pattern.PAINTING + rng.uniform(0.05, 0.95)) for a, b in ((0, 0), (1, 0), (1, 1), (0, 1))
        ],
    )
    image.texture[..., 2] = image.texture[0, 0, 2]
    frame = [box((0.03, width + 0.06, 0.03), (0.015, 0, s * (height + 0.03) / 2), wood) for s in (1, -1)]
    frame += [box((0.03, 0.03, height), (0.015, s * (width + 0.03) / 2, 0), wood) for s in (1, -1)]
    return join([image, *frame])
