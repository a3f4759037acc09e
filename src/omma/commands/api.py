"""The Python interface: `omma.train`, `load`, `evaluate`, `predict`, `compare` and `build`.

The examples use `recipe`, `data` and `settings` (any recipe, its data and its settings) and `runs`, a folder
for runs; a test runs them on a small data set.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from omma.commands.build import Loaded, build_data, build_task, device_of, load_run
from omma.commands.chain import train_chain
from omma.commands.compare import compare as _compare
from omma.commands.evaluate import evaluate_run
from omma.commands.predict import predict as _predict
from omma.commands.predict import predict_files
from omma.commands.train import train as _train
from omma.config.base import RunConfig
from omma.data.dataset import Collate, Samples
from omma.data.loader import to_device
from omma.engine.evaluate import EvalResult
from omma.engine.task import Batch, Prediction, Task
from omma.errors import UsageError
from omma.runs.folder import RunFolder, runs_root
from omma.systems.recipes import chain_stages, open_recipe

_CHAIN_OPTIONS = ("name", "smoke", "overwrite", "runs_dir")
_TRAIN_OPTIONS = (
    "name",
    "smoke",
    "overfit",
    "init",
    "partial",
    "resume_file",
    "overwrite",
    "runs_dir",
    "quiet",
)


class Model:
    """A trained model that predicts; made by `omma.load`.

    `task` is an `nn.Module` in eval mode on the recipe's device, `task.model` its network, `config` the
    run's frozen config and `run` its folder.

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

        Returns:
            arrays by name, `meta`, and `draw()`, a picture (H, W, 3) uint8.

        Raises:
            UsageError: the system takes no such file, or the split has no such sample.

        >>> prediction = omma.load(run).predict(0)
        >>> sorted(prediction.arrays) != []
        True
        >>> prediction.draw().dtype.name
        'uint8'
        """
        if isinstance(inputs, Mapping):
            batch = inputs
        else:
            recipe = self._loaded.recipe
            files = not isinstance(inputs, int)
            part = split or recipe.config.data.val_split
            known = [] if sparse is None else [sparse]
            data, collate = predict_files(recipe, [inputs], known) if files else self.data(part)
            if not files and not -len(data) <= inputs < len(data):
                raise UsageError(f"sample {inputs}: {part} has samples 0 to {len(data) - 1}")
            batch = collate([data[0 if files else inputs % len(data)]])
        return self.task.predict(to_device(batch, self.task.device))

    def data(self, split: str | None = None, *, augment: bool = False) -> tuple[Samples, Collate]:
        """A split of the run's data, for a loop of one's own.

        Args:
            split: part of the data set; default data.val_split.
            augment: with the random changes of training samples.

        Returns:
            a `torch.utils.data.Dataset`, and the `collate_fn` that joins its samples into a batch.

        >>> samples, collate = omma.load(run).data()
        >>> loader = torch.utils.data.DataLoader(samples, batch_size=1, collate_fn=collate)
        >>> "token" in next(iter(loader))
        True
        """
        part = split or self._loaded.recipe.config.data.val_split
        return build_data(self._loaded.recipe, part, augment=augment)


def load(run: str | Path | RunFolder, **overrides: Any) -> Model:
    """Load a run, `RUN@best|last|final|step_N` or a checkpoint folder; a bare run means its best checkpoint.

    Args:
        run: what to load.
        overrides: settings, such as `**{"data.root": "elsewhere"}`.

    Returns:
        the model with its weights, in eval mode.

    Raises:
        UsageError: no such run.
        CheckpointError: no such checkpoint, or it does not fit.

    >>> model = omma.load(f"{run.path}@final")
    >>> model.task.training
    False
    """
    return Model(load_run(_reference(run), _words(overrides)))


def build(recipe: str, **settings: Any) -> Task:
    """The untrained task of a recipe: losses, meters and the network in plain PyTorch.

    Args:
        recipe: `system/recipe`, a .yaml file or a run folder.
        settings: dotted keys, such as `**{"train.device": "cpu"}`.

    Returns:
        an `nn.Module`: `training_step(batch, info)` gives the loss, `model` is the network alone.

    >>> from omma.engine.task import StepInfo
    >>> task = omma.build(recipe, **settings)
    >>> optimizer = torch.optim.SGD(task.parameters(), lr=1e-3)
    >>> loss = task.training_step(task.example_batch(2), StepInfo(step=0, epoch=0, progress=0.0))["loss"]
    >>> loss.backward()
    >>> optimizer.step()
    """
    return build_task(open_recipe(recipe, _words(settings), runs_root=runs_root(None)))


def train(recipe: str, **settings: Any) -> RunFolder:
    """Train a recipe, or the stages of one that is a chain.

    Args:
        recipe: `system/recipe`, a .yaml file or a run folder.
        settings: dotted keys are settings; name, smoke, overfit, init, partial, resume_file, overwrite,
            runs_dir and quiet are the options of `omma train`.

    Returns:
        the run folder, finished; of a chain that of its last stage.

    Raises:
        OmmaError: as the command; `Preempted` after a signal, when the state has been saved.

    >>> run = omma.train(recipe, **settings, **{"data.root": data}, smoke=2, runs_dir=runs, quiet=True)
    >>> run.status()["state"]
    'finished'
    """
    options = {key: settings.pop(key) for key in _TRAIN_OPTIONS if key in settings}
    if not chain_stages(recipe, runs_root(options.get("runs_dir"))):
        return _train(recipe, _words(settings), **options)
    single = [key for key in options if key not in (*_CHAIN_OPTIONS, "quiet")]
    if single:
        raise UsageError(
            f"{single[0]}: {recipe} is a chain of trainings", "give it with a stage's own recipe"
        )
    kept = {key: value for key, value in options.items() if key in _CHAIN_OPTIONS}
    return train_chain(recipe, _words(settings), **kept)


def evaluate(run: str | Path | RunFolder, split: str | None = None, **overrides: Any) -> EvalResult:
    """Evaluate a run or a checkpoint and write its `eval/<split>/`; see `omma eval`.

    Args:
        run: what to evaluate; a bare run means its best checkpoint.
        split: part of the data set; default data.val_split.
        overrides: settings, such as `**{"data.root": "elsewhere"}`.

    Returns:
        `metrics` by name, and rows `per_sample` and `per_class`.

    >>> result = omma.evaluate(run)
    >>> set(map(type, result.metrics.values()))
    {<class 'float'>}
    """
    return evaluate_run(_reference(run), _words(overrides), split=split, quiet=True)


def predict(
    runs: str | Path | RunFolder | Sequence[str | Path | RunFolder], out: str | Path, **options: Any
) -> list[Path]:
    """Draw samples of one or several runs into `out`.

    Args:
        runs: what to load; several are drawn side by side.
        out: folder to write to.
        options: indices, inputs, sparse, split, video, overrides and runs_dir, as `omma predict` has them.

    Returns:
        the pictures.

    >>> [file.name for file in omma.predict(run, pictures, indices="0")]
    ['sample_0000.png']
    """
    return _predict([_reference(run) for run in _several(runs)], Path(out), quiet=True, **options)


def compare(
    runs: Sequence[str | Path | RunFolder], out: str | Path, *, names: Sequence[str] = (), **options: Any
) -> dict[str, Any]:
    """Compare runs: curves, tables and differences with their interval, in `out`; see `omma compare`.

    Args:
        runs: the first is what the others are compared with.
        out: folder to write plots/*.png, summary.md, report.html and report.json to.
        names: what to call the runs; default their folders' names.
        options: metrics (columns to draw), picture and runs_dir.

    Returns:
        what report.json holds.

    >>> facts = omma.compare([run, run], comparison, names=["one", "other"])
    >>> [experiment["name"] for experiment in facts["experiments"]]
    ['one', 'other']
    """
    return _compare([_reference(run) for run in runs], Path(out), names=names, **options)


def _several(runs: str | Path | RunFolder | Sequence[str | Path | RunFolder]) -> list[str | Path | RunFolder]:
    return [runs] if isinstance(runs, str | Path | RunFolder) else list(runs)


def _reference(run: str | Path | RunFolder) -> str:
    return str(run.path if isinstance(run, RunFolder) else run)


def _words(settings: Mapping[str, Any]) -> list[str]:
    return [f"{key}={json.dumps(value, default=str, ensure_ascii=False)}" for key, value in settings.items()]
