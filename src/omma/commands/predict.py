"""`omma predict`: pictures and arrays, several runs side by side."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from omma.commands.arguments import out_folder
from omma.commands.build import Loaded, build_data, device_of, load_run
from omma.config.explain import suggest
from omma.data.dataset import Collate, Samples
from omma.data.loader import to_device
from omma.engine.task import Prediction
from omma.errors import UsageError
from omma.runs.console import RunLog
from omma.runs.files import write_bytes_atomic
from omma.runs.folder import RunFolder
from omma.systems.recipes import Recipe
from omma.viz.image import save_png
from omma.viz.video import save_video

INDICES_HINT = "give 0,10 or 0-39 or 0-39:2 or all, or names of samples"


def predict(
    runs: Sequence[str],
    out: Path,
    *,
    indices: str | None = None,
    inputs: Sequence[str] = (),
    sparse: Sequence[str] = (),
    split: str | None = None,
    video: Path | None = None,
    overrides: Sequence[str] = (),
    runs_dir: str | None = None,
    quiet: bool = False,
) -> list[Path]:
    """Draw `sample_0010.png` for each sample, save the arrays as .npz and what else the system makes.

    Args:
        runs: RUN or RUN@WHICH; several are drawn into the same pictures.
        out: folder to write to.
        indices: samples of the split, such as "0,10" or "0-39:2"; default the first four.
        inputs: files of the user's own, instead of samples of the split.
        sparse: a file of known depth for each of `inputs`, in their order.
        split: part of the data set; default data.val_split.
        video: also write all pictures into this .gif or .mp4.
        overrides: settings on top of each run's own, such as data.root=PATH.
        runs_dir: where run names are looked up.
        quiet: print nothing.

    Returns:
        the pictures.
    """
    if indices and inputs:
        raise UsageError("give --indices or --input, not both")
    if sparse and not inputs:
        raise UsageError("--sparse is the known depth of an --input, there is none", "add --input PICTURE")
    out = out_folder(out)
    console = RunLog(None, quiet=quiet)
    loaded = []
    for run in runs:
        console.line(f"Loading model from {run}")
        loaded.append(load_run(run, overrides, runs_dir=runs_dir))
    if len({item.recipe.system.name for item in loaded}) > 1:
        raise UsageError("the runs are of different systems; their predictions cannot share a picture")
    console.line("Loading dataset...")
    sources = [_source(item, inputs, sparse, split) for item in loaded]
    data = sources[0][0]
    console.line(f"Dataset size: {len(data)}")
    chosen = find_samples(indices, data) if not inputs else list(range(len(data)))
    out.mkdir(parents=True, exist_ok=True)
    pictures, frames = [], []
    with console.progress(len(chosen), label="predict") as bar:
        for done, index in enumerate(chosen, 1):
            console.line(f"Processing sample {index}...")
            predictions = _predict_all(loaded, sources, index)
            pictures.append(_save(out, index, predictions))
            console.line(f"Saved to {pictures[-1]}")
            for name, prediction in predictions:
                if prediction.summary:
                    console.line(f"  {name}: {prediction.summary}")
            if video:
                frames.append(_draw(predictions))
            bar.update(done)
    if video:
        save_video(video, frames, fps=4)
    console.line(f"Visualization complete! {len(pictures)} pictures in {out}")
    return pictures


def draw_samples(run: RunFolder, *, count: int) -> list[Path]:
    """Pictures of evenly spread validation samples from the best checkpoint, in the run's `vis/`."""
    loaded = load_run(str(run.path))
    source = build_data(loaded.recipe, loaded.recipe.config.data.val_split, augment=False)
    spread = sorted({round(i) for i in np.linspace(0, len(source[0]) - 1, min(count, len(source[0])))})
    run.vis.mkdir(exist_ok=True)
    return [_save(run.vis, index, _predict_all([loaded], [source], index), arrays=False) for index in spread]


def find_samples(text: str | None, data: Samples) -> list[int]:
    """Indices that `--indices` means: numbers as in `parse_indices`, or names of samples, by comma.

    Raises:
        UsageError: for a text of another form, or a sample that the split lacks.
    """
    if text is None or re.fullmatch(r"[\d\s,:-]+|all", text):
        return parse_indices(text, len(data))
    numbers = {data.name(index): index for index in range(len(data))}
    names = [part.strip() for part in text.split(",")]
    for name in names:
        if name not in numbers:
            raise UsageError(
                f"--indices: the split has no sample {name}{suggest(name, numbers)}", INDICES_HINT
            )
    return [numbers[name] for name in names]


def parse_indices(text: str | None, num_samples: int) -> list[int]:
    """`0,10`, `0-39`, `0-39:2` or `all` -> sample indices; without a text the first four.

    Raises:
        UsageError: for a text of another form or an index outside the split.
    """
    if text is None:
        return list(range(min(4, num_samples)))
    if text == "all":
        return list(range(num_samples))
    chosen: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+)(?::(\d+))?)?\s*", part)
        if not match:
            raise UsageError(f"--indices {text}: not understood", INDICES_HINT)
        first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
        chosen += range(first, last + 1, step)
    outside = [index for index in chosen if index >= num_samples]
    if outside:
        raise UsageError(f"--indices: {outside[0]} is outside; the split has samples 0 to {num_samples - 1}")
    return chosen


def predict_files(
    recipe: Recipe, files: Sequence[str | Path], sparse: Sequence[str | Path] = ()
) -> tuple[Samples, Collate]:
    """The user's own files as a data set.

    Args:
        recipe: whose system reads them.
        files: what `omma predict --input` takes.
        sparse: a file of known depth for each of them, or none.

    Raises:
        UsageError: if the system takes no such files, or their numbers differ.
    """
    system = recipe.system
    if system.inputs is None:
        raise UsageError(f"{system.name} has no --input; use --indices")
    build = system.load(system.inputs)
    paths = [Path(file) for file in files]
    if not sparse:
        return build(recipe.config, paths)
    if not system.sparse_inputs:
        raise UsageError(f"{system.name} takes no known depth", "leave --sparse out")
    if len(sparse) != len(files):
        raise UsageError(
            f"--input and --sparse do not pair up: {len(files)} and {len(sparse)} files",
            "give each --input its --sparse, in the same order",
        )
    return build(recipe.config, paths, sparse=[Path(file) for file in sparse])


def _source(
    loaded: Loaded, inputs: Sequence[str], sparse: Sequence[str], split: str | None
) -> tuple[Samples, Collate]:
    if inputs:
        return predict_files(loaded.recipe, inputs, sparse)
    return build_data(loaded.recipe, split or loaded.recipe.config.data.val_split, augment=False)


def _predict_all(
    loaded: Sequence[Loaded], sources: Sequence[tuple[Samples, Collate]], index: int
) -> list[tuple[str, Prediction]]:
    return list(_predictions(loaded, sources, index))


def _predictions(loaded: Sequence[Loaded], sources: Any, index: int) -> Iterator[tuple[str, Prediction]]:
    for item, (data, collate) in zip(loaded, sources, strict=True):
        device = device_of(item.recipe)
        with torch.no_grad():
            yield item.label, item.task.to(device).predict(to_device(collate([data[index]]), device))


def _draw(predictions: Sequence[tuple[str, Prediction]]) -> np.ndarray:
    drawer = predictions[0][1].drawer
    assert drawer is not None
    return drawer(predictions)


def _save(
    out: Path, index: int, predictions: Sequence[tuple[str, Prediction]], *, arrays: bool = True
) -> Path:
    """One picture; arrays and further files as sample_0010.npz, with several runs sample_0010_RUN.npz."""
    picture = out / f"sample_{index:04d}.png"
    save_png(picture, _draw(predictions))
    for name, prediction in predictions if arrays else ():
        stem = picture.stem if len(predictions) == 1 else f"{picture.stem}_{name}"
        for ending, content in {".npz": _npz(prediction), **prediction.files()}.items():
            write_bytes_atomic(out / f"{stem}{ending}", content)
    return picture


def _npz(prediction: Prediction) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **prediction.arrays)
    return stream.getvalue()
