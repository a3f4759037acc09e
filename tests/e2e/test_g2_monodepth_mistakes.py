"""Wrong RGB-D data and settings: one clear line with the place and the remedy, and the right exit code."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.commands import user_omma as omma

pytestmark = pytest.mark.e2e
TINY = [
    "train.workers=0", "train.batch_size=2", "data.image_size=[32, 48]", "data.val_image_size=[32, 48]",
    "validate.batch_size=2", "system.network.layers=3", "system.network.features=4", "log.tensorboard=false",
]  # fmt: skip


@pytest.fixture(scope="module")
def rooms(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("data") / "rooms"
    words = ["--scenes", 1, "--val-scenes", 1, "--frames", 2, "--image-size", "48x64", "--workers", 1]
    assert omma("world", "rgbd-nyu", "--out", out, *words) == 0
    return out


@pytest.fixture
def broken(rooms, tmp_path) -> Path:
    """A copy of the rooms to damage."""
    return Path(shutil.copytree(rooms, tmp_path / "data"))


def _train(root: Path, runs: Path, *words) -> int:
    settings = [f"data.root={root}", *TINY, *words]
    return omma("train", "g2_monodepth/demo", "--name", "x", "--smoke", 1, "--runs-dir", runs, *settings)


def _first(root: Path, kind: str, split: str = "train") -> Path:
    return sorted((root / split / kind).rglob("*.png"))[0]


def _each(root: Path, kind: str) -> list[Path]:
    return sorted((root / "train" / kind).rglob("*.png"))


def _store(file: Path, picture: np.ndarray) -> str:
    assert cv2.imwrite(str(file), picture)
    return file.name


def _read(file: Path) -> np.ndarray:
    return cv2.imread(str(file), cv2.IMREAD_UNCHANGED)


def _all_zero(root: Path) -> tuple[str, str]:
    names = [_store(file, 0 * _read(file)) for file in _each(root, "depth")]
    return names[0][-4:], "all are 0"


def _eight_bits(root: Path) -> tuple[str, str]:
    names = [_store(file, (_read(file) // 256).astype(np.uint8)) for file in _each(root, "depth")]
    return names[0][-4:], "16-bit"


def _coloured(root: Path) -> tuple[str, str]:
    names = [_store(file, np.repeat(_read(file)[..., None], 3, 2)) for file in _each(root, "depth")]
    return names[0][-4:], "3 channels"


def _other_size(root: Path) -> tuple[str, str]:
    names = [_store(file, _read(file)[:40]) for file in _each(root, "depth")]
    return names[0][-4:], "depth is 40 x 64, the picture"


def _truncated(root: Path) -> tuple[str, str]:
    files = _each(root, "rgb")
    for file in files:
        file.write_bytes(file.read_bytes()[:300])
    return files[0].name[-4:], "cut short"


def _not_finite(value: float):
    def damage(root: Path) -> tuple[str, str]:
        for file in _each(root, "depth"):
            depth = _read(file).astype(np.float32) / 1000
            depth[3, 3] = value
            file.unlink()
            np.save(file.with_suffix(".npy"), depth)
        return ".npy", "1 of 3072 depths are NaN or infinite"

    damage.__name__ = f"holds_{value}"
    return damage


def _no_partner(root: Path) -> tuple[str, str]:
    file = _first(root, "depth")
    file.unlink()
    return file.stem, "1 of 2 images have no depth"


def _no_depth_folder(root: Path) -> tuple[str, str]:
    for split in ("train", "val"):
        shutil.rmtree(root / split / "depth")
    return str(Path("train") / "depth"), "no such folder"


def _no_split(root: Path) -> tuple[str, str]:
    shutil.rmtree(root / "train")
    return "train", "no such split"


def _no_note(root: Path) -> tuple[str, str]:
    (root / "rgbd.json").unlink()
    return "rgbd.json", "data.max_depth"


def _note_without_max_depth(root: Path) -> tuple[str, str]:
    (root / "rgbd.json").write_text(json.dumps({"units_per_metre": 1000}), encoding="utf-8")
    return "rgbd.json", "max_depth is None, expected a number above 0"


DAMAGES = [
    _all_zero, _eight_bits, _coloured, _other_size, _truncated, _not_finite(np.nan), _not_finite(np.inf),
    _no_partner, _no_depth_folder, _no_split, _no_note, _note_without_max_depth,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.strip("_"))
def test_damaged_data_set(broken, tmp_path, capsys, damage):
    place, reason = damage(broken)
    assert _train(broken, tmp_path / "runs") == 3
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert place in lines[0]
    assert reason in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("words", "code", "texts"),
    [
        (["data.units_per_metre=1", "data.max_depth=10"], 3, ["exceed max_depth", "factor 1000", "to 1000"]),
        (["data.units_per_metre=1e6"], 3, ["are below 0.2% of max_depth", "factor 1/1000"]),
        (["data.max_depth=0.1"], 3, ["exceed max_depth 0.1 m"]),
        (["data.max_depth=0"], 2, ["data.max_depth", "greater than 0"]),
        (["data.image_size=[64, 64]"], 3, ["48 x 64", "crop of 64 x 64", "data.image_size=[48, 64]"]),
        (["data.root=nowhere"], 3, ["nowhere: no such folder", "omma world"]),
        (["data.layout=kitti"], 3, ["has no depth picture"]),
        (["data.layout=kitti", "data.units_per_metre=1000"], 2, ["data.units_per_metre", "own units"]),
        (["data.layout=kity"], 2, ["data.layout", "nyu_folder"]),
        (["data.maxdepth=10"], 2, ["data.maxdepth", "did you mean data.max_depth"]),
        (
            ["data.val_patterns=[uniform]", "data.degradation.pattern=lidr"],
            2,
            ["lidr", "names are none, full"],
        ),
        (["data.degradation.hole_maps=nowhere"], 3, ["nowhere", "data.degradation.hole_maps"]),
        (["system.network.layers=2"], 2, ["system.network.layers"]),
        (["--port", "12355"], 2, ["--port", "leave --port out"]),
    ],
)
def test_settings_that_cannot_work(rooms, tmp_path, capsys, words, code, texts):
    assert _train(rooms, tmp_path / "runs", *words) == code
    error = capsys.readouterr().err
    for text in texts:
        assert text in error
    assert "Traceback" not in error


def test_doctor_of_sound_and_of_leaking_data(broken, tmp_path, capsys):
    words = [f"data.root={broken}", *TINY]
    assert omma("doctor", "g2_monodepth/demo", *words, "--out", tmp_path / "out") == 0
    assert (tmp_path / "out" / "g2_monodepth_inputs.png").is_file()
    for split in ("train", "val"):
        shutil.rmtree(broken / split / "raw")
        shutil.copytree(broken / split / "depth", broken / split / "raw")
    assert omma("doctor", "g2_monodepth/demo", *words) == 3
    captured = capsys.readouterr()
    assert "ERROR    train: input depth is the true depth itself" in captured.out
    assert "fix: raw/ must hold the sensor's own depth" in captured.out
    assert "input depth is the true depth itself" in captured.err


@pytest.fixture(scope="module")
def run(rooms, tmp_path_factory) -> Path:
    """A run of a few steps."""
    root = tmp_path_factory.mktemp("runs")
    assert _train(rooms, root) == 0
    return root / "x"


def _findings(run: Path) -> list[dict]:
    return json.loads((run / "diagnose" / "findings.json").read_text(encoding="utf-8"))


def test_diagnose_writes_numbers_and_pictures(run):
    assert omma("diagnose", run, "--vis-num", 1) == 0
    summary = (run / "diagnose" / "summary.txt").read_text(encoding="utf-8")
    for title in ("config sanity", "GT distribution", "prediction distribution", "metrics", "blocks"):
        assert f"\n{title}\n---" in summary
    assert "samples: 6 readable of 6 chosen, 6 in the split" in summary
    assert len(list((run / "diagnose").glob("worst_*.png"))) == 4


def test_diagnose_names_wrong_units_first(run):
    words = ["data.units_per_metre=256", "data.max_depth=10", "data.root=" + str(_root(run))]
    assert omma("diagnose", run, "--vis-num", 0, *words) == 0
    first = _findings(run)[0]
    assert "exceed max_depth" in first["title"]
    assert "factor 3.9" in first["fix"]


def test_diagnose_names_a_rate_that_is_too_high_first(rooms, tmp_path):
    words = ["optim.lr=3", "optim.grad_clip=null", "schedule.name=constant", "log.every=1", "train.length=12"]
    settings = [f"data.root={rooms}", *TINY, *words]
    code = omma("train", "g2_monodepth/demo", "--name", "y", "--runs-dir", tmp_path, *settings)
    assert code in (0, 5)
    assert omma("diagnose", tmp_path / "y", "--vis-num", 0) == 0
    first = _findings(tmp_path / "y")[0]
    assert first["severity"] == "error"
    assert "optim.lr=0.3" in first["fix"]


def _root(run: Path) -> str:
    import yaml

    return yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["data"]["root"]
