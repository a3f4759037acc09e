"""Panoramas with questions and answers, in the tables of QuIC-360 and PanoLLaVA.

`images/000001.jpg` and so on; `train.csv`, `valid.csv` and `test.csv` with columns url, query and annotation.
The train table has the short answer only, the others every wording in a row of its own: several references.
`content.json` says what is around the camera of each panorama.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from omma.errors import UsageError
from omma.world.panorama import PanoramaCapture, Thing, build_place
from omma.world.questions import ask
from omma.world.writers.files import write_bytes, write_image, write_json

IMAGE_SIZE = (512, 1024)
FRAME_INTERVAL_S = 2.0
SPLITS = ("train", "val", "test")
COLUMNS = ("url", "query", "annotation")
CONTENT = "content.json"
build_scene = build_place
Capture = PanoramaCapture
_TABLES = {"train": "train.csv", "val": "valid.csv", "test": "test.csv"}
_FRAMES = 10_000  # names of a scene's panoramas start at its multiples
_QUESTIONS = 100  # stream of the random choices


def write_frame(folder: Path, capture: PanoramaCapture) -> dict[str, Any]:
    """Write one panorama; returns its content and its questions.

    Raises:
        UsageError: the picture is not twice as wide as high.
    """
    height, width = capture.image_size
    if width != 2 * height:
        raise UsageError(
            f"--image-size {height}x{width}: a panorama is twice as wide as high",
            f"--image-size {height}x{2 * height}",
        )
    url = f"images/{capture.scene.number * _FRAMES + capture.frame + 1:08d}.jpg"
    write_image(folder / url, capture.photo.rgb)
    questions = ask(capture.place, capture.things, capture.rng(_QUESTIONS))
    content = {"place": capture.place, "things": [_described(thing) for thing in capture.things]}
    return {
        "url": url,
        "content": content,
        "questions": [(asked.query, list(asked.answers)) for asked in questions],
    }


def _described(thing: Thing) -> dict[str, Any]:
    return {
        "kind": thing.kind,
        "colour": thing.colour,
        "direction": thing.direction,
        "azimuth_deg": round(thing.azimuth_deg, 1),
        "distance_m": round(thing.distance_m, 2),
    }


def finish(folder: Path, records: dict[str, dict[str, list[Any]]], image_size: tuple[int, int]) -> None:
    """Write the tables; `records` by split and scene."""
    del image_size
    content = {}
    for split, scenes in records.items():
        panoramas = [panorama for found in scenes.values() for panorama in found]
        content |= {panorama["url"]: panorama["content"] for panorama in panoramas}
        text = io.StringIO(newline="")
        table = csv.writer(text, lineterminator="\n")
        table.writerow(COLUMNS)
        for panorama in panoramas:
            for query, answers in panorama["questions"]:
                kept = answers[:1] if split == "train" else answers
                table.writerows((panorama["url"], query, answer) for answer in kept)
        write_bytes(folder / _TABLES[split], text.getvalue().encode())
    write_json(folder / CONTENT, content)
