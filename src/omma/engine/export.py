"""Export to ONNX and to torch.export's .pt2, each checked against PyTorch on the task's example inputs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from omma.engine.task import Task
from omma.errors import OmmaError, UsageError

# (axis, length) -> length: three times the batch at half as large again, and odd sizes that fit no stride
_OTHER_LENGTHS: tuple[Callable[[int, int], int], ...] = (
    lambda axis, length: length + length // 2 if axis else 3 * length,
    lambda axis, length: length // 2 + 3 + 2 * axis if axis else length,
)


@dataclass(frozen=True)
class ExportCheck:
    """How far an exported file is from PyTorch.

    Args:
        path: the file.
        max_abs_difference: largest difference of any output value on the example inputs.
        max_abs_output: largest output value, for scale.
        inputs: name -> shape of each input.
        dynamic: axes of all inputs that may have any length, with their names.
        other_shapes: first input's shape, as text -> largest difference there, for files with such axes.
    """

    path: Path
    max_abs_difference: float
    max_abs_output: float
    inputs: dict[str, list[int]]
    dynamic: dict[int, str] = field(default_factory=dict)
    other_shapes: dict[str, float] = field(default_factory=dict)


def export_task(task: Task, format: str, path: Path) -> ExportCheck:
    """Export a task's network on the CPU and compare the file's outputs with PyTorch's on `export_inputs`.

    Args:
        task: the trained task.
        format: "onnx" or "pt2".
        path: file to write.

    Raises:
        UsageError: for an unknown format or if the packages of `omma[export]` are missing.
        OmmaError: if the file's outputs differ from PyTorch's by more than 1e-3 of the largest.
    """
    writers: dict[str, Callable[..., Callable[..., Any]]] = {"onnx": _write_onnx, "pt2": _write_pt2}
    if format not in writers:
        raise UsageError(f"--format {format}: expected {', '.join(writers)} or reference")
    task = task.cpu().eval()
    module, inputs = task.export_module().eval(), task.export_inputs()
    axes = (
        task.dynamic_axes() if format == "onnx" else {}
    )  # torch.export guards a .pt2 by the example's shape
    with torch.no_grad():
        path.parent.mkdir(parents=True, exist_ok=True)
        run = writers[format](module, inputs, axes, path)
        scale = max(float(a.abs().max()) for a in _flat(module(*inputs)))
        others = [_with_lengths(inputs, axes, change) for change in _OTHER_LENGTHS if axes]
        differences = {_text(case[0]): _difference(module, run, case) for case in (inputs, *others)}
    for shape, difference in differences.items():
        if not difference <= 1e-3 * max(scale, 1.0):
            raise OmmaError(
                f"{path}: outputs differ from PyTorch by {difference:.3g} (largest output {scale:.3g}) "
                f"for an input of {shape}"
            )
    shapes = dict(zip(_names(module, inputs), map(_shape, inputs), strict=True))
    first = differences.pop(_text(inputs[0]))
    return ExportCheck(path, first, scale, shapes, axes, differences)


def _difference(module: nn.Module, run: Callable[..., Any], inputs: tuple[Tensor, ...]) -> float:
    pairs = zip(_flat(module(*inputs)), _flat(run(*inputs)), strict=True)
    return max(float((a - b).abs().max()) if a.shape == b.shape else float("inf") for a, b in pairs)


def _with_lengths(
    inputs: tuple[Tensor, ...], axes: dict[int, str], change: Callable[[int, int], int]
) -> tuple[Tensor, ...]:
    """The inputs with other lengths along the open axes: cut, or repeated."""
    changed = list(inputs)
    for number, value in enumerate(inputs):
        for axis in axes:
            length = value.shape[axis]
            places = torch.arange(change(axis, length)) % length
            changed[number] = changed[number].index_select(axis, places)
    return tuple(changed)


def _write_pt2(
    module: nn.Module, inputs: tuple[Tensor, ...], axes: dict[int, str], path: Path
) -> Callable[..., Any]:
    torch.export.save(torch.export.export(module, inputs), path)
    return torch.export.load(path).module()


def _write_onnx(
    module: nn.Module, inputs: tuple[Tensor, ...], axes: dict[int, str], path: Path
) -> Callable[..., Any]:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  torch.onnx needs it
    except ImportError as error:
        raise UsageError(f"ONNX export needs {error.name}", 'pip install "omma[export]"') from None
    names = _names(module, inputs)
    open_axes = {axis: torch.export.Dim(name) for axis, name in axes.items()}
    shapes = tuple(dict(open_axes) for _ in inputs) if axes else None
    traced = _with_lengths(inputs, axes, lambda axis, length: max(length, 2))  # a length of 1 would stay 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.onnx warns about its own internals
        torch.onnx.export(
            module, traced, path, input_names=names, output_names=["output"], dynamo=True, verbose=False,
            external_data=False, dynamic_shapes=shapes,
        )  # fmt: skip
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(*values: Tensor) -> list[Tensor]:
        feed = {name: value.numpy() for name, value in zip(names, values, strict=True)}
        return [torch.from_numpy(array) for array in session.run(None, feed)]

    return run


def _names(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[str]:
    """Names of the inputs that are given; later ones of `forward` are optional."""
    import inspect

    return list(inspect.signature(module.forward).parameters)[: len(inputs)]


def _shape(value: Tensor) -> list[int]:
    return list(value.shape)


def _text(value: Tensor) -> str:
    return " x ".join(map(str, value.shape))


def _flat(outputs: Any) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)
