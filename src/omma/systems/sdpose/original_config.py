"""Config files of the original, read as data: recipe and settings that they stand for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omma.config.literals import read_assignments
from omma.errors import ConfigError
from omma.systems.mmcv_configs import SILENT, readers
from omma.systems.originals import Command, config_words, flag_reader
from omma.systems.sdpose.original_network import network_words

RECIPE, DEFAULT = "recipe", "sdpose/base"
_RUNS = "work_dirs"
_KINDS = {"visual": "loss_vis_token_dist", "keypoint": "loss_kpt_token_dist"}
_FREE = ("mask_ratio", "mask_strategy", "loss_weight")  # the guide's experiments set these by themselves
_START = ("resume_from", "load_from")
_PLACE = ("exp_name", "work_dir")


def _image_size(value: Any) -> list[str]:
    """(width, height) there, [height, width] here."""
    return [f"data.image_size=[{value[1]}, {value[0]}]"]


def _boxes(value: Any) -> list[str]:
    """False needs the detector's file, which is another name's."""
    return flag_reader("--use-gt-bbox")("true") if value else []


def _on(flag: str, value: Any) -> list[str]:
    return [flag, str(bool(value)).lower()]


_READERS = {
    **readers(" epochs"),
    "total_epochs": flag_reader("--total-epochs"),
    "runner.max_epochs": flag_reader("--total-epochs"),
    "checkpoint_config.save_last": lambda value: _on("--save-last", value),
    "checkpoint_config.out_dir": flag_reader("--out-dir"),
    "evaluation.metric": flag_reader("--metric"),
    "evaluation.save_best": flag_reader("--save-best"),
    "data_cfg.image_size": _image_size,
    "data_cfg.use_gt_bbox": _boxes,
    "data_cfg.bbox_file": flag_reader("--bbox-file"),
    "data_cfg.det_bbox_thr": flag_reader("--det-bbox-thr"),
    "data_cfg.oks_thr": flag_reader("--oks-thr"),
    "data_cfg.vis_thr": flag_reader("--vis-thr"),
    "data_cfg.soft_nms": lambda value: _on("--soft-nms", value),
    "mask_ratio": flag_reader("--mask-ratio"),
    "mask_strategy": flag_reader("--mask-strategy"),
    "loss_weight": flag_reader("--loss-weight"),
}
_SILENT = {*SILENT, RECIPE, *_KINDS.values(), *_PLACE, "dataset_type"}


def read_config(file: Path, *, start: bool = True) -> tuple[str, Command]:
    """The recipe of a config file and the words for `omma train` behind it, the run's folder left out.

    Args:
        file: a Python config of the original; `recipe = 'sdpose/b'` in it takes another recipe than the base.
        start: also what the training starts from.

    Raises:
        ConfigError: the file cannot be read, or a value has no counterpart.
    """
    values = read_assignments(file)
    recipe = str(values.get(RECIPE) or DEFAULT)
    losses = dict(_losses(values))
    plain = {name: value for name, value in values.items() if name not in _PLACE}
    if not start:
        plain = {name: value for name, value in plain.items() if name not in _START}
    network, plain = network_words(file, recipe, plain, named=RECIPE in values)
    if losses:
        _refuse_contradiction(file, values, losses)
        plain = {name: value for name, value in plain.items() if name not in _FREE}
    data_cfg = plain.get("data_cfg")
    if isinstance(data_cfg, Mapping) and data_cfg.get("use_gt_bbox"):
        plain["data_cfg"] = {name: value for name, value in data_cfg.items() if name != "bbox_file"}
    words = [*config_words(file, plain, _READERS, _SILENT), *network]
    words += [word for kind, loss in losses.items() for word in _loss_words(kind, loss)]
    return recipe, words


def work_dir(file: Path, values: Mapping[str, Any] | None = None) -> Path:
    """The run's folder: work_dir, else work_dirs/ and exp_name, else work_dirs/ and the file's name.

    Args:
        file: the config.
        values: what it holds, if that is read already.
    """
    values = read_assignments(file) if values is None else values
    if isinstance(values.get("work_dir"), str):
        return Path(values["work_dir"])
    return Path(_RUNS, str(values.get("exp_name") or file.stem))


def data_words(file: Path) -> list[str]:
    """The data set of a config file as a setting, for commands on a run."""
    root = read_assignments(file).get("data_root")
    return [f"data.root={root}"] if isinstance(root, str) and root else []


def _losses(values: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Kind of token -> its distillation loss, wherever in the config that is set."""
    for name, value in values.items():
        if isinstance(value, tuple) and len(value) == 1:  # pasted with the comma behind it
            value = value[0]
        kind = next((kind for kind, known in _KINDS.items() if known == name), None)
        if isinstance(value, Mapping):
            if kind:
                yield kind, value
            else:
                yield from _losses(value)


def _loss_words(kind: str, loss: Mapping[str, Any]) -> list[str]:
    rest = dict(loss)
    name = str(rest.pop("type", "")).lower()
    which = "masked" if "masked" in name else "entropy" if "entropy" in name else "plain"
    unknown = [key for key in rest if key not in _FREE]
    if unknown:
        raise ConfigError(f"{_KINDS[kind]}.{unknown[0]}: no such setting", f"it has {', '.join(_FREE)}")
    return [f"system.distill.{kind}.{key}={value}" for key, value in {"loss": which, **rest}.items()]


def _refuse_contradiction(file: Path, values: Mapping[str, Any], losses: Mapping[str, Any]) -> None:
    """A value beside the loss that the loss does not have would do nothing."""
    for name in _FREE:
        if name in values and all(loss.get(name) != values[name] for loss in losses.values()):
            held = next(iter(losses))
            raise ConfigError(
                f"{file}: {name} = {values[name]}, but {_KINDS[held]} has {losses[held].get(name)}",
                f"write {name}={name} into the loss, or the value itself",
            )
