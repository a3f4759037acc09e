"""Cars, trucks, buses, motorcycles and bicycles in their own frame (x forward, z = 0 on the road)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

import numpy as np

from omma.world.mesh import Colour, Float, Material, Mesh, ball, box, disc, join, loft, panel, quad, ring, rod

RUBBER: Colour = (0.018, 0.018, 0.02)
TRIM: Colour = (0.03, 0.03, 0.033)
GLASS: Colour = (0.03, 0.04, 0.045)
STEEL: Colour = (0.45, 0.46, 0.48)
RIM: Colour = (0.30, 0.31, 0.33)
WHITE_LAMP: Colour = (1.0, 0.97, 0.9)
RED_LAMP: Colour = (0.55, 0.02, 0.015)
AMBER_LAMP: Colour = (0.85, 0.32, 0.03)
PLATE: Colour = (0.75, 0.75, 0.7)

PAINTS: tuple[Colour, ...] = (
    (0.75, 0.76, 0.77),
    (0.02, 0.02, 0.025),
    (0.32, 0.33, 0.35),
    (0.10, 0.11, 0.12),
    (0.45, 0.02, 0.02),
    (0.02, 0.07, 0.30),
    (0.03, 0.20, 0.42),
    (0.52, 0.40, 0.06),
    (0.03, 0.17, 0.09),
    (0.50, 0.16, 0.02),
    (0.36, 0.30, 0.22),
)


@dataclass(frozen=True)
class CarStyle:
    """Proportions of a car.

    Args:
        size: (length, width, height) metres.
        cabin: shares of the length, from the rear: rear window foot, roof rear, roof front, windscreen foot.
        hood: height of the hood's front edge, metres.
        belt: height where the windows start, metres.
        deck: height of the body behind the cabin, metres.
        wheel: wheel radius, metres.
    """

    size: tuple[float, float, float]
    cabin: tuple[float, float, float, float]
    hood: float
    belt: float
    deck: float
    wheel: float


CAR_STYLES = {
    "sedan": CarStyle((4.75, 1.84, 1.45), (0.13, 0.28, 0.56, 0.73), 0.74, 0.93, 0.96, 0.33),
    "hatchback": CarStyle((4.05, 1.76, 1.50), (0.02, 0.12, 0.56, 0.76), 0.78, 0.95, 0.95, 0.31),
    "suv": CarStyle((4.65, 1.92, 1.72), (0.02, 0.09, 0.60, 0.75), 0.95, 1.10, 1.10, 0.37),
    "van": CarStyle((5.20, 1.98, 2.05), (0.01, 0.04, 0.72, 0.88), 1.00, 1.18, 1.18, 0.35),
    "pickup": CarStyle((5.35, 1.94, 1.80), (0.36, 0.40, 0.61, 0.73), 0.98, 1.12, 1.02, 0.40),
}


@lru_cache(maxsize=64)
def car(style_name: str, variant: int) -> Mesh:
    """A car with PAINT triangles in grey.

    Args:
        style_name: key of `CAR_STYLES`.
        variant: number that stretches the proportions by a few per cent.
    """
    style = CAR_STYLES[style_name]
    stretch = np.random.default_rng([variant, len(style_name)]).uniform(0.96, 1.05, 3)
    length, width, height = np.array(style.size) * stretch
    half = width / 2 - 0.04
    body = _car_body(style, length, half)
    parts = [body, *_cabin(style, length, half, height), *_car_front(style, length, half)]
    parts += _car_rear(style, length, half)
    for x in (0.315 * length, -0.295 * length):
        parts += _axle(x, half, style.wheel, 0.21)
    for side in (-1, 1):
        parts.append(box((0.16, 0.13, 0.1), (0.18 * length, side * (half + 0.03), style.belt + 0.06), TRIM))
    return join(parts)


def _car_body(style: CarStyle, length: float, half: float) -> Mesh:
    foot = style.cabin[3] - 0.5
    # share of the length from the middle, floor, top, share of the half width
    stations = [
        (-0.50, 0.42, style.deck - 0.16, 0.86),
        (-0.475, 0.26, style.deck - 0.05, 0.95),
        (-0.36, 0.22, style.deck, 0.99),
        (0.0, 0.20, style.belt, 1.0),
        (foot, 0.20, style.belt, 1.0),
        (0.40, 0.20, style.hood + 0.06, 0.98),
        (0.475, 0.22, style.hood - 0.02, 0.93),
        (0.50, 0.34, style.hood - 0.14, 0.82),
    ]
    rings = [_body_ring(x * length, low, high, w * half) for x, low, high, w in stations]
    body = loft(rings, (0.5, 0.5, 0.5), Material.PAINT, crease_deg=35.0)
    edges = len(rings[0])
    number = np.arange(len(body))
    # the loft's faces go around the rings; the first and the last two edges of a ring are the lowest
    sill = np.isin(number % edges, (0, edges - 2, edges - 1)) & (number < 2 * edges * (len(rings) - 1))
    return replace(
        body,
        albedo=np.where(sill[:, None], np.float32(TRIM), body.albedo),
        material=np.where(sill, np.uint8(Material.MATTE), body.material),
    )


def _body_ring(x: float, low: float, high: float, half: float) -> Float:
    rise = high - low
    right = [
        (0.86, low),
        (0.99, low + 0.2 * rise),
        (1.0, low + 0.6 * rise),
        (0.95, high - 0.04),
        (0.86, high),
    ]
    points = [(y * half, z) for y, z in right] + [(-y * half, z) for y, z in reversed(right)]
    return np.array([(x, y, z) for y, z in points], np.float32)


def _cabin(style: CarStyle, length: float, half: float, height: float) -> list[Mesh]:
    rear_foot, roof_rear, roof_front, front_foot = ((share - 0.5) * length for share in style.cabin)
    wide, narrow = 0.93 * half, 0.76 * half
    low, brow = style.belt - 0.03, height - 0.07
    foot = _rectangle(rear_foot, front_foot, wide, low)
    top = _rectangle(roof_rear, roof_front, narrow, brow)
    roof = _rectangle(roof_rear + 0.12, roof_front - 0.14, narrow - 0.1, height)
    shell = loft([foot, top, roof], (0.5, 0.5, 0.5), Material.PAINT, crease_deg=30.0)
    right = np.array([foot[0], foot[1], top[1], top[0]])
    left = np.array([foot[2], foot[3], top[3], top[2]])
    front = np.array([foot[1], foot[2], top[2], top[1]])
    rear = np.array([foot[3], foot[0], top[0], top[3]])
    panes = [panel(front, 0.1, GLASS, Material.GLASS), panel(rear, 0.14, GLASS, Material.GLASS)]
    for side in (right, left):
        panes += [panel(part, 0.13, GLASS, Material.GLASS) for part in _split(side)]
    return [shell, *panes]


def _rectangle(rear: float, front: float, half: float, z: float) -> Float:
    return np.array([(rear, -half, z), (front, -half, z), (front, half, z), (rear, half, z)], np.float32)


def _split(side: Float) -> list[Float]:
    low, high = (side[0] + side[1]) / 2, (side[2] + side[3]) / 2
    return [np.array([side[0], low, high, side[3]]), np.array([low, side[1], side[2], high])]


def _car_front(style: CarStyle, length: float, half: float) -> list[Mesh]:
    nose, lamp = length / 2 - 0.03, style.hood - 0.16
    parts = [
        box((0.08, half * 0.9, 0.16), (nose - 0.005, 0, lamp - 0.1), TRIM),
        box((0.04, 0.46, 0.1), (nose + 0.035, 0, 0.44), PLATE),
    ]
    spots = [(nose - 0.09, side * half * 0.74, lamp) for side in (-1, 1)]
    return [*parts, *(box((0.16, 0.34, 0.12), spot, WHITE_LAMP, Material.GLOW) for spot in spots)]


def _car_rear(style: CarStyle, length: float, half: float) -> list[Mesh]:
    tail, lamp = -length / 2 + 0.03, style.deck - 0.19
    parts = [
        box((0.05, half * 1.5, 0.12), (tail, 0, 0.42), TRIM),
        box((0.03, 0.46, 0.1), (tail - 0.025, 0, style.deck - 0.36), PLATE),
    ]
    spots = [(tail + 0.06, side * half * 0.75, lamp) for side in (-1, 1)]
    return [*parts, *(box((0.14, 0.3, 0.14), spot, RED_LAMP, Material.GLOW) for spot in spots)]


def _axle(x: float, half: float, radius: float, width: float) -> list[Mesh]:
    parts = []
    for side in (-1, 1):
        outer = side * (half + 0.012)
        arch = (x, side * (half + 0.002), radius + 0.045)
        parts.append(disc(arch, side, radius + 0.045, TRIM, Material.MATTE, points=14))
        parts.append(_tyre(x, (outer - side * width, outer), radius))
        parts.append(
            disc((x, outer + side * 0.004, radius), side, radius * 0.58, RIM, Material.METAL, points=12)
        )
    return parts


def _tyre(x: float, across: tuple[float, float], radius: float) -> Mesh:
    turn = np.sign(across[1] - across[0]) * np.arange(14) * 2 * np.pi / 14
    rings = [
        np.stack([x + r * np.sin(turn), np.full(14, y), radius + r * np.cos(turn)], 1)
        for r, y in ((radius, across[0]), (radius, across[1]))
    ]
    return loft(rings, RUBBER, Material.MATTE)


@lru_cache(maxsize=16)
def truck(variant: int) -> Mesh:
    """A box truck with a painted cab; the colour of the load box depends on the variant."""
    rng = np.random.default_rng([variant, 101])
    length, half, height = rng.uniform(7.2, 9.0), 1.22, rng.uniform(3.1, 3.5)
    nose, cab = length / 2, length / 2 - 1.9
    load = [(0.78, 0.78, 0.76), (0.10, 0.22, 0.42), (0.55, 0.50, 0.40), (0.48, 0.08, 0.06)][variant % 4]
    cab_rings = [
        _body_ring(cab, 0.5, 2.55, half * 0.97),
        _body_ring(nose - 0.45, 0.45, 2.5, half * 0.97),
        _body_ring(nose - 0.12, 0.42, 1.45, half * 0.95),
        _body_ring(nose, 0.5, 1.3, half * 0.88),
    ]
    rear = -length / 2
    parts = [
        loft(cab_rings, (0.5, 0.5, 0.5), Material.PAINT),
        box(
            (cab - rear - 0.1, 2 * half, height - 1.0), ((cab + rear) / 2 - 0.05, 0, (height + 1.0) / 2), load
        ),
        box((length - 0.6, 1.0, 0.3), (-0.2, 0, 0.75), TRIM),
        box((0.06, 2.1, 0.14), (rear + 0.04, 0, 0.55), TRIM),
        box((0.06, 1.3, 0.3), (nose - 0.02, 0, 1.05), TRIM),
        box((0.12, 2.1, 0.2), (nose - 0.02, 0, 0.48), TRIM),
        *_truck_windows(nose, cab, half),
    ]
    for side in (-1, 1):
        parts.append(box((0.08, 0.3, 0.16), (nose - 0.01, side * 0.75, 0.72), WHITE_LAMP, Material.GLOW))
        parts.append(box((0.06, 0.25, 0.16), (rear + 0.02, side * 0.95, 0.8), RED_LAMP, Material.GLOW))
    for x in (nose - 1.0, rear + 1.2, rear + 2.3):
        parts += _axle(x, half - 0.1, 0.48, 0.3)
    return join(parts)


def _truck_windows(nose: float, cab: float, half: float) -> list[Mesh]:
    y = half * 0.85
    screen = [
        (nose - 0.13, -y, 1.5),
        (nose - 0.13, y, 1.5),
        (nose - 0.44, y * 0.97, 2.42),
        (nose - 0.44, -y * 0.97, 2.42),
    ]
    parts = [panel(screen, 0.04, GLASS, Material.GLASS, lift=0.03)]
    for side in (-1, 1):
        wall = side * (half * 0.97 + 0.01)
        window = [
            (cab + 0.4, wall, 1.55),
            (nose - 0.5, wall, 1.5),
            (nose - 0.62, wall, 2.3),
            (cab + 0.4, wall, 2.3),
        ]
        parts.append(quad(window[::-side], GLASS, Material.GLASS))
    return parts


@lru_cache(maxsize=8)
def bus(variant: int) -> Mesh:
    """A city bus, 10 to 12 m long."""
    rng = np.random.default_rng([variant, 102])
    length, half, height = rng.uniform(10.0, 12.0), 1.26, 3.05
    rings = [_bus_ring(x * length, half * w, height - d) for x, w, d in _BUS_STATIONS]
    parts = [
        loft(rings, (0.5, 0.5, 0.5), Material.PAINT),
        box((length * 0.6, 1.6, 0.22), (0, 0, height + 0.05), (0.6, 0.6, 0.6)),
        *_bus_windows(length, half, height),
    ]
    for side in (-1, 1):
        parts.append(box((0.06, 0.34, 0.18), (length / 2, side * 0.85, 0.7), WHITE_LAMP, Material.GLOW))
        parts.append(box((0.06, 0.22, 0.4), (-length / 2, side * 0.95, 1.0), RED_LAMP, Material.GLOW))
    sign = box((0.05, 1.5, 0.26), (length / 2 - 0.02, 0, height - 0.25), AMBER_LAMP, Material.GLOW)
    for x in (0.30 * length, -0.24 * length):
        parts += _axle(x, half, 0.48, 0.3)
    return join([*parts, sign])


# share of the length, share of the half width, how much lower the roof is
_BUS_STATIONS = (
    (-0.5, 0.93, 0.12),
    (-0.49, 0.99, 0.02),
    (0.0, 1.0, 0.0),
    (0.485, 0.99, 0.02),
    (0.5, 0.93, 0.12),
)


def _bus_ring(x: float, half: float, height: float) -> Float:
    right = [(0.97, 0.32), (1.0, 0.5), (1.0, height - 0.2), (0.95, height - 0.06), (0.85, height)]
    points = [(y * half, z) for y, z in right] + [(-y * half, z) for y, z in reversed(right)]
    return np.array([(x, y, z) for y, z in points], np.float32)


def _bus_windows(length: float, half: float, height: float) -> list[Mesh]:
    parts = []
    bays = np.linspace(-0.47, 0.42, 8) * length
    for side in (-1, 1):
        wall = side * (half + 0.008)
        for rear, front in pairwise(bays):
            low = 0.45 if side < 0 and front == bays[-1] else 1.25  # the door is ahead on the right
            frame = [
                (rear + 0.06, wall, low),
                (front - 0.06, wall, low),
                (front - 0.06, wall, 2.5),
                (rear + 0.06, wall, 2.5),
            ]
            parts.append(quad(frame[::-side], GLASS, Material.GLASS))
    nose, y = length / 2 + 0.01, half * 0.86
    parts.append(
        quad([(nose, -y, 1.05), (nose, y, 1.05), (nose, y, 2.6), (nose, -y, 2.6)], GLASS, Material.GLASS)
    )
    tail = -nose
    back = [(tail, y * 0.8, 1.6), (tail, -y * 0.8, 1.6), (tail, -y * 0.8, 2.5), (tail, y * 0.8, 2.5)]
    parts.append(quad(back, GLASS, Material.GLASS))
    return parts


@lru_cache(maxsize=1)
def motorcycle() -> Mesh:
    """A motorcycle without its rider."""
    return join(
        [
            ring((0.68, 0, 0.31), 0.31, 0.065, RUBBER),
            ring((-0.66, 0, 0.31), 0.31, 0.08, RUBBER),
            rod((0.68, -0.03, 0.31), (0.68, 0.03, 0.31), 0.2, STEEL, Material.METAL),
            rod((-0.66, -0.05, 0.31), (-0.66, 0.05, 0.31), 0.18, STEEL, Material.METAL),
            *[rod((0.68, y, 0.31), (0.42, y, 0.98), 0.03, STEEL, Material.METAL) for y in (-0.09, 0.09)],
            rod((0.42, -0.36, 1.02), (0.42, 0.36, 1.02), 0.02, TRIM),
            box((0.5, 0.3, 0.34), (0.02, 0, 0.42), STEEL, Material.METAL),
            ball((0.18, 0, 0.78), (0.3, 0.16, 0.14), (0.5, 0.5, 0.5), Material.PAINT),
            box((0.72, 0.24, 0.1), (-0.36, 0, 0.78), TRIM),
            box((0.36, 0.18, 0.16), (-0.62, 0, 0.7), (0.5, 0.5, 0.5), Material.PAINT),
            ball((0.56, 0, 0.88), (0.1, 0.12, 0.1), WHITE_LAMP, Material.GLOW, subdivisions=1),
            box((0.06, 0.16, 0.06), (-0.83, 0, 0.72), RED_LAMP, Material.GLOW),
            rod((0.1, -0.17, 0.28), (-0.75, -0.19, 0.4), 0.05, STEEL, Material.METAL),
        ]
    )


@lru_cache(maxsize=1)
def bicycle() -> Mesh:
    """A bicycle without its rider."""
    crank, seat, head = (-0.02, 0, 0.29), (-0.2, 0, 0.86), (0.38, 0, 0.86)
    front, rear = (0.56, 0, 0.34), (-0.5, 0, 0.34)
    paint: Colour = (0.5, 0.5, 0.5)
    tubes = [(crank, seat), (crank, head), (seat, head), (crank, rear), (seat, rear), (head, front)]
    return join(
        [
            ring(front, 0.34, 0.03, RUBBER),
            ring(rear, 0.34, 0.03, RUBBER),
            *[rod(a, b, 0.024, paint, Material.PAINT, sides=6) for a, b in tubes],
            rod(seat, (-0.22, 0, 0.95), 0.016, STEEL, sides=6),
            box((0.26, 0.15, 0.06), (-0.22, 0, 0.98), TRIM),
            rod(head, (0.4, 0, 1.02), 0.016, STEEL, sides=6),
            rod((0.4, -0.28, 1.02), (0.4, 0.28, 1.02), 0.015, TRIM, sides=6),
            rod((-0.02, -0.1, 0.29), (-0.02, 0.1, 0.29), 0.09, TRIM),
            *[_spokes(centre) for centre in (front, rear)],
        ]
    )


def _spokes(centre: tuple[float, float, float]) -> Mesh:
    angles = np.linspace(0, np.pi, 5)[:-1]
    reach = 0.3 * np.stack([np.cos(angles), np.zeros(4), np.sin(angles)], 1)
    return join([rod(centre - r, centre + r, 0.006, STEEL, sides=4) for r in reach])
