"""Pictures and depths of one's own: what is read and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from ply_files import read_ply
from rgbd_files import real, scene, write

from omma.commands.build import build_task
from omma.commands.predict import predict, predict_files
from omma.errors import DataError, UsageError
from omma.systems import systems
from omma.systems.g2_monodepth.config import PredictSection
from omma.systems.g2_monodepth.outputs import make_prediction
from omma.systems.g2_monodepth.own import ARRAY_KEYS, choose_max_depth, read_pair, read_points
from omma.systems.g2_monodepth.samples import ValidationSamples
from omma.systems.recipes import Recipe, open_recipe

POINTS = np.array([[3.2, 4.9, 2.5], [63, 47, 17], [3.9, 4.1, 9]])


def test_pictures_of_ones_own(tmp_path: Path) -> None:
    image = write(tmp_path / "photo.png", scene(0)[0])
    alone = read_pair(image)
    assert (alone.depth, alone.raw, alone.max_depth_m) == (None, None, 10.0)
    sample = ValidationSamples([alone], None, patterns=("measured",))[0]
    assert not sample["point"].any()
    points = tmp_path / "points.csv"
    points.write_text("u,v,depth\n3.2,4.9,2.5\n63,47,17\n3.9,4.1,9\n", "utf-8")
    frame = read_pair(image, points)
    raw = frame.raw.read()
    assert (raw[4, 3], raw[47, 63], (raw > 0).sum()) == (2.5, 17.0, 2)
    assert frame.max_depth_m == 30.0
    coded = write(tmp_path / "depth.png", np.rint(scene(0)[1] * 1000).astype(np.uint16))
    with pytest.raises(DataError, match=r"depth.png: the units of this depth picture are unknown"):
        read_pair(image, coded)
    assert read_pair(image, coded, units_per_metre=1000).max_depth_m == 10
    with pytest.raises(DataError, match="a depth file ends in"):
        read_pair(image, tmp_path / "depth.tif")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("64,3,1\n", "1 of 1 points lie outside the picture of 64 x 48 pixels, first u 64, v 3"),
        ("1,2,3\n1,-1,2\n", "1 of 2 points lie outside"),
        ("1,2\n", "line 1: '1,2' is not"),
        ("u,v,z\n1,2,-3\n", "line 2: depth -3 is not above 0"),
        ("1,2,nan\n", "line 1"),
        ("u v z\n", "holds no point"),
    ],
)
def test_points_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    image = write(tmp_path / "photo.png", scene(0)[0])
    points = tmp_path / "points.txt"
    points.write_text(text, "utf-8")
    with pytest.raises(DataError, match=f"points.txt.*{message}"):
        read_pair(image, points)


def test_points_are_read_in_any_spacing(tmp_path: Path) -> None:
    points = tmp_path / "points.txt"
    points.write_text("1 2 3\n\n4; 5; 6\n", "utf-8")
    np.testing.assert_array_equal(read_points(points), [[1, 2, 3], [4, 5, 6]])


def test_max_depth_of_input() -> None:
    depths = [np.array([[reach]], np.float32) for reach in (0, 8, 8.1, 79, 500)]
    assert [choose_max_depth(depth) for depth in depths] == [10, 10, 20, 100, 150]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return write(tmp_path / "photo.png", scene(0)[0])


def saved(path: Path, *arrays: np.ndarray, **named: np.ndarray) -> Path:
    if path.suffix == ".npz":
        np.savez(path, *arrays, **named)
    else:
        np.save(path, arrays[0])
    return path


@pytest.mark.parametrize("name", [*ARRAY_KEYS, "anything"])
def test_an_archive_holds_a_map_or_points_under_a_known_name_or_alone(
    tmp_path: Path, photo: Path, name: str
) -> None:
    depth = scene(0)[1]
    raw = read_pair(photo, saved(tmp_path / "map.npz", **{name: depth})).raw
    np.testing.assert_array_equal(raw.read(), depth)
    found = read_pair(photo, saved(tmp_path / "points.npz", **{name: POINTS})).raw.read()
    assert (found[4, 3], found[47, 63], (found > 0).sum()) == (2.5, 17.0, 2)


def test_of_several_arrays_a_known_name_counts(tmp_path: Path, photo: Path) -> None:
    depth = scene(0)[1]
    file = saved(tmp_path / "many.npz", K=np.eye(3), other=depth + 1, depth=depth)
    np.testing.assert_array_equal(read_pair(photo, file).raw.read(), depth)
    with pytest.raises(DataError, match=r"none.npz: holds a, b") as caught:
        read_pair(photo, saved(tmp_path / "none.npz", a=depth, b=depth))
    assert "depth, sparse_depth" in caught.value.hint


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv", ".txt"])
def test_points_mean_the_same_in_every_kind_of_file(tmp_path: Path, photo: Path, suffix: str) -> None:
    path = tmp_path / f"points{suffix}"
    if suffix in (".csv", ".txt"):
        np.savetxt(path, POINTS, delimiter="," if suffix == ".csv" else " ")
    else:
        saved(path, POINTS)
    frame = read_pair(photo, path)
    depth = frame.raw.read()
    assert (depth[4, 3], depth[47, 63], (depth > 0).sum(), frame.max_depth_m) == (2.5, 17.0, 2, 30.0)


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ([64, 3, 1], "1 of 3 points lie outside the picture of 64 x 48 pixels, first u 64, v 3"),
        ([3, -0.1, 1], "1 of 3 points lie outside"),
        ([3, 3, 0], "1 of 3 points cannot be used, first point 2: 3, 3, 0"),
        ([3, 3, np.nan], "1 of 3 points cannot be used"),
        ([np.inf, 3, 3], "1 of 3 points cannot be used"),
    ],
)
def test_points_of_arrays_that_cannot_be_used(tmp_path: Path, photo: Path, point: list, message: str) -> None:
    file = saved(tmp_path / "points.npz", np.array([*POINTS[:2], point]))
    with pytest.raises(DataError, match=rf"points\.npz: {message}"):
        read_pair(photo, file)


def test_maps_that_cannot_be_used(tmp_path: Path, photo: Path) -> None:
    depth = scene(0)[1]
    broken = depth.copy()
    broken[3, 4] = np.nan
    cases = {
        "no depth is known in it": 0 * depth,
        "depth is 20 x 64, its picture 48 x 64": depth[:20],
        "1 of 3072 depths are NaN or infinite": broken,
        "depth goes down to -": -depth,
        "uint8 values, expected a 16-bit": (depth * 40).astype(np.uint8),
        "expected": np.stack([depth, depth]),
        "holds no point": np.zeros((0, 3)),
    }
    for message, array in cases.items():
        with pytest.raises(DataError, match=rf"d\.npy: .*{message}"):
            read_pair(photo, saved(tmp_path / "d.npy", array))


def test_pictures_of_depth_that_cannot_be_used(tmp_path: Path, photo: Path) -> None:
    grey = (scene(0)[1] * 40).astype(np.uint8)
    with pytest.raises(DataError, match=r"eight\.png: .*expected a 16-bit depth picture") as caught:
        read_pair(photo, write(tmp_path / "eight.png", grey), units_per_metre=1000)
    assert "float32 metres" in caught.value.hint
    with pytest.raises(DataError, match=r"photo\.png: .*3 channels"):
        read_pair(photo, photo, units_per_metre=1000)
    with pytest.raises(DataError, match=r"gone\.png: no such file"):
        read_pair(photo, tmp_path / "gone.png", units_per_metre=1000)
    with pytest.raises(DataError, match="units of this depth picture are unknown") as caught:
        read_pair(photo, write(tmp_path / "d.png", grey.astype(np.uint16)))
    assert "--set data.units_per_metre=1000" in caught.value.hint


@pytest.mark.parametrize(
    ("factor", "max_depth", "named"),
    [
        (1000, None, "if it shows a room, factor 1000"),
        (1000, 10.0, "factor 1000"),
        (256 * 12, None, "if it shows a street, factor 256"),
        (1 / 1000, None, "arrays and texts hold metres"),
        (5.0, 10.0, "raise data.max_depth|factor"),
    ],
)
def test_depth_in_another_unit_is_named(
    tmp_path: Path, photo: Path, factor: float, max_depth: float | None, named: str
) -> None:
    file = saved(tmp_path / "d.npy", (scene(0)[1] * factor).astype(np.float32))
    with pytest.raises(DataError, match=r"d\.npy: .*(exceed max_depth|depths reach only)") as caught:
        read_pair(photo, file, max_depth_m=max_depth)
    assert any(text in caught.value.hint for text in named.split("|"))


def test_photos_of_every_kind(tmp_path: Path) -> None:
    """Grey becomes colour, transparency is dropped, 16-bit colour becomes 8-bit; 16-bit grey is depth."""
    colour = scene(0)[0]
    grey = write(tmp_path / "grey.png", colour[..., 0])
    alpha = tmp_path / "alpha.png"
    alpha.write_bytes(cv2.imencode(".png", np.dstack([colour[..., ::-1], colour[..., 0]]))[1].tobytes())
    deep = write(tmp_path / "deep.png", colour.astype(np.uint16) * 257)
    expected = {grey: np.repeat(colour[..., :1], 3, axis=2), alpha: colour, deep: colour}
    for path, pixels in expected.items():
        sample = ValidationSamples([read_pair(path)], None, patterns=("measured",))[0]
        np.testing.assert_array_equal(sample["rgb"].permute(1, 2, 0), pixels)
    with pytest.raises(DataError, match="16-bit grey picture") as caught:
        read_pair(write(tmp_path / "depth.png", colour[..., 0].astype(np.uint16) * 9))
    assert "--sparse the depth" in caught.value.hint
    (tmp_path / "text.png").write_text("no picture", "utf-8")
    with pytest.raises(DataError, match=r"text\.png: damaged or no image"):
        read_pair(tmp_path / "text.png")


def test_photos_are_turned_as_viewers_turn_them(tmp_path: Path) -> None:
    """Points and maps belong to the turned picture."""
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn to the right
    path = tmp_path / "phone.png"
    Image.fromarray(scene(0)[0]).save(path, exif=exif)
    frame = read_pair(path, saved(tmp_path / "points.npy", np.array([[40.0, 60, 2]])))
    assert frame.image.size() == (64, 48)
    np.testing.assert_array_equal(frame.image.read(), np.rot90(scene(0)[0], -1))
    assert frame.raw.read()[60, 40] == 2
    with pytest.raises(DataError, match="depth is 48 x 64, its picture 64 x 48"):
        read_pair(path, saved(tmp_path / "map.npy", scene(0)[1]))


def recipe(*words: str) -> Recipe:
    small = ["system.network.layers=4", "system.network.features=8"]
    return open_recipe("g2_monodepth/demo", [*small, *words])


def test_pairs_belong_together_in_their_order(tmp_path: Path, photo: Path) -> None:
    other = write(tmp_path / "other.png", scene(1, (30, 40))[0])
    sparse = [saved(tmp_path / "a.npy", POINTS), saved(tmp_path / "b.npy", scene(1, (30, 40))[1])]
    data, collate = predict_files(recipe("data.predict.intrinsics=[60, 61, 32, 24]"), [photo, other], sparse)
    batches = [collate([data[index]]) for index in range(2)]
    assert [batch["token"] for batch in batches] == [["photo"], ["other"]]
    assert [int(batch["hole_point"].sum()) for batch in batches] == [2, 1200]
    assert [float(batch["max_depth"]) for batch in batches] == [30, 10]
    np.testing.assert_array_equal(batches[1]["intrinsics"][0], [[60, 0, 32], [0, 61, 24], [0, 0, 1]])
    alone, collate = predict_files(recipe(), [photo, other])
    assert not collate([alone[1]])["point"].any()
    with pytest.raises(UsageError, match="do not pair up: 2 and 1 files"):
        predict_files(recipe(), [photo, other], sparse[:1])


@pytest.mark.parametrize(
    "system", [s for s in systems().values() if not s.sparse_inputs], ids=lambda s: s.name
)
def test_systems_without_known_depth_say_so(system: Any) -> None:
    other = open_recipe(f"{system.name}/{system.demo.recipe if system.demo else 'base'}")
    with pytest.raises(UsageError, match=rf"{system.name} (takes no known depth|has no --input)"):
        predict_files(other, ["photo.png"], ["points.npz"])


def test_known_depth_belongs_to_an_input(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--sparse is the known depth of an --input"):
        predict(["run"], tmp_path, sparse=["points.npz"])


def test_known_depths_beyond_max_depth_are_counted(tmp_path: Path, photo: Path) -> None:
    depth = scene(0)[1]
    depth[0, :5] = 60
    file = saved(tmp_path / "d.npy", depth)
    data, collate = predict_files(recipe("data.max_depth=10"), [photo], [file])
    made = make_prediction(torch.ones(1, 1, 48, 64), collate([data[0]]), PredictSection())
    assert (made.meta["unused"], made.meta["given"]) == (5, 48 * 64 - 5)
    assert "5 given depths beyond it not used" in made.summary


@pytest.mark.parametrize("size", [(37, 124), (33, 20), (48, 64)])
def test_any_size_is_predicted_at_its_own(tmp_path: Path, size: tuple[int, int]) -> None:
    colour, depth = scene(2, size)
    image, file = write(tmp_path / "a.jpg", colour), saved(tmp_path / "a.npy", depth)
    small = recipe()
    data, collate = predict_files(small, [image], [file])
    task = build_task(small).eval()
    with torch.no_grad():
        made = task.predict(collate([data[0]]))
    assert made.arrays["prediction"].shape == (1, *size)
    assert made.draw().shape[2] == 3
    assert len(read_ply(made.files()[".ply"])[1]) == (made.arrays["prediction"] > 0).sum()


def test_large_photos_can_be_scaled_with_all_that_belongs_to_them(tmp_path: Path, photo: Path) -> None:
    words = ["data.predict.max_height=24", "data.predict.intrinsics=[60,60,32,24]"]
    data, collate = predict_files(recipe(*words), [photo], [saved(tmp_path / "points.npy", POINTS)])
    batch = collate([data[0]])
    assert batch["rgb"].shape == (1, 3, 24, 32)
    np.testing.assert_array_equal(batch["intrinsics"][0], [[30, 0, 16], [0, 30, 12], [0, 0, 1]])
    metres = batch["point"][0, 0] * batch["max_depth"]
    assert metres.nonzero().tolist() == [[2, 1], [23, 31]]
    assert (metres[2, 1], metres[23, 31]) == (2.5, 17)
    assert torch.equal(batch["hole_point"], (batch["point"] > 0).float())
    made = make_prediction(batch["depth"] + 1, batch, PredictSection())
    assert json.loads(made.files()[".json"])["size"] == [24, 32]
    small, _ = predict_files(recipe("data.predict.max_height=48"), [photo])
    assert small[0]["rgb"].shape == (3, 48, 64)


@pytest.mark.parametrize(
    ("folder", "image", "sparse", "units", "expected"),
    [
        ("ibims_corridor_sparse", "rgb.png", "sparse_depth.npz", None, (2148, 100.0, (480, 640))),
        ("kitti_000001", "image_2.png", "lidar_depth_16beam.png", 256.0, (4754, 100.0, (375, 1242))),
        ("tum_desk", "rgb.png", "depth.png", 1000.0, (248250, 20.0, (480, 640))),
    ],
)
def test_real_pairs(
    folder: str, image: str, sparse: str, units: float | None, expected: tuple[int, float, tuple[int, int]]
) -> None:
    frame = read_pair(real(folder) / image, real(folder) / sparse, units_per_metre=units)
    known = int((frame.raw.read() > 0).sum())
    assert (known, frame.max_depth_m, frame.image.size()) == expected
