"""Config files of the original, read as data: recipe and settings that they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omma.config.literals import read_assignments
from omma.errors import ConfigError
from omma.systems.mmcv_configs import SILENT, readers
from omma.systems.originals import Command, config_words, flag_reader

RECIPE = "recipe"
_BY_NAME = {"diffbev": "diffbev/diffbev_lss_swin", "lss_swin": "diffbev/baseline_lss_swin"}
_READERS = {
    **readers(""),
    "runner.max_iters": flag_reader("--max-iters"),
    "total_iters": flag_reader("--max-iters"),
}
_SILENT = {*SILENT, RECIPE, "evaluation.metric", "evaluation.save_best", "data_root"}
_START = ("work_dir", "resume_from", "load_from")
_USUAL_WARMUP, _SHARE = 1500, 0.05  # iterations; of a short run


def read_config(file: Path, *, start: bool = True) -> tuple[str, Command]:
    """The recipe of a config file and the words for `omma train` behind it.

    A run that is shorter than thirty warm-ups has one of 5 % unless the file says otherwise.

    Args:
        file: a Python config of the original.
        start: also where the run lies and what it starts from.

    Raises:
        ConfigError: the file cannot be read, or does not tell its recipe.
    """
    values = read_assignments(file)
    recipe = values.get(RECIPE) or next((r for part, r in _BY_NAME.items() if part in file.stem), None)
    if recipe is None:
        raise ConfigError(
            f"{file}: which recipe is it?", f"add a line such as recipe = '{_BY_NAME['diffbev']}'"
        )
    if not start:
        values = {name: value for name, value in values.items() if name not in _START}
    words = config_words(file, values, _READERS, _SILENT)
    return str(recipe), [*_short_warmup(values), *words]


def data_words(file: Path) -> list[str]:
    """The data set of a config file as a setting, for commands on a run."""
    root = read_assignments(file).get("data_root")
    return [f"data.root={root}"] if isinstance(root, str) and root else []


def _short_warmup(values: Mapping[str, Any]) -> list[str]:
    length = (values.get("runner") or {}).get("max_iters")
    if not isinstance(length, int) or "warmup_iters" in (values.get("lr_config") or {}):
        return []
    warmup = min(_USUAL_WARMUP, max(1, int(length * _SHARE)))
    return [f"schedule.warmup={warmup}"] if warmup < _USUAL_WARMUP else []
