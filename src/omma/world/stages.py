"""Places where people are put and photographed: a furnished room, or the streets around the ego vehicle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from omma.core.poses import transform_points
from omma.world.assets.people import Look, person
from omma.world.cast import MISS, Caster
from omma.world.indoors import IndoorRenderer
from omma.world.mesh import Float, Material, Mesh, join
from omma.world.render import Renderer
from omma.world.rooms import Room
from omma.world.scene import NO_INSTANCE, Actor, Scene, Shape, Snapshot
from omma.world.sensors import PinholeCamera, take_picture

FIRST_GUEST = 1000  # lower instances belong to who lives in a place
_GROUND_FROM_M = 2.2  # the ground is looked for from this height
_WAIST_M = 0.9
_TURNS = np.linspace(0, 2 * np.pi, 8, endpoint=False)
_AHEAD_M = (-8.0, 28.0)  # of the ego vehicle, where the ground is painted finely
_SIDEWALK_M = (0.5, 3.6)

Points = NDArray[np.float64]
Hit = tuple[Float, NDArray[np.int32]]  # distances of what N rays meet and its instances


@dataclass(frozen=True)
class Guest:
    """Somebody, or something, put into a place.

    Args:
        instance: number that marks the pixels.
        mesh: surface in its own frame.
        scene_T_guest: (4, 4) pose.
        joints: (17, 3) of a person in the own frame, else None.
        height_m: of a person.
    """

    instance: int
    mesh: Mesh
    scene_T_guest: Points  # noqa: N815  a pose is named to_T_from
    joints: Float | None = None
    height_m: float = 0.0

    @classmethod
    def person(cls, instance: int, look: Look, joints: Float, scene_T_person: Points) -> Guest:
        """A person in a posture."""
        return cls(instance, person(look, joints), scene_T_person, joints, look.height_m)


@dataclass(frozen=True)
class Somebody:
    """A person as photographed: instance, height in metres and (17, 3) joints in the scene frame."""

    instance: int
    height_m: float
    joints: Points


@dataclass(frozen=True)
class Photo:
    """A picture of people.

    Args:
        rgb: (H, W, 3) uint8.
        instance: (H, W) int32 what pixel centres see, 0 for no guest or actor.
        people: who may be in the picture.
        meet: what rays from a point (3,) along unit vectors (3, N) meet first.
    """

    rgb: NDArray[np.uint8]
    instance: NDArray[np.int32]
    people: list[Somebody]
    meet: Callable[[Points, Float], Hit] = field(repr=False)


class Stage(Protocol):
    """A place at an instant."""

    @property
    def farthest_m(self) -> float:
        """Distance from which people can be photographed."""

    @property
    def seats(self) -> Points:
        """(n, 4, 4) places to sit on."""

    def spot(self, rng: np.random.Generator) -> Points:
        """A place (2,) where people might be."""

    def floor(self, xy: Points, radius_m: float) -> float:
        """Height of the ground at a place (2,), NaN where somebody so wide cannot stand."""

    def clear(self, start: Points, end: Points) -> bool:
        """Whether nothing is between two points (3,)."""

    def take(self, guests: Sequence[Guest], camera: PinholeCamera, rng: np.random.Generator) -> Photo:
        """Photograph guests."""


@dataclass(frozen=True)
class RoomStage:
    """A room; its own people are out."""

    room: Room
    farthest_m: float = 4.6

    @property
    def seats(self) -> Points:
        """See Stage."""
        return self.room.seats

    @cached_property
    def _caster(self) -> Caster:
        nobody = self.room.solid.none()
        solid, clear = len(self.room.solid), len(self.room.clear)
        return Caster(self.room.accelerated[0], solid + clear, nobody.corners)

    def spot(self, rng: np.random.Generator) -> Points:
        """See Stage."""
        return rng.uniform((0.4, 0.4), (self.room.size[0] - 0.4, self.room.size[1] - 0.4))

    def floor(self, xy: Points, radius_m: float) -> float:
        """See Stage."""
        return 0.0 if self.room.clearance_m(xy) > radius_m else np.nan

    def clear(self, start: Points, end: Points) -> bool:
        """See Stage."""
        return _clear(self._caster, start, end)

    def take(self, guests: Sequence[Guest], camera: PinholeCamera, rng: np.random.Generator) -> Photo:
        """See Stage."""
        meshes = [guest.mesh.moved(guest.scene_T_guest) for guest in guests]
        renderer = IndoorRenderer(self.room, 0.0, join([self.room.solid.none(), *meshes]))
        bare = len(self.room.solid) + len(self.room.clear)
        owners = np.concatenate(
            [np.full(bare, NO_INSTANCE), *(np.full(len(g.mesh), g.instance) for g in guests)]
        ).astype(np.int32)
        shot = renderer.shoot(camera, rng)
        instance = _owned(owners, shot.surface.face).reshape(camera.image_size)
        return Photo(shot.rgb, instance, _people(guests), _meeting(renderer.caster, owners))


@dataclass(frozen=True)
class StreetStage:
    """The streets around the ego vehicle, with their traffic and passers-by."""

    scene: Scene
    time_s: float
    farthest_m: float = 16.0

    @property
    def seats(self) -> Points:
        """See Stage."""
        return np.zeros((0, 4, 4))

    @cached_property
    def _snapshot(self) -> Snapshot:
        return self.scene.at(self.time_s)

    def spot(self, rng: np.random.Generator) -> Points:
        """See Stage; mostly on a sidewalk."""
        plan = self.scene.plan
        u = self._snapshot.ego.scene_T_actor[0, 3] + rng.uniform(*_AHEAD_M)
        side = rng.choice([-1, 1]) * (plan.main.half_m + rng.uniform(*_SIDEWALK_M))
        v = side if rng.random() < 0.75 else rng.uniform(-1, 1) * plan.main.half_m
        return plan.bend.xy((u, v))

    def floor(self, xy: Points, radius_m: float) -> float:
        """See Stage."""
        snapshot = self._snapshot
        above = np.float32([[xy[0]], [xy[1]], [_GROUND_FROM_M]])
        hit = snapshot.caster.cast(above, np.float32([[0], [0], [-1]]))
        if hit.face[0] == MISS or snapshot.pick("material", hit.face)[0] != Material.GROUND:
            return np.nan
        height = _GROUND_FROM_M - float(hit.distance[0])
        start = np.float32([[xy[0]], [xy[1]], [height + _WAIST_M]])
        around = np.stack([np.cos(_TURNS), np.sin(_TURNS), 0 * _TURNS]).astype(np.float32)
        room = snapshot.caster.cast(np.broadcast_to(start, around.shape), around).distance.min()
        return height if room > radius_m else np.nan

    def clear(self, start: Points, end: Points) -> bool:
        """See Stage."""
        return _clear(self._snapshot.caster, start, end)

    def take(self, guests: Sequence[Guest], camera: PinholeCamera, rng: np.random.Generator) -> Photo:
        """See Stage."""
        snapshot = self.scene.at(self.time_s, [_actor(guest) for guest in guests])
        picture = take_picture(Renderer(snapshot), camera, rng)
        drawn = {guest.instance for guest in guests}
        passers_by = [
            Somebody(actor.instance, float(np.ptp(actor.corners[:, 2])), actor.joints)
            for actor in snapshot.actors
            if actor.joints is not None and actor.instance not in drawn
        ]
        people = [*_people(guests), *passers_by]
        return Photo(picture.rgb, picture.instance, people, _meeting(snapshot.caster, snapshot.face_instance))


def _actor(guest: Guest) -> Actor:
    shape, pose = Shape(guest.mesh, guest.joints), guest.scene_T_guest
    name, kind = ("barrier", "guest.thing") if guest.joints is None else ("pedestrian", "guest.person")
    return Actor(guest.instance, name, kind, lambda _time_s, _sides: shape, lambda _time_s: pose, rests=False)


def _people(guests: Sequence[Guest]) -> list[Somebody]:
    return [
        Somebody(
            guest.instance, guest.height_m, transform_points(guest.scene_T_guest, guest.joints.astype(float))
        )
        for guest in guests
        if guest.joints is not None
    ]


def _owned(owners: NDArray[np.int32], face: NDArray[np.int32]) -> NDArray[np.int32]:
    return np.where(face == MISS, NO_INSTANCE, owners[np.maximum(face, 0)])


def _meeting(caster: Caster, owners: NDArray[np.int32]) -> Callable[[Points, Float], Hit]:
    def meet(origin: Points, ways: Float) -> Hit:
        hits = caster.cast(np.broadcast_to(np.float32(origin)[:, None], ways.shape), ways)
        return hits.distance, _owned(owners, hits.face)

    return meet


def _clear(caster: Caster, start: Points, end: Points) -> bool:
    way = end - start
    length = float(np.linalg.norm(way))
    hit = caster.cast(np.float32(start)[:, None], np.float32(way / length)[:, None])
    return bool(hit.distance[0] > length)
