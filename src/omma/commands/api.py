"""The Python interface: `omma.load`, `omma.train`, `omma.evaluate` and `omma.predict`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from omma.commands.build import Loaded, build_data, device_of, load_run
from omma.commands.evaluate import evaluate_run
from omma.commands.predict import predict as _predict
from omma.commands.predict import predict_files
from omma.commands.train import train as _train
from omma.config.base import RunConfig
from omma.data.loader import to_device
from omma.engine.evaluate import EvalResult
from omma.engine.task import Batch, Prediction, Task
from omma.runs.folder import RunFolder

_TRAIN_OPTIONS = ("name", "smoke", "overfit", "init", "partial", "overwrite", "runs_dir", "quiet")


class Model:
    """A trained model that predicts.

    Args:
        loaded: from `omma.load`.
    """

    def __init__(self, loaded: Loaded) -> None:
        self.task: Task = loaded.task.to(device_of(loaded.recipe))
        self.config: RunConfig = loaded.recipe.config
        self.run: RunFolder = loaded.run
        self._loaded = loaded

    @torch.no_grad()
    def predict(
        self,
        inputs: int | str | Path | Batch,
        split: str | None = None,
        *,
        sparse: str | Path | None = None,
    ) -> Prediction:
        """Predict one sample.

        Args:
            inputs: index into the split, a file as `omma predict --input` takes, or a collated batch of one.
            split: part of the data set, for an index; default data.val_split.
            sparse: known depth of a file, as `omma predict --sparse` takes it.
        """
        if isinstance(inputs, Mapping):
            batch = inputs
        else:
            recipe = self._loaded.recipe
            files = not isinstance(inputs, int)
            part = split or recipe.config.data.val_split
            known = [] if sparse is None else [sparse]
            data, collate = (
                predict_files(recipe, [inputs], known) if files else build_data(recipe, part, augment=False)
            )
            batch = collate([data[0 if files else inputs]])
        return self.task.predict(to_device(batch, self.task.device))


def load(run: str | Path | RunFolder, **overrides: Any) -> Model:
    """Load a run, `RUN@best|last|final|step_N` or a checkpoint folder; a bare run means its best checkpoint.

    Args:
        run: what to load.
        overrides: settings, such as `**{"data.root": "elsewhere"}`.
    """
    return Model(load_run(_reference(run), _words(overrides)))


def train(recipe: str, **settings: Any) -> RunFolder:
    """Train a recipe; `omma.train("lss/demo", **{"optim.lr": 1e-4}, name="first")`.

    Args:
        recipe: `system/recipe`, a .yaml file or a run folder.
        settings: dotted keys are settings; name, smoke, overfit, init, partial, overwrite, runs_dir and quiet
            are the options of `omma train`.
    """
    options = {key: settings.pop(key) for key in _TRAIN_OPTIONS if key in settings}
    return _train(recipe, _words(settings), **options)


def evaluate(run: str | Path | RunFolder, split: str | None = None, **overrides: Any) -> EvalResult:
    """Evaluate a run or a checkpoint and write its `eval/<split>/`; see `omma eval`."""
    return evaluate_run(_reference(run), _words(overrides), split=split, quiet=True)


def predict(runs: Sequence[str | Path | RunFolder], out: str | Path, **options: Any) -> list[Path]:
    """Draw samples of one or several runs into `out`.

    Args:
        runs: what to load.
        out: folder to write to.
        options: indices, inputs, sparse, split, video and overrides, as `omma predict` has them.
    """
    return _predict([_reference(run) for run in runs], Path(out), quiet=True, **options)


def _reference(run: str | Path | RunFolder) -> str:
    return str(run.path if isinstance(run, RunFolder) else run)


def _words(settings: Mapping[str, Any]) -> list[str]:
    return [f"{key}={json.dumps(value, default=str)}" for key, value in settings.items()]
