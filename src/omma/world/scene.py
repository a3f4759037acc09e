"""What there is in a scene: surroundings, actors on their paths, and the state of it all at an instant.

A scene is a pure function of (seed, scene number). Its frame has z up and the ego's street near the x axis;
`global_T_scene` places it in the global frame that the data sets speak of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omma.core.poses import transform_points
from omma.world.cast import Caster, accelerate
from omma.world.daylight import Daylight
from omma.world.ground import Ground
from omma.world.mesh import Float, Mesh, join
from omma.world.streets import Plan, Points

# what a ray can meet; the number of a class is its place here
CLASSES = (
    *("sky", "road", "road_line", "sidewalk", "terrain", "building", "pole", "vegetation"),
    *("traffic_cone", "barrier", "car", "truck", "bus", "motorcycle", "bicycle", "rider", "pedestrian"),
)
CLASS_INDEX = {name: index for index, name in enumerate(CLASSES)}
NO_INSTANCE = 0
EGO_INSTANCE = 1
SIGHT_M = 95.0  # moving actors farther from the ego vehicle are left out
_CLOSE_M = 28.0
_CORNER_BITS = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)])


@dataclass(frozen=True)
class Shape:
    """An actor's body in its own frame (x ahead, z up, origin on the ground).

    Args:
        mesh: its surface.
        joints: (17, 3) COCO joints of a person, else None.
    """

    mesh: Mesh
    joints: Float | None = None

    @cached_property
    def corners(self) -> NDArray[np.float64]:
        """(8, 3) corners of its tight box, in the order of `ActorState.corners`."""
        low, high = self.mesh.bounds().astype(np.float64)
        return np.where(_CORNER_BITS == 1, high, low)


@dataclass(frozen=True)
class Actor:
    """Something with a box.

    Args:
        instance: number that marks its pixels, at least 1 and unique in the scene.
        class_name: one of `CLASSES`.
        kind: what exactly, e.g. "vehicle.sedan".
        shape: its body at a time in seconds, with round parts of so many sides where that can be chosen.
        path: its pose scene_T_actor (4, 4) at a time in seconds.
        rests: whether shape and pose are the same at all times.
    """

    instance: int
    class_name: str
    kind: str
    shape: Callable[[float, int], Shape]
    path: Callable[[float], NDArray[np.float64]]
    rests: bool


@dataclass(frozen=True)
class ActorState:
    """An actor at an instant, in the scene frame.

    Args:
        instance: its number.
        class_name: one of `CLASSES`.
        kind: what exactly.
        scene_T_actor: (4, 4) pose.
        corners: (8, 3) box corners, metres; corner 4 i + 2 j + k is ahead if i, left if j, up if k.
        velocity: (3,) metres per second.
        joints: (17, 3) COCO joints of a person, else None.
        faces: its triangles' numbers, (first, past the last).
        rests: whether it rests at all times.
    """

    instance: int
    class_name: str
    kind: str
    scene_T_actor: NDArray[np.float64]  # noqa: N815  a pose is named to_T_from
    corners: NDArray[np.float64]
    velocity: NDArray[np.float64]
    joints: NDArray[np.float64] | None
    faces: tuple[int, int]
    rests: bool

    @property
    def footprint(self) -> NDArray[np.float64]:
        """(4, 2) bottom of the box in the scene frame, around the rim."""
        return self.corners[[0, 2, 6, 4], :2]


@dataclass(frozen=True)
class Scene:
    """A town quarter for a while.

    Args:
        number: scene number.
        plan: its streets.
        hazards: (4, 2) polygons of road works, scene frame.
        daylight: its light.
        surroundings: what stands still, without actors.
        surroundings_class: (F,) uint8 index into `CLASSES` per triangle.
        actors: everything with a box but the ego vehicle.
        ego: the ego vehicle; no ray meets it.
        global_T_scene: (4, 4) pose of the scene frame.
    """

    number: int
    plan: Plan
    hazards: tuple[Points, ...]
    daylight: Daylight
    surroundings: Mesh
    surroundings_class: NDArray[np.uint8]
    actors: tuple[Actor, ...]
    ego: Actor
    global_T_scene: NDArray[np.float64]  # noqa: N815

    @cached_property
    def ground(self) -> Ground:
        """The painted ground around the ego's way."""
        return Ground(self.plan, (40.0, 0.0))

    @cached_property
    def _resting(self) -> _Resting:
        route = np.array([self.ego.path(t)[:2, 3] for t in np.linspace(0, 30, 12)])
        states, meshes = _pose([a for a in self.actors if a.rests], 0.0, len(self.surroundings), route)
        mesh = join([self.surroundings, *meshes])
        return _Resting(mesh, tuple(states), accelerate(mesh.corners))

    def at(self, time_s: float, guests: Sequence[Actor] = ()) -> Snapshot:
        """The scene at a time in seconds from its start, with `guests` who move besides its own actors."""
        resting = self._resting
        here = self.ego.path(time_s)[:2, 3]
        ego = _pose([self.ego], time_s, 0, here[None])[0][0]
        movers = [*(a for a in self.actors if not a.rests), *guests]
        near = [a for a in movers if np.linalg.norm(a.path(time_s)[:2, 3] - here) < SIGHT_M]
        states, meshes = _pose(near, time_s, len(resting.mesh), here[None])
        moving = join([resting.mesh.none(), *meshes])
        caster = Caster(resting.bvh, len(resting.mesh), moving.corners)
        return Snapshot(self, time_s, (resting.mesh, moving), (*resting.states, *states), ego, caster)


@dataclass(frozen=True)
class _Resting:
    mesh: Mesh
    states: tuple[ActorState, ...]
    bvh: Any


@dataclass(frozen=True)
class Snapshot:
    """A scene at an instant.

    Args:
        scene: what it is of.
        time_s: seconds from the scene's start.
        meshes: resting and moving triangles, scene frame; the moving ones are numbered last.
        actors: state of every actor but the ego vehicle.
        ego: state of the ego vehicle.
        caster: casts rays at the meshes.
    """

    scene: Scene
    time_s: float
    meshes: tuple[Mesh, Mesh]
    actors: tuple[ActorState, ...]
    ego: ActorState
    caster: Caster

    @property
    def num_faces(self) -> int:
        """Number of triangles."""
        return len(self.meshes[0]) + len(self.meshes[1])

    def pick(self, attribute: str, face: NDArray[np.int32]) -> NDArray:
        """Values of a `Mesh` attribute at triangles (N,)."""
        resting, moving = (getattr(mesh, attribute) for mesh in self.meshes)
        values = resting.take(face, 0, mode="clip")
        moves = np.flatnonzero(face >= len(resting))
        values[moves] = moving[face[moves] - len(resting)]
        return values

    @cached_property
    def face_class(self) -> NDArray[np.uint8]:
        """(F,) index into `CLASSES` per triangle; ground triangles count as road."""
        classes = np.zeros(self.num_faces, np.uint8)
        classes[: len(self.scene.surroundings_class)] = self.scene.surroundings_class
        for actor in self.actors:
            classes[slice(*actor.faces)] = CLASS_INDEX[actor.class_name]
        return classes

    @cached_property
    def face_instance(self) -> NDArray[np.int32]:
        """(F,) instance per triangle, `NO_INSTANCE` for surroundings."""
        instances = np.full(self.num_faces, NO_INSTANCE, np.int32)
        for actor in self.actors:
            instances[slice(*actor.faces)] = actor.instance
        return instances


def _pose(
    actors: list[Actor], time_s: float, first_face: int, viewpoints: NDArray[np.float64]
) -> tuple[list[ActorState], list[Mesh]]:
    """States and meshes in the scene frame; actors close to a viewpoint (V, 2) are rounder."""
    states, meshes = [], []
    for actor in actors:
        pose = actor.path(time_s)
        close = np.linalg.norm(viewpoints - pose[:2, 3], axis=1).min() < _CLOSE_M
        shape = actor.shape(time_s, 8 if close else 4)
        meshes.append(shape.mesh.moved(pose))
        faces = (first_face, first_face + len(shape.mesh))
        joints = None if shape.joints is None else transform_points(pose, shape.joints.astype(float))
        corners = transform_points(pose, shape.corners)
        velocity = _velocity(actor, pose, time_s)
        states.append(
            ActorState(
                actor.instance,
                actor.class_name,
                actor.kind,
                pose,
                corners,
                velocity,
                joints,
                faces,
                actor.rests,
            )
        )
        first_face = faces[1]
    return states, meshes


def _velocity(
    actor: Actor, pose: NDArray[np.float64], time_s: float, step_s: float = 0.02
) -> NDArray[np.float64]:
    return np.zeros(3) if actor.rests else (actor.path(time_s + step_s)[:3, 3] - pose[:3, 3]) / step_s
