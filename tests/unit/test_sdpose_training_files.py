"""Training files in mmcv's form: what is kept, and which moments belong to which parameter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from omma.engine.checkpoint import TrainingState
from omma.engine.task import StepInfo
from omma.errors import CheckpointError
from omma.systems.recipes import open_recipe
from omma.systems.sdpose.convert import to_reference
from omma.systems.sdpose.keys import POSITIONS
from omma.systems.sdpose.task import SDPoseTask
from omma.systems.sdpose.training_files import read_training_file, write_training_file

RECIPE = "sdpose/s_v1"
NETWORK = ["data.image_size=[64, 48]", "system.dim=24", "system.depth=1", "system.heads=2"]
KEYS = Path(__file__).parents[1] / "parity" / "sdpose"


def _task(*words: str) -> SDPoseTask:
    torch.manual_seed(0)
    return SDPoseTask(open_recipe(RECIPE, [*NETWORK, *words]).config)


def _files(folder: Path) -> set[str]:
    return {file.name for file in folder.glob("*.pth")}


def _stepped() -> tuple[SDPoseTask, dict[str, Any]]:
    task = _task()
    optimizer = torch.optim.Adam(task.parameters())
    task.training_step(task.example_batch(2), StepInfo(0, 0, 0.0))["loss"].backward()
    optimizer.step()
    return task, optimizer.state_dict()


def test_what_is_kept_of_50_epochs(tmp_path):
    """R10, R13: three periodic files, latest, and the best alone, with its AP inside."""
    task, optimizer = _stepped()
    for epoch in (10, 20, 30, 40, 50):
        scores = {"AP": 0.7 if epoch == 30 else 0.1 + epoch / 1000, "APL": float("nan")}
        for kind in ["best", "step"] if epoch in (10, 20, 30) else ["step"]:
            write_training_file(tmp_path, task, TrainingState(kind, 7 * epoch, epoch, scores, optimizer))
        if epoch == 20:
            assert "best_AP_epoch_20.pth" in _files(tmp_path)
    write_training_file(tmp_path, task, TrainingState("final", 350, 50, {}, optimizer))
    kept = {f"epoch_{epoch}.pth" for epoch in (30, 40, 50)}
    assert _files(tmp_path) == {*kept, "latest.pth", "best_AP_epoch_30.pth"}
    best = torch.load(tmp_path / "best_AP_epoch_30.pth", weights_only=True)
    assert best["meta"]["metrics"]["AP"] == 0.7
    assert torch.load(tmp_path / "latest.pth", weights_only=True)["meta"]["epoch"] == 50


def test_inside_an_epoch_the_step_counts(tmp_path):
    """D3: what is stopped between epochs' ends goes on at its step."""
    task, optimizer = _stepped()
    state = TrainingState("step", 75, 10, {}, optimizer, steps_in_epoch=5)
    assert write_training_file(tmp_path, task, state).name == "iter_75.pth"
    found = read_training_file(torch.load(tmp_path / "latest.pth", weights_only=True), task)
    assert (found.step, found.epoch) == (75, None)


@pytest.mark.parametrize("name", ["model_s_v1", "model_b"])
def test_moments_find_their_parameters(name):
    """Section 8: numbered as in the original's network, whose sine table is a parameter without a state."""
    backbone = [] if name == "model_s_v1" else ["system.backbone={name: hrnet_w32, pretrained: none}"]
    task = SDPoseTask(open_recipe(RECIPE, backbone).config)
    weights = to_reference(task.model)
    names = list(json.loads((KEYS / f"{name}.keys.json").read_text("utf-8"))["shapes"])
    names.insert(names.index("keypoint_head.tokenpose.keypoint_token") + 1, POSITIONS)
    parameters = [name for name in names if not name.endswith(("running_mean", "running_var", "tracked"))]
    moments = {
        number: {"step": 3, "exp_avg": weights[name], "exp_avg_sq": weights[name] ** 2}
        for number, name in enumerate(parameters)
        if name != POSITIONS
    }
    content = {
        "meta": {"epoch": 1, "iter": 3},
        "state_dict": {name: weights[name] for name in names},
        "optimizer": {"state": moments, "param_groups": []},
    }
    found = read_training_file(content, task)
    own = [parameter for parameter in task.parameters() if parameter.requires_grad]
    assert len(found.moments) == len(own) == len(moments)
    for parameter, moment in zip(own, found.moments, strict=True):
        assert torch.equal(parameter, moment["exp_avg"])
        assert torch.equal(parameter**2, moment["exp_avg_sq"])


def test_weights_alone_are_no_training():
    task = _task()
    with pytest.raises(CheckpointError, match=r"no optimizer, meta.epoch, meta.iter.*cannot be continued"):
        read_training_file({"state_dict": to_reference(task.model)}, task)
    content = {"meta": {"epoch": 1, "iter": 1}, "optimizer": {"state": {}}}
    weights = to_reference(_task("system.depth=2").model)
    deeper = _task("system.depth=3")
    with pytest.raises(CheckpointError, match="no weights for 11 tensors of this network"):
        read_training_file(content | {"state_dict": weights}, deeper)
