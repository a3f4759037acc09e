"""Export to ONNX and to torch.export's .pt2, each checked against PyTorch on the task's example inputs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from omma.engine.task import Task
from omma.errors import OmmaError, UsageError


@dataclass(frozen=True)
class ExportCheck:
    """How far an exported file is from PyTorch.

    Args:
        path: the file.
        max_abs_difference: largest difference of any output value on the example inputs.
        max_abs_output: largest output value, for scale.
        inputs: name -> shape of each input.
    """

    path: Path
    max_abs_difference: float
    max_abs_output: float
    inputs: dict[str, list[int]]


def export_task(task: Task, format: str, path: Path) -> ExportCheck:
    """Export a task's network on the CPU and compare the file's outputs with PyTorch's.

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
    module, inputs = task.export_module().eval(), task.example_inputs()
    with torch.no_grad():
        expected = _flat(task.model(*inputs))
        path.parent.mkdir(parents=True, exist_ok=True)
        outputs = _flat(writers[format](module, inputs, path)(*inputs))
    difference = max(float((a - b).abs().max()) for a, b in zip(expected, outputs, strict=True))
    scale = max(float(a.abs().max()) for a in expected)
    if not difference <= 1e-3 * max(scale, 1.0):
        raise OmmaError(
            f"{path}: outputs differ from PyTorch by {difference:.3g} (largest output {scale:.3g})"
        )
    return ExportCheck(
        path, difference, scale, dict(zip(_names(module, inputs), map(_shape, inputs), strict=True))
    )


def _write_pt2(module: nn.Module, inputs: tuple[Tensor, ...], path: Path) -> Callable[..., Any]:
    torch.export.save(torch.export.export(module, inputs), path)
    return torch.export.load(path).module()


def _write_onnx(module: nn.Module, inputs: tuple[Tensor, ...], path: Path) -> Callable[..., Any]:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  torch.onnx needs it
    except ImportError as error:
        raise UsageError(f"ONNX export needs {error.name}", 'pip install "omma[export]"') from None
    names = _names(module, inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.onnx warns about its own internals
        torch.onnx.export(
            module, inputs, path, input_names=names, output_names=["output"], dynamo=True, verbose=False,
            external_data=False,
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


def _flat(outputs: Any) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)
