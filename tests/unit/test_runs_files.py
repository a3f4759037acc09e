import errno
import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from omma.errors import OmmaError
from omma.runs import files


class Crash(BaseException):
    """A process that dies: nothing may catch it and tidy up."""


def test_json_is_strict_and_readable(tmp_path: Path) -> None:
    target = tmp_path / "새 폴더" / "metrics.json"
    files.write_json_atomic(
        target, {"iou": math.nan, "x": np.float32(0.5), "n": np.arange(2), "t": (1, "차"), "i": -math.inf}
    )
    text = target.read_text(encoding="utf-8")
    assert "차" in text
    assert json.loads(text, parse_constant=pytest.fail) == {
        "iou": None,
        "x": 0.5,
        "n": [0, 1],
        "t": [1, "차"],
        "i": None,
    }


def test_text_keeps_its_line_ends(tmp_path: Path) -> None:
    files.write_text_atomic(tmp_path / "a.txt", "one\ntwo\n")
    assert (tmp_path / "a.txt").read_bytes() == b"one\ntwo\n"


@pytest.mark.parametrize("operation", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    target = tmp_path / "status.json"
    files.write_text_atomic(target, "old")

    def die(*_: object) -> None:
        raise Crash

    if operation == "fsync":
        monkeypatch.setattr(files.os, "fsync", die)
    else:
        monkeypatch.setattr(files, "_replace", die)
    with pytest.raises(Crash):
        files.write_text_atomic(target, "new")
    assert target.read_text(encoding="utf-8") == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["status.json"]


def test_a_full_disk_names_the_path_and_the_free_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OmmaError, match=r"status\.json: the disk .* full \(\d+ MiB free\)") as caught:
        files.write_text_atomic(tmp_path / "not" / "made" / "status.json", "x")
    assert "omma resume" in str(caught.value)


def test_other_operating_system_errors_pass_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files.os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output error") as caught:
        files.write_text_atomic(tmp_path / "status.json", "x")
    assert not isinstance(caught.value, OmmaError)


def make_folder(path: Path, content: str) -> Path:
    (path / "inner").mkdir(parents=True)
    (path / "weights.bin").write_text(content, encoding="utf-8")
    (path / "inner" / "meta.json").write_text(content, encoding="utf-8")
    return path


def read_folder(path: Path) -> str:
    """The folder's content if all its files are there and agree."""
    contents = {
        file.read_text(encoding="utf-8") for file in (path / "weights.bin", path / "inner" / "meta.json")
    }
    assert len(contents) == 1
    return contents.pop()


class Saboteur:
    """Counts the file operations of the module and dies just before (or, for deletions, inside) the n-th."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fatal: int) -> None:
        self.count, self.fatal = 0, fatal
        for name in ("_sync_file", "sync_directory", "_replace"):
            monkeypatch.setattr(files, name, self.wrap(getattr(files, name)))
        monkeypatch.setattr(files.shutil, "rmtree", self.wrap(shutil.rmtree))

    def wrap(self, operation):
        def wrapped(*args, **kwargs):
            self.count += 1
            if self.count == self.fatal:
                if operation.__name__ == "rmtree":
                    (args[0] / "weights.bin").unlink()
                raise Crash
            return operation(*args, **kwargs)

        return wrapped


def exchange(monkeypatch: pytest.MonkeyPatch, tmp: Path, final: Path, fatal: int) -> bool:
    """Whether `replace_folder` died at its operation number `fatal`."""
    with monkeypatch.context() as patch:
        Saboteur(patch, fatal)
        try:
            files.replace_folder(tmp, final)
        except Crash:
            return True
    return False


@pytest.mark.parametrize("earlier", ["nothing", "final", "old only", "final and old"])
def test_a_crash_before_any_operation_leaves_a_whole_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier: str
) -> None:
    """Every operation of `replace_folder` is hit in turn, from every state an earlier crash can leave."""
    fatal, died = 0, True
    while died:
        fatal += 1
        final = tmp_path / str(fatal) / "체크 step_000500"
        if "final" in earlier:
            make_folder(final, "old")
        if "old" in earlier.split():
            make_folder(final.with_name(f".old-{final.name}"), "old" if earlier == "old only" else "older")
        tmp = make_folder(final.with_name(".tmp-x"), "new")
        died = exchange(monkeypatch, tmp, final, fatal)
        files.recover_folder(final)
        if final.exists():
            assert read_folder(final) in ({"old", "new"} if died else {"new"})
        else:
            assert died
            assert earlier == "nothing"
            assert read_folder(tmp) == "new"
        left = {item.name for item in final.parent.iterdir()} - {tmp.name}
        assert left <= {final.name}
    assert fatal > 4


def test_a_half_deleted_folder_never_keeps_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for fatal in (1, 2):
        folder = make_folder(tmp_path / f"step_{fatal}", "old")
        with monkeypatch.context() as patch:
            Saboteur(patch, fatal)
            with pytest.raises(Crash):
                files.remove_folder(folder)
        assert not folder.exists() or read_folder(folder) == "old"


def test_what_a_killed_process_left_is_found_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not what a living process, or one of another machine, writes right now."""
    final = tmp_path / "checkpoints" / "best"
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "getpid", lambda: os.getppid())
        alive = make_folder(files.temporary_path(final), "alive")
        patch.setattr(files.os, "getpid", lambda: 2**22 + 1)  # above any process
        gone = make_folder(files.temporary_path(final), "gone")
        file = files.temporary_path(tmp_path / "status.json")
        file.write_bytes(b"half")
        patch.setattr(files, "_HOST", "00000000")
        elsewhere, long_ago = (make_folder(files.temporary_path(final), "x") for _ in range(2))
    old = make_folder(final.with_name(".tmp-checkpoint"), "x")
    for path in (long_ago, old):
        os.utime(path, (0, 0))
    assert set(files.abandoned(tmp_path)) == {gone, file, long_ago, old}
    assert files.remove_abandoned(tmp_path) == 4
    assert {path.name for path in final.parent.iterdir()} == {alive.name, elsewhere.name}
