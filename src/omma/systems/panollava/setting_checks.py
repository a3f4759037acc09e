"""What `omma doctor` checks about settings: towers that can be had, and views that overlap."""

from __future__ import annotations

from pathlib import Path, PureWindowsPath

import numpy as np

from omma.core.panorama import TokenPairs, View, pair_tokens
from omma.errors import ConfigError, Finding
from omma.systems.panollava.config import OverlapSection, PanoConfig
from omma.systems.panollava.pretrained import RANDOM
from omma.systems.panollava.views import view_layout

GRID = (14, 14)  # tokens of a view, from which its overlap is judged
_WEIGHTS = ("*.safetensors", "*.bin")
_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "tokenizer.model")
_FAR = 1.0  # patches between what columns pair and what belongs together


def check_towers(config: PanoConfig) -> list[Finding]:
    """Whether image tower, language model and tokenizer are random, in a folder, or in the hub's cache."""
    system = config.system
    wanted = {"system.vision.name": (system.vision.name, _WEIGHTS)}
    if system.stage != "vision":
        wanted["system.language.name"] = (system.language.name, _WEIGHTS)
        if system.language.tokenizer is not None:
            wanted["system.language.tokenizer"] = (system.language.tokenizer, _TOKENIZERS)
        if system.generate.clip is not None:
            wanted["system.generate.clip"] = (system.generate.clip, _WEIGHTS)
    return [_check_source(key, name, needed) for key, (name, needed) in wanted.items()]


def _check_source(key: str, name: str, needed: tuple[str, ...]) -> Finding:
    if name == RANDOM:
        return Finding("ok", f"{key} is random", "starts from random weights")
    folder = Path(name).expanduser()
    if folder.is_dir():
        there = ["config.json"] if needed == _WEIGHTS else []
        gone = [file for file in there if not (folder / file).is_file()]
        if not any(any(folder.glob(pattern)) for pattern in needed):
            gone.append(" or ".join(needed))
        if gone:
            fix = "copy all files of the model's page into the folder"
            return Finding("error", f"{key}={name} lacks {' and '.join(gone)}", "", fix)
        return Finding("ok", f"{key} is a folder", str(folder))
    if folder.is_file():
        return Finding("ok", f"{key} is a file", str(folder))
    if _is_path(name):
        fix = f"set {key} to a folder of transformers files, a name of the hub, or random"
        return Finding("error", f"{key}={name}: no such folder", "", fix)
    return _check_cached(key, name)


def _is_path(name: str) -> bool:
    """Whether a name can only be a path: those of the hub are `owner/model`."""
    return name.startswith((".", "~", "/")) or name.count("/") > 1 or bool(PureWindowsPath(name).drive) \
        or "\\" in name  # fmt: skip


def _check_cached(key: str, name: str) -> Finding:
    from huggingface_hub import try_to_load_from_cache

    if isinstance(try_to_load_from_cache(name, "config.json"), str):
        return Finding("ok", f"{key}={name} is in the hub's cache")
    return Finding(
        "warning",
        f"{key}={name} is not here yet",
        "it is fetched from the hub when a training starts, which needs a network",
        f"without one: copy the model's folder here and set {key} to it",
    )


def check_views(config: PanoConfig) -> list[Finding]:
    """Whether views that an overlap loss compares show the same places, and are paired by them."""
    overlap, stage = config.system.overlap, config.system.stage
    weight = (1.0 if stage == "vision" else 0.0) if overlap.weight is None else overlap.weight
    if weight == 0:
        if stage != "vision":
            return []
        fix = "system.overlap.weight=1"
        return [Finding("error", "stage vision learns nothing", "system.overlap.weight is 0", fix)]
    try:
        views = view_layout(config.data.views)
        pairs = pair_tokens(views, GRID)
    except ConfigError as error:
        return [Finding("error", error.message, f"overlap loss of weight {weight:g}", error.hint or "")]
    share = float(pairs.valid.mean())
    evidence = f"{len(pairs.source)} pairs of {len(views)} views, {share:.0%} of a view's tokens on average"
    found = [Finding("ok", "neighbouring views show the same places", evidence)]
    off = _columns_off(views, pairs, config.data.views.overlap, overlap)
    if off > _FAR:
        found.append(
            Finding(
                "warning",
                f"system.overlap.pairing=columns is off by {off:.1f} patches",
                "it pairs tokens by their number, not by where they look",
                "system.overlap.pairing=geometry",
            )
        )
    return found


def _columns_off(
    views: list[View | None], pairs: TokenPairs, share: float, settings: OverlapSection
) -> float:
    """Mean distance in patches between the tokens that columns pair and what belongs together."""
    if settings.pairing != "columns":
        return 0.0
    rows, columns = GRID
    paired = max(1, int(columns * share))
    place = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1)  # column and row
    right = np.broadcast_to(np.arange(columns) >= columns - paired, GRID).ravel()
    partner = (place - [columns - paired, 0]).reshape(-1, 2)
    level = [
        index
        for index, (a, b) in enumerate(zip(pairs.source, pairs.target, strict=True))
        if views[a] is not None and views[b] is not None and views[a].pitch_deg == views[b].pitch_deg
    ]
    apart = np.linalg.norm(pairs.positions[level][:, right] - partner[right], axis=-1)
    return float(apart[np.isfinite(apart)].mean())
