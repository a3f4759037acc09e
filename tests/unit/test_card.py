"""`omma card`: every fact of a run in its README.md, and nothing else."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.fake_runs import fake_run

from omma.cli import _run
from omma.commands.card import card_text, write_card
from omma.config.yaml import dump_yaml
from omma.errors import CheckpointError, UsageError
from omma.runs.files import write_json_atomic, write_text_atomic
from omma.runs.folder import RunFolder
from omma.systems import systems

SYSTEM = next(iter(systems()))


def make_run(folder: Path, *, data: dict | None = None, samples: int = 60) -> RunFolder:
    run = fake_run(folder, "차 a b", system=SYSTEM, samples=samples)
    config = run.config()
    config["data"] |= data or {}
    config["train"] = {"length": 2000, "batch_size": 4, "precision": "bf16-mixed"}
    config["optim"] = {"name": "adamw", "lr": 2e-4}
    write_text_atomic(run.path / "config.yaml", dump_yaml(config))
    return run


def sections(text: str) -> dict[str, str]:
    parts = re.split(r"^## (.*)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_card_holds_the_facts_of_the_run(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    file = write_card(str(run.path))
    assert file == run.path / "README.md"
    found = sections(file.read_text(encoding="utf-8"))
    best = run.status()["best"]
    about = json.loads((run.eval_dir("val") / "metrics.json").read_text(encoding="utf-8"))
    assert list(found) == [
        *("What it is", "How to load it", "Metrics", "Data", "Training", "Limits", "Provenance")
    ]
    assert systems()[SYSTEM].summary in found["What it is"]
    assert f"| best | {best['step']} | 0.00 M |" in found["What it is"]
    assert about["setting"] in found["Metrics"]
    assert f"| mIoU | {about['metrics']['mIoU']:.4f} |" in found["Metrics"]
    assert "60 samples, checkpoint `best`" in found["Metrics"]
    assert "| train | training | 300 | 900 |" in found["Data"]
    assert "`ab12`" in found["Data"]
    assert "| `optim.lr` | `0.0002` |" in found["Training"]
    assert '| `train.precision` | `"bf16-mixed"` |' in found["Training"]
    assert "2000 of 2000 steps; 10 min 00 s" in found["Training"]
    assert "seed 0" in found["Limits"]
    assert "0123456789ab (main)" in found["Provenance"]
    assert 'omma.load("차 a b@best")' in found["How to load it"]


def test_front_matter_is_yaml_with_the_metrics(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    head = yaml.safe_load(card_text(run).split("---\n")[1])
    about = json.loads((run.eval_dir("val") / "metrics.json").read_text(encoding="utf-8"))
    assert head["tags"] == ["omma", SYSTEM]
    assert head["omma"]["metrics"] == {"val": about["metrics"]}


def test_limits_are_what_the_folder_shows(tmp_path: Path) -> None:
    data = tmp_path / "made"
    write_json_atomic(data / "world.json", {})
    run = make_run(tmp_path, data={"root": str(data), "limit": 50})
    write_json_atomic(run.path / "provenance.json", {"git": {"sha": "abc", "branch": "m", "dirty": True}})
    findings = [
        {"severity": "warning", "title": "one class only", "evidence": "97 %"},
        {"severity": "ok", "title": "all well", "evidence": ""},
    ]
    write_json_atomic(run.diagnose / "findings.json", findings)
    run.set_status("preempted", start={"overfit": 2})
    limits = sections(card_text(run))["Limits"]
    assert "The training is not at its end: preempted" in limits
    assert "same 2 samples" in limits
    assert "procedural" in limits
    assert "first 50 training samples" in limits
    assert "no commit holds" in limits
    assert "one class only (97 %)" in limits
    assert "all well" not in limits


def test_the_path_of_the_data_stays_at_home(tmp_path: Path) -> None:
    run = make_run(tmp_path, data={"root": str(tmp_path / "people" / "photos")})
    text = card_text(run)
    assert "Folder `photos`" in text
    assert str(tmp_path) not in text


def test_without_an_evaluation_the_best_validation_is_shown_and_said(tmp_path: Path) -> None:
    run = make_run(tmp_path, samples=0)
    found = sections(card_text(run))
    assert "No `omma eval` yet" in found["Metrics"]
    assert f"{run.status()['best']['value']:.4f}" in found["Metrics"]
    assert "No evaluation after the training." in found["Limits"]


def test_a_card_is_replaced_and_a_readme_of_ones_own_is_not(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    write_card(str(run.path))
    write_card(str(run.path))
    write_text_atomic(run.path / "README.md", "my notes\n")
    with pytest.raises(UsageError, match="no card of omma's"):
        write_card(str(run.path))
    assert (run.path / "README.md").read_text(encoding="utf-8") == "my notes\n"


def test_a_run_without_weights_has_no_card(tmp_path: Path) -> None:
    config = {"system": {"name": SYSTEM}}
    run = RunFolder.create(tmp_path, "empty", config=config, command=["omma"])
    with pytest.raises(CheckpointError, match="has saved none"):
        write_card(str(run.path))
    assert not (run.path / "README.md").exists()


def test_cards_and_checks_need_no_torch(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    script = (
        "import sys; from omma.cli import _run; code = _run(sys.argv[1:], debug=True);"
        "_run(['runs', 'check', sys.argv[2]], debug=False);"
        "print([name for name in ('torch', 'lightning') if name in sys.modules]); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "card", str(run.path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_verb_prints_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path)
    assert _run(["card", run.name, "--runs-dir", str(tmp_path)], debug=True) == 0
    assert capsys.readouterr().out.strip() == str(run.path / "README.md")
    assert _run(["card", "no-such-run", "--runs-dir", str(tmp_path)], debug=False) == 2
