"""Wrong input: one clear line with the place and the remedy, the right exit code, nothing half-written."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.e2e.conftest import TINY

from omma.cli import _run

pytestmark = pytest.mark.e2e


@pytest.fixture
def broken(world, tmp_path) -> Path:
    """A copy of the small world to damage."""
    return Path(shutil.copytree(world, tmp_path / "data"))


def _train(root: Path, runs: Path, *words: str) -> int:
    settings = [f"data.root={root}", *TINY, *words]
    return _run(
        ["train", "lss/demo", "--name", "x", "--smoke", "2", "--runs-dir", str(runs), *settings], debug=False
    )


def _meta(root: Path) -> Path:
    return sorted((root / "train").rglob("meta.json"))[0]


def _edit(root: Path, change) -> None:
    file = _meta(root)
    samples = json.loads(file.read_text(encoding="utf-8"))
    change(samples[0])
    file.write_text(json.dumps(samples), encoding="utf-8")


def _image(root: Path) -> Path:
    file = _meta(root)
    return file.parent / json.loads(file.read_text(encoding="utf-8"))[0]["images"][1]


def _label(root: Path) -> Path:
    file = _meta(root)
    return file.parent / json.loads(file.read_text(encoding="utf-8"))[0]["label"]


def _no_field(root: Path) -> str:
    _edit(root, lambda sample: sample.pop("intrinsics"))
    return "intrinsics"


def _narrow_matrix(root: Path) -> str:
    _edit(root, lambda sample: sample.update(intrinsics=[[[1, 0, 0, 0]] * 3] * 6))
    return "intrinsics"


def _no_image(root: Path) -> str:
    _image(root).unlink()
    return _image(root).name


def _empty_image(root: Path) -> str:
    _image(root).write_bytes(b"")
    return _image(root).name


def _cut_image(root: Path) -> str:
    file = _image(root)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return file.name


def _odd_label(root: Path) -> str:
    np.save(_label(root), np.zeros((7, 9), np.float32))
    return _label(root).name


def _no_json(root: Path) -> str:
    _meta(root).write_text('[{"token": ', encoding="utf-8")
    return "meta.json"


DAMAGES = [_no_field, _narrow_matrix, _no_image, _empty_image, _cut_image, _odd_label, _no_json]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.strip("_"))
@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_data_set(broken, tmp_path, capsys, damage, workers):
    place = damage(broken)
    assert _train(broken, tmp_path / "runs", f"train.workers={workers}", "train.length=1 epochs") == 3
    error = capsys.readouterr().err
    assert place in error
    assert "Traceback" not in error
    assert error.startswith("error: ")
    statuses = [json.loads(file.read_text(encoding="utf-8")) for file in tmp_path.rglob("status.json")]
    assert all(status["state"] == "failed" and place in status["error"] for status in statuses)


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["data.root=nowhere"], 3, "nowhere"),
        (["train.batch_size=64"], 3, "train.batch_size"),
        (["data.image_size=[33, 64]"], 2, "32"),
        (["system.grid.x=[-16, 16, 3]"], 2, "grid"),
        (["train.precision=16-mixed"], 2, "bf16-mixed"),
        (["system.pretrained=nofile.safetensors"], 3, "nofile.safetensors"),
        (["optim.lr=1e30", "optim.grad_clip=null", "train.length=20"], 5, "optim.lr"),
        (["save.best=iuo"], 2, "iou"),
    ],
)
def test_settings_that_cannot_work(world, tmp_path, capsys, words, code, text):
    assert _train(world, tmp_path / "runs", *words) == code
    error = capsys.readouterr().err
    assert text in error
    assert "Traceback" not in error


def test_missing_root_names_the_three_ways_to_give_it(tmp_path, capsys):
    assert _run(["train", "lss/demo", "--runs-dir", str(tmp_path)], debug=False) in {2, 3}
    error = capsys.readouterr().err
    assert "data.root=" in error
    assert "OMMA_DATA_LSS" in error
    assert "omma world" in error
    assert not list(tmp_path.iterdir())


def test_checkpoint_of_another_network_or_system(run, tmp_path, capsys):
    assert _run(["eval", str(run), "system.bev_width=16"], debug=False) == 3
    assert "system.bev_width" in capsys.readouterr().err
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    meta = copy / "checkpoints" / "best" / "meta.json"
    content = json.loads(meta.read_text(encoding="utf-8"))
    meta.write_text(json.dumps(content | {"system": "other"}), encoding="utf-8")
    assert _run(["eval", str(copy)], debug=False) == 3
    assert "other" in capsys.readouterr().err


def test_truncated_checkpoint(run, tmp_path, capsys):
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    weights = copy / "checkpoints" / "best" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert _run(["eval", str(copy)], debug=False) == 3
    assert "truncated" in capsys.readouterr().err


def test_a_foreign_file_is_pointed_to_import(tmp_path, capsys):
    (tmp_path / "model.pt").write_bytes(b"x")
    assert _run(["eval", str(tmp_path / "model.pt")], debug=False) == 3
    assert "omma import" in capsys.readouterr().err


def test_inverted_calibration_of_another_image_size_is_warned_about(broken, capsys):
    def far_centre(sample):
        sample["intrinsics"] = [[[500, 0, 800], [0, 500, 450], [0, 0, 1]]] * 6

    _edit(broken, far_centre)
    _run(["doctor", "lss/demo", f"data.root={broken}", *TINY], debug=False)
    assert "another" in capsys.readouterr().out
