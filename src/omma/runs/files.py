"""Files that are either the old or the new one, whatever happens in between.

A file is written beside its place under a temporary name, brought to the disk and renamed. A folder is
exchanged in renames, each of which leaves a state that `recover_folder` understands.
"""

from __future__ import annotations

import errno
import json
import math
import os
import platform
import shutil
import sys
import time
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omma.errors import OmmaError

_TEMPORARY, _HOUR = ".tmp-", 3600.0
_HOST = f"{zlib.crc32(platform.node().encode()):08x}"
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT} if hasattr(errno, "EDQUOT") else {errno.ENOSPC}


@contextmanager
def explain_disk_full(path: Path) -> Iterator[None]:
    """Turn "no space left on device" into an error that names the path and the free space.

    Raises:
        OmmaError: if the disk or the quota is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        existing = next(parent for parent in path.absolute().parents if parent.exists())
        free_mib = shutil.disk_usage(existing).free / 2**20
        raise OmmaError(
            f"{path}: the disk or the quota is full ({free_mib:.0f} MiB free); the earlier file is as it was",
            "free some space or move the runs (--runs-dir, OMMA_RUNS), then `omma resume`",
        ) from error


def sync_directory(path: Path) -> None:
    """Bring a directory's entries to the disk; Windows has no such call and needs none."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_file(path: Path) -> None:
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _replace(source: Path, target: Path) -> None:
    """Rename over `target`; on Windows a reader that has it open right now makes this wait."""
    for _ in range(40 if os.name == "nt" else 0):
        try:
            source.replace(target)
        except PermissionError:
            time.sleep(0.05)
        else:
            return
    source.replace(target)


def temporary_path(final: Path) -> Path:
    """A name beside `final` for what is not whole yet; it says which machine's process writes there."""
    return final.with_name(f"{_TEMPORARY}{_HOST}-{os.getpid()}-{uuid.uuid4().hex[:8]}")


def abandoned(folder: Path) -> list[Path]:
    """What processes that are gone left under temporary names anywhere in a folder.

    Of another machine's processes, and of versions that wrote no owner, what is older than an hour.
    """
    found = folder.rglob(f"{_TEMPORARY}*") if folder.is_dir() else ()
    return sorted(path for path in found if _is_abandoned(path))


def _is_abandoned(path: Path) -> bool:
    host, _, rest = path.name.removeprefix(_TEMPORARY).partition("-")
    pid = rest.partition("-")[0]
    if host == _HOST and pid.isdigit():  # in a container the next process often has the number of the last
        return int(pid) == os.getpid() or not process_alive(int(pid))
    try:
        return time.time() - path.stat().st_mtime > _HOUR
    except FileNotFoundError:
        return False


def remove_abandoned(folder: Path) -> int:
    """Delete what `abandoned` finds; how many files and folders these were."""
    found = abandoned(folder)
    for path in found:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return len(found)


def process_alive(pid: int) -> bool:
    """Whether this machine has a process of that number."""
    if sys.platform == "win32":
        import ctypes

        query_limited_information = 0x1000
        handle = ctypes.windll.kernel32.OpenProcess(query_limited_information, False, pid)
        ctypes.windll.kernel32.CloseHandle(handle)
        return bool(handle)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def write_bytes_atomic(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a crash, sees either the old or the new content.

    Args:
        path: the file; missing parent folders are made.
        data: its content.

    Raises:
        OmmaError: if the disk is full.
    """
    temporary = temporary_path(path)
    with explain_disk_full(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            _replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)


def write_text_atomic(path: Path, text: str) -> None:
    """Write UTF-8 text, line ends as given; see `write_bytes_atomic`."""
    write_bytes_atomic(path, text.encode("utf-8"))


def _plain(value: Any) -> Any:
    """The value with NaN and infinities, which JSON lacks, as null; NumPy values as Python values."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def json_text(value: Any) -> str:
    """Indented strict JSON; NaN becomes null, text stays readable in any script."""
    return json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_json_atomic(path: Path, obj: Any) -> None:
    """Write a value as UTF-8 JSON; see `json_text` and `write_bytes_atomic`."""
    write_text_atomic(path, json_text(obj))


def _old_name(final: Path) -> Path:
    return final.with_name(f".old-{final.name}")


def remove_folder(path: Path) -> None:
    """Delete a folder; a crash half-way leaves `.del-...`, never a folder of that name with parts missing."""
    doomed = path.with_name(f".del-{uuid.uuid4().hex[:12]}")
    _replace(path, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def replace_folder(tmp: Path, final: Path) -> None:
    """Put the finished folder `tmp` in the place of `final`.

    Between any two steps either the old or the new folder can be read, after `recover_folder(final)`.

    Args:
        tmp: folder with everything written, on the same disk as `final`.
        final: its place; an earlier folder there is deleted once the new one is in place.

    Raises:
        OmmaError: if the disk is full.
    """
    old = _old_name(final)
    with explain_disk_full(final):
        for file in sorted(item for item in tmp.rglob("*") if item.is_file()):
            _sync_file(file)
        sync_directory(tmp)
        if final.exists():
            if old.exists():
                remove_folder(old)
            _replace(final, old)
        _replace(tmp, final)
        sync_directory(final.parent)
        if old.exists():
            remove_folder(old)


def recover_folder(final: Path) -> None:
    """Finish what a crash inside `replace_folder` left: bring the old folder back or clear it away."""
    old = _old_name(final)
    if old.exists() and final.exists():
        remove_folder(old)
    elif old.exists():
        _replace(old, final)
    if final.parent.is_dir():
        for doomed in final.parent.glob(".del-*"):
            shutil.rmtree(doomed, ignore_errors=True)
