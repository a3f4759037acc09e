"""train.py of the guide and its Config, by omma (rows R1 to R3, R19 and R25 of the spec)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omma.config.explain import suggest
from omma.data.formats import rgbd_folders
from omma.errors import UsageError
from omma.systems.g2_monodepth.aliases import ALIASES
from omma.systems.originals import Command, Program, Typed, training_flags, with_its_checkpoints

_ONE_VALUE = {"in_channels": 5, "out_channels": 1, "start_epoch": 0}  # what alone these can be here
_PORT = "port"


def _train(typed: Typed) -> Iterator[Command]:
    config = [word for name, value in typed.config.items() for word in _words(name, value)]
    root = typed.value("--data_root", typed.value("--data-root", str(typed.config.get("data_root", ""))))
    for setting in typed.settings:
        root = setting.removeprefix("data.root=") if setting.startswith("data.root=") else root
    settings = [*_layout(Path(root or "."), typed.settings), *_devices(typed)]
    yield with_its_checkpoints(["train", "g2_monodepth/nyuv2", *config, *settings, *typed.given()])


def _words(name: str, value: Any) -> list[str]:
    """One setting of a Config as a flag."""
    if name == _PORT:
        print(f"Config.port {value}: not needed, several processes find a free one")  # noqa: T201
        return []
    if _ONE_VALUE.get(name) == value:
        return []
    flag = f"--{name}"
    if flag not in ALIASES:
        raise UsageError(
            f"Config.{name}: no such setting{suggest(name, [known[2:] for known in ALIASES])}",
            "correct it in config.py",
        )
    return [flag, str(value)]


def _layout(root: Path, settings: object) -> list[str]:
    """The guide's folders, rgb/ and depth/ in each split's, say nothing of their unit: it is millimetres."""
    known = (root / rgbd_folders.NOTE).is_file() or any("data.layout=" in word for word in settings)
    return [] if known or not rgbd_folders.is_layout(root) else ["data.layout=nyu_folder"]


def _devices(typed: Typed) -> list[str]:
    """Every GPU of the machine, as in the guide."""
    import torch

    count = torch.cuda.device_count()
    return [f"train.devices={count}"] if count > 1 else []


PROGRAMS: Mapping[str, Program] = {
    "train.py": Program(
        "Train as config.py says; checkpoint_epoch004.pth and so on go to checkpoint_dir.",
        _train,
        training_flags(ALIASES),
    )
}
