"""Wrong panoramas, tables, settings and checkpoints: one clear line with the place, the right exit code."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.commands import user_omma as omma

pytestmark = pytest.mark.e2e
TINY = [
    "train.workers=0", "train.batch_size=2", "data.views.image_size=[16, 16]", "validate.batch_size=4",
    "system.vision.config={model_type: siglip_vision_model, hidden_size: 16, intermediate_size: 16, "
    "num_hidden_layers: 1, num_attention_heads: 2, image_size: 16, patch_size: 8}",
    "system.language.config={model_type: qwen2, hidden_size: 16, intermediate_size: 16, "
    "num_hidden_layers: 1, num_attention_heads: 2, num_key_value_heads: 1, tie_word_embeddings: true}",
    "system.resampler.width=16", "log.tensorboard=false",
]  # fmt: skip
ANSWERS = ["system.generate.max_new_tokens=4"]


@pytest.fixture(scope="module")
def panoramas(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("data") / "panoramas"
    words = ["--scenes", 2, "--val-scenes", 1, "--frames", 1, "--image-size", "16x32", "--workers", 1]
    assert omma("world", "quic360", "--out", out, *words) == 0
    return out


@pytest.fixture
def broken(panoramas, tmp_path) -> Path:
    """A copy of the panoramas to damage."""
    return Path(shutil.copytree(panoramas, tmp_path / "data"))


def _train(root: Path | str, runs: Path, *words, name: str = "x", recipe: str = "tiny") -> int:
    settings = [f"data.root={root}", *TINY, *words]
    return omma("train", f"panollava/{recipe}", "--name", name, "--smoke", 1, "--runs-dir", runs, *settings)


def _one_line(capsys, *texts: str) -> None:
    """Exactly one error, which holds the texts, and no traceback."""
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert len([line for line in error.splitlines() if line.startswith("error: ")]) == 1, error
    for text in texts:
        assert text in error


def _edit(root: Path, old: str, new: str, split: str = "train") -> None:
    file = root / f"{split}.csv"
    file.write_text(file.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")


def _rows(root: Path, split: str = "train") -> int:
    return len((root / f"{split}.csv").read_text(encoding="utf-8").splitlines()) - 1


def _images(root: Path) -> list[Path]:
    """Of the training."""
    lines = (root / "train.csv").read_text(encoding="utf-8").splitlines()[1:]
    return sorted({root / line.partition(",")[0] for line in lines})


def _no_table(root: Path) -> list[str]:
    (root / "train.csv").unlink()
    return [
        str(root),
        "has none of train.csv, train.tsv; tables there: test.csv, valid.csv",
        "data.train_csv",
    ]


def _no_validation(root: Path) -> list[str]:
    (root / "valid.csv").unlink()
    return ["has none of valid.csv", "data.val_csv"]


def _no_pictures(root: Path) -> list[str]:
    _edit(root, "url,", "file,")
    return [
        "train.csv: has no column url",
        f"({_rows(root)} rows; columns file, query, annotation)",
        "image_path",
    ]


def _no_answers(root: Path) -> list[str]:
    _edit(root, "annotation", "remark")
    return ["train.csv: has no column annotation", f"({_rows(root)} rows; columns url, query)", "caption"]


def _no_questions(root: Path) -> list[str]:
    _edit(root, "query", "topic", "valid")
    return ["valid.csv: has no column query", f"({_rows(root, 'valid')} rows"]


def _unquoted(root: Path) -> list[str]:
    _edit(root, ",a ", ",oh, a ")
    return ["train.csv, row 2: has 4 fields, the header has 3", "quotation marks"]


def _empty_table(root: Path) -> list[str]:
    (root / "train.csv").write_bytes(b"")
    return ["train.csv: the file is empty"]


def _header_alone(root: Path) -> list[str]:
    (root / "train.csv").write_text("url,query,annotation\n", encoding="utf-8")
    return ["train.csv: has no row with a picture"]


def _not_utf8(root: Path) -> list[str]:
    (root / "train.csv").write_bytes("url,query,annotation\n0.png,où,là\n".encode("latin-1"))
    return ["train.csv, line 2: not UTF-8 text"]


def _all_blank(root: Path) -> list[str]:
    number = _rows(root)
    lines = (root / "train.csv").read_text(encoding="utf-8").splitlines()
    rows = [f"{line.partition(',')[0]},," for line in lines[1:]]
    (root / "train.csv").write_text("\n".join([lines[0], *rows]), encoding="utf-8")
    return [f"none of its {number} rows has a question with an answer", "stage vision"]


def _no_files(root: Path) -> list[str]:
    for file in _images(root):
        file.unlink()
    return [".jpg: no such file (sample train.csv:", "of 2 panoramas are bad so far", "omma doctor"]


def _no_picture(root: Path) -> list[str]:
    for file in _images(root):
        file.write_bytes(b"no picture")
    return [".jpg", "of 2 panoramas are bad so far, data.bad_images=0.01 allows 0"]


def _cut_short(root: Path) -> list[str]:
    for file in _images(root):
        file.write_bytes(file.read_bytes()[:300])
    return [".jpg", "damaged or no image", "of 2 panoramas are bad so far"]


def _partial(root: Path) -> list[str]:
    for file in _images(root):
        assert cv2.imwrite(str(file), np.zeros((16, 24, 3), np.uint8))
    return [".jpg: is 24 x 16 pixels, a whole panorama is twice as wide as high", "pad a partial"]


DAMAGES = [
    _no_table, _no_validation, _no_pictures, _no_answers, _no_questions, _unquoted, _empty_table,
    _header_alone, _not_utf8, _all_blank, _no_files, _no_picture, _cut_short, _partial,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.strip("_"))
def test_damaged_data_set(broken, tmp_path, capsys, damage):
    texts = damage(broken)
    capsys.readouterr()
    assert _train(broken, tmp_path / "runs") == 3
    _one_line(capsys, *texts)


@pytest.mark.parametrize(
    ("words", "code", "texts"),
    [
        (["data.root=nowhere"], 3, ["nowhere: no such folder", "omma world quic360"]),
        (["data.train_csv=gone.csv"], 3, ["gone.csv: no such file (data.train_csv)"]),
        (["data.image_root=nowhere"], 3, ["no such file", "data.bad_images"]),
        (["data.views.fov_deg=200"], 2, ["data.views.fov_deg", "less than 180"]),
        (["data.views.overlp=0.5"], 2, ["data.views.overlp", "did you mean data.views.overlap"]),
        (["data.views.image_size=[4, 4]"], 2, ["views of 4 x 4 pixels are smaller", "data.views.image_size"]),
        (["system.stage=vison"], 2, ["system.stage", "vision"]),
        (["system.stage=vision"], 2, ["system.train has resampler, projector, language"]),
        (["system.overlap.weight=1", "data.views.overlap=0"], 2, ["have no place in common", "overlap=0.5"]),
        (["system.overlap.weight=1", "data.views.name=resize"], 2, ["needs several views"]),
        (["system.text.max_length=6"], 2, ["the prompt of query", "raise system.text.max_length"]),
        (["system.projector.pool=3"], 2, ["system.projector.pool=3 of 2 x 2 tokens leaves none"]),
        (["system.vision.name=./nowhere"], 2, ["system.vision.name=./nowhere cannot be had"]),
        (["system.language.tokenizer=./nowhere"], 2, ["./nowhere"]),
        (["system.vision.config.model_type=siglop"], 2, ["transformers has no such model"]),
        (["system.vision.config.hiden_size=3"], 2, ["has no hiden_size", "misspelt"]),
        (["system.generate.clip=nowhere", "system.generate.answers=true"], 2, ["nowhere: no such folder"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else str(value),
)
def test_settings_that_cannot_work(panoramas, tmp_path, capsys, monkeypatch, words, code, texts):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    capsys.readouterr()
    assert _train(panoramas, tmp_path / "runs", *words) == code
    _one_line(capsys, *texts)


@pytest.fixture(scope="module")
def runs(panoramas, tmp_path_factory) -> Path:
    """A run of one step of each kind: the tower alone, and everything."""
    root = tmp_path_factory.mktemp("runs")
    vision = ["system.stage=vision", "system.train=null"]
    assert _train(panoramas, root, *vision, name="tower") == 0
    assert _train(panoramas, root, *ANSWERS, name="whole") == 0
    return root


@pytest.fixture(scope="module")
def other_tokenizer(tmp_path_factory) -> Path:
    """A tokenizer of other entries."""
    from transformers import PreTrainedTokenizerFast

    from omma.systems.panollava.small_tokenizer import SMALL_TOKENIZER

    folder = tmp_path_factory.mktemp("tokenizer")
    content = json.loads(SMALL_TOKENIZER.read_text(encoding="utf-8"))
    names = list(content["model"]["vocab"])
    numbers = [*range(1, len(names)), 0]
    content["model"]["vocab"] = dict(zip(names, numbers, strict=True))
    content["added_tokens"] = []
    file = folder / "changed.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(file), eos_token="<|endoftext|>", pad_token="<|endoftext|>"
    )
    tokenizer.save_pretrained(folder / "saved")
    return folder / "saved"


def test_a_tower_alone_starts_no_last_stage(panoramas, runs, capsys):
    capsys.readouterr()
    words = ["--init", runs / "tower", "system.stage=finetune", "system.train=null"]
    assert _train(panoramas, runs, *words, name="y") == 3
    _one_line(capsys, "stage finetune starts from stage resampler's weights", "panollava/resampler")


def test_weights_of_another_tokenizer(panoramas, runs, other_tokenizer, capsys):
    capsys.readouterr()
    words = ["--init", runs / "whole", f"system.language.tokenizer={other_tokenizer.as_posix()}"]
    assert _train(panoramas, runs, *words, name="z") == 3
    _one_line(capsys, "the weights were trained with another tokenizer", "system.language.tokenizer")
    assert omma("eval", runs / "whole", f"system.language.tokenizer={other_tokenizer.as_posix()}") == 3
    _one_line(capsys, "the weights were trained with another tokenizer")


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        (["system.resampler.width=24"], ["resampler"]),
        (["--init", "{tmp}/nothing"], ["nothing"]),
        (["--init", "{tmp}/text.ckpt"], ["text.ckpt"]),
        (["--init", "{tmp}/cut.safetensors"], ["cut.safetensors"]),
    ],
    ids=["other width", "missing", "no checkpoint", "cut short"],
)
def test_checkpoints_that_do_not_fit(panoramas, runs, tmp_path, capsys, words, texts):
    (tmp_path / "text.ckpt").write_text("no weights", encoding="utf-8")
    whole = next((runs / "whole").rglob("*.safetensors"), None)
    content = whole.read_bytes() if whole else b"\x10" * 64
    (tmp_path / "cut.safetensors").write_bytes(content[: len(content) // 2])
    words = [word.format(tmp=tmp_path.as_posix()) for word in words]
    if words[0] != "--init":
        words = ["--init", str(runs / "whole"), *words]
    capsys.readouterr()
    assert _train(panoramas, tmp_path / "runs", *words, name="z") in (2, 3)
    _one_line(capsys, *texts)


def test_a_table_that_may_not_be_read(broken, tmp_path, capsys, monkeypatch):
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name == "train.csv":
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    capsys.readouterr()
    assert _train(broken, tmp_path / "runs") == 3
    _one_line(capsys, "train.csv: cannot be read (Permission denied)")


def test_files_and_folders_without_permission(broken, runs, tmp_path, capsys):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    weights = shutil.copytree(runs / "whole", tmp_path / "whole") / "checkpoints"
    (broken / "valid.csv").chmod(0)
    if os.access(closed, os.W_OK):
        pytest.skip("this user may do everything, as root does")
    capsys.readouterr()
    assert _train(broken, tmp_path / "runs") == 3
    _one_line(capsys, "valid.csv: cannot be read (Permission denied)")
    (broken / "valid.csv").chmod(0o644)
    assert _train(broken, closed) == 2
    _one_line(capsys, "closed", "cannot be made (Permission denied)")
    files = [file for file in weights.rglob("*") if file.is_file()]
    for file in files:
        file.chmod(0)
    assert _train(broken, tmp_path / "runs", "--init", weights.parent) == 3
    _one_line(capsys, "checkpoints", "ermission")


def test_doctor_names_everything_at_once(broken, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("omma.commands.doctor.check_environment", lambda root: [])  # is tested elsewhere
    words = [f"data.root={broken}", *TINY]
    assert omma("doctor", "panollava/tiny", *words, "--out", tmp_path / "out") == 0
    assert (tmp_path / "out" / "panollava_views.png").is_file()
    _images(broken)[0].unlink()
    _edit(broken, "annotation", "remark", "valid")
    assert omma("doctor", "panollava/tiny", *words) == 3
    captured = capsys.readouterr()
    assert "ERROR    train: 1 of 2 panoramas are missing" in captured.out
    assert "ERROR    valid.csv has no answers" in captured.out
    assert "Traceback" not in captured.err


def test_diagnose_and_studies_of_a_run(runs, capsys):
    assert omma("diagnose", runs / "whole", "--vis-num", 1, "--num-samples", 6) == 0
    findings = json.loads((runs / "whole" / "diagnose" / "findings.json").read_text(encoding="utf-8"))
    assert "expected answers are no likelier" in findings[0]["title"]
    summary = (runs / "whole" / "diagnose" / "summary.txt").read_text(encoding="utf-8")
    for title in ("config sanity", "GT distribution", "prediction distribution", "metrics", "tokens"):
        assert f"\n{title}\n---" in summary
    assert omma("eval", runs / "whole", "--study", "rotation", "--study", "view_drop") == 0
    folder = next((runs / "whole" / "eval").iterdir()) / "studies"
    for name in ("rotation_loss.png", "rotation.csv", "view_drop_00.png", "view_drop_direction.png"):
        assert (folder / name).is_file()
    capsys.readouterr()
    assert omma("eval", runs / "tower", "--study", "rotation") == 2
    _one_line(capsys, "stage vision")


def test_diagnose_of_the_tower(runs):
    assert omma("diagnose", runs / "tower", "--vis-num", 1) == 0
    assert (runs / "tower" / "diagnose" / "tokens.png").is_file()
