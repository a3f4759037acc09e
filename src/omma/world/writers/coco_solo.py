"""Photos of one person each as COCO has them, with keypoints: simpler than those of `coco`.

The person is near, wholly in the photo and behind nothing that was put there; clothes, postures, sides seen,
places and cameras vary as in `coco`. Files are as there.
"""

from __future__ import annotations

from omma.world.crowd import SoloCapture, build_place
from omma.world.writers.coco import FRAME_INTERVAL_S, SPLITS, finish, write_frame

__all__ = ["FRAME_INTERVAL_S", "IMAGE_SIZE", "SPLITS", "Capture", "build_scene", "finish", "write_frame"]

IMAGE_SIZE = (320, 240)
build_scene = build_place
Capture = SoloCapture
