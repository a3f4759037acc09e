"""Frames as an animated GIF or an MP4."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image as Pillow

from omma.errors import OmmaError, UsageError
from omma.viz.image import Image


def save_video(path: Path, frames: Sequence[Image], *, fps: float) -> None:
    """Write frames into a .gif or .mp4 file.

    Args:
        path: the file; its ending says the format; missing folders are made.
        frames: (H, W, 3) uint8 RGB each; smaller ones are filled up with white at the right and below.
        fps: frames a second.

    Raises:
        UsageError: for another file ending, or without frames.
        OmmaError: if this machine's OpenCV cannot write MP4.
    """
    writers = {".gif": _save_gif, ".mp4": _save_mp4}
    writer = writers.get(path.suffix.lower())
    if writer is None:
        raise UsageError(f"{path}: a video's file name ends in .gif or .mp4")
    if not frames:
        raise UsageError(f"{path}: there are no frames to write")
    path.parent.mkdir(parents=True, exist_ok=True)
    writer(path, _same_size(frames), fps)


def _same_size(frames: Sequence[Image]) -> list[Image]:
    """All frames on white sheets of one size with even sides, as MP4 codecs need."""
    height, width = (max(frame.shape[axis] for frame in frames) for axis in (0, 1))
    shape = (height + height % 2, width + width % 2, 3)
    sheets = []
    for frame in frames:
        sheet = np.full(shape, 255, np.uint8)
        sheet[: frame.shape[0], : frame.shape[1]] = frame
        sheets.append(sheet)
    return sheets


def _save_gif(path: Path, frames: Sequence[Image], fps: float) -> None:
    pictures = [Pillow.fromarray(frame).quantize(method=Pillow.Quantize.MEDIANCUT) for frame in frames]
    pictures[0].save(
        path, format="GIF", save_all=True, append_images=pictures[1:], duration=round(1000 / fps), loop=0
    )


def _save_mp4(path: Path, frames: Sequence[Image], fps: float) -> None:
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (width, height))
    if not writer.isOpened():
        raise OmmaError(f"{path}: this machine's OpenCV cannot write MP4", "give a file name ending in .gif")
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
