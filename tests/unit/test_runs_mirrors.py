import json
import sys
import types
from pathlib import Path

import pytest

from omma.config.base import Log, Wandb
from omma.runs.console import RunLog
from omma.runs.folder import RunFolder
from omma.runs.mirrors import open_mirrors

QUIET = RunLog(None, quiet=True)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path, "실행 1", config={"seed": 3}, command=["omma"])


def mirror_steps(run: RunFolder, steps: range, resume_step: int | None) -> None:
    (mirror,) = open_mirrors(run, Log(), resume_step, console=QUIET)
    for step in steps:
        mirror.write(step=step, epoch=0, phase="train", values={"loss": float(step), "iou": None})
    mirror.write(step=steps[-1], epoch=0, phase="val", values={"iou/car": 0.5})
    mirror.close()


def test_tensorboard_shows_each_step_once_after_a_resume(run: RunFolder) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    mirror_steps(run, range(1, 9), None)
    mirror_steps(run, range(5, 11), 4)
    events = EventAccumulator(str(run.events))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"train/loss", "val/iou/car"}
    assert [event.step for event in events.Scalars("train/loss")] == list(range(1, 11))
    assert [event.step for event in events.Scalars("val/iou/car")] == [10]


def test_nothing_asked_for_opens_nothing(run: RunFolder) -> None:
    assert open_mirrors(run, Log(tensorboard=False), None, console=QUIET) == []
    assert not run.events.exists()


def test_wandb_that_is_not_installed_is_one_line(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    settings = Log(tensorboard=False, wandb=Wandb())
    assert open_mirrors(run, settings, None, console=RunLog(run.log_file)) == []
    (line,) = run.log_file.read_text(encoding="utf-8").splitlines()
    assert "going on without it" in line
    assert "pip install omma[wandb]" in line


class FakeWandb(types.ModuleType):
    """Records calls; online mode fails as without a network."""

    class Error(Exception):
        pass

    def __init__(self, *, reachable: bool) -> None:
        super().__init__("wandb")
        self.reachable = reachable
        self.inits: list[dict] = []
        self.logged: list[tuple[int, dict]] = []

        self.torn_down = False

    @staticmethod
    def Settings(**settings: object) -> dict:
        return settings

    def teardown(self) -> None:
        self.torn_down = True

    def init(self, **options: object) -> "FakeWandb":
        self.inits.append(options)
        if options["mode"] == "online" and not self.reachable:
            raise self.Error("no route to host\ntraceback...")
        return self

    def log(self, values: dict, step: int) -> None:
        self.logged.append((step, values))

    def finish(self) -> None: ...


def open_wandb(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, *, reachable: bool, log: RunLog = QUIET
) -> FakeWandb:
    fake = FakeWandb(reachable=reachable)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    settings = Log(tensorboard=False, wandb=Wandb(project="p", entity="e"))
    (mirror,) = open_mirrors(run, settings, None, console=log)
    mirror.write(step=2, epoch=1, phase="val", values={"iou": 0.5, "loss": None})
    mirror.close()
    return fake


def test_wandb_gets_rows_under_the_same_tags(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = open_wandb(run, monkeypatch, reachable=True)
    assert fake.logged == [(2, {"val/iou": 0.5, "epoch": 1})]
    (options,) = fake.inits
    assert (options["project"], options["entity"], options["name"]) == ("p", "e", "실행 1")
    assert options["config"] == {"seed": 3}
    assert options["settings"]["symlink"] is False


def test_a_resume_continues_the_same_wandb_run(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_wandb(run, monkeypatch, reachable=True).inits[0]
    second = open_wandb(run, monkeypatch, reachable=True).inits[0]
    assert (
        first["id"] == second["id"] == json.loads((run.path / "wandb.json").read_text(encoding="utf-8"))["id"]
    )
    assert second["resume"] == "allow"


def test_no_network_is_one_line_and_offline(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = open_wandb(run, monkeypatch, reachable=False, log=RunLog(run.log_file))
    assert [options["mode"] for options in fake.inits] == ["online", "offline"]
    assert fake.torn_down
    assert fake.logged
    (line,) = run.log_file.read_text(encoding="utf-8").splitlines()
    assert "no route to host" in line
    assert "wandb sync" in line
    assert capsys.readouterr().out == line + "\n"


@pytest.mark.parametrize(
    ("asked", "modes"), [("offline", ["offline"]), ("dryrun", ["offline"]), ("disabled", [])]
)
def test_the_environment_may_keep_it_offline(run, monkeypatch, asked: str, modes: list[str]) -> None:
    monkeypatch.setenv("WANDB_MODE", asked)
    fake = FakeWandb(reachable=True)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    settings = Log(tensorboard=False, wandb=Wandb())
    mirrors = open_mirrors(run, settings, None, console=RunLog(run.log_file))
    assert [options["mode"] for options in fake.inits] == modes
    assert len(mirrors) == len(modes)
    (line,) = run.log_file.read_text(encoding="utf-8").splitlines()
    assert "WANDB_MODE" in line


def test_a_recipe_that_says_offline_needs_no_line(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    fake = FakeWandb(reachable=True)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    settings = Log(tensorboard=False, wandb=Wandb(mode="offline"))
    open_mirrors(run, settings, None, console=RunLog(run.log_file))
    assert [options["mode"] for options in fake.inits] == ["offline"]
    assert not run.log_file.exists()


def test_a_service_that_dies_ends_the_mirror_and_not_the_training(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeWandb(reachable=True)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    settings = Log(tensorboard=False, wandb=Wandb())
    (mirror,) = open_mirrors(run, settings, None, console=RunLog(run.log_file))
    calls: list[int] = []

    def log(values: dict, step: int) -> None:
        calls.append(step)
        raise ConnectionResetError("the service is gone\ntraceback")

    monkeypatch.setattr(fake, "log", log)
    for step in (1, 2):
        mirror.write(step=step, epoch=0, phase="train", values={"loss": 1.0})
    mirror.close()
    assert calls == [1]
    (line,) = run.log_file.read_text(encoding="utf-8").splitlines()
    assert "the service is gone" in line
    assert "traceback" not in line
