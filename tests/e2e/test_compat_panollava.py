"""The guide's scripts in a copy of compat/panollava: as bash runs them, and the batch files as text."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.e2e import compat_guides as guides
from tests.e2e.compat_scripts import NAMES, SCRIPTS, text_of, variables_of
from tests.e2e.compat_shell import COMPAT, Shell, new_shell, without_report
from tests.e2e.diffbev_runs import omma
from tests.unit.pano_files import TINY, write_set

from omma.runs.metrics import read_metrics
from omma.systems.panollava.aliases import ALIASES
from omma.systems.panollava.original_evaluation import COUNTED, comparison

pytestmark = pytest.mark.e2e
STAGES = ("vision", "resampler", "finetune")
TIME = r"\d{8}_\d{6}"
# the shared config's variables, for small random towers; what has none goes behind the command
SMALL = {
    "VISION_MODEL": "random", "LM_MODEL": "random", "IMAGE_SIZE": "16", "NUM_WORKERS": "0",
    "VISION_EPOCHS": "1", "RESAMPLER_EPOCHS": "1", "FINETUNE_EPOCHS": "1", "VISION_BATCH_SIZE": "4",
    "RESAMPLER_BATCH_SIZE": "4", "FINETUNE_BATCH_SIZE": "4", "RESAMPLER_MAX_TEXT_LENGTH": "160",
    "FINETUNE_MAX_TEXT_LENGTH": "160", "MAX_NEW_TOKENS": "4", "WANDB_MODE": "disabled",
    "CUDA_VISIBLE_DEVICES": "-1",
}  # fmt: skip
_VARIABLES = ("system.vision.name", "system.language.name", "system.text", "system.generate", "data.")
_TRAINED = ("train.workers", "train.batch_size")
WORDS = [word for word in TINY if not word.startswith((*_VARIABLES, *_TRAINED))]


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    without_report(monkeypatch)
    for name in (*variables_of(text_of("config.sh")), "DRY_RUN"):
        if name not in ("PYTHON", "CUDA_VISIBLE_DEVICES"):
            monkeypatch.delenv(name, raising=False)


def _bash(script: str, *words: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHON": sys.executable, **variables}
    command = ["bash", str(SCRIPTS / script), *words]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


def _resolved(text: str) -> list[dict[str, str]]:
    """What a dry run prints: a dictionary for each stage, and one of the rest."""
    blocks = [block.splitlines() for block in text.strip().split("\n\n")]
    return [dict(re.split(r"\s{2,}", line, maxsplit=1) for line in lines) for lines in blocks]


# --- files ---


def test_all_files_of_the_guide_are_there():
    files = {f"{name}.{end}" for name in NAMES for end in ("sh", "bat")}
    assert {path.name for path in SCRIPTS.iterdir()} == files
    for name in NAMES:
        assert os.name == "nt" or os.access(SCRIPTS / f"{name}.sh", os.X_OK), name
        assert subprocess.run(["bash", "-n", str(SCRIPTS / f"{name}.sh")], check=False).returncode == 0
        assert "\r" not in text_of(f"{name}.sh")
    assert "*.bat -text" in (COMPAT.parent / ".gitattributes").read_text(encoding="utf-8").splitlines()


# --- settings ---


def test_config_can_be_read_by_another_script(tmp_path):
    """R1."""
    for variables, expected in (({}, "Qwen/Qwen2.5-0.5B"), ({"LM_MODEL": "x"}, "x")):
        command = ["bash", "-c", 'source "$0" && echo $LM_MODEL', str(SCRIPTS / "config.sh")]
        env = {"PATH": os.environ["PATH"], **variables}
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected


def test_dry_run_of_all_stages_from_another_folder(tmp_path):
    """R2 to R5, R30 to R38: the guide's table."""
    here = tmp_path / "실험 one"
    here.mkdir()
    done = _bash("train_all_stages.sh", cwd=here, DRY_RUN="1")
    assert done.returncode == 0, done.stderr
    *stages, rest = _resolved(done.stdout)
    table = {"vision": ("3", "32", 5e-6, "32"), "resampler": ("5", "16", 2e-5, "64")}
    table["finetune"] = ("10", "8", 1e-5, "128")
    assert [found["stage"] for found in stages] == list(STAGES)
    for found in stages:
        epochs, batch, rate, length = table[found["stage"]]
        assert found["epochs"] == f"{epochs} epochs"
        assert (found["batch-size"], float(found["lr"]), found["max-text-length"]) == (batch, rate, length)
        assert found["run"] == str(Path("runs", f"vlm_{found['stage']}"))
        assert (found["vision-name"], found["lm-name"]) == (
            "google/siglip-base-patch16-224",
            "Qwen/Qwen2.5-0.5B",
        )
        assert (found["resampler"], found["data-dir"]) == ("mlp", "data/quic360")
        assert found["project"] == "panollava-training"
    assert [found["vicreg-loss-weight"] for found in stages] == ["1.0", "None", "None"]
    assert re.fullmatch(rf"logs.full_pipeline_{TIME}\.log", rest["log"])
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("script", "stage"), [*zip(NAMES[1:4], STAGES, strict=True), ("train_all_stages", "all")]
)
def test_stage_scripts_say_their_stage(script, stage, tmp_path, monkeypatch):
    """R2 to R5: a script adds its stage to the config's options, and what was typed behind it."""
    shell = new_shell("panollava", tmp_path, monkeypatch)
    assert shell.bash(f"./scripts/{script}.sh --seed 'a b'").returncode == 0
    words = shell.recorded.read_text(encoding="utf-8").splitlines()
    assert Path(words[0]).resolve() == (shell.folder / "train.py").resolve()
    assert words[1:3] == ["--stage", stage]
    assert words[-2:] == ["--seed", "a b"]


ODD = {"VICREG_LOSS_WEIGHT": "2.5", "OVERLAP_RATIO": "0.25", "FOV": "75", "IMAGE_SIZE": "96,64"}
ODD |= {f"{stage.upper()}_LR": f"0.00{number}" for number, stage in enumerate(STAGES, 1)}
ODD |= {"CROP_STRATEGY": "cubemap", "RESAMPLER": "perceiver", "CUDA_VISIBLE_DEVICES": "-1"}


def test_every_variable_reaches_the_training_or_the_evaluation(tmp_path):
    """R39, R40, R46, and R10: test_config shows all of them, and makes the folders."""
    names = [name for name in variables_of(text_of("config.sh")) if name not in ("PYTHON", "DRY_RUN")]
    numbers = re.compile("EPOCHS|SIZE|LENGTH|WORKERS|TOKENS|TEMPERATURE|SAMPLES")
    odd = {n: str(100 + i) if numbers.search(n) else f"자리 {n.lower()}" for i, n in enumerate(names)} | ODD
    done = _bash("test_config.sh", cwd=tmp_path, **odd)
    assert done.returncode == 0, done.stderr
    assert re.match(rf"time  {TIME}\n", done.stdout)
    unseen = ("CUDA_VISIBLE_DEVICES", "SAVE_SAMPLES", "IMAGE_SIZE")  # of no value that is printed as it is
    missing = [name for name in names if name not in unseen and odd[name] not in done.stdout]
    assert missing == []
    assert "[96, 64]" in done.stdout
    assert done.stdout.endswith("a variable from outside goes first: yes\n")
    assert {path.name for path in tmp_path.iterdir()} == {odd[f"{n}_DIR"] for n in ("RUNS", "LOG", "EVAL")}


# --- train_custom and the Python entry ---


def test_custom_training_understands_letters_and_long_flags(tmp_path):
    """R6: what is typed goes before the config's value of the stage."""
    words = (
        "--stage vision --epochs 5 --batch-size 16 --lr 1e-3 --data-dir d --workers 3 --project p --name n"
    )
    for typed in (words, "-s vision -e 5 -b 16 -l 1e-3 -d d -w 3 -p p -n n"):
        done = _bash("train_custom.sh", *typed.split(), "--dry-run", cwd=tmp_path)
        found, rest = _resolved(done.stdout)
        assert (found["stage"], found["epochs"], found["batch-size"]) == ("vision", "5 epochs", "16")
        assert (found["lr"], found["data-dir"], found["project"]) == ("0.001", "d", "p")
        assert found["num-workers"] == "3"
        assert found["run"] == str(Path("runs", "n_vision"))
        assert re.fullmatch(rf"logs.stage1_vision_{TIME}\.log", rest["log"])


def test_help_lists_every_option_and_an_unknown_one_shows_the_usage(tmp_path):
    """R6, R21."""
    done = _bash("train_custom.sh", "--help", cwd=tmp_path)
    assert done.returncode == 0
    listed = re.findall(r"^  (?:-\w, )?(--\S+)", done.stdout, re.MULTILINE)
    assert {flag for flag in ALIASES if "_" not in flag} | {"--resume", "--name", "--dry-run"} <= set(listed)
    done = _bash("train_custom.sh", "--epoch", "5", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --epoch: train.py has no such option; did you mean --epochs")
    assert "usage: train.py" in done.stderr
    assert _bash("train_custom.sh", "-z", cwd=tmp_path).returncode == 2
    assert list(tmp_path.iterdir()) == []


# --- small trainings ---


@pytest.fixture
def small(tmp_path, monkeypatch) -> Shell:
    """The guide's folder with a few panoramas in data/quic360, and the config set to small towers."""
    shell = new_shell("panollava", tmp_path, monkeypatch, "실험 one")
    data = write_set(shell.folder / "data" / "quic360")
    shutil.copy(data / "valid.csv", data / "test.csv")
    for name, value in SMALL.items():
        monkeypatch.setenv(name, value)
    return shell


def _check_runs(folder: Path) -> None:
    """R37."""
    for stage in STAGES:
        run = folder / "runs" / f"vlm_{stage}"
        assert (run / "model_final.safetensors").is_file()
        assert (run / "checkpoints" / "best" / "model.safetensors").is_file()


def test_stages_one_after_the_other_and_their_evaluation(small, capsys):
    """R2 to R4, R7 to R9, R22 to R26, R28, R37, R38, R47."""
    said = {}
    for stage, text in zip(STAGES, guides.PANO_STAGES, strict=True):
        small.block(text, {}, WORDS)
        said[stage] = capsys.readouterr().out
    _check_runs(small.folder)
    logs = sorted((small.folder / "logs").iterdir())
    assert [re.sub(TIME, "TIME", log.name) for log in logs] == [
        f"stage{number}_{stage}_TIME.log" for number, stage in enumerate(STAGES, 1)
    ]
    for log, stage in zip(logs, STAGES, strict=True):
        assert log.read_text(encoding="utf-8") == said[stage] != ""
    assert "weights from runs/vlm_vision".replace("/", os.sep) in said["resampler"]
    assert "weights from runs/vlm_resampler".replace("/", os.sep) in said["finetune"]
    small.block(guides.PANO_EVALUATION, {})
    _check_evaluation(small.folder / "eval_results", capsys.readouterr().out)
    _go_on(small, capsys)
    _score_a_file_of_the_original(small, capsys)


def _check_evaluation(folder: Path, said: str) -> None:
    files = sorted(re.sub(TIME, "TIME", path.name) for path in folder.iterdir())
    kinds = [f"{stage}_{what}_TIME.json" for stage in STAGES[1:] for what in ("evaluation", "metrics")]
    wanted = {f"{name}l" if "evaluation" in name else name for name in kinds} | {"comparison_TIME"}
    assert set(files) == wanted
    metrics = json.loads(next(folder.glob("finetune_metrics_*")).read_text(encoding="utf-8"))
    told = "bleu1 bleu2 bleu3 bleu4 rouge1 rouge2 rougeL meteor cider avg_ref_length avg_pred_length"
    assert {*told.split(), "length_ratio", "empty_predictions", "rouge_l"} <= metrics.keys()
    assert (metrics["stage"], metrics["checkpoint"], metrics["split"]) == ("finetune", "best", "test")
    lines = next(folder.glob("resampler_evaluation_*")).read_text(encoding="utf-8").splitlines()
    assert len(lines) == 3
    assert {"prediction", "references", "stage", "sample_index", "image_path"} <= json.loads(lines[0]).keys()
    table = next(folder.glob("comparison_*/comparison.txt")).read_text(encoding="utf-8")
    assert said.endswith(table)
    assert re.match(r"metric +resampler +finetune +difference +better\n", table)
    assert re.search(
        r"resampler is better in \d, finetune is better in \d of 4 metrics: (no|the) winner", table
    )
    assert next(folder.glob("comparison_*/report.html")).is_file()
    assert "finetune" in said


def _go_on(small: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    """R25: the same stage with its state and step, another one with weights only."""
    resampler = "./scripts/train_custom.sh -s resampler -r runs/vlm_resampler/checkpoints/last.ckpt -e 2"
    small.block(resampler, {}, WORDS)
    assert "runs/vlm_resampler is of this stage".replace("/", os.sep) in capsys.readouterr().out
    rows = read_metrics(small.folder / "runs" / "vlm_resampler" / "metrics.csv")
    assert [row["step"] for row in rows if row["phase"] == "train"] == [1, 2, 3, 4]
    first = [
        "system.projector.position=none",
        "--partial",
    ]  # as in the first pipeline, which the last test reads
    small.block(f"{guides.PANO_CUSTOM[2]} -n again", {}, [*WORDS, *first])
    assert "best.ckpt is of another stage: its weights only" in capsys.readouterr().out
    assert (small.folder / "runs" / "again_finetune" / "model_final.safetensors").is_file()


def _score_a_file_of_the_original(small: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    """Lightning's file, which is in no run folder, scores as the run that it was written from."""
    run = small.folder / "runs" / "again_finetune"
    assert omma("export", run, "--format", "reference") == 0
    weights = torch.load(run / "export" / "model.pt", weights_only=True)["model_state_dict"]
    torch.save({"state_dict": weights, "hyper_parameters": {"stage": "finetune"}}, small.folder / "best.ckpt")
    evaluate = ["eval_comprehensive.py", "data/quic360/test.csv", "--output-dir", "own", "--batch-size", 4]
    assert small.python(*evaluate, "--ckpt", str(run), "--output-dir", "ours") == 0
    settings = ["system.text.placement=placeholder"]  # as the run; the first pipeline put views in front
    settings += [word for word in TINY if not word.startswith("log.")]
    assert small.python(*evaluate, "--ckpt", "best.ckpt", *settings) == 0
    losses = []
    for folder in ("ours", "own"):
        (file,) = (small.folder / folder).glob("finetune_metrics_*.json")
        losses.append(json.loads(file.read_text(encoding="utf-8"))["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    (small.folder / "no.ckpt").write_text("nothing", encoding="utf-8")
    capsys.readouterr()
    assert small.python(*evaluate, "--ckpt", "no.ckpt", *settings) == 2
    assert capsys.readouterr().err.startswith("error: no.ckpt: ")


def test_without_the_stage_before_its_missing_path_is_named(small, capsys):
    """R3, R4, R44; the log has the error too."""
    for stage, before in zip(STAGES[1:], STAGES, strict=False):
        assert small.python("train.py", "--stage", stage, *WORDS) == 2
        error = capsys.readouterr().err
        assert str(Path("runs", f"vlm_{before}", "checkpoints", "best")) in error
        (log,) = (small.folder / "logs").glob(f"stage*_{stage}_*.log")
        assert log.read_text(encoding="utf-8") == error
    assert small.python("train.py", "--stage", "finetune", "--resume", "runs/no/checkpoints/best.ckpt") == 2
    assert "runs/no/checkpoints/best.ckpt: no such checkpoint" in capsys.readouterr().err
    assert small.python("eval_comprehensive.py", "--csv", "data/quic360/test.csv") == 2
    assert str(Path("runs", "vlm_finetune")) in capsys.readouterr().err
    assert not (small.folder / "runs").exists()


def test_wrong_data_folder_is_one_line(small, capsys):
    """R43."""
    words = [*guides.PANO_PROBLEMS[2].split(), *guides.PANO_PROBLEMS[0].split(), "-s", "vision", *WORDS]
    assert small.python("train.py", *words) == 2
    assert capsys.readouterr().err.startswith("error: /correct/path: no such folder")
    assert not (small.folder / "runs").exists()


@pytest.mark.slow
def test_all_stages_by_bash_alone(small, tmp_path):
    """R5, R9, R26, R37, R38: real processes, from another folder, spaces and Hangul in all paths."""
    here = tmp_path / "다른 folder"
    here.mkdir()
    env = {**os.environ, "PYTHON": sys.executable, "DATA_DIR": str(small.folder / "data" / "quic360")}
    for name, words in (("train_all_stages", WORDS), ("eval_compare", []), ("eval_finetune", [])):
        command = ["bash", str(small.folder / "scripts" / f"{name}.sh"), *words]
        done = subprocess.run(command, cwd=here, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        if name == "eval_compare":
            assert re.search(r"of 4 metrics: (no|the) winner", done.stdout)
        if name == "train_all_stages":
            (log,) = (here / "logs").iterdir()
            assert re.fullmatch(rf"full_pipeline_{TIME}\.log", log.name)
            assert log.read_text(encoding="utf-8") == done.stdout
    _check_runs(here)
    assert all((here / "runs" / f"vlm_{stage}" / "report.html").is_file() for stage in STAGES)
    assert len(list((here / "eval_results").glob("finetune_metrics_*.json"))) == 2


# --- comparison ---


def test_lengths_never_count_as_wins():
    """R9 and section 7.5."""
    worse = dict.fromkeys(COUNTED, 0.2) | {"avg_pred_length": 5.0, "distinct1": 0.1, "bleu1": 0.1}
    better = dict.fromkeys(COUNTED, 0.2) | {"avg_pred_length": 50.0, "distinct1": 0.9, "bleu1": 0.9}
    text = comparison({"resampler": worse, "finetune": better})
    assert text.endswith("resampler is better in 0, finetune is better in 0 of 6 metrics: no winner")
    assert re.search(r"avg_pred_length +5\.0000 +50\.0000 +\+45\.0000$", text, re.MULTILINE)
    text = comparison({"resampler": worse | {"cider": 0.3, "meteor": None}, "finetune": better})
    assert text.endswith(
        "resampler is better in 1, finetune is better in 0 of 6 metrics: the winner is resampler"
    )
    assert re.search(r"cider +0\.3000 +0\.2000 +-0\.1000 +resampler$", text, re.MULTILINE)
    assert "meteor " not in text
    nothing = comparison({"one": {"cider": float("nan")}, "two": {"cider": 0.1}})
    assert nothing.endswith("0 of 0 metrics: no winner")
