"""Loading a sample of six 1600 x 900 JPEGs: ours against decoding, resizing and normalising with Pillow.

    python benchmarks/loading.py [--root SEED_LAYOUT_FOLDER] [--repeats 15] [--json FILE]

One process, one thread, the forms take turns. Without --root it writes photo-like JPEGs (about 260 kB each)
to a temporary folder. Every form delivers the training sample of 224 x 480 sources and 128 x 352 inputs with
random scale, crop, mirror and rotation; Pillow's is float32, ours uint8, which the device normalises.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from measure import Steps, header, interleaved, print_header, print_table, write_json
from PIL import Image

from omma.core.poses import invert_rigid, pose, rotation_from_quaternion
from omma.data.formats.simbev_layout import (
    CAMERA_TRANSLATIONS_M,
    CAMERA_YAWS_DEG,
    CAMERAS,
    camera_intrinsics,
    camera_quaternion,
)
from omma.data.transforms import draw_image_change
from omma.systems.lss.config import LSSConfig
from omma.systems.lss.data import BevSamples, build
from omma.systems.lss.prepare import resize

SIZE = (900, 1600)
MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
TARGETS = {"ours": 1.5, "ours, scaled decode": 2.0, "ours, resized copy": 4.0}


def photo(seed: int) -> np.ndarray:
    """Detail at all scales, falling with frequency as in photographs."""
    rng = np.random.default_rng(seed)
    image = np.full((*SIZE, 3), 110.0, np.float32)
    for level in range(1, 9):
        height, width = SIZE[0] >> (9 - level), SIZE[1] >> (9 - level)
        grain = rng.normal(size=(max(height, 2), max(width, 2), 3)).astype(np.float32)
        image += cv2.resize(grain, SIZE[::-1], interpolation=cv2.INTER_CUBIC) * 55 / level**1.3
    return image.clip(0, 255).astype(np.uint8)


def write_data(root: Path, frames: int) -> None:
    """A train and a val scene in the train/val layout."""
    for split in ("train", "val"):
        folder = root / split / "scene_0000" / "yaw0pitch0"
        (folder / "images").mkdir(parents=True)
        (folder / "labels").mkdir()
        samples = [_sample(folder, index) for index in range(frames)]
        (folder / "meta.json").write_text(json.dumps(samples), encoding="utf-8")


def _sample(folder: Path, index: int) -> dict[str, Any]:
    names, extrinsics = [], []
    for number, camera in enumerate(CAMERAS):
        names.append(f"images/{camera}_{index}.jpg")
        Image.fromarray(photo(6 * index + number)).save(folder / names[-1], quality=90)
        rotation = rotation_from_quaternion(camera_quaternion(CAMERA_YAWS_DEG[camera]))
        extrinsics.append(invert_rigid(pose(rotation, CAMERA_TRANSLATIONS_M[camera])).tolist())
    np.save(folder / f"labels/{index}.npy", np.zeros((200, 200), np.uint8))
    intrinsics = [camera_intrinsics(SIZE).tolist()] * 6
    return {
        "token": str(index),
        "images": names,
        "intrinsics": intrinsics,
        "extrinsics": extrinsics,
        "label": f"labels/{index}.npy",
    }


def load_with_pillow(samples: BevSamples, index: int, rng: np.random.Generator) -> torch.Tensor:
    """Images of a sample, (6, 3, 128, 352) float32 normalised."""
    frame, views = samples.frames[index], []
    for name in frame.images:
        change = draw_image_change(
            rng, (224, 480), (128, 352), scale=(0.643, 0.75), rotate_deg=(-5.4, 5.4), flip=True
        )
        image = Image.open(frame.folder / name).resize(change.resized[::-1]).crop(change.crop)
        if change.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = np.asarray(image.rotate(change.rotate_deg), np.float32) / 255
        views.append(torch.from_numpy((pixels - MEAN) / STD).permute(2, 0, 1).contiguous())
    samples.labels.target(frame)
    return torch.stack(views)


def turns(samples: BevSamples, load: Callable[[int, np.random.Generator], Any]) -> Steps:
    """One sample after the other."""
    count = iter(range(1 << 30))

    def prepare() -> Sequence[Callable[[], Any]]:
        turn = next(count)
        return [lambda: load(turn % len(samples), np.random.default_rng(turn))]

    return prepare


def samples_of(root: Path, **data: Any) -> BevSamples:
    config = LSSConfig.model_validate_json(json.dumps({"data": {"root": str(root), **data}}))
    return build(config, "train", augment=True)[0]


def compare(root: Path, copy: Path, repeats: int) -> list[list[Any]]:
    """Rows of the table."""
    resize(root, copy, progress=lambda done, total: None)
    plain = samples_of(root)
    sets = {
        "ours": plain,
        "ours, scaled decode": samples_of(root, fast_decode=True),
        "ours, resized copy": samples_of(copy),
    }
    variants = {"Pillow": turns(plain, lambda i, rng: load_with_pillow(plain, i, rng))}
    variants |= {name: turns(samples, samples.load) for name, samples in sets.items()}
    times = interleaved(variants, repeats, "cpu")
    base = times["Pillow"].cpu_ms[0]
    return [
        [name, t.wall_ms[0], t.cpu_ms[0], 1e3 / t.cpu_ms[0], base / t.cpu_ms[0], TARGETS.get(name, 1.0)]
        for name, t in times.items()
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path)
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as folder:
        root = options.root or Path(folder) / "data"
        if options.root is None:
            write_data(root, options.frames)
        sizes = [path.stat().st_size for path in root.rglob("*.jpg")]
        state = header("cpu") | {
            "opencv": cv2.__version__,
            "kB an image": round(sum(sizes) / len(sizes) / 1e3),
        }
        print_header("Loading a sample of six images", state)
        rows = compare(root, Path(folder) / "copy", options.repeats)
    columns = ["form", "wall ms", "CPU ms", "samples a CPU second", "speed-up", "target"]
    print_table(columns, rows)
    write_json(
        options.json, {"machine": state, "rows": [dict(zip(columns, row, strict=True)) for row in rows]}
    )


if __name__ == "__main__":
    main()
