"""What the benchmarks share: interleaved timing in one process, peak memory, the machine's state, tables."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

Steps = Callable[[], Sequence[Callable[[], Any]]]


def header(device: str) -> dict[str, Any]:
    """The machine and how busy it is."""
    load = os.getloadavg() if hasattr(os, "getloadavg") else None
    return {
        "torch": torch.__version__,
        "processor": _processor(),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": [round(value, 2) for value in load] if load else None,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = (
        [line for line in info.read_text("utf-8").splitlines() if "model name" in line]
        if info.exists()
        else []
    )
    return names[0].split(":")[1].strip() if names else platform.processor()


@dataclass(frozen=True)
class Timing:
    """Median milliseconds of every step: on the clock, and of processor time summed over threads."""

    wall_ms: list[float]
    cpu_ms: list[float]


def interleaved(variants: Mapping[str, Steps], repeats: int, device: str) -> dict[str, Timing]:
    """Median times of every step of every variant.

    Each round runs all variants once, one after the other, so that a busy machine slows all of them alike. A
    variant prepares itself (not timed) and returns its steps, e.g. forward and backward.
    """
    times: dict[str, list[list[tuple[float, float]]]] = {name: [] for name in variants}
    for prepare in variants.values():
        for step in prepare():
            step()
    for _ in range(repeats):
        for name, prepare in variants.items():
            times[name].append([_time(step, device) for step in prepare()])
    return {name: Timing(_medians(rows, 0), _medians(rows, 1)) for name, rows in times.items()}


def _time(step: Callable[[], Any], device: str) -> tuple[float, float]:
    _wait(device)
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    _wait(device)
    return (time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3


def _medians(rows: list[list[tuple[float, float]]], clock: int) -> list[float]:
    return [statistics.median(pair[clock] for pair in column) for column in zip(*rows, strict=True)]


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def peak_mib(steps: Sequence[Callable[[], Any]], device: str) -> list[float]:
    """Largest memory in MiB above the start, up to the end of each step.

    On a CPU from the allocations and releases that torch.profiler records, on a GPU from the allocator.
    """
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        start = torch.cuda.memory_allocated()
        peaks = []
        for step in steps:
            step()
            peaks.append((torch.cuda.max_memory_allocated() - start) / 2**20)
        return peaks
    peak, held, peaks = 0, 0, []
    for step in steps:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
            step()
        events = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
        for event in sorted(events, key=lambda e: e.start_ns()):
            held += event.nbytes()
            peak = max(peak, held)
        peaks.append(peak / 2**20)
    return peaks


def print_header(title: str, values: Mapping[str, Any]) -> None:
    print(title)
    for key, value in values.items():
        print(f"  {key}: {value}")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    cells = [list(columns)] + [[f"{v:.2f}" if isinstance(v, float) else str(v) for v in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    for row in cells:
        first, *rest = (
            text.ljust(w) if i == 0 else text.rjust(w)
            for i, (text, w) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([first, *rest]))


def write_json(path: Path | None, result: Mapping[str, Any]) -> None:
    if path is not None:
        path.write_text(json.dumps(result, indent=2), encoding="utf-8")
        print(f"written: {path}")


Part = Callable[[argparse.Namespace], tuple[list[str], list[Any]]]


def parts_parser(
    description: str | None, parts: Mapping[str, Part], *, quick: str, device: str
) -> argparse.ArgumentParser:
    """Parser with what benchmarks of several parts have in common.

    Args:
        description: of the benchmark.
        parts: name -> function of the options that gives columns and rows.
        quick: what --quick does.
        device: what --device is for.
    """
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=raw)
    parser.add_argument("--parts", nargs="+", choices=list(parts), default=list(parts))
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu", help=device)
    parser.add_argument("--json", type=Path)
    return parser


def run_parts(
    title: str,
    parts: Mapping[str, Part],
    options: argparse.Namespace,
    about: Callable[[str], dict[str, Any]],
    *,
    one_thread: Collection[str] = (),
) -> None:
    """Measure the chosen parts, print their tables and write them as JSON.

    Args:
        title: of the benchmark.
        parts: as for `parts_parser`.
        options: what its parser read.
        about: part -> sizes that belong to its numbers.
        one_thread: parts that are measured on one thread whatever the options say.
    """
    tables: dict[str, Any] = {}
    for part in options.parts:
        torch.set_num_threads(1 if part in one_thread else options.threads)
        tables[part] = {"machine": header(options.device) | about(part)}
        print_header(f"{title}: {part}", tables[part]["machine"])
        columns, rows = parts[part](options)
        print_table(columns, rows)
        tables[part]["rows"] = [dict(zip(columns, row, strict=True)) for row in rows]
    write_json(options.json, tables)
