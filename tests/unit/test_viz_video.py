from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from omma.errors import OmmaError, UsageError
from omma.viz.video import save_video

FRAMES = [np.full((21, 31, 3), value, np.uint8) for value in (0, 120, 250)]


def test_gif_holds_every_frame_and_its_speed(tmp_path: Path) -> None:
    path = tmp_path / "장면 1" / "scene.gif"
    save_video(path, FRAMES, fps=4)
    with Image.open(path) as film:
        assert film.n_frames == 3
        assert film.info["duration"] == 250
        film.seek(1)
        assert np.asarray(film.convert("RGB"))[5, 5] == pytest.approx([120] * 3, abs=2)


def test_mp4_can_be_read_again(tmp_path: Path) -> None:
    path = tmp_path / "장면.mp4"
    save_video(path, FRAMES, fps=4)
    film = cv2.VideoCapture(str(path))
    levels = []
    while (read := film.read())[0]:
        levels.append(read[1][5, 5].mean())
    assert levels == pytest.approx([0, 120, 250], abs=6)


def test_frames_of_different_size_share_one_sheet(tmp_path: Path) -> None:
    save_video(tmp_path / "a.gif", [FRAMES[0], FRAMES[1][:10]], fps=2)
    with Image.open(tmp_path / "a.gif") as film:
        assert film.size == (32, 22)


@pytest.mark.parametrize(("name", "frames"), [("a.avi", FRAMES), ("a.gif", [])])
def test_unknown_endings_and_no_frames_are_clear_errors(tmp_path: Path, name: str, frames: list) -> None:
    with pytest.raises(UsageError, match=name):
        save_video(tmp_path / name, frames, fps=2)


def test_opencv_without_mp4_says_to_use_gif(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed:
        def __init__(self, *_: object) -> None: ...

        def isOpened(self) -> bool:
            return False

        fourcc = staticmethod(lambda *_: 0)

    monkeypatch.setattr(cv2, "VideoWriter", Closed)
    with pytest.raises(OmmaError, match="cannot write MP4") as caught:
        save_video(tmp_path / "a.mp4", FRAMES, fps=2)
    assert ".gif" in str(caught.value)
