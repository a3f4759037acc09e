"""Readers of single files: right values, and an error naming the file for everything that can be wrong."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from omma.data.io import (
    image_size,
    read_depth_png,
    read_grey,
    read_image,
    read_image_reduced,
    read_json,
    read_npy,
    read_npz,
    read_picture,
)
from omma.errors import DataError


def _photo(height: int = 90, width: int = 160) -> np.ndarray:
    rng = np.random.default_rng(0)
    return cv2.resize(
        rng.integers(0, 255, (9, 16, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC
    )


def _jpeg(image: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=92, **options)
    return buffer.getvalue()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "카메라 ü.jpg"
    path.write_bytes(_jpeg(_photo()))
    return path


def test_read_image_gives_the_pixels_of_pil(photo: Path) -> None:
    image = read_image(photo)
    assert image.shape == (90, 160, 3)
    assert image.dtype == np.uint8
    difference = np.abs(image.astype(int) - np.asarray(Image.open(photo)).astype(int))
    assert difference.max() <= 2, "decoders may round apart, channels may not be swapped"


def test_read_image_makes_grey_and_transparent_files_rgb(tmp_path: Path) -> None:
    Image.fromarray(_photo()[..., 0]).save(tmp_path / "grey.png")
    Image.fromarray(np.dstack([_photo(), np.full((90, 160), 7, np.uint8)])).save(tmp_path / "rgba.png")
    assert read_image(tmp_path / "grey.png").shape == (90, 160, 3)
    np.testing.assert_array_equal(read_image(tmp_path / "rgba.png"), _photo())
    assert read_picture(tmp_path / "rgba.png")[0, 0].tolist() == [*_photo()[0, 0].tolist(), 7]


def test_exif_rotation_is_ignored(tmp_path: Path) -> None:
    """A camera image turned by its EXIF tag would no longer fit its intrinsics."""
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "turned.jpg").write_bytes(_jpeg(_photo(), exif=exif))
    assert read_image(tmp_path / "turned.jpg").shape == (90, 160, 3)
    assert read_image_reduced(tmp_path / "turned.jpg", (40, 70))[0].shape == (45, 80, 3)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.998])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_truncated_image_is_refused_with_its_path(tmp_path: Path, share: float, suffix: str) -> None:
    path = tmp_path / f"cut{suffix}"
    whole = _jpeg(_photo()) if suffix == ".jpg" else cv2.imencode(".png", _photo())[1].tobytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DataError, match="cut"):
        read_image(path)


def test_a_thumbnails_end_is_not_taken_for_the_images_end(tmp_path: Path) -> None:
    """A JPEG with an embedded preview is complete only if the end marker follows its own scan."""
    thumbnail = _jpeg(_photo(9, 16))
    whole = _jpeg(_photo())
    segment = b"\xff\xe2" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    with_preview = whole[:2] + segment + whole[2:]
    path = tmp_path / "preview.jpg"
    path.write_bytes(with_preview)
    assert read_image(path).shape == (90, 160, 3)
    path.write_bytes(with_preview[: len(segment) + 900])
    with pytest.raises(DataError, match=r"preview\.jpg: the image is cut short"):
        read_image(path)


def test_missing_empty_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jpg: no such file"):
        read_image(tmp_path / "none.jpg")
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(DataError, match=r"empty\.jpg: the file is empty"):
        read_image(tmp_path / "empty.jpg")
    (tmp_path / "text.jpg").write_text("no image", encoding="utf-8")
    with pytest.raises(DataError, match=r"text\.jpg: damaged or no image"):
        read_image(tmp_path / "text.jpg")
    with pytest.raises(DataError, match=r"text\.jpg: damaged or no image"):
        image_size(tmp_path / "text.jpg")
    with pytest.raises(DataError, match="cannot be read"):
        read_image(tmp_path)


@pytest.mark.parametrize(
    ("at_least", "expected"),
    [
        ((90, 160), (90, 160)),
        ((46, 80), (90, 160)),
        ((45, 80), (45, 80)),
        ((12, 3), (23, 40)),
        ((1, 1), (12, 20)),
    ],
)
def test_reduced_decode_never_falls_below_the_wanted_size(
    photo: Path, at_least: tuple[int, int], expected: tuple[int, int]
) -> None:
    image, file_size = read_image_reduced(photo, at_least)
    assert file_size == (90, 160)
    assert image.shape[:2] == expected


def test_png_is_not_reduced(tmp_path: Path) -> None:
    Image.fromarray(_photo()).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image_reduced(tmp_path / "a.png", (10, 10))[0], _photo())


def test_image_size_reads_height_then_width(photo: Path) -> None:
    assert image_size(photo) == (90, 160)


def test_depth_png_is_in_metres(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "d.png"), np.array([[0, 256], [384, 65535]], np.uint16))
    depth_m = read_depth_png(tmp_path / "d.png", units_per_metre=256)
    np.testing.assert_allclose(depth_m, [[0, 1], [1.5, 65535 / 256]], rtol=1e-6)
    assert depth_m.dtype == np.float32


def test_depth_png_refuses_eight_bits_and_colour(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "grey.png"), np.zeros((2, 2), np.uint8))
    with pytest.raises(DataError, match="uint8 values, expected a 16-bit"):
        read_depth_png(tmp_path / "grey.png", 256)
    cv2.imwrite(str(tmp_path / "rgb.png"), np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(DataError, match="has 3 channels"):
        read_grey(tmp_path / "rgb.png")


def test_json_error_gives_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "meta.json"
    path.write_text('[{"token": "a"},\n {"token": }]', encoding="utf-8")
    with pytest.raises(DataError, match=r"meta\.json, line 2, column 12: not valid JSON"):
        read_json(path)
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps({"a": "ü"}).encode())
    assert read_json(path) == {"a": "ü"}
    path.write_bytes(b'{"a": "\xff\xfe"}')
    with pytest.raises(DataError, match="not UTF-8"):
        read_json(path)


class _Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("must-not-exist"),))


def test_arrays_are_read_and_pickles_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "a.npy", np.arange(6).reshape(2, 3))
    np.savez_compressed(tmp_path / "a.npz", data=np.eye(2))
    assert read_npy(tmp_path / "a.npy").tolist() == [[0, 1, 2], [3, 4, 5]]
    assert read_npz(tmp_path / "a.npz", "data").tolist() == [[1, 0], [0, 1]]
    with pytest.raises(DataError, match="has no array 'bev'; it holds data"):
        read_npz(tmp_path / "a.npz", "bev")
    with pytest.raises(DataError, match="single array"):
        read_npz(tmp_path / "a.npy", "data")
    np.save(tmp_path / "o.npy", np.array([_Bomb()], object), allow_pickle=True)
    np.savez(tmp_path / "o.npz", data=np.array([_Bomb()], object))
    (tmp_path / "p.npy").write_bytes(pickle.dumps(_Bomb()))
    for read in (
        lambda: read_npy(tmp_path / "o.npy"),
        lambda: read_npz(tmp_path / "o.npz", "data"),
        lambda: read_npy(tmp_path / "p.npy"),
    ):
        with pytest.raises(DataError, match="pickled objects"):
            read()
    assert not (tmp_path / "must-not-exist").exists()


@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
def test_damaged_archives_are_named(tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, data=np.random.default_rng(0).random((30, 30)))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DataError, match=r"a\.npz"):
        read_npz(path, "data")


def test_a_flipped_byte_in_an_archive_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, data=np.zeros((30, 30)))
    content = bytearray(path.read_bytes())
    content[2000] ^= 255
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match="damaged"):
        read_npz(path, "data")
