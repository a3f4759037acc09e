"""Scenes from a seed: plan, landscape, light and traffic drawn each from a stream of its own."""

from __future__ import annotations

import numpy as np

from omma.world.daylight import random_daylight
from omma.world.landscape import landscape
from omma.world.mesh import join, place
from omma.world.scene import CLASS_INDEX, Scene
from omma.world.streets import plan_streets
from omma.world.traffic import populate


def build_scene(seed: int, number: int) -> Scene:
    """Scene `number` of the world with this seed, always the same."""
    streams = [np.random.default_rng([seed, number, stream]) for stream in range(5)]
    plan = plan_streets(streams[0])
    pieces = landscape(streams[1], plan)
    ego, actors, hazards = populate(streams[2], plan)
    classes = [np.full(len(mesh), CLASS_INDEX[name], np.uint8) for name, mesh in pieces.items()]
    x, y, yaw = streams[4].uniform((-200, -200, -np.pi), (200, 200, np.pi))
    return Scene(
        number=number,
        plan=plan,
        hazards=tuple(hazards),
        daylight=random_daylight(streams[3]),
        surroundings=join(list(pieces.values())),
        surroundings_class=np.concatenate(classes),
        actors=tuple(actors),
        ego=ego,
        global_T_scene=place(x, y, 0.0, yaw),
    )
