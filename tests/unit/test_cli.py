"""The command line: start-up, help, flags of the original tools, exit codes."""

import subprocess
import sys

import pytest

from omma.cli import _run
from omma.commands.flags import read_words
from omma.commands.predict import find_samples, parse_indices
from omma.errors import UsageError
from omma.systems import get, systems

START_UP = """
import sys, time
from omma.cli import _run
code = _run(sys.argv[1:], debug=False)
heavy = [name for name in ("torch", "lightning", "cv2", "matplotlib") if name in sys.modules]
print("HEAVY", heavy, "CPU", time.process_time(), file=sys.stderr)
sys.exit(code)
"""


SHOW = [["show", f"{name}/base"] for name in systems()]


@pytest.mark.parametrize("words", [["--help"], ["ls"], *SHOW, ["train", "--help"]])
def test_light_verbs_import_neither_torch_nor_lightning(words):
    """E1."""
    done = subprocess.run(
        [sys.executable, "-c", START_UP, *words],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "HEAVY []" in done.stderr


PRINTS = "for number in range({lines}): print(number)"
OUTCOME = """
import sys
from omma.commands.outcome import exit_code
def call():
    {what}
sys.exit(exit_code(call, debug=False))
"""


@pytest.mark.parametrize(
    "code",
    [
        OUTCOME.format(what=PRINTS.format(lines=1)),
        OUTCOME.format(what=PRINTS.format(lines=100_000)),
        "from omma.cli import main\nmain()",
    ],
    ids=["at the end", "in between", "omma ls"],
)
def test_a_reader_that_leaves_ends_the_program_quietly(code):
    """`omma ls | head -1`."""
    command = [sys.executable, "-c", code, "ls"]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    program.stdout.close()
    assert program.stderr.read() == b""
    program.stderr.close()
    assert program.wait() == 141


def test_a_broken_pipe_of_something_else_is_an_error():
    code = OUTCOME.format(what="raise BrokenPipeError('to a worker')")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "internal error: BrokenPipeError: to a worker" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["trian"], 2, "No such command"),
        (["ls", "lsss"], 2, "did you mean lss?"),
        (["train", "lss/bse"], 2, "did you mean lss/base"),
        (["train", "lss/base", "--bzs", "3"], 2, "did you mean --bsz"),
        (["train", "lss/base", "--bsz"], 2, "--bsz: a value is missing"),
        (["show", "lss/base", "optim.lrr=1"], 2, "optim.lr"),
        (["train", "lss/base", "optim.lr=fast"], 2, "optim.lr"),
        (["resume", "no-such-run"], 2, "no such run"),
        (["eval", "no-such-run"], 2, "no such run"),
        (["world", "simbev", "--out", "x", "--image-size", "12"], 2, "expected HxW"),
        (["prepare", "lss-resise"], 2, "did you mean lss-resize"),
        (["sweep", "lss/base", "optim.lr=1"], 2, "at least one axis"),
    ],
)
def test_a_mistake_is_one_clear_message_and_an_exit_code(words, code, text, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert _run(words, debug=False) == code
    captured = capsys.readouterr()
    assert text in captured.err
    assert "Traceback" not in captured.err
    assert not list(tmp_path.iterdir())


def test_flags_of_the_original_guide_are_read_as_settings():
    """R6 to R20, R47, R48: every flag of the guide, with what it was read as."""
    words = (
        "--dataroot D --nepochs 1 --gpuid -1 --bsz=2 --nworkers 0 --lr 1e-4 --weight_decay 1e-7 --H 224 "
        "--W 480 --final_h 96 --final_w 256 --ncams 3 --val_step 10 --save_step 20 "
        "--max_grad_norm 5 --scheduler none"
    ).split()
    read = read_words([*words, "seed=3"], get("lss"))
    assert read.overrides == [
        "data.root=D", "train.length=1 epochs", "train.device=cpu", "train.batch_size=2", "train.workers=0",
        "optim.lr=1e-4", "optim.weight_decay=1e-7", "data.source_size.0=224", "data.source_size.1=480",
        "data.image_size.0=96", "data.image_size.1=256", "data.num_cameras=3", "validate.every=10",
        "save.every=20", "optim.grad_clip=5", "schedule.name=constant", "seed=3",
    ]  # fmt: skip
    assert "--gpuid -1 -> train.device=cpu" in read.read_as


def test_logdir_and_resume_become_options():
    read = read_words(["--logdir", "./runs/x", "--resume", "runs/x/model_000010.pt"], get("lss"))
    assert read.options == {"name": "./runs/x", "resume": "runs/x/model_000010.pt"}


def test_show_prints_the_source_of_a_value(capsys):
    assert _run(["show", "lss/base", "optim.lr=2e-4"], debug=False) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.strip().startswith("lr:"))
    assert line.split("#")[1].strip() == "override"
    assert "0.0002" in line


def test_cp_makes_a_recipe_that_extends(capsys, tmp_path):
    file = tmp_path / "내 레시피.yaml"
    assert _run(["cp", "lss/small", str(file)], debug=False) == 0
    assert _run(["show", str(file)], debug=False) == 0
    assert "length: 10 epochs" in capsys.readouterr().out
    assert _run(["cp", "lss/small", str(file)], debug=False) == 2


def test_slurm_prints_a_file_that_saves_requeues_and_resumes(capsys):
    assert _run(["slurm", "lss/base", "data.root=/data", "--nodes", "2", "--gpus", "8"], debug=False) == 0
    text = capsys.readouterr().out
    for line in ("--nodes=2", "--ntasks-per-node=8", "--signal=TERM@120", "--requeue", "resume lss-base"):
        assert line in text
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0,3", [0, 3]), ("2-5", [2, 3, 4, 5]), ("0-6:3", [0, 3, 6]), ("all", list(range(8)))],
)
def test_indices(text, expected):
    assert parse_indices(text, 8) == expected


@pytest.mark.parametrize("text", ["9", "x", "1-", "3:2"])
def test_indices_outside_or_malformed_are_refused(text):
    with pytest.raises(UsageError, match="--indices"):
        parse_indices(text, 8)


class _Named:
    names = ("front", "back", "left")

    def __len__(self):
        return len(self.names)

    def name(self, index):
        return self.names[index]


def test_samples_are_found_by_name_too():
    assert find_samples("left,front", _Named()) == [2, 0]
    assert find_samples("1", _Named()) == [1]
    with pytest.raises(UsageError, match="did you mean front"):
        find_samples("frnt", _Named())


def test_a_recipe_of_a_grid_lists_its_runs_and_a_word_replaces_an_axis(tmp_path, capsys):
    file = tmp_path / "grid.yaml"
    text = (
        "extends: lss/base\nsweep: {optim.lr: [1.0e-3, 1.0e-4], system.loss.name: [bce, focal], seed: [0]}\n"
    )
    file.write_text(text, encoding="utf-8")
    words = ["sweep", str(file), "seed=0,1", "--dry-run", "--name", "g", "--runs-dir", str(tmp_path / "runs")]
    assert _run(words, debug=True) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows if row.startswith("g-")] == [f"g-{n}" for n in range(1, 9)]
    assert rows[-1].split() == ["g-8", "0.0001", "focal", "1"]
    assert not (tmp_path / "runs").exists()
    assert _run(["show", str(file), "optim.lr=2e-3"], debug=True) == 0  # the grid is no setting


def test_a_grid_that_is_no_mapping_of_lists_is_named(tmp_path, capsys):
    file = tmp_path / "grid.yaml"
    file.write_text("extends: lss/base\nsweep: {optim.lr: 1.0e-3}\n", encoding="utf-8")
    assert _run(["sweep", str(file), "--dry-run"], debug=False) == 2
    assert "sweep: gives each key a list" in capsys.readouterr().err
