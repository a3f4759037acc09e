"""The Python interface: `omma.train`, `load`, `evaluate`, `predict`, `compare` and `build`.

The examples use `recipe`, `data` and `settings` (any recipe, its data and its settings) and `runs`, a folder
for runs; a test runs them on a small data set.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from omma.commands.arguments import (
    Run,
    index_word,
    out_folder,
    recipe_word,
    run_word,
    run_words,
    setting_words,
    several_words,
    split_word,
    train_options,
)
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
from omma.report.compare_plots import Picture
from omma.runs.folder import RunFolder, runs_root
from omma.systems.recipes import chain_stages, open_recipe

_CHAIN_OPTIONS = ("name", "smoke", "overwrite", "runs_dir", "quiet")


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
        batch = self._batch(inputs, split, sparse)
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
        part = split_word(split) or self._loaded.recipe.config.data.val_split
        return build_data(self._loaded.recipe, part, augment=augment)

    def _batch(self, inputs: Any, split: str | None, sparse: str | Path | None) -> Batch:
        """A batch of one."""
        recipe = self._loaded.recipe
        if isinstance(inputs, str | Path):
            data, collate = predict_files(recipe, [inputs], [] if sparse is None else [sparse])
            return collate([data[0]])
        if sparse is not None:
            raise UsageError("sparse is the known depth of a file, none was given", "give a picture's path")
        if isinstance(inputs, int | np.integer):
            part = split_word(split) or recipe.config.data.val_split
            data, collate = self.data(part)
            if not -len(data) <= inputs < len(data):
                raise UsageError(f"sample {inputs}: {part} has samples 0 to {len(data) - 1}")
            return collate([data[int(inputs) % len(data)]])
        if not isinstance(inputs, Mapping) or len(inputs.get("token", ())) != 1:
            raise UsageError(
                f"a prediction takes a sample's index, a file or a batch of one, not {type(inputs).__name__}",
                "save a picture to a file; a batch: samples, collate = model.data(); collate([samples[0]])",
            )
        return inputs


def load(run: Run, **overrides: Any) -> Model:
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
    return Model(load_run(run_word(run), setting_words(overrides)))


def build(recipe: str | Path, **settings: Any) -> Task:
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
    return build_task(open_recipe(recipe_word(recipe), setting_words(settings), runs_root=runs_root(None)))


def train(recipe: str | Path, **settings: Any) -> RunFolder:
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
    word = recipe_word(recipe)
    options, settings = train_options(settings)
    if not chain_stages(word, runs_root(options.get("runs_dir"))):
        return _train(word, setting_words(settings), **options)
    single = [key for key in options if key not in _CHAIN_OPTIONS]
    if single:
        raise UsageError(f"{single[0]}: {word} is a chain of trainings", "give it with a stage's own recipe")
    options.pop("quiet", None)
    return train_chain(word, setting_words(settings), **options)


def evaluate(
    run: Run,
    split: str | None = None,
    *,
    studies: str | Iterable[str] = (),
    predictions: str | Path | None = None,
    **overrides: Any,
) -> EvalResult:
    """Evaluate a run or a checkpoint and write its `eval/<split>/`; see `omma eval`.

    Args:
        run: what to evaluate; a bare run means its best checkpoint.
        split: part of the data set; default data.val_split.
        studies: names of further studies of the system, such as "robustness".
        predictions: folder of arrays that `omma.predict` saved; they are scored instead of new predictions.
        overrides: settings, such as `**{"data.root": "elsewhere"}`.

    Returns:
        `metrics` by name, and rows `per_sample` and `per_class`.

    >>> result = omma.evaluate(run)
    >>> set(map(type, result.metrics.values()))
    {<class 'float'>}
    """
    return evaluate_run(
        run_word(run),
        setting_words(overrides),
        split=split_word(split),
        studies=several_words(studies, "studies"),
        predictions=None if predictions is None else Path(predictions),
        quiet=True,
    )


def predict(
    runs: Run | Iterable[Run],
    out: str | Path,
    *,
    indices: int | str | Iterable[int | str] | None = None,
    inputs: str | Path | Iterable[str | Path] = (),
    sparse: str | Path | Iterable[str | Path] = (),
    split: str | None = None,
    video: str | Path | None = None,
    runs_dir: str | Path | None = None,
    **overrides: Any,
) -> list[Path]:
    """Draw samples of one or several runs into `out`; see `omma predict`.

    Args:
        runs: what to load; several are drawn side by side.
        out: folder to write to.
        indices: samples of the split, such as 3, [0, 10] or "0-39:2", or their names; default the first four.
        inputs: files of the user's own, instead of samples of the split.
        sparse: a file of known depth for each of `inputs`.
        split: part of the data set; default data.val_split.
        video: also write all pictures into this .gif or .mp4.
        runs_dir: where run names are looked up.
        overrides: settings on top of each run's own, such as `**{"data.root": "elsewhere"}`.

    Returns:
        the pictures.

    >>> [file.name for file in omma.predict(run, pictures, indices=0)]
    ['sample_0000.png']
    """
    return _predict(
        run_words(runs),
        out_folder(out),
        indices=index_word(indices),
        inputs=several_words(inputs, "inputs"),
        sparse=several_words(sparse, "sparse"),
        split=split_word(split),
        video=None if video is None else Path(video),
        overrides=setting_words(overrides),
        runs_dir=None if runs_dir is None else str(runs_dir),
        quiet=True,
    )


def compare(
    runs: Run | Iterable[Run],
    out: str | Path,
    *,
    names: str | Iterable[str] = (),
    metrics: str | Iterable[str] = (),
    picture: Picture | None = None,
    runs_dir: str | Path | None = None,
) -> dict[str, Any]:
    """Compare runs: curves, tables and differences with their interval, in `out`; see `omma compare`.

    Args:
        runs: the first is what the others are compared with.
        out: folder to write plots/*.png, summary.md, report.html and report.json to.
        names: what to call the runs; default their folders' names.
        metrics: columns of metrics.csv to draw, or "all"; default the important ones.
        picture: size and resolution of the PNG files.
        runs_dir: where run names are looked up.

    Returns:
        what report.json holds.

    >>> facts = omma.compare([run, run], comparison, names=["one", "other"])
    >>> [experiment["name"] for experiment in facts["experiments"]]
    ['one', 'other']
    """
    return _compare(
        run_words(runs),
        out_folder(out),
        names=several_words(names, "names"),
        metrics=several_words(metrics, "metrics"),
        picture=picture,
        runs_dir=None if runs_dir is None else str(runs_dir),
    )
