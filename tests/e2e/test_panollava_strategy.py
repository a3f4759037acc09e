"""PanoLLaVA sharded over two CPU processes: trains as one process, checkpoints are whole, resume is exact."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.unit.pano_files import TINY, write_set
from torch import Tensor
from torch.distributed.tensor import DTensor

from omma.commands.build import build_task, build_training_data
from omma.commands.train import _reference_writer
from omma.engine import launch
from omma.engine.checkpoint import load_weights
from omma.engine.launch import run_workers, world
from omma.engine.loop import fit
from omma.engine.ranks import leave
from omma.engine.sharding import shard
from omma.errors import ConfigError, OmmaError
from omma.runs.console import RunLog
from omma.runs.folder import RunFolder
from omma.systems.panollava.task import PanoTask
from omma.systems.panollava.training_files import ADAPTERS as ADAPTERS_FOLDER
from omma.systems.panollava.training_files import FINAL
from omma.systems.recipes import open_recipe
from toy import ToyTask, assert_same, last_state, rows, toy_config

pytestmark = [pytest.mark.e2e, pytest.mark.multi, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
# A batch of two has as many answers to learn as one of four; eps keeps Adam from raising rounding to a step.
SAME = [
    "system.resampler.norm=layer", "train.length=4", "validate.every=2", "save.every=2",
    "save.reference=true", "optim.lr=1e-2", "optim.eps=1e-2", "schedule.warmup=0",
]  # fmt: skip
ALL = ["system.train=[vision, resampler, projector, language]", "train.ema=0.9", "train.accumulate=2"]
ADAPTERS = ["system.lora={rank: 4, dropout: 0}", "system.generate.answers=true"]  # tower and language frozen
RECOMPUTED = "train.activation_checkpointing=true"  # changes nothing but memory
HALF = ["train.batch_size=2", "train.strategy=fsdp"]


def _fit(folder: str, overrides: list[str], stop_step: int = -1) -> PanoTask:
    """One training, from the folder's last checkpoint if there is one; the last process may stop it."""
    recipe = open_recipe("panollava/finetune", overrides)
    run = RunFolder(Path(folder))
    here = world()
    if here.rank == 0 and not run.is_run():
        RunFolder.create(run.path.parent, run.name, config=recipe.config.as_dict(), command=["omma", "train"])
    train_data, val_data, collate = build_training_data(recipe, None)
    task = build_task(recipe, fresh=True)
    step = task.training_step

    def training_step(batch: Any, info: Any) -> Any:
        if info.step == stop_step and here.rank == here.size - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(batch, info)

    task.training_step = training_step
    console = RunLog(None, quiet=True)
    fit(
        task,
        train_data,
        val_data,
        collate,
        recipe.config,
        run,
        best=recipe.system.best,
        console=console,
        reference_writer=_reference_writer(recipe, run),
    )
    return task


def _held(task: PanoTask) -> float:
    """Share of the parameters that this process holds."""
    kept = [p.to_local() if isinstance(p, DTensor) else p for p in task.parameters()]
    return sum(p.numel() for p in kept) / sum(p.numel() for p in task.parameters())


def main(jobs: str) -> int:
    """Trainings one after the other in this process: a JSON list of the arguments of `_fit`."""
    code = 0
    for job in json.loads(jobs):
        try:
            share = _held(_fit(**job))
            Path(f"{job['folder']}-{world().rank}.json").write_text(json.dumps(share), encoding="utf-8")
        except OmmaError as error:
            sys.stderr.write(f"{error}\n")
            code = error.exit_code
        leave()
        os.environ["MASTER_PORT"] = str(int(os.environ["MASTER_PORT"]) + 1)
    return code


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Folder of runs: all, half (stopped and resumed) and adapters over two processes, one_* over one."""
    root = tmp_path_factory.mktemp("runs")
    data = write_set(root / "data", train=16)
    common = [*TINY, *SAME, f"data.root={data}"]
    half = [*common, *HALF]
    jobs = [
        {"folder": str(root / "all"), "overrides": [*half, *ALL]},
        {"folder": str(root / "stopped"), "overrides": [*half, *ALL], "stop_step": 2},
        {"folder": str(root / "stopped"), "overrides": [*half, *ALL]},
        {"folder": str(root / "adapters"), "overrides": [*half, *ADAPTERS, RECOMPUTED]},
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "_COMMAND", (sys.executable, __file__))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
        assert run_workers([json.dumps(jobs)], 2) == 143
    _fit(str(root / "one_all"), [*common, *ALL])
    _fit(str(root / "one_adapters"), [*common, *ADAPTERS])
    return root


@pytest.mark.parametrize("name", ["all", "adapters"])
def test_two_sharded_processes_train_as_one(runs, name):
    """Losses, gradient norms and metrics, weights, averaged weights and the optimiser's state."""
    two, one = RunFolder(runs / name), RunFolder(runs / f"one_{name}")
    assert len(rows(two)) == len(rows(one)) == 6
    for ours, expected in zip(rows(two), rows(one), strict=True):
        assert ours.keys() == expected.keys()
        for column, value in expected.items():
            same = value if isinstance(value, str) else pytest.approx(value, rel=1e-4, abs=1e-6, nan_ok=True)
            assert ours[column] == same, column
    ours, expected = last_state(two), last_state(one)
    assert ours.keys() == expected.keys()
    for key, value in expected.items():
        if isinstance(value, Tensor) and value.is_floating_point():
            torch.testing.assert_close(ours[key], value, rtol=1e-3, atol=1e-5, msg=key)


def test_each_process_holds_half_of_the_network(runs):
    shares = [json.loads((runs / f"all-{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)]
    assert sum(shares) == pytest.approx(1)
    assert max(shares) < 0.55


def test_resume_of_sharded_training_is_exact(runs):
    assert_same(RunFolder(runs / "stopped"), RunFolder(runs / "all"))


def test_checkpoint_is_whole_and_one_process_loads_it(runs):
    """The tied table of words stands in it once, in its full size."""
    task = build_task(open_recipe("panollava/finetune", [*TINY, *SAME, *ALL]), fresh=True)
    before = {name: tensor.clone() for name, tensor in task.state_dict().items()}
    load_weights(task, runs / "all" / "checkpoints" / "final", system="panollava", averaged=False)
    state = task.state_dict()
    assert not any(name.endswith("lm_head.weight") for name in state)
    table = next(name for name in state if name.endswith("embed_tokens.weight"))
    assert not torch.equal(state[table], before[table])


@pytest.mark.parametrize("name", ["all", "stopped", "adapters"])
def test_files_of_the_original_project_are_whole(runs, name):
    """As one process writes them: the averaged weights, and the adapters."""
    one = runs / f"one_{name.replace('stopped', 'all')}"
    files = [FINAL, f"{ADAPTERS_FOLDER}/adapter_model.safetensors"] if name == "adapters" else [FINAL]
    for file in files:
        ours, expected = (load_file(folder / file) for folder in (runs / name, one))
        assert ours.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(ours[key], value, rtol=1e-3, atol=1e-5, msg=key)


def test_what_sharding_cannot_do_is_said():
    """Before anything is cut: loss scaling, systems that name no layers."""
    with pytest.raises(ConfigError, match="names no layers"):
        shard(ToyTask(toy_config()), toy_config())
    recipe = open_recipe("panollava/finetune", [*TINY, *SAME, *HALF, "train.precision=16-mixed"])
    with pytest.raises(ConfigError, match="16-mixed") as failure:
        shard(build_task(recipe, fresh=True), recipe.config)
    assert "bf16" in failure.value.hint


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
