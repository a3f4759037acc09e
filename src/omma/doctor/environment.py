"""Checks of the machine and the installation; runs even where torch is broken or missing."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from omma.errors import Finding

_REQUIRED = (
    "torch",
    "torchvision",
    "timm",
    "lightning",
    "cv2",
    "numpy",
    "scipy",
    "matplotlib",
    "PIL",
    "safetensors",
)
_OPTIONAL = {
    "embreex": ("ray casting of `omma world` and `omma demo`", "pip install embreex"),
    "onnxruntime": ("`omma export --format onnx`", 'pip install "omma[export]"'),
    "wandb": ("log.wandb", 'pip install "omma[wandb]"'),
}
_MIN_FREE_GIB = 5.0
_MIN_SHARED_GIB = 1.0  # loading processes hand their batches over in /dev/shm
_IN_USE = 0.5  # share of a GPU's memory that others leave free


def check_environment(folder: Path) -> list[Finding]:
    """Python, packages, device, memory, disk and temporary files.

    Args:
        folder: where runs will be written; its disk is looked at.
    """
    return [*_python(), *_packages(), *_device(), *_memory(), *_shared_memory(), *_disk(folder)]


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("ok", f"Python {version}")


def _packages() -> Iterator[Finding]:
    # one process for all takes a tenth of the time; only where it fails each is asked in one of its own
    failed = _import_failure(", ".join(_REQUIRED)) is not None
    found = [(name, _import_failure(name)) for name in _REQUIRED] if failed else []
    broken = [(name, reason) for name, reason in found if reason is not None]
    if failed and not broken:
        yield Finding(
            "warning", "the packages import one by one, not together", fix="run `omma doctor` again"
        )
    for name, reason in broken:
        yield Finding(
            "error",
            f"{name} cannot be imported",
            reason,
            f"reinstall it: pip install --force-reinstall {name}",
        )
    if not failed:
        yield Finding(
            "ok", "all required packages import", ", ".join(f"{n} {_version(n)}" for n in ("torch", "timm"))
        )
    for name, (use, fix) in _OPTIONAL.items():
        if importlib.util.find_spec(name) is None:
            yield Finding("info", f"{name} is not installed", f"needed for {use}", fix)


def _import_failure(names: str) -> str | None:
    """Why an import fails; None if it works. In a process of its own, as a broken binary can end one."""
    done = subprocess.run(
        [sys.executable, "-c", f"import {names}"], capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return None
    return (done.stderr.strip().splitlines() or ["the interpreter crashed"])[-1]


def _version(name: str) -> str:
    return importlib.metadata.version(name)


def _device() -> Iterator[Finding]:
    code = (
        "import torch\n"
        "for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):\n"
        "    print(torch.cuda.get_device_name(i), *torch.cuda.mem_get_info(i), sep='|')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    lines = [line.split("|") for line in done.stdout.splitlines() if line.count("|") == 2]
    for index, (name, *sizes) in enumerate(lines):
        free, total = (int(size) / 2**30 for size in sizes)
        evidence = f"{free:.0f} of {total:.0f} GiB free"
        if free < _IN_USE * total:
            fix = "`nvidia-smi` names other programs on it; train.device=cuda:N takes another GPU"
            yield Finding("warning", f"GPU {index}, {name}, is in use", evidence, fix)
        else:
            yield Finding("ok", f"GPU {index}, {name}", evidence)
    if lines:
        return
    has_driver = shutil.which("nvidia-smi") is not None
    yield Finding(
        "warning" if has_driver else "info",
        f"no GPU that PyTorch can use; training runs on the CPU, {cores()} cores",
        fix="a driver is installed: check that it fits PyTorch's CUDA version" if has_driver else "",
    )


def _memory() -> Iterator[Finding]:
    file = Path("/proc/meminfo")
    if not file.is_file():
        return
    sizes = dict(line.split(":") for line in file.read_text(encoding="utf-8").splitlines())
    available = int(sizes["MemAvailable"].split()[0]) / 2**20
    if available < 2:
        yield Finding(
            "warning", f"{available:.1f} GiB of memory available", fix="close other programs; train.workers=0"
        )
    else:
        yield Finding("ok", f"{available:.1f} GiB of memory available")


def _shared_memory() -> Iterator[Finding]:
    place = Path("/dev/shm")
    if not place.is_dir():
        return
    size = shutil.disk_usage(place).total / 2**30
    if size < _MIN_SHARED_GIB:
        yield Finding(
            "warning",
            f"{size:.2f} GiB of shared memory ({place}): loading processes may die",
            fix="docker run --shm-size=8g, or train.workers=0",
        )


def _disk(folder: Path) -> Iterator[Finding]:
    existing = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    if not os.access(existing, os.W_OK):
        yield Finding("error", f"{existing} cannot be written to", fix="give --runs-dir or set OMMA_RUNS")
        return
    free = shutil.disk_usage(existing).free / 2**30
    if free < _MIN_FREE_GIB:
        yield Finding(
            "warning",
            f"{free:.1f} GiB free for runs in {existing}",
            fix="save.keep_last=1, or runs elsewhere: OMMA_RUNS",
        )
    else:
        yield Finding("ok", f"{free:.0f} GiB free for runs in {existing}")
