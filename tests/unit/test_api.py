"""The Python interface: its examples, chains, and tasks and models as plain PyTorch."""

import doctest
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.commands import omma
from tests.small_systems import COMMON, SMALL, every

import omma as package
from omma.commands import api
from omma.engine.task import StepInfo
from omma.errors import OmmaError
from omma.runs.folder import RunFolder
from omma.systems.recipes import open_recipe

EVERY = pytest.mark.parametrize("system", every(), ids=lambda system: system.name)
SYSTEM = "panollava"  # the quickest
WORDS = [*SMALL[SYSTEM].words, *COMMON]


def _settings(words: list[str]) -> dict:
    """`key=value` words as the values that Python gives."""
    config = open_recipe(SMALL[SYSTEM].recipe, words).config.as_dict()
    found = {}
    for key in (word.partition("=")[0] for word in words):
        value = config
        for part in key.split("."):
            value = value[part]
        found[key] = value
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SMALL[SYSTEM].make_data(tmp_path_factory.mktemp("자료 😀") / SYSTEM)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of two steps, trained from Python."""
    root = tmp_path_factory.mktemp("runs")
    options = {"name": "첫 run", "smoke": 2, "runs_dir": str(root), "quiet": True}
    return package.train(SMALL[SYSTEM].recipe, **_settings(WORDS), **{"data.root": data}, **options)


def _examples() -> list[doctest.DocTest]:
    found = doctest.DocTestFinder(exclude_empty=True).find(api, "api", globs=dict(vars(api)))
    return [example for example in found if example.examples]


@pytest.mark.parametrize("example", _examples(), ids=lambda example: example.name)
def test_examples_of_the_docstrings_run(example, run, data, tmp_path):
    names = {"omma": package, "run": run, "data": str(data), "runs": str(tmp_path / "runs")}
    names |= {"recipe": SMALL[SYSTEM].recipe, "settings": _settings(WORDS)}
    names |= {"pictures": tmp_path / "pictures", "comparison": tmp_path / "comparison"}
    example.globs = {**vars(api), **names}
    results = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example)
    assert results.attempted > 0
    assert results.failed == 0


def test_every_function_of_the_interface_has_an_example():
    shown = {example.name.removeprefix("api.") for example in _examples()}
    public = {name for name in package.__all__ if not name.startswith("_")}
    assert public == {"build", "compare", "evaluate", "load", "predict", "train"}
    assert public | {"Model.predict", "Model.data"} <= shown


def test_the_interface_is_imported_when_it_is_used():
    script = (
        "import sys, omma; assert 'compare' in dir(omma); print([n for n in ('torch',) if n in sys.modules]);"
        "omma.compare; print([n for n in ('torch',) if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["[]", "['torch']"], done.stderr
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        package.trian  # noqa: B018


RECIPE = SMALL[SYSTEM].recipe
MISTAKES = {  # what is done, and a part of what is said
    "no such run": (lambda run, out: package.load("no-such-run"), "no-such-run: no such run"),
    "no checkpoint": (lambda run, out: package.load(f"{run.path}@step_99"), "no checkpoint step_99"),
    "no run": (lambda run, out: package.load(None), "a run is a name, a path or what omma.train"),
    "misspelt key of a run": (
        lambda run, out: package.load(run, **{"data.rot": 1}),
        "did you mean data.root",
    ),
    "data elsewhere": (
        lambda run, out: package.load(run, **{"data.root": str(out / "nowhere")}).predict(0),
        "nowhere: no such folder",
    ),
    "sample outside": (lambda run, out: package.load(run).predict(99), "sample 99: val has samples 0 to"),
    "missing picture": (lambda run, out: package.load(run).predict(out / "a.jpg"), "no such file"),
    "no picture": (lambda run, out: package.load(run).predict(run.path / "log.txt"), "damaged or no image"),
    "array": (
        lambda run, out: package.load(run).predict(np.zeros((2, 4, 3))),
        "a file or a batch of one, not nd",
    ),
    "half a batch": (lambda run, out: package.load(run).predict({"views": 1}), "a batch of one, not dict"),
    "depth of a sample": (
        lambda run, out: package.load(run).predict(0, sparse="a"),
        "sparse is the known depth of",
    ),
    "split of a number": (
        lambda run, out: package.load(run).data(5),
        "split: a part of the data set has a name",
    ),
    "no such recipe": (lambda run, out: package.build("panollava/tinny"), "did you mean panollava/tiny"),
    "recipe of a number": (lambda run, out: package.build(5), "a recipe is a name such as system/recipe"),
    "set as a value": (
        lambda run, out: package.build(RECIPE, **{"optim.lr": {1}}),
        "optim.lr: no recipe can hold",
    ),
    "misspelt key": (lambda run, out: package.train(RECIPE, **{"optim.lrr": 1}), "did you mean optim.lr"),
    "misspelt option": (lambda run, out: package.train(RECIPE, nmae="a"), "nmae: no such option"),
    "option's type": (
        lambda run, out: package.train(RECIPE, smoke="x"),
        "smoke: should be int, not 'x' (str)",
    ),
    "one stage's option": (
        lambda run, out: package.train("panollava/all", overfit=1),
        "overfit: panollava/all is",
    ),
    "no such study": (
        lambda run, out: package.evaluate(run, studies="robust"),
        "--study robust: panollava has",
    ),
    "nothing to predict": (lambda run, out: package.predict([], out), "give at least one run"),
    "sample's name": (lambda run, out: package.predict(run, out, indices="x"), "the split has no sample x"),
    "sample's type": (
        lambda run, out: package.predict(run, out, indices=1.5),
        "indices: should be a number, a text",
    ),
    "file for a folder": (
        lambda run, out: package.predict(run, run.path / "log.txt"),
        "log.txt: is a file, but",
    ),
    "comparison into a file": (
        lambda run, out: package.compare([run, run], run.path / "log.txt"),
        "log.txt: is a file, but",
    ),
    "names of a number": (
        lambda run, out: package.compare(run, out, names=3),
        "names: should be a text or path or",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_clear_error(mistake, run, tmp_path):
    do, said = MISTAKES[mistake]
    with pytest.raises(OmmaError, match=re.escape(said)):
        do(run, tmp_path)


def test_values_that_python_has_are_taken(run, tmp_path):
    """NumPy's numbers, one thing in place of a list, a path in place of a text."""
    model = package.load(run, **{"train.batch_size": np.int64(1)})
    assert model.config.train.batch_size == 1
    assert model.predict(np.int64(1)).meta["token"] == model.predict(1).meta["token"]
    assert [file.name for file in package.predict(run, tmp_path, indices=[1, 0])] == [
        "sample_0001.png",
        "sample_0000.png",
    ]
    assert package.build(Path(RECIPE), **_settings(WORDS)).model is not None


@EVERY
def test_a_task_trains_in_a_plain_loop(system):
    """No engine, no run folder: parameters, a loss, an optimiser of one's own."""
    words = [*SMALL[system.name].words, *COMMON]
    recipe = SMALL[system.name].recipe
    settings = {word.partition("=")[0]: _value(word) for word in words}
    task = package.build(recipe, **settings).train()
    assert isinstance(task, torch.nn.Module)
    assert isinstance(task.model, torch.nn.Module)
    batch = task.example_batch(2)
    optimizer = torch.optim.SGD(task.parameters(), lr=1e-4)
    before = {name: value.clone() for name, value in task.state_dict().items()}
    for step in range(2):
        torch.manual_seed(step)
        terms = task.training_step(batch, StepInfo(step, 0, step / 2))
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
    assert any(not torch.equal(value, before[name]) for name, value in task.state_dict().items())


def _value(word: str):
    from omma.config.yaml import parse_yaml

    return parse_yaml(word.partition("=")[2], word)


@EVERY
def test_a_model_is_saved_and_loaded_by_torch(system, tmp_path):
    words = {word.partition("=")[0]: _value(word) for word in (*SMALL[system.name].words, *COMMON)}
    task = package.build(SMALL[system.name].recipe, **words).eval()
    torch.save(task.model.state_dict(), tmp_path / "model.pt")
    again = package.build(SMALL[system.name].recipe, **words, seed=5).eval()
    again.model.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    inputs = task.example_inputs()
    with torch.no_grad():
        torch.testing.assert_close(again.model(*inputs), task.model(*inputs), rtol=0, atol=0, equal_nan=True)


def test_a_loaded_model_meets_a_data_loader(run):
    model = package.load(run)
    samples, collate = model.data("train")
    loader = torch.utils.data.DataLoader(samples, batch_size=2, collate_fn=collate)
    batch = next(iter(loader))
    with torch.no_grad():
        loss = model.task.training_step(batch, StepInfo(0, 0, 0.0))["loss"]
    assert torch.isfinite(loss)
    one = model.predict(collate([samples[1]]))
    assert one.draw().ndim == 3
    assert omma("status", run.path) == 0
