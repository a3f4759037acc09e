"""Photos of people: postures, who and which joints are seen, and COCO's files of them."""

import contextlib
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from omma.core.poses import invert_rigid, pose, project_points, transform_points
from omma.data.formats.coco import find_split, read_keypoints
from omma.world.assets.people import FOREARM, SHIN, THIGH, UPPER_ARM, person, random_portrait
from omma.world.assets.postures import STANDING, sitting_joints, standing_joints
from omma.world.build import build
from omma.world.cast import Caster, accelerate
from omma.world.crowd import ABSENT, HIDDEN, SEEN, CrowdCapture, SoloCapture, build_place, joint_flags
from omma.world.handheld import looking
from omma.world.mesh import box, place
from omma.world.rooms import Lamp, Room, build_room
from omma.world.sensors import PinholeCamera
from omma.world.stages import FIRST_GUEST, Guest, RoomStage, StreetStage
from omma.world.writers.coco import polygons, run_lengths

SIZE = (96, 128)
NOSE, LEFT_EYE, LEFT_SHOULDER, RIGHT_SHOULDER = 0, 1, 5, 6
LEFT, RIGHT = np.arange(5, 17, 2), np.arange(6, 17, 2)
LEGS = np.arange(13, 17)
WALLS = box((20.0, 20.0, 6.0), (0, 0, 3.0), (0.6, 0.6, 0.6))
BARE = {
    "solid": WALLS,
    "clear": WALLS.none(),
    "windows": np.zeros((0, 4, 3)),
    "lamps": (Lamp((0.0, 0.0, 5.0), (9.0, 9.0, 9.0)),),
}


@pytest.fixture(scope="module")
def captures():
    """Three photos of a room and three of a street."""
    places = [build_place(3, number) for number in range(6)]
    room = next(place for place in places if isinstance(place, Room))
    street = next(place for place in places if not isinstance(place, Room))
    return [CrowdCapture(scene, 3, "train", n, 2.0 * n, SIZE) for scene in (room, street) for n in range(3)]


def _posture(kind, seed=0):
    rng = np.random.default_rng(seed)
    return sitting_joints(rng, 1.8, 0.45) if kind == "sit" else standing_joints(rng, 1.8, kind)


@pytest.mark.parametrize("kind", [*STANDING, "sit"])
def test_postures_keep_the_lengths_of_the_limbs_and_the_sides(kind):
    limbs = {(5, 7): UPPER_ARM, (7, 9): FOREARM, (11, 13): THIGH, (13, 15): SHIN}
    for seed in range(12):
        joints = _posture(kind, seed)
        for (start, end), share in limbs.items():
            for side in (0, 1):
                length = np.linalg.norm(joints[start + side] - joints[end + side])
                assert length == pytest.approx(1.8 * share, rel=0.03), (kind, seed, start)
        assert joints[11, 1] > joints[12, 1]  # the left hip is on the left
        across, up = joints[5] - joints[6], joints[5:7].mean(0) - joints[11:13].mean(0)
        assert np.cross(across, up)[0] > 0 or np.cross(across, up)[2] < 0  # the chest is ahead or below
        assert 0 < joints[15:, 2].min() < 0.25
    assert len({_posture(kind, seed).tobytes() for seed in range(12)}) == 12


def test_postures_differ():
    hips = {kind: np.mean([_posture(kind, seed)[11, 2] for seed in range(8)]) for kind in STANDING}
    assert hips["stand"] > hips["lunge"] > hips["squat"]
    heads = {kind: np.mean([_posture(kind, seed)[0, 2] for seed in range(8)]) for kind in STANDING}
    assert heads["bend"] < 0.85 * heads["stand"]
    raised = [_posture("stand", seed) for seed in range(40)]
    above = np.mean([joints[9:11, 2].max() > joints[0, 2] for joints in raised])
    assert 0.1 < above < 0.7


@pytest.mark.parametrize("kind", ["stand", "bend", "squat", "sit"])
def test_joints_are_inside_the_clothes(kind):
    rng = np.random.default_rng(1)
    look, joints = random_portrait(rng), _posture(kind, 1)
    caster = Caster(accelerate(person(look, joints).corners), 10**6, np.zeros((0, 3, 3), np.float32))
    for turn in np.linspace(0, 2 * np.pi, 6):
        way = np.array([np.cos(turn), np.sin(turn), 0.0])
        origins = (joints - 5 * way).T.astype(np.float32)
        directions = np.repeat(np.float32(way)[:, None], 17, 1)
        assert (caster.cast(origins, directions).distance < 5.0 + 0.03).all()


def _hall(*guests):
    """Photo of guests in an empty room, the camera at the origin looks along x; and the camera."""
    room = replace(build_room(0, 0), **BARE)
    rotation = looking(0.0, 0.0, 0.0)
    camera = PinholeCamera(
        np.array([[120.0, 0, 64], [0, 120, 48], [0, 0, 1]]), SIZE, pose(rotation, (0, 0, 1))
    )
    return RoomStage(room).take(guests, camera, np.random.default_rng(0)), camera


def _guest(yaw, *, away_m=3.0, kind="stand"):
    rng = np.random.default_rng(4)
    return Guest.person(FIRST_GUEST, random_portrait(rng), _posture(kind, 4), place(away_m, 0, 0, yaw))


def test_somebody_who_looks_at_the_camera_has_the_left_side_on_the_right():
    for yaw, sign in ((np.pi, 1), (0.0, -1)):
        photo, camera = _hall(_guest(yaw))
        joints = photo.people[0].joints
        uv, _ = project_points(camera.intrinsics, transform_points(invert_rigid(camera.scene_T_cam), joints))
        assert sign * (uv[LEFT_SHOULDER, 0] - uv[RIGHT_SHOULDER, 0]) > 10
        flags = joint_flags(photo, camera, photo.people[0])
        assert (flags[NOSE] == SEEN) == (sign > 0)
        assert (flags[LEFT_EYE] == SEEN) == (sign > 0)
        assert (flags[[LEFT_SHOULDER, RIGHT_SHOULDER]] == SEEN).all()


def test_the_far_side_of_somebody_seen_from_the_side_is_hidden_by_the_body():
    for yaw, near, far in ((np.pi / 2, LEFT, RIGHT), (-np.pi / 2, RIGHT, LEFT)):
        photo, camera = _hall(_guest(yaw, kind="walk"))
        flags = joint_flags(photo, camera, photo.people[0])
        assert (flags[near] == SEEN).all()
        assert (flags[far] == HIDDEN).sum() >= 3
        assert flags[far[0]] == HIDDEN  # the shoulder


def test_a_wall_hides_the_legs_behind_it_and_nothing_else():
    crate = Guest(FIRST_GUEST + 1, box((0.1, 2.0, 0.7), (0, 0, 0.35), (0.3, 0.2, 0.1)), place(2, 0, 0, 0))
    free, camera = _hall(_guest(np.pi))
    behind, _ = _hall(_guest(np.pi), crate)
    before, _ = _hall(_guest(np.pi, away_m=1.9), crate)
    flags = joint_flags(free, camera, free.people[0])
    assert (flags[LEGS] == SEEN).all()
    hidden = joint_flags(behind, camera, behind.people[0])
    assert (hidden[LEGS] == HIDDEN).all()
    np.testing.assert_array_equal(hidden[:11], flags[:11])
    assert (joint_flags(before, camera, before.people[0])[LEGS] == SEEN).all()
    assert len(behind.people) == 1  # the crate is nobody


def test_flags_agree_with_what_the_pixels_see(captures):
    """Person and distance at the pixel of a joint say the same as the ray to the joint itself."""
    same, kinds = [], set()
    for capture in captures:
        camera, photo = capture.camera, capture.photo
        directions, _ = camera.rays(camera.centres())
        distance = photo.meet(camera.scene_T_cam[:3, 3], directions)[0].reshape(SIZE)
        people = {who.instance: who for who in photo.people}
        for portrait in (one for one in capture.portraits if one.mask.sum() > 150):  # a dot has no joints
            column, row = np.floor(portrait.joints).astype(int).T
            inside = (column >= 0) & (column < SIZE[1]) & (row >= 0) & (row < SIZE[0])
            np.testing.assert_array_equal(portrait.flags[~inside], ABSENT)
            who = people[portrait.instance]
            away = np.linalg.norm(who.joints - camera.scene_T_cam[:3, 3], axis=1)
            for k in np.flatnonzero(inside & (portrait.flags != ABSENT)):
                own = photo.instance[row[k], column[k]] == portrait.instance
                near = distance[row[k], column[k]] > away[k] - 0.115 * who.height_m
                same.append((portrait.flags[k] == SEEN) <= (own and near))
                kinds.add(int(portrait.flags[k]))
                if portrait.flags[k] == HIDDEN and own:
                    same.append(distance[row[k], column[k]] < away[k] - 0.02 * who.height_m)
    assert len(same) > 60
    assert np.mean(same) > 0.95
    assert kinds == {HIDDEN, SEEN}


def test_a_photo_does_not_depend_on_those_before_it(captures):
    for capture in captures[2::3]:
        scene = build_place(3, capture.scene.number)
        again = CrowdCapture(scene, 3, "train", capture.frame, capture.time_s, SIZE)
        np.testing.assert_array_equal(again.photo.rgb, capture.photo.rgb)
        other = CrowdCapture(scene, 4, "train", capture.frame, capture.time_s, SIZE)
        assert (other.photo.rgb != capture.photo.rgb).mean() > 0.5


def test_people_stand_on_free_ground(captures):
    assert {type(capture.stage) for capture in captures} == {RoomStage, StreetStage}
    for capture in captures:
        for who in capture.photo.people:
            if who.instance in {portrait.instance for portrait in capture.portraits}:
                assert who.joints[:, 2].min() > -0.01
                assert 0.02 < who.joints[15:, 2].min() < 0.8


def test_outlines_enclose_the_mask():
    mask = np.zeros((20, 30), bool)
    mask[3:9, 4:15] = mask[5:16, 10:13] = True
    (outline,) = polygons(mask)
    x, y = np.array(outline).reshape(-1, 2).T
    area = abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2
    assert area == pytest.approx(mask.sum(), rel=0.1)
    assert (x.min(), y.min()) == pytest.approx((4, 3), abs=0.3)
    assert (x.max(), y.max()) == pytest.approx((15, 16), abs=0.3)
    assert len(polygons(mask | (np.indices(mask.shape)[1] > 25))) == 2


def test_run_lengths_go_down_the_columns_from_background():
    mask = np.array([[1, 0, 0], [1, 0, 1]], bool)
    assert run_lengths(mask) == [0, 2, 3, 1]
    assert run_lengths(~mask) == [2, 3, 1]
    assert run_lengths(np.zeros((2, 2), bool)) == [4]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("coco") / "people"
    build("coco", out, scenes=2, val_scenes=1, frames=3, seed=2, image_size=(240, 320))
    return out


def _content(folder, split):
    file = folder / "annotations" / f"person_keypoints_{split}2017.json"
    return json.loads(file.read_text(encoding="utf-8"))


def test_files_have_cocos_layout(folder):
    ids = []
    for split, count in (("train", 6), ("val", 3)):
        content = _content(folder, split)
        assert set(content) == {"info", "licenses", "images", "annotations", "categories"}
        assert len(content["images"]) == count
        names = {path.name for path in (folder / f"{split}2017").iterdir()}
        assert names == {image["file_name"] for image in content["images"]}
        assert content["categories"][0]["keypoints"][NOSE] == "nose"
        assert content["categories"][0]["skeleton"][:2] == [[16, 14], [14, 12]]
        assert {i["license"] for i in content["images"]} == {c["id"] for c in content["licenses"]}
        assert {a["image_id"] for a in content["annotations"]} <= {i["id"] for i in content["images"]}
        ids += [a["id"] for a in content["annotations"]]
    assert ids == list(range(1, len(ids) + 1))


def test_records_agree_with_their_masks(folder):
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(folder / "annotations" / "person_keypoints_train2017.json"))
    labelled = 0
    for record in coco.loadAnns(coco.getAnnIds()):
        mask = coco.annToMask(record).astype(bool)
        assert mask.sum() == pytest.approx(record["area"], rel=0.2, abs=12)
        x, y, width, height = record["bbox"]
        rows, columns = np.nonzero(mask)  # drawing polygons may lose slivers
        np.testing.assert_allclose([columns.min(), rows.min()], [x, y], atol=3.01)
        np.testing.assert_allclose([columns.max() + 1, rows.max() + 1], [x + width, y + height], atol=3.01)
        flags = np.array(record["keypoints"][2::3])
        assert record["num_keypoints"] == (flags > 0).sum()
        xy = np.array(record["keypoints"], float).reshape(17, 3)[:, :2]
        assert (xy[flags == 0] == 0).all()
        seen = xy[flags == 2]
        assert ((seen >= (x - 1, y - 1)) & (seen <= (x + width, y + height))).all()
        labelled += record["num_keypoints"] > 0
    assert labelled > 8


def test_cocos_own_evaluation_gives_the_truth_full_marks(folder):
    file = folder / "annotations" / "person_keypoints_train2017.json"
    people = [a for a in _content(folder, "train")["annotations"] if a["num_keypoints"]]
    kept = ("image_id", "category_id", "keypoints")
    results = [{**{key: one[key] for key in kept}, "score": 0.9} for one in people]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(file))
        evaluation = COCOeval(truth, truth.loadRes(results), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    np.testing.assert_allclose(evaluation.stats, 1.0)


def test_the_packages_own_reader_takes_it(folder):
    found = read_keypoints(find_split(folder, "val").annotations)
    assert len(found.names) == 3
    assert found.truth.labelled.any()
    assert np.isfinite(found.truth.areas).all()


def test_photos_of_one_person_show_all_of_them(captures):
    for capture in captures:
        alone = SoloCapture(capture.scene, 3, "train", capture.frame, capture.time_s, (96, 72))
        (person,) = (who for who in alone.portraits if who.instance >= FIRST_GUEST)
        assert (person.flags != ABSENT).all()
        border = np.ones_like(person.mask)
        border[1:-1, 1:-1] = False
        assert not (person.mask & border).any()


def test_in_photos_of_one_person_small_people_have_no_joints(tmp_path):
    size = (96, 72)
    build("coco-solo", tmp_path / "solo", scenes=3, val_scenes=1, frames=2, seed=3, image_size=size)
    records = _content(tmp_path / "solo", "train")["annotations"]
    for record in records:
        assert record["num_keypoints"] == 0 or record["area"] >= 0.03 * size[0] * size[1]
    assert sum(record["num_keypoints"] > 0 for record in records) >= 4  # of six photos
