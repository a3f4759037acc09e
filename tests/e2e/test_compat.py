"""The commands of the users' guides, word for word but smaller, in a copy of compat/."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.e2e import compat_guides as guides
from tests.e2e.compat_shell import COMPAT, Shell, change, new_shell, without_report
from tests.e2e.diffbev_runs import omma
from tests.unit import coco_files

from omma.commands.flags import read_words
from omma.core.coco_eval import NUMBERS
from omma.errors import ConfigError, UsageError
from omma.runs.metrics import read_metrics
from omma.systems import get
from omma.systems.recipes import open_recipe
from omma.systems.sdpose.original_config import read_config, work_dir

pytestmark = pytest.mark.e2e
SIMBEV_TINY = [
    "train.workers=0", "train.batch_size=2", "data.image_size=[32, 64]", "data.source_size=[32, 64]",
    "system.grid.x=[-16, 16, 2]", "system.grid.y=[-16, 16, 2]", "data.label_cell_m=0.5",
    "system.pretrained=none", "train.length=3",
]  # fmt: skip
POSE_TINY = [
    "data.image_size=[64, 48]", "system.dim=24", "system.depth=1", "system.heads=2", "train.workers=0",
    "train.batch_size=2", "train.device=cpu", "schedule.warmup=0",
]  # fmt: skip
PROGRAMS = {
    ("simbev", "train_simbev.py"): "",
    ("diffbev", "tools/train.py"): "configs/baseline/lss_swin_nuscenes.py",
    ("diffbev", "tools/plot_metrics.py"): "runs --output-dir out",
    ("diffbev", "tools/vis_nuscenes_bev.py"): "configs/baseline/lss_swin_nuscenes.py best.pth",
    ("diffbev", "tools/data/prepare_nuscenes_depth_gt.py"): "--nuscenes-root data",
    ("diffbev", "tools/debug/check_depth_gt.py"): "--config configs/baseline/lss_swin_nuscenes.py",
    ("diffbev", "tools/debug/diagnose_segmentation.py"): "--config c.py --checkpoint best.pth",
    ("g2_monodepth", "train.py"): "",
    ("sdpose", "tools/train.py"): "config.py",
    ("sdpose", "tools/test.py"): "config.py best.pth",
    ("panollava", "train.py"): "",
    ("panollava", "eval_comprehensive.py"): "",
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    without_report(monkeypatch)


# --- all commands ---


def test_every_script_is_known():
    """A new script needs its row, so that --help and wrong flags of it are tested."""
    files = [path for path in COMPAT.rglob("*.py") if "__main__" in path.read_text(encoding="utf-8")]
    names = [path.relative_to(COMPAT).as_posix().partition("/") for path in files]
    covered = {system for system, _ in PROGRAMS}
    assert {(system, name) for system, _, name in names if system in covered} == set(PROGRAMS)


@pytest.mark.parametrize(("system", "script"), PROGRAMS, ids="/".join)
def test_help_and_a_misspelt_flag(system, script, tmp_path, monkeypatch, capsys):
    shell = new_shell(system, tmp_path, monkeypatch)
    assert shell.python(script, "--help") == 0
    text = capsys.readouterr().out
    name = Path(script).name
    assert text.startswith(f"usage: {name}")
    flag = re.findall(r"^  (--\S+)", text, re.MULTILINE)[0]
    assert shell.python(script, *PROGRAMS[system, script].split(), f"{flag}x", "1") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {flag}x: {name} has no such option; did you mean")
    assert flag in error.partition("did you mean")[2]


@pytest.mark.parametrize(
    ("system", "script", "words", "said"),
    [
        ("simbev", "train_simbev.py", "", "--dataroot is missing"),
        ("simbev", "train_simbev.py", "--dataroot d optim.lrr=1", "did you mean optim.lr"),
        ("simbev", "train_simbev.py", "--dataroot d extra", "takes no such word"),
        ("simbev", "train_simbev.py", "--dataroot d --resume configs/model_010000.pt", "configs has none"),
        ("diffbev", "tools/train.py", "", "CONFIG missing"),
        ("diffbev", "tools/train.py", "nothing.py", "no such config file"),
        ("diffbev", "tools/vis_nuscenes_bev.py", "configs/baseline/lss_swin_nuscenes.py no.pth", "no such"),
        ("sdpose", "tools/train.py", "configs/nothing.py", "no such config file"),
        ("sdpose", "tools/test.py", f"{guides.POSE_CONFIG} no.pth --eval PCK", "--eval PCK: no such metric"),
        ("g2_monodepth", "train.py", "--in_channels 4", "--in_channels 4"),
        ("panollava", "train.py", "--stage visoin", "no such stage; did you mean vision"),
        ("panollava", "eval_comprehensive.py", "no.csv", "no.csv: no such file"),
    ],
)
def test_mistakes_are_one_line_and_exit_with_2(system, script, words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("OMMA_DATA_LSS", raising=False)
    shell = new_shell(system, tmp_path, monkeypatch)
    assert shell.python(script, *words.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error
    assert "Traceback" not in error
    assert not list(shell.folder.glob("*/*/config.yaml"))


# --- simbev ---


def test_simbev_trains_resumes_and_infers(world, tmp_path, monkeypatch):
    """R18, R21, R22, R30 to R33."""
    shell = new_shell("simbev", tmp_path, monkeypatch, "실험 one")
    places = {"/path/to/simbev/dataset": world, "/path/to/simbev": world}
    for text in guides.SIMBEV_TRAIN:
        shell.block(text, places, [*SIMBEV_TINY, "log.tensorboard=false"])
    runs = shell.folder / "runs"
    assert {path.name for path in runs.iterdir()} == {"my_experiment", "simbev", "full_training"}
    for run in runs.iterdir():
        files = {file.name for file in run.glob("*.pt")}
        assert files == {"model_000003.pt", "model_best.pt", "model_final.pt"}, run
    command = (runs / "simbev" / "command.txt").read_text(encoding="utf-8")
    assert command.startswith("omma train lss/base ")
    shell.block(guides.SIMBEV_RESUME, {"model_010000": "model_000003", **places}, ["train.length=4"])
    rows = read_metrics(runs / "simbev" / "metrics.csv")
    assert [row["step"] for row in rows if row["phase"] == "val"] == [3, 4]
    assert torch.load(runs / "simbev" / "model_final.pt")["counter"] == 4
    assert _infer(shell, monkeypatch) == (1, 1, 16, 16)
    (runs / "old").mkdir()
    shutil.copyfile(runs / "simbev" / "model_000003.pt", runs / "old" / "model_000003.pt")
    words = ["--dataroot", world, "--resume", "runs/old/model_000003.pt", "--logdir", "runs/old"]
    small = [word for word in SIMBEV_TINY if not word.startswith("train.length")]
    assert shell.python("train_simbev.py", *words, *small, "train.length=4") == 0
    assert {"model_000003.pt", "model_000004.pt"} <= {file.name for file in (runs / "old").iterdir()}


def _infer(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> tuple[int, ...]:
    """The guide's snippet on the small network's sizes; the shape of the prediction."""
    code = guides.SIMBEV_INFERENCE.replace("[-50.0, 50.0, 0.5]", "[-16, 16, 2]")
    code = code.replace("(128, 352)", "(32, 64)")
    if not torch.cuda.is_available():
        code = code.replace("model.cuda()\n", "")
    eye = torch.eye(3).expand(1, 6, 3, 3)
    names = {"imgs": torch.randn(1, 6, 3, 32, 64), "rots": eye, "trans": torch.zeros(1, 6, 3)}
    names |= {"intrins": eye, "post_rots": eye, "post_trans": torch.zeros(1, 6, 3)}
    monkeypatch.chdir(shell.folder)
    shell.execute(code, names)
    return tuple(names["preds"].shape)


@pytest.mark.parametrize("text", guides.SIMBEV_SCRIPTS)
def test_simbev_scripts(text, world, tmp_path, monkeypatch):
    """R4 and R5: the path is written into the file, as the guide has it."""
    shell = new_shell("simbev", tmp_path, monkeypatch, "실험 one")
    change(shell.folder / text.split()[1], ("/path/to/simbev/dataset", str(world)))
    shell.block(text, {}, SIMBEV_TINY)
    (run,) = (shell.folder / "runs").iterdir()
    small = "small" in text
    assert re.fullmatch(r"simbev_test_\d{8}_\d{6}" if small else r"simbev_\d{8}_\d{6}", run.name)
    assert (run / "model_best.pt").is_file()
    assert list((run / "events").iterdir())
    command = (run / "command.txt").read_text(encoding="utf-8")
    held = ["--nepochs 10", "--val_step 50", "--save_step 100"] if small else ["--nepochs 100", "--ncams 6"]
    assert all(f"{words} " in command for words in [*held, "--lr 1e-3"])


def test_simbev_options_are_understood():
    for line in guides.SIMBEV_OPTIONS.split("\n"):
        overrides = read_words(shlex.split(line), get("lss")).overrides
        assert len(overrides) == line.count("--")
        open_recipe("lss/base", overrides)


# --- g2_monodepth ---


@pytest.fixture(scope="module")
def rooms(tmp_path_factory) -> Path:
    """Folders as the guide has them: rgb/ and depth/ in train/ and val/, millimetres, no note."""
    out = tmp_path_factory.mktemp("data") / "nyu_v2"
    words = ["--scenes", 2, "--val-scenes", 1, "--frames", 2, "--image-size", "48x64", "--workers", 1]
    assert omma("world", "rgbd-nyu", "--out", out, *words) == 0
    (out / "rgbd.json").unlink()
    return out


def test_depth_training_of_the_guide(rooms, tmp_path, monkeypatch, capsys):
    """R1, R19, R20, R25."""
    shell = new_shell("g2_monodepth", tmp_path, monkeypatch, "실험 one")
    changes = {"/path/to/nyu_v2": rooms.as_posix(), "(480, 640)": "(32, 48)", "layers = 7": "layers = 4"}
    changes |= {"features = 64": "features = 8", "batch_size = 8": "batch_size = 2"}
    changes |= {"epochs = 100": "epochs = 6", "num_workers = 4": "num_workers = 0"}
    change(shell.folder / "config.py", *changes.items())
    few = ["data.val_image_size=[32, 48]", "validate.batch_size=2", "train.device=cpu"]
    assert shell.python("train.py", *few, "log.tensorboard=false") == 0
    assert "Config.port 12355: not needed" in capsys.readouterr().out
    run = shell.folder / "checkpoints"
    state = torch.load(run / "checkpoint_epoch004.pth", weights_only=True)
    keys = {"epoch", "model_state_dict", "optimizer_state_dict", "scheduler_state_dict", "config"}
    assert keys <= set(state)
    assert state["epoch"] == 4
    assert state["config"]["data"]["layout"] == "nyu_folder"
    assert (run / "checkpoint_epoch005.pth").is_file()
    terms = _use_depth_names(shell, run / "checkpoint_epoch004.pth")
    assert terms["total_loss"].item() > 0
    assert terms["model"].head.weight.grad.abs().sum() > 0


def _use_depth_names(shell: Shell, checkpoint: Path) -> dict:
    """The guide's imports and calls."""
    torch.manual_seed(0)
    maps = {name: torch.rand(1, 1, 32, 48) for name in ("depth_gt", "point")}
    names = {"torch": torch, "device": "cpu", "checkpoint_path": checkpoint, "rgb": torch.rand(1, 3, 32, 48)}
    names |= {**maps, "hole_point": torch.ones(1, 1, 32, 48)}
    shell.execute(f"{guides.DEPTH_NAMES}\nconfig = Config()\n{guides.DEPTH_MODEL}", names)
    return names


def test_a_misspelt_setting_of_the_config_is_found(tmp_path, monkeypatch, capsys):
    shell = new_shell("g2_monodepth", tmp_path, monkeypatch)
    change(shell.folder / "config.py", ("lr_gamma = 0.5", "lr_gama = 0.5"))
    assert shell.python("train.py") == 2
    assert "Config.lr_gama: no such setting; did you mean lr_gamma" in capsys.readouterr().err
    train = f"{guides.DEPTH_NAMES}\nTrainer(0, 1, Config()).train()"
    with pytest.raises(UsageError, match="lr_gama"):
        shell.execute(train, {})
    monkeypatch.setattr("omma.compat.run_words", lambda *args: 5)
    with pytest.raises(SystemExit, match="5"):
        shell.execute(train, {})


# --- sdpose ---


def _pose_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """The guide's config with five people to train on, two epochs long."""
    shell = new_shell("sdpose", tmp_path, monkeypatch)
    people = coco_files.write_set(tmp_path / "coco")
    changes = {"/dockerdata/coco/": f"{people.as_posix()}/", "total_epochs = 300": "total_epochs = 2"}
    changes |= {"interval=10": "interval=1", "step=[200, 260]": "step=[1]", "interval=50": "interval=1"}
    change(shell.folder / guides.POSE_CONFIG, *changes.items())
    return shell


def test_pose_training_resume_and_evaluation(tmp_path, monkeypatch, capsys):
    """R1, R2, R6, R9 to R13, R32, R34, R35."""
    shell = _pose_shell(tmp_path, monkeypatch)
    shell.block(guides.POSE_TRAIN, {}, POSE_TINY)
    run = shell.folder / "work_dirs" / "sdpose_s_v1_stemnet_coco_256x192"
    assert [path.name for path in (shell.folder / "work_dirs").iterdir()] == [run.name]
    (log,) = run.glob("*.log")
    assert re.fullmatch(r"\d{8}_\d{6}\.log", log.name)
    assert "saved checkpoints/final" in log.read_text(encoding="utf-8")
    files = {file.name for file in run.glob("*.pth")}
    best = next(name for name in files if name.startswith("best_AP_epoch_"))
    assert files == {"epoch_1.pth", "epoch_2.pth", "latest.pth", best}
    change(shell.folder / guides.POSE_CONFIG, ("total_epochs = 2", "total_epochs = 3"))
    shell.block(guides.POSE_RESUME, {}, POSE_TINY)
    assert torch.load(run / "latest.pth")["meta"]["epoch"] == 3
    best = next(run.glob("best_AP_epoch_*.pth")).name
    capsys.readouterr()
    for checkpoint in (best, "epoch_1.pth"):
        shell.block(guides.POSE_TEST, {"best_AP_epoch_250.pth": checkpoint})
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in NUMBERS)
    named = [guides.POSE_CONFIG, "--exp-name", "x", *POSE_TINY, "train.length=1"]
    assert shell.python("tools/train.py", *named) == 0
    assert (shell.folder / "work_dirs" / "x" / "latest.pth").is_file()
    assert isinstance(json.loads((run / "result_keypoints.json").read_text(encoding="utf-8")), list)
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["metrics"]
    assert set(NUMBERS) <= set(metrics)


@pytest.mark.slow
def test_pose_training_in_two_processes(tmp_path, monkeypatch):
    """R33."""
    shell = _pose_shell(tmp_path, monkeypatch)
    shell.block(guides.POSE_DIST, {".py 8": ".py 2"}, [*POSE_TINY, "train.batch_size=1"])
    assert (shell.folder / "work_dirs" / "sdpose_s_v1_stemnet_coco_256x192" / "epoch_2.pth").is_file()


def test_pose_launcher_hands_over_the_number_of_gpus(tmp_path, monkeypatch):
    shell = new_shell("sdpose", tmp_path, monkeypatch)
    assert shell.bash(f"{guides.POSE_DIST} --seed 3 data.root='a b'").returncode == 0
    words = shell.recorded.read_text(encoding="utf-8").splitlines()
    assert words == ["./tools/train.py", guides.POSE_CONFIG, "--gpus", "8", "--seed", "3", "data.root=a b"]
    assert shell.bash("./tools/dist_train.sh one").returncode == 2


@pytest.mark.parametrize("written", guides.POSE_SETTINGS)
def test_settings_of_the_guide(written, tmp_path):
    """Each block that the guide tells to write, as data: what it means for omma train."""
    file = tmp_path / "설정 one.py"
    file.write_text(written, encoding="utf-8")
    recipe, words = read_config(file)
    assert recipe == "sdpose/base"
    named = re.search(r"exp_name = '(.+)'", written)
    assert work_dir(file) == Path("work_dirs", named[1] if named else "설정 one")
    assert " ".join(words) == guides.POSE_SETTINGS[written]
    overrides = read_words(words, get("sdpose")).overrides
    open_recipe(recipe, overrides)


def test_the_network_of_an_original_config_is_read(tmp_path, capsys):
    """A config of one's own clone, which describes the network itself."""
    file = tmp_path / "own.py"
    file.write_text(guides.POSE_NETWORK, encoding="utf-8")
    recipe, words = read_config(file)
    assert (
        "own.py: not read, the recipe's hold: model.keypoint_head.type, model.test_cfg.modulate_kernel"
        in (capsys.readouterr().out)
    )
    config = open_recipe(recipe, read_words(words, get("sdpose")).overrides).config.as_dict()
    network = config["system"]
    assert (network["backbone"]["name"], network["patch"], network["depth"]) == ("stemnet", [2, 2], 6)
    assert config["data"]["image_size"] == [128, 96]
    assert config["evaluation"] | {"flip": False, "decode": "default"} == config["evaluation"]


@pytest.mark.parametrize(
    ("written", "instead", "said"),
    [
        ("out_channels=channel_cfg['num_output_channels']", "out_channels=14", "only 17 can be"),
        ("in_channels=256", "in_channels=32", "stemnet gives 256"),
        ("feature_size=[32, 24]", "feature_size=[64, 48]", "32 x 24 cells"),
        ("type='StemNet'", "type='ViT'", "model.backbone.type ViT: not known here"),
        ("type='StemNet'", "type='HRNet_3stage'", "hrnet_w32 gives 32"),
        ("channel_cfg =", "recipe = 'sdpose/b'\nchannel_cfg =", "recipe = 'sdpose/b' has hrnet_w32"),
        ("depth=6", "depth=int(6)", "depth = int(6) is not read"),
        ("patch_size=[2, 2]", "patch_size=2", "patch_size = 2 is not understood"),
    ],
)
def test_a_network_that_contradicts_itself_is_refused(written, instead, said, tmp_path):
    assert written in guides.POSE_NETWORK
    file = tmp_path / "own.py"
    file.write_text(guides.POSE_NETWORK.replace(written, instead), encoding="utf-8")
    with pytest.raises(ConfigError, match=re.escape(said)):
        read_config(file)


# --- as a person runs them ---


@pytest.mark.slow
def test_a_script_in_a_process_of_its_own(world, tmp_path):
    """Real bash, real python, by an absolute path from another folder, spaces and Hangul in all paths."""
    folder = tmp_path / "실험 one"
    shutil.copytree(COMPAT / "simbev", folder / "simbev")
    data = shutil.copytree(world, folder / "자료 data")
    script = [str(folder / "simbev" / "configs" / "simbev_small.sh"), *SIMBEV_TINY]
    env = {"DATAROOT": str(data), "PYTHON": sys.executable, "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(
        ["bash", *script], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs").iterdir()
    assert {"model_best.pt", "model_final.pt", "report.html"} <= {file.name for file in run.iterdir()}
    assert np.isfinite(torch.load(run / "model_best.pt")["val_iou"])
