"""What `omma diagnose` says first about a run: nothing of a healthy one, and the cause of a broken one."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
from PIL import Image
from tests.commands import omma
from tests.e2e.conftest import TINY

from omma.cli import _run

pytestmark = pytest.mark.e2e

LEARN = [
    *("data.val_split=train", "train.length=44", "log.every=2", "validate.every=44", "save.every=44"),
    *("train.batch_size=6", "data.augment={resize: [1, 1], rotate_deg: [0, 0], flip: false}"),
    *("schedule.name=constant", "optim.lr=5e-3"),
]


def _diagnose(run: Path, *words) -> list[dict]:
    assert omma("diagnose", run, "--vis-num", 0, *words) == 0
    return json.loads((run / "diagnose" / "findings.json").read_text(encoding="utf-8"))


def _train(root: Path, name: str, *words) -> Path:
    assert omma("train", "lss/demo", "--name", name, "--runs-dir", root, *TINY, *words) == 0
    return root / name


@pytest.fixture(scope="module")
def healthy(world, tmp_path_factory) -> Path:
    """A run that knows its six training frames by heart and is validated on them."""
    return _train(tmp_path_factory.mktemp("runs"), "healthy", f"data.root={world}", *LEARN)


@pytest.fixture
def copy(healthy, tmp_path) -> Path:
    """A copy of the healthy run to spoil."""
    return Path(shutil.copytree(healthy, tmp_path / "copy"))


@pytest.fixture
def data(world, tmp_path) -> Path:
    """A copy of the small world to spoil."""
    return Path(shutil.copytree(world, tmp_path / "data"))


def _samples(root: Path, change) -> None:
    for file in sorted((root / "train").rglob("meta.json")):
        samples = json.loads(file.read_text(encoding="utf-8"))
        for sample in samples:
            change(file.parent, sample)
        file.write_text(json.dumps(samples), encoding="utf-8")


def _mirror(folder: Path, sample: dict) -> None:
    np.save(folder / sample["label"], np.load(folder / sample["label"])[:, ::-1])


def test_a_healthy_run_has_neither_errors_nor_warnings_about_the_model(healthy, capsys):
    assert omma("diagnose", healthy) == 0
    said = capsys.readouterr().out
    assert "ERROR" not in said
    folder = healthy / "diagnose"
    findings = json.loads((folder / "findings.json").read_text(encoding="utf-8"))
    titles = [f["title"] for f in findings if f["title"] != "training waits for data"]
    assert titles == ["training and validation are the same split train"]  # on purpose, see `healthy`
    summary = (folder / "summary.txt").read_text(encoding="utf-8")
    for title in ("config sanity", "GT distribution", "prediction distribution", "metrics", "artifacts"):
        assert f"\n{title}\n---" in summary
    pictures = sorted(file.name for file in folder.glob("0*.png"))
    assert len(pictures) == 6
    assert pictures[0].startswith("000000_scene_")
    assert len(list(folder.glob("worst_*.png"))) == 4
    assert Image.open(folder / "distribution.png").width > 300


@pytest.mark.parametrize(
    ("bias", "title"),
    [(-4.0, "collapsed prediction: nothing is found"), (4.0, "collapsed prediction: vehicle")],
)
def test_constant_predictor(copy, bias, title):
    """R24."""
    file = copy / "checkpoints" / "best" / "model.safetensors"
    with safetensors.safe_open(file, "pt") as stored:
        header = stored.metadata()
    weights = safetensors.torch.load_file(file)
    name = next(key for key in weights if key.endswith(".bias") and weights[key].shape == (1,))
    weights[name].fill_(bias)
    weights[name.replace(".bias", ".weight")].zero_()
    safetensors.torch.save_file(weights, file, metadata=header)
    first = _diagnose(copy)[0]
    assert first["severity"] == "error"
    assert first["title"].startswith(title)
    assert "`omma train" in first["fix"]


def test_mirrored_labels(copy, data):
    """Boxes tell it; without boxes the predictions do."""
    _samples(data, _mirror)
    first = _diagnose(copy, f"data.root={data}")[0]
    assert first["title"] == "the labels fit only when mirrored left to right"
    assert "`omma doctor" in first["fix"]
    _samples(data, lambda _, sample: sample.pop("boxes"))
    first = _diagnose(copy, f"data.root={data}")[0]
    assert first["title"].endswith("predictions fit only when mirrored left to right")


@pytest.mark.parametrize("damage", ["cut", "shape"])
def test_broken_label_file(copy, data, damage):
    broken = []

    def spoil(folder, sample):
        if not broken:
            file = folder / sample["label"]
            broken.append(file.name)
            if damage == "cut":
                file.write_bytes(file.read_bytes()[:200])
            else:
                np.save(file, np.zeros((7, 9), np.uint8))

    _samples(data, spoil)
    findings = _diagnose(copy, f"data.root={data}")
    assert findings[0]["severity"] == "error"
    assert broken[0] in findings[0]["title"] + findings[0]["evidence"]
    assert "1 of 6 samples cannot be read" in [finding["title"] for finding in findings]
    summary = (copy / "diagnose" / "summary.txt").read_text(encoding="utf-8")
    assert "samples: 5 readable of 6" in summary


@pytest.mark.parametrize(("lr", "steps"), [(100, 4), (10, 8)])
def test_too_high_learning_rate(world, tmp_path, lr, steps):
    """The second one comes back from its peak."""
    words = [
        f"data.root={world}",
        f"optim.lr={lr}",
        "--smoke",
        steps,
        "schedule.warmup=0",
        "optim.grad_clip=null",
    ]
    first = _diagnose(_train(tmp_path, "high", *words))[0]
    assert (first["severity"], first["title"]) == ("error", "the loss diverges")
    assert f"optim.lr={lr / 10:g}" in first["fix"]


def test_a_metric_outside_of_its_range(copy):
    file = copy / "eval" / "val" / "metrics.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"metrics": {"iou": 1.2, "loss": 3.0}}), encoding="utf-8")
    first = _diagnose(copy)[0]
    assert first["title"] == "wrong metric domain: iou"
    assert omma("report", copy) == 0
    assert "wrong metric domain: iou" in (copy / "report.html").read_text(encoding="utf-8")


def test_a_run_without_checkpoint_or_data_is_still_diagnosed(copy, tmp_path):
    shutil.rmtree(copy / "checkpoints")
    titles = [finding["title"] for finding in _diagnose(copy)]
    assert titles[0] == "no checkpoint can be loaded"
    titles = [finding["title"] for finding in _diagnose(copy, f"data.root={tmp_path / 'gone'}")]
    assert "split train cannot be looked at" in titles


def test_options_and_flags_of_the_original_tool(healthy, tmp_path, capsys):
    words = ["--checkpoint", f"{healthy}@final", "--config", "x.py", "--out-dir", tmp_path / "out"]
    words += ["--dataset-split", "val", "--device", "cpu", "--seed", 7, "--num-samples", 1, "--probe-only"]
    assert omma("diagnose", *words) == 0
    assert "--config x.py is not read" in capsys.readouterr().out
    summary = (tmp_path / "out" / "summary.txt").read_text(encoding="utf-8")
    assert "checkpoint final" in summary
    assert "1 readable of 1 chosen, 2 in the split" in summary
    assert "the network was not run" in summary
    assert omma("diagnose", healthy, "--camera", "CAM_FRONT", "--vis-num", 0, "--out", tmp_path / "one") == 0
    assert _run(["diagnose", str(healthy), "--camera", "CAM_UP"], debug=False) == 0
    assert "CAM_UP" in capsys.readouterr().out


def test_no_run_is_a_usage_error(tmp_path, capsys):
    assert _run(["diagnose"], debug=False) == 2
    assert _run(["diagnose", "nowhere", "--runs-dir", str(tmp_path)], debug=False) == 2
    assert "omma runs" in capsys.readouterr().err
