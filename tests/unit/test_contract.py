"""What every system has to keep, checked for each one that is found."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch

import omma
from omma.commands.build import build_task
from omma.core.meter import Meter
from omma.engine.task import Prediction, StepInfo, Task
from omma.errors import OmmaError
from omma.systems import System, systems
from omma.systems.recipes import open_recipe

PACKAGE = Path(omma.__file__).parent
EVERY = pytest.mark.parametrize("system", systems().values(), ids=lambda system: system.name)


def _task(system: System) -> Task:
    """A small one: the demo's recipe where there is one."""
    recipe = open_recipe(f"{system.name}/{system.demo.recipe if system.demo else 'base'}")
    torch.manual_seed(0)
    return system.load(system.task)(recipe.config)


@EVERY
def test_all_named_parts_exist(system):
    single = [system.config, system.task, system.data, system.inputs, system.convert, system.viz]
    more = [
        system.diagnose,
        system.doctor,
        system.aliases,
        system.originals,
        *system.prepare.values(),
        *system.studies.values(),
    ]
    for target in filter(None, [*single, *more]):
        assert system.load(target) is not None


@EVERY
def test_recipes_say_what_they_are_and_how_to_run_them(system):
    assert "base" in system.recipes()
    for file in system.recipes().values():
        lines = file.read_text(encoding="utf-8").splitlines()
        assert lines[0].startswith("# ")
        assert any(line.startswith("#") and "omma " in line for line in lines[:3]), file


@EVERY
def test_training_step_gives_a_loss_its_terms_and_a_gradient_for_every_parameter(system):
    task = _task(system).train()
    terms = task.training_step(task.example_batch(2), StepInfo(0, 0, 0.0))
    assert set(terms) == {"loss", *task.train_terms}
    assert all(torch.isfinite(value) and value.ndim == 0 for value in terms.values())
    terms["loss"].backward()
    without = [name for name, p in task.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


@EVERY
def test_meters_name_their_metrics_and_merge_without_change(system):
    task = _task(system).eval()
    whole, half = task.meters(), task.meters()
    batch = task.example_batch(2)
    with torch.no_grad():
        task.validation_step(batch, whole)
        task.validation_step(batch, half)
    names = [name for meter in whole.values() for name in meter.names]
    assert len(names) == len(set(names))
    assert system.best[0] in names
    for name, meter in whole.items():
        assert isinstance(meter, Meter)
        values = meter.compute()
        assert tuple(values) == meter.names
        fresh = task.meters()[name]
        fresh.merge([meter.state()])
        assert fresh.compute() == pytest.approx(values, nan_ok=True)


@EVERY
def test_prediction_has_arrays_and_a_picture(system):
    task = _task(system).eval()
    with torch.no_grad():
        prediction = task.predict(task.example_batch(1))
    assert isinstance(prediction, Prediction)
    assert all(isinstance(array, np.ndarray) for array in prediction.arrays.values())
    picture = prediction.draw()
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert picture.shape[2] == 3


@EVERY
def test_example_inputs_fit_the_network_and_blocks_belong_to_it(system):
    task = _task(system).eval()
    with torch.no_grad():
        task.model(*task.example_inputs())
    modules = set(task.modules())
    assert set(task.checkpoint_blocks()) <= modules
    assert set(task.compile_targets()) <= modules


def _docstrings(tree: ast.Module) -> set[int]:
    nodes = [n for n in ast.walk(tree) if isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef)]
    bodies = [n.body[0] for n in nodes if n.body and isinstance(n.body[0], ast.Expr)]
    return {id(expression.value) for expression in bodies}


@EVERY
def test_no_code_outside_its_folder_names_a_system(system):
    """E11: a system is one folder; examples in texts for people may name one."""
    own = system.folder.resolve()
    for file in PACKAGE.rglob("*.py"):
        if own in file.resolve().parents or file.name in {"cli.py", "api.py"}:
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        docs = _docstrings(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                assert not node.module.startswith(f"omma.systems.{system.name}"), file
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
                assert node.value != system.name, f"{file}:{node.lineno}"


@EVERY
def test_a_checkpoint_s_network_fetches_no_pretrained_weights(system):
    """Evaluating or resuming works where the weights of the start cannot be had."""
    if system.pretrained_key is None:
        pytest.skip("nothing pretrained")
    name = f"{system.name}/{system.demo.recipe if system.demo else 'base'}"
    recipe = open_recipe(name, [f"{system.pretrained_key}=missing.pth"])
    with pytest.raises(OmmaError, match=r"missing\.pth"):
        build_task(recipe)
    assert build_task(recipe, fresh=False).model is not None
