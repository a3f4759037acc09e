"""Exported files of G2-MonoDepth take any number of images of any size."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from omma.engine import export as engine_export
from omma.engine.export import export_task
from omma.errors import OmmaError
from omma.systems.g2_monodepth.config import G2Config
from omma.systems.g2_monodepth.inputs import pad_inputs
from omma.systems.g2_monodepth.task import G2Task

SETTINGS = {
    "system": {"network": {"name": "unet", "layers": 3, "features": 4, "pad": "reflect"}},
    "data": {"image_size": [16, 20]},
}


def task() -> G2Task:
    torch.manual_seed(0)
    made = G2Task(G2Config.model_validate_json(json.dumps(SETTINGS)))
    for parameter in made.parameters():
        if not parameter.dim():
            nn.init.constant_(parameter, 0.3)  # alpha 0 would leave most of the network out
    return made.eval()


def inputs(batch: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    known = (torch.rand(batch, 1, height, width) > 0.5).float()
    return torch.rand(batch, 3, height, width), torch.rand(batch, 1, height, width) * known, known


def test_onnx_takes_any_size(tmp_path: Path) -> None:
    network = task()
    check = export_task(network, "onnx", tmp_path / "model.onnx")
    assert check.inputs == {"rgb": [1, 3, 16, 20], "raw": [1, 1, 16, 20], "mask": [1, 1, 16, 20]}
    assert check.dynamic == {0: "batch", 2: "height", 3: "width"}
    assert list(check.other_shapes) == ["3 x 3 x 24 x 30", "1 x 3 x 15 x 19"]
    assert max(check.max_abs_difference, *check.other_shapes.values()) < 1e-5
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    for size in ((1, 37, 5), (2, 8, 64)):
        given = inputs(*size)
        feed = {name: value.numpy() for name, value in zip(("rgb", "raw", "mask"), given, strict=True)}
        with torch.no_grad():
            expected = network.model(*given)
        torch.testing.assert_close(torch.from_numpy(session.run(None, feed)[0]), expected, atol=1e-5, rtol=0)


def test_a_file_that_is_wrong_at_another_size_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = task()

    def write(module: nn.Module, given: tuple[Tensor, ...], axes: dict[int, str], path: Path) -> object:
        return lambda *values: module(*values) + float(values[0].shape[2] != 16)

    monkeypatch.setattr(engine_export, "_write_onnx", write)
    with pytest.raises(OmmaError, match=r"differ from PyTorch by 1 .*for an input of 3 x 3 x 24 x 30"):
        export_task(network, "onnx", tmp_path / "model.onnx")


def test_pt2_has_the_shape_of_the_example(tmp_path: Path) -> None:
    check = export_task(task(), "pt2", tmp_path / "model.pt2")
    assert (check.dynamic, check.other_shapes) == ({}, {})
    assert check.max_abs_difference < 1e-6


@pytest.mark.parametrize("pad", ["replicate", "reflect", "zero"])
def test_padding_of_exported_files(pad: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for size in product((7, 8, 9, 16, 31), (8, 13, 24)):
        given = torch.cat(inputs(2, *size), dim=1)
        expected = pad_inputs(given, 8, pad)
        with monkeypatch.context() as context:
            context.setattr(torch.compiler, "is_exporting", lambda: True)
            torch.testing.assert_close(pad_inputs(given, 8, pad), expected, atol=0, rtol=0)
    small = torch.cat(inputs(1, 3, 40), dim=1)  # a mirror shows no more than the image itself
    expected = pad_inputs(small, 8, pad)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    torch.testing.assert_close(pad_inputs(small, 8, pad), expected, atol=0, rtol=0)
