"""A few panoramas with questions and answers on disk, and settings of towers that train in a blink."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np

TINY = [
    "system.vision.name=random",
    "system.vision.config={model_type: siglip_vision_model, hidden_size: 16, intermediate_size: 16, "
    "num_hidden_layers: 1, num_attention_heads: 2, image_size: 16, patch_size: 8}",
    "system.language.name=random",
    "system.language.config={model_type: qwen2, hidden_size: 16, intermediate_size: 16, "
    "num_hidden_layers: 1, num_attention_heads: 2, num_key_value_heads: 1, tie_word_embeddings: true}",
    "system.resampler.width=16", "system.text.max_length=160", "system.generate.max_new_tokens=4",
    "data.views.image_size=[16, 16]", "train.workers=0", "train.batch_size=4", "train.precision=32",
    "train.device=cpu", "log.tensorboard=false", "log.every=1",
]  # fmt: skip
ANSWERS = ("A red wall.", "There is a red wall in front.", "red")
QUERY = "What is there?"


def write_set(folder: Path, *, train: int = 8, val: int = 3) -> Path:
    """`images/`, `train.csv` with one answer a panorama, and `valid.csv` with three references each."""
    (folder / "images").mkdir(parents=True)
    for split, count, answers in (("train", train, ANSWERS[:1]), ("valid", val, ANSWERS)):
        rows = []
        for number in range(count):
            url = f"images/{split}_{number}.png"
            write_panorama(folder / url, number)
            rows += [(url, QUERY, answer) for answer in answers]
        with (folder / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("url", "query", "annotation"), *rows])
    return folder


def write_panorama(file: Path, number: int) -> Path:
    """Coloured noise, 16 x 32 pixels, another one for each number."""
    picture = np.random.default_rng(number).integers(0, 256, (16, 32, 3), np.uint8)
    cv2.imencode(".png", picture)[1].tofile(file)
    return file
