"""provenance.json: the code, packages and hardware behind a run; only what is listed here, so no secrets."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from omma.runs.files import write_json_atomic
from omma.runs.folder import RunFolder

PACKAGES = (
    *(
        "omma",
        "torch",
        "torchvision",
        "timm",
        "lightning",
        "transformers",
        "safetensors",
        "pydantic",
        "numpy",
    ),
    *(
        "scipy",
        "opencv-python-headless",
        "pillow",
        "matplotlib",
        "tensorboard",
        "wandb",
        "onnx",
        "onnxruntime",
    ),
    *("trimesh", "embreex", "peft", "pycocotools", "triton"),
)
ENVIRONMENT = (
    *(
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "CUDA_VISIBLE_DEVICES",
        "CUBLAS_WORKSPACE_CONFIG",
        "PYTHONHASHSEED",
    ),
    *("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_NNODES"),
)


def _packages() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *words], capture_output=True, text=True, encoding="utf-8", errors="replace", timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _git_state() -> dict[str, Any] | None:
    """Commit, branch and whether files differ, of the working directory; None outside a repository."""
    sha = _git("rev-parse", "HEAD")
    if sha is None:
        return None
    return {
        "sha": sha,
        "branch": _git("rev-parse", "--abbrev-ref", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
    }


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _ram_gib() -> float | None:
    if sys.platform == "win32":
        return None
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)


def _gpus() -> list[dict[str, Any]]:
    """Names and memory of the GPUs, if torch is loaded already; loading it for this would cost seconds."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    properties = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [
        {"name": item.name, "memory_gib": round(item.total_memory / 2**30, 1), "cuda": torch.version.cuda}
        for item in properties
    ]


def collect_provenance() -> dict[str, Any]:
    """What produced this run: git, packages, hardware and the thread and rank variables."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "format_version": 1,
        "git": _git_state(),
        "packages": _packages(),
        "python": platform.python_version(),
        "os": platform.platform(),
        "hardware": {"cpu": _cpu_name(), "cores": cores, "ram_gib": _ram_gib(), "gpus": _gpus()},
        "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
    }


def write_provenance(run: RunFolder) -> None:
    """Write provenance.json into the run folder."""
    write_json_atomic(run.path / "provenance.json", collect_provenance())
