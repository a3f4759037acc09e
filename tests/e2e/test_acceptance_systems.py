"""E2, E3, E4, E8, E14, E15 and E16 for every system that is found, on data sets of a few frames.

One run a system is stopped by SIGTERM, goes on, and then meets every verb; the slow tests compare it bit for
bit with a run that was not stopped, with processes that are spawned, and with two processes.
"""

import json
import os
import pickle
import signal
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.commands import omma
from tests.small_systems import SMALL, every

from omma.commands.build import build_data, build_task
from omma.config.load import hash_config
from omma.data.loader import Loader
from omma.engine import setup
from omma.engine.checkpoint import find_last, load_train_state, read_meta, read_weights
from omma.errors import OmmaError
from omma.runs.folder import RunFolder
from omma.runs.metrics import read_metrics
from omma.systems import System
from omma.systems.recipes import Recipe, open_recipe

pytestmark = pytest.mark.e2e
EVERY = pytest.mark.parametrize("system", every(), ids=lambda system: system.name)
STEPS, STOPS = 4, (1, 2, 3)
NAME = f"{'긴 이름 ' * 12}{'run ' * 25}끝"  # 100 characters and more than 200 bytes
PICTURES = {".jpg", ".jpeg", ".png"}


@pytest.fixture(scope="session")
def data_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A system's data set, made once."""
    root, made = tmp_path_factory.mktemp("자료 data"), dict[str, Path]()

    def get(name: str) -> Path:
        if name not in made:
            made[name] = SMALL[name].make_data(root / name)
        return made[name]

    return get


def _train(system: System, data: Path, root: Path, name: str, *words: str) -> int:
    small = SMALL[system.name]
    settings = [*small.settings(data), "train.ema=0.9", "save.keep_last=9", *words]
    return omma(
        "train", small.recipe, "--name", name, "--smoke", STEPS, "--runs-dir", root, *settings, debug=False
    )


def _signal_in(patch: pytest.MonkeyPatch, system: System, step: int | None) -> None:
    """This process gets SIGTERM while the training step after `step` finished ones is computed."""
    task = system.load(system.task)
    original = task.training_step

    def training_step(self, batch, info):
        if info.step == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, batch, info)

    patch.setattr(task, "training_step", training_step)


@pytest.fixture(scope="module", params=every(), ids=lambda system: system.name)
def stopped(request, data_of, tmp_path_factory) -> tuple[System, RunFolder, list[int]]:
    """A run of four steps that SIGTERM stopped in three of them, under a long name, and its exit codes."""
    system, root = request.param, tmp_path_factory.mktemp("실행 runs")
    run, codes = RunFolder(root / NAME), []
    for stop in (*STOPS, None):
        with pytest.MonkeyPatch.context() as patch:
            _signal_in(patch, system, stop)
            if run.is_run():
                codes.append(omma("resume", run.path, debug=False))
            else:
                codes.append(_train(system, data_of(system.name), root, NAME))
    return system, run, codes


def test_sigterm_saves_and_a_resume_goes_to_the_end(stopped):
    """E2, E5, E8: three stops and resumes lose and double no row of metrics.csv."""
    _, run, codes = stopped
    assert codes == [143, 143, 143, 0]
    assert run.status()["state"] == "finished"
    rows = read_metrics(run.metrics_file)
    assert [row["step"] for row in rows if row["phase"] == "train"] == [1, 2, 3, 4]
    assert [row["step"] for row in rows if row["phase"] == "val"] == [2, 4]
    assert [row["step"] for row in rows] == sorted(row["step"] for row in rows)
    times = [row["time_s"] for row in rows]
    assert times == sorted(times)


@pytest.mark.slow
def test_every_verb_works_on_the_run(stopped, tmp_path, capsys):
    """E2: evaluate, predict, diagnose, compare, report, card, and a check that nothing is missing."""
    _, run, _ = stopped
    assert omma("eval", run.path) == 0
    metrics = json.loads((run.eval_dir("val") / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["samples"] > 0
    assert omma("predict", run.path, "--indices", "0", "--out", tmp_path / "pictures") == 0
    assert (tmp_path / "pictures" / "sample_0000.png").is_file()
    assert omma("diagnose", run.path, "--num-samples", 1, "--vis-num", 1) == 0
    assert (run.diagnose / "findings.json").is_file()
    assert omma("compare", run.path, run.path, "--out", tmp_path / "compared", "--dpi", 30) == 0
    assert (tmp_path / "compared" / "summary.md").is_file()
    assert omma("report", run.path) == 0
    assert omma("card", run.path) == 0
    capsys.readouterr()
    assert omma("runs", "check", run.path) == 0
    assert "MISSING" not in capsys.readouterr().out


@pytest.mark.slow
def test_the_exported_file_gives_what_torch_gives(stopped):
    """E2."""
    _, run, _ = stopped
    assert omma("export", run.path, "--format", "pt2") == 0
    check = json.loads((run.export / "model.check.json").read_text(encoding="utf-8"))
    assert check["max_abs_difference"] < 1e-3


def test_its_config_is_a_recipe_of_the_same_hash(stopped):
    """E7: and the checkpoints were made with it."""
    _, run, _ = stopped
    again = open_recipe(str(run.path)).config
    assert again.as_dict() == run.config()
    assert read_meta(run.checkpoints / "final")["config_hash"] == hash_config(again)


def test_nothing_is_missing_and_the_page_is_written(stopped, capsys):
    """E2: as `omma runs check` says."""
    _, run, _ = stopped
    assert omma("runs", "check", run.path) == 0
    assert "MISSING" not in capsys.readouterr().out


def test_names_of_any_script_and_no_links(stopped):
    """E14: the folder's name holds Hangul and spaces and is longer than 200 bytes."""
    _, run, _ = stopped
    assert len(run.name.encode()) > 200
    assert not [path for path in run.path.rglob("*") if path.is_symlink()]
    illegal = set('<>:"|?*\\')
    assert not [path for path in run.path.rglob("*") if illegal & set(path.name)]


class _Addresses(HTMLParser):
    """What a page refers to, but links for people."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [
            str(value)
            for name, value in attrs
            if name in {"src", "srcset", "href", "xlink:href", "data", "poster", "action"} and tag != "a"
        ]


def test_the_report_needs_no_network(stopped):
    """E16: nothing that a browser would fetch; every picture is inside the page."""
    _, run, _ = stopped
    page = (run.path / "report.html").read_text(encoding="utf-8")
    reader = _Addresses()
    reader.feed(page)
    assert reader.found
    assert [text for text in reader.found if not text.startswith(("data:", "#"))] == []
    assert "@import" not in page
    assert "url(http" not in page


def _recipe(system: System, data: Path) -> Recipe:
    small = SMALL[system.name]
    return open_recipe(small.recipe, small.settings(data))


@EVERY
def test_pictures_travel_as_bytes_and_samples_pickle(system, data_of):
    """E14, E15: what spawned workers get is pickled; images stay uint8 until they are on the device."""
    samples, collate = build_data(_recipe(system, data_of(system.name)), "train", augment=True)
    again, collate_again = pickle.loads(pickle.dumps((samples, collate)))
    one, other = collate([samples[3, 1]]), collate_again([again[3, 1]])
    pictures = [value for value in one.values() if isinstance(value, torch.Tensor) and value.ndim >= 4]
    assert any(value.dtype == torch.uint8 for value in pictures)
    for name, value in one.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(torch.nan_to_num(value), torch.nan_to_num(other[name])), name


@EVERY
def test_a_picture_that_is_cut_short_is_named(system, data_of):
    """E15."""
    samples, _ = build_data(_recipe(system, data_of(system.name)), "train", augment=False)
    files = [file for file in samples.files() if file.suffix.lower() in PICTURES]
    assert files
    cut = files[0]
    whole = cut.read_bytes()
    try:
        cut.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(OmmaError) as caught:
            [samples[index] for index in range(len(samples))]
    finally:
        cut.write_bytes(whole)
    assert caught.value.exit_code == 3
    assert cut.name in str(caught.value)


def _state(run: RunFolder) -> dict[str, torch.Tensor]:
    folder = find_last(run)
    state = {
        f"{file.stem}/{k}": v for file in folder.glob("*.safetensors") for k, v in read_weights(file).items()
    }
    for number, moments in load_train_state(folder)["optimizer"]["state"].items():
        state |= {f"{number}/{name}": torch.as_tensor(value) for name, value in moments.items()}
    return state


def _rows(run: RunFolder) -> list[dict]:
    measured = ("time_s", "step_time", "data_share", "memory")
    return [{k: v for k, v in row.items() if k not in measured} for row in read_metrics(run.metrics_file)]


def _assert_same(one: RunFolder, other: RunFolder) -> None:
    first, second = _state(one), _state(other)
    assert first.keys() == second.keys()
    different = [name for name, value in first.items() if not torch.equal(value, second[name])]
    assert different == []
    np.testing.assert_equal(_rows(one), _rows(other))


@pytest.mark.slow
def test_a_stopped_run_equals_a_straight_one(stopped, data_of, tmp_path):
    """E3: weights, averaged weights, moments and rows are the same bits."""
    system, run, _ = stopped
    assert _train(system, data_of(system.name), tmp_path, "straight") == 0
    _assert_same(run, RunFolder(tmp_path / "straight"))


@pytest.mark.slow
def test_spawned_workers_change_nothing(stopped, data_of, tmp_path, monkeypatch):
    """E3, E14: two processes started as on Windows and macOS load the data."""
    system, run, _ = stopped
    monkeypatch.setattr(setup, "start_method", lambda processes: "spawn")
    used: list[str | None] = []
    original = Loader.__init__

    def loader(self, *args, start_method=None, **options) -> None:
        used.append(start_method)
        original(self, *args, start_method=start_method, **options)

    monkeypatch.setattr(Loader, "__init__", loader)
    assert _train(system, data_of(system.name), tmp_path, "spawned", "train.workers=2") == 0
    assert "spawn" in used
    _assert_same(run, RunFolder(tmp_path / "spawned"))


@pytest.mark.slow
@pytest.mark.multi
@EVERY
def test_two_processes_train_and_score_alike(system, data_of, tmp_path):
    """E4: a batch of 1 in each of two processes starts with the loss of a batch of 2; the metrics merge.

    Batch norm and terms over a whole batch make later steps differ; in the first validation of weights that
    have not moved (a learning rate of almost 0) they do not.
    """
    data = data_of(system.name)
    still = ["optim.lr=1e-30", "optim.weight_decay=0", "validate.limit=4"]
    for name, words in (("one", ["train.batch_size=2"]), ("two", ["train.batch_size=1", "train.devices=2"])):
        assert _train(system, data, tmp_path, name, *words, *still) == 0
    one, two = (_rows(RunFolder(tmp_path / name)) for name in ("one", "two"))
    assert [(row["step"], row["phase"]) for row in one] == [(row["step"], row["phase"]) for row in two]
    task = build_task(_recipe(system, data))
    if not any(isinstance(module, torch.nn.modules.batchnorm._BatchNorm) for module in task.modules()):
        best = system.best[0]
        values = [[row.get(best) for row in rows if row["phase"] == "val"] for rows in (one, two)]
        assert values[0] == pytest.approx(values[1], rel=1e-5, nan_ok=True)
