"""PanoLLaVA against the straightforward forms: cutting a panorama into views, a step of the language model.

    python benchmarks/panollava.py [--parts views language] [--layers 24] [--quick] [--json FILE]

The forms take turns in one process; panorama and weights are random. Straightforward means: sampling
positions of every view are computed at every call in float64, and scipy interpolates each colour, of a
panorama reduced as ours is, so that pixels are the same; the language model computes logits over the
whole vocabulary at every word, also at the panorama's, as `labels=` of transformers does. The model is
Qwen2.5-0.5B's, with fewer layers unless --layers 24 is given; it is frozen, as in the recipes, and the
gradient goes to the words.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from loading import photo
from measure import Timing, interleaved, parts_parser, peak_mib, run_parts
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from torch import Tensor, nn

from omma.core.panorama import View, pad_panorama
from omma.systems.panollava.config import LanguageSection, ViewsSection
from omma.systems.panollava.language import Fused, LanguageModel, fuse
from omma.systems.panollava.pretrained import causal_model
from omma.systems.panollava.projector import Projector
from omma.systems.panollava.text import IGNORED
from omma.systems.panollava.views import ViewCutter, shrink, view_layout

QWEN = {
    "model_type": "qwen2", "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864,
    "num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True,
}  # fmt: skip
TOKENS, ANSWER = 60, 25  # of the text, and those of them that are learned
GRID, TOWER = (14, 14), 768  # tokens of a view and their width
# Smallest speed-up; of memory, the largest share of the straightforward form's.
TARGETS = {"views": 4.0, "logits where labels are": 1.2, "and 2 x 2 tokens a word": 3.0, "memory": 0.75}
Picture = NDArray[np.uint8]
Row = list[Any]


# --- views ---


def views_plainly(panorama: Picture, views: Sequence[View], size: tuple[int, int]) -> NDArray[np.float64]:
    """Perspective views (V, h, w, 3), not rounded."""
    return np.stack([view_plainly(panorama, view, size) for view in views])


def view_plainly(panorama: Picture, view: View, size: tuple[int, int]) -> NDArray[np.float64]:
    H, W = panorama.shape[:2]
    half = np.tan(np.radians(view.fov_deg) / 2)
    x, y = np.meshgrid(np.linspace(-half[0], half[0], size[1]), -np.linspace(-half[1], half[1], size[0]))
    yaw, pitch = np.radians((view.yaw_deg, view.pitch_deg))
    y, z = y * np.cos(pitch) + np.sin(pitch), -y * np.sin(pitch) + np.cos(pitch)
    x, z = x * np.cos(yaw) + z * np.sin(yaw), -x * np.sin(yaw) + z * np.cos(yaw)
    columns = (np.arctan2(x, z) / (2 * np.pi) + 0.5) * W - 0.5
    rows = (0.5 - np.arctan2(y, np.hypot(x, z)) / np.pi) * H - 0.5
    padded = pad_panorama(panorama).astype(np.float64)
    colours = [map_coordinates(padded[..., index], [rows + 1, columns + 1], order=1) for index in range(3)]
    return np.stack(colours, axis=-1)


def reduced_plainly(panorama: Picture, settings: ViewsSection) -> Picture:
    width = round(settings.image_size[1] * 360 / settings.fov_deg)
    return cv2.resize(panorama, (width, width // 2), interpolation=cv2.INTER_AREA)


def views(options: argparse.Namespace) -> tuple[list[str], list[Row]]:
    """Eight views of 224 x 224 from a panorama."""
    cv2.setNumThreads(1)
    panorama = cv2.resize(photo(0), (options.width, options.width // 2), interpolation=cv2.INTER_CUBIC)
    settings = ViewsSection()
    cutter = ViewCutter(settings)
    plainly = partial(views_plainly, views=cutter.centres, size=cutter.size)

    def without_maps() -> Picture:
        cutter._maps.clear()
        return cutter(panorama)

    forms: dict[str, Callable[[], NDArray[Any]]] = {
        "straightforward": lambda: plainly(shrink(panorama, settings)),
        "the same, reduced in one go": lambda: plainly(reduced_plainly(panorama, settings)),
        "ours, maps at every call": without_maps,
        "ours": partial(cutter, panorama),
    }
    times = interleaved({name: lambda f=f: [f] for name, f in forms.items()}, options.repeats, "cpu")
    expected = forms["straightforward"]()
    rows = []
    for name, form in forms.items():
        goal = TARGETS["views"] if name == "ours" and not options.quick else "-"
        off = float(np.abs(form() - expected).max())
        rows.append([name, *times[name].wall_ms, *times[name].cpu_ms, *speed_ups(times, name), goal, off])
    return [*_COLUMNS, "largest difference, grey levels"], rows


# --- a step of the language model ---


class PlainLanguage(nn.Module):
    """The language model as transformers has it: logits everywhere."""

    def __init__(self, lm: nn.Module) -> None:
        super().__init__()
        self.lm = lm

    def forward(self, embeds: Tensor, mask: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        output = self.lm(inputs_embeds=embeds, attention_mask=mask, labels=labels, use_cache=False)
        return output.loss, output.logits


def language_model(options: argparse.Namespace) -> LanguageModel:
    small = {"vocab_size": 1000, "hidden_size": 112, "intermediate_size": 224} if options.quick else {}
    config = {**QWEN, "num_hidden_layers": options.layers, **small}
    torch.manual_seed(0)
    lm = causal_model(LanguageSection(name="random", config=config), entries=config["vocab_size"])
    return LanguageModel(lm, stop_ids=[], pad_id=0).requires_grad_(False).train().to(options.device)


def sequence(model: LanguageModel, pool: int, options: argparse.Namespace) -> Fused:
    """What the language model reads: the words of eight views and a text, of which the answer is learned."""
    layout = view_layout(ViewsSection())
    torch.manual_seed(0)
    projector = Projector(TOWER, model.width, views=layout, grid=GRID, pool=pool, position="none")
    tokens = torch.randn(1, len(layout), GRID[0] * GRID[1], TOWER)
    words = projector(tokens, torch.zeros(0)).detach().to(options.device).requires_grad_()
    ids = torch.randint(0, 1000, (1, TOKENS), device=options.device)
    labels = ids.clone()
    labels[:, :-ANSWER] = IGNORED
    return fuse(model.embed(ids), ids, torch.ones_like(ids), words, labels=labels)


def step_of(
    form: nn.Module, make: Callable[[], Fused], losses: list[float] | None = None
) -> list[Callable[[], Any]]:
    """Forward and backward."""
    fused, held = make(), []

    def backward() -> None:
        loss = held.pop()
        if losses is not None:
            losses.append(loss.item())
        loss.backward()

    def forward() -> None:
        held.append(form(*fused)[0])

    return [forward, backward]


def language(options: argparse.Namespace) -> tuple[list[str], list[Row]]:
    """Forward and backward over the words of one panorama and its text."""
    own = language_model(options)
    plain = PlainLanguage(own.lm)
    forms: dict[str, tuple[nn.Module, int]] = {
        "straightforward": (plain, 1),
        "logits where labels are": (own, 1),
        "and 2 x 2 tokens a word": (own, 2),
    }
    losses: dict[str, list[float]] = {name: [] for name in forms}
    makers = {name: partial(sequence, own, pool, options) for name, (_, pool) in forms.items()}
    steps = {name: partial(step_of, form, makers[name], losses[name]) for name, (form, _) in forms.items()}
    times = interleaved(steps, options.repeats, options.device)
    rows: list[Row] = []
    for name, (form, _) in forms.items():
        peak = max(peak_mib(step_of(form, makers[name]), options.device))
        share = peak / rows[0][6] if rows else 1.0
        goal = "-" if options.quick else TARGETS.get(name, "-")
        took = sum(times[name].wall_ms), sum(times[name].cpu_ms)
        length = makers[name]().mask.shape[1]
        rows.append([name, length, *took, *speed_ups(times, name), peak, share, goal, losses[name][0]])
    columns = [_COLUMNS[0], "words and ids", *_COLUMNS[1:-1]]
    return [*columns, "peak MiB", "share of the peak", "target speed-up", "loss"], rows


_COLUMNS = ("form", "ms", "CPU ms", "speed-up", "in CPU time", "target")


def speed_ups(times: dict[str, Timing], name: str) -> list[float]:
    """Over the straightforward form, on the clock and in processor time."""
    base, own = times["straightforward"], times[name]
    return [sum(base.wall_ms) / sum(own.wall_ms), sum(base.cpu_ms) / sum(own.cpu_ms)]


PARTS = {"views": views, "language": language}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parts_parser(
        __doc__, PARTS, quick="small panorama and model, two repeats", device="of the language model"
    )
    parser.add_argument("--width", type=int, default=4096, help="of the panorama")
    parser.add_argument("--layers", type=int, default=4, help="of the language model; the real one has 24")
    options = parser.parse_args(arguments)
    if options.quick:
        options.width, options.layers, options.repeats = 1024, 1, 2
    run_parts(
        "PanoLLaVA",
        PARTS,
        options,
        lambda part: {"width": options.width} if part == "views" else {"layers": options.layers},
        one_thread=["views"],
    )


if __name__ == "__main__":
    main()
