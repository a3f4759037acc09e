"""`omma export`: onnx, pt2 and the original project's format."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from omma.commands.arguments import out_folder
from omma.commands.build import Loaded, load_run
from omma.engine.export import export_task
from omma.errors import UsageError
from omma.runs.files import write_json_atomic

_SUFFIX = {"onnx": ".onnx", "pt2": ".pt2", "reference": ".pt"}


def export(
    reference: str, format: str = "onnx", *, out: Path | None = None, runs_dir: str | None = None
) -> Path:
    """Export a checkpoint and say how far the file is from PyTorch.

    Args:
        reference: RUN, RUN@WHICH or a checkpoint folder.
        format: "onnx", "pt2" or "reference" (a file that the original project loads).
        out: file to write; default `export/model.<suffix>` in the run.
        runs_dir: where run names are looked up.

    Returns:
        the file.
    """
    if format not in _SUFFIX:
        raise UsageError(f"--format {format}: expected one of {', '.join(_SUFFIX)}")
    loaded = load_run(reference, runs_dir=runs_dir)
    path = out or loaded.run.export / f"model{_SUFFIX[format]}"
    if path.is_dir():
        raise UsageError(f"{path}: is a folder", f"give a file, such as {path / 'model'}{_SUFFIX[format]}")
    out_folder(path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    if format == "reference":
        difference = _write_reference(loaded, path)
        print(f"{path}: reads back with a largest difference of {difference:.3g}")  # noqa: T201
        return path
    check = export_task(loaded.task, format, path)
    write_json_atomic(path.with_suffix(".check.json"), asdict(check) | {"path": path.name, "format": format})
    print(  # noqa: T201
        f"{path}: largest difference from PyTorch {check.max_abs_difference:.3g} "
        f"(largest output {check.max_abs_output:.3g})"
    )
    for name, difference in loaded.task.export_files(path.parent).items():
        print(f"{path.parent / name}: reads back with a largest difference of {difference:.3g}")  # noqa: T201
    if check.dynamic:
        others = ", ".join(f"{shape}: {difference:.3g}" for shape, difference in check.other_shapes.items())
        print(f"{', '.join(check.dynamic.values())} may be any; also compared: {others}")  # noqa: T201
    return path


def _write_reference(loaded: Loaded, path: Path) -> float:
    """Write the original project's file, read it back and compare the outputs."""
    system = loaded.recipe.system
    if system.convert is None:
        raise UsageError(f"{system.name} has no original project to export to")
    convert = system.load(system.convert)
    torch.save({"model_state_dict": convert.to_reference(loaded.task.model)}, path)
    state = torch.load(path, map_location="cpu", weights_only=True)
    own_check = getattr(convert, "read_back", None)
    if own_check:
        return own_check(loaded.task.cpu().model, state)
    inputs = loaded.task.cpu().example_inputs()
    with torch.no_grad():
        return float((convert.load_reference(state)(*inputs) - loaded.task.model(*inputs)).abs().max())
