"""The network in a config of the original: `model`, `channel_cfg` and `data_cfg` as settings of a recipe.

What agrees with the only thing possible here is left out, what contradicts it or the recipe is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from omma.config.literals import Unreadable
from omma.errors import ConfigError
from omma.systems.originals import Command
from omma.systems.recipes import open_recipe
from omma.systems.sdpose.config import STRIDE

_JOINTS, _COLOURS = 17, 3
_BACKBONES = {"stemnet": "stemnet", "hrnet": "hrnet_w32"}  # how a type begins -> its name here
_CHANNELS = {"stemnet": 256, "hrnet_w32": 32}
_FOR_TRAINING = ("loss_vis_token_dist", "loss_kpt_token_dist")  # read elsewhere
_SETTINGS = {
    "dim": "system.dim",
    "depth": "system.depth",
    "heads": "system.heads",
    "mlp_ratio": "system.mlp_ratio",
    "pos_embedding_type": "system.position",
    "num_cycles": "system.cycles",
    "flip_test": "evaluation.flip",
    "post_process": "evaluation.decode",
}
_COUNTS = ("out_channels", "num_output_channels", "num_joints", "dataset_joints", "num_keypoints")
_LISTS = ("dataset_channel", "inference_channel")
_MAPS = ("feature_size", "heatmap_size")
_NEEDED = (*_SETTINGS, *_COUNTS, *_MAPS, "image_size", "patch_size", "in_channels", "num_channels")
_PARTS = ("model", "channel_cfg", "data_cfg")
# values that need no mention, by the last part of their name
_USUAL: dict[str, Callable[[Any], bool]] = {
    "apply_init": lambda value: value is True,
    "use_target_weight": lambda value: value is True,
    "train_cfg": lambda value: not value,
    "pretrained": lambda value: value is None,
    "dropout": lambda value: value == 0,
    "emb_dropout": lambda value: value == 0,
}


def network_words(
    file: Path, recipe: str, values: Mapping[str, Any], *, named: bool
) -> tuple[Command, dict[str, Any]]:
    """Settings of the network that a config describes.

    Args:
        file: for messages.
        recipe: that the settings go on top of.
        values: what the file holds, see `omma.config.literals`.
        named: whether the file itself names the recipe.

    Returns:
        words for `omma train`; and the values that are still to be read, those of `model` by dotted names.

    Raises:
        ConfigError: two values contradict each other, or one has no counterpart.
    """
    config = open_recipe(recipe).config.as_dict()
    found = {name: _plain(file, name, value) for name, value in _leaves(values)}
    backbone = _backbone(file, recipe if named else None, config, found)
    words = [] if backbone == config["system"]["backbone"]["name"] else [f"system.backbone.name={backbone}"]
    width, height = found.get("data_cfg.image_size") or reversed(config["data"]["image_size"])
    cells = sorted((height / STRIDE, width / STRIDE))
    rest = {name: value for name, value in values.items() if name not in ("model", "channel_cfg")}
    if isinstance(values.get("data_cfg"), Mapping):
        rest["data_cfg"] = dict(values["data_cfg"])
    for name, value in found.items():
        last = name.rpartition(".")[2]
        try:
            if last in (*_COUNTS, *_LISTS, *_MAPS):
                _check(file, name, value, cells)
                read: list[str] | None = []
            else:
                read = _read(file, name, value, backbone) if name.startswith("model.") else None
        except (TypeError, IndexError) as error:
            raise ConfigError(f"{file}: {name} = {value} is not understood ({error})") from error
        if read is not None:
            words += read
            if name.startswith("data_cfg."):
                rest["data_cfg"].pop(last)
        elif name.startswith("model."):
            rest[_topmost(name)] = value
    return words, rest


def _leaves(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Dotted name -> value of all that describes the network."""
    for part in _PARTS:
        if isinstance(values.get(part), Mapping):
            yield from _inside(values[part], f"{part}.")


def _inside(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value and name not in _FOR_TRAINING:
            yield from _inside(value, f"{prefix}{name}.")
        elif name not in _FOR_TRAINING:
            yield f"{prefix}{name}", value


def _plain(file: Path, name: str, value: Any) -> Any:
    if isinstance(value, Unreadable) and name.rpartition(".")[2] in _NEEDED:
        raise ConfigError(
            f"{file}, line {value.line}: {name} = {value.text} is not read",
            "this file is read as data, not run: write the value itself",
        )
    return value


def _backbone(file: Path, recipe: str | None, config: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """The backbone's name here.

    Args:
        file: for messages.
        recipe: that the file names, or None.
        config: of the recipe that is taken.
        found: dotted name -> value.
    """
    held: str = config["system"]["backbone"]["name"]
    written = found.get("model.backbone.type")
    if written is None:
        return held
    here = next((name for start, name in _BACKBONES.items() if str(written).lower().startswith(start)), None)
    if here is None:
        known = " or ".join(_CHANNELS)
        raise ConfigError(f"{file}: model.backbone.type {written}: not known here", f"{known} can be trained")
    if recipe is not None and here != held:
        raise ConfigError(
            f"{file}: model.backbone.type is {written}, but recipe = '{recipe}' has {held}",
            "take the line with the recipe away, or name one with that backbone: `omma ls sdpose`",
        )
    return here


def _check(file: Path, name: str, value: Any, cells: list[float]) -> None:
    """Refuse another number of joints, or heatmaps that do not fit the image."""
    last = name.rpartition(".")[2]
    if last in _MAPS:
        expected: Any = f"the image over {STRIDE}: {cells[1]:g} x {cells[0]:g} cells"
        fits = isinstance(value, (list, tuple)) and sorted(value) == cells
    elif last in _LISTS:
        expected = f"all {_JOINTS} joints in their order"
        flat = value[0] if len(value) == 1 and isinstance(value[0], (list, tuple)) else value
        fits = list(flat) == list(range(_JOINTS))
    else:
        expected, fits = _JOINTS, value == _JOINTS
    if not fits:
        raise ConfigError(f"{file}: {name} = {value}, but only {expected} can be", "correct it in the file")


def _read(file: Path, name: str, value: Any, backbone: str) -> list[str] | None:
    """Words of a value of the model; [] where nothing is to be set, None where it is not known."""
    last = name.rpartition(".")[2]
    if last == "type":
        usual = ("model.type", "model.backbone.type") if value != "JointsMSELoss" else (name,)
        return [] if name in usual else None
    if last == "in_channels":
        expected = _COLOURS if name.startswith("model.backbone.") else _CHANNELS[backbone]
        if value != expected:
            raise ConfigError(
                f"{file}: {name} = {value}, but {backbone} gives {expected}", "correct it in the file"
            )
        return []
    if last == "pretrained" and value is not None:
        return [f"system.backbone.pretrained={value}"]
    if name == "model.backbone.extra.stage1.num_channels":
        return [f"system.backbone.stage1_width={value[0]}"]
    if last == "patch_size":
        return [f"system.patch=[{value[0]}, {value[1]}]"]
    if last in _SETTINGS:
        return [f"{_SETTINGS[last]}={str(value).lower() if isinstance(value, bool) else value}"]
    return [] if last in _USUAL and _USUAL[last](value) else None


def _topmost(name: str) -> str:
    """A whole part of the model where nothing of it is usual to be set."""
    head = "model.backbone.extra"
    return head if name.startswith(f"{head}.") else name
