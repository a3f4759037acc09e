"""What the training loop adds to a step, and what `omma` costs before it does anything (checks E17 and E1).

    python benchmarks/overhead.py [--step-ms 100] [--steps 40] [--repeats 5] [--json FILE]

A step of a small network that is made to last `--step-ms` by waiting, not by computing, so that a busy
machine does not hide what the loop costs. Plain: the loop that anyone would write over a DataLoader. Ours:
`fit` with seeding of every step, clipping, finite checks, logging every 10 steps to metrics.csv and log.txt,
heartbeats and the position for an exact resume. Both take batches of the same size and the same optimiser;
the time to set up and to save is not part of a step. The loop's own cost is processor time a step, which does
not depend on the step's length: at 100 ms a step 2 ms are 2 %.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from measure import header, print_header, print_table, write_json

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from omma.config.base import Period
from omma.engine.task import StepInfo
from toy import ToyConfig, ToySamples, ToyTask, toy_collate, toy_config, toy_fit

TARGET = 0.02
START_UP = "import sys, time; from omma.cli import _run; _run(sys.argv[1:], debug=True)"
COUNT = f"{START_UP}; print('CPU', time.process_time(), file=sys.stderr)"


class Clock:
    """Marks the begin of every step; the first ones warm up."""

    def __init__(self, step_s: float) -> None:
        self.step_s = step_s
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def mark(self, step: int) -> None:
        self.wall.append(time.perf_counter())
        self.cpu.append(time.process_time())
        time.sleep(self.step_s)

    def per_step_ms(self, warm: int = 5) -> tuple[float, float]:
        """Mean milliseconds from mark to mark: on the clock without the waiting, and of the processor."""
        wall = [
            after - before for before, after in zip(self.wall[warm:], self.wall[warm + 1 :], strict=False)
        ]
        cpu = [after - before for before, after in zip(self.cpu[warm:], self.cpu[warm + 1 :], strict=False)]
        return (statistics.mean(wall) - self.step_s) * 1e3, statistics.mean(cpu) * 1e3


def _config(steps: int) -> ToyConfig:
    never = Period(steps)
    return toy_config(
        train={"length": Period(steps), "batch_size": 4},
        optim={"grad_clip": 5.0},
        validate={"every": never},
        save={"every": never},
        log={"every": 10, "tensorboard": False},
    )


def plain(steps: int, step_s: float) -> tuple[float, float]:
    """Load, forward, backward, clip, update, and nothing else."""
    config, clock = _config(steps), Clock(step_s)
    task = ToyTask(config, on_train=clock.mark).train()
    optimizer = torch.optim.AdamW(task.parameters(), lr=0.01)
    samples = ToySamples(40)
    loader = torch.utils.data.DataLoader(samples, batch_size=4, shuffle=True, collate_fn=toy_collate)
    done = 0
    while done < steps:
        for batch in loader:
            terms = task.training_step(batch, StepInfo(done, 0, done / steps))
            terms["loss"].backward()
            torch.nn.utils.clip_grad_norm_(task.parameters(), 5.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            done += 1
    return clock.per_step_ms()


def ours(steps: int, step_s: float) -> tuple[float, float]:
    """The same by `fit`."""
    config, clock = _config(steps), Clock(step_s)
    with tempfile.TemporaryDirectory() as folder:
        toy_fit(Path(folder) / "run", config, ToyTask(config, on_train=clock.mark))
    return clock.per_step_ms()


def start_up(words: Sequence[str], repeats: int) -> float:
    """Smallest CPU seconds of a light verb."""
    found = []
    for _ in range(repeats):
        done = subprocess.run(
            [sys.executable, "-c", COUNT, *words],
            capture_output=True,
            text=True,
            check=True,
            encoding="utf-8",
        )
        found.append(float(done.stderr.split("CPU")[1]))
    return min(found)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--step-ms", type=float, default=100.0)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    state: dict[str, Any] = header("cpu") | {"step_ms": options.step_ms, "steps": options.steps}
    print_header("overhead of the training loop", state)
    forms = {"plain loop": plain, "ours": ours}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in forms}
    for _ in range(options.repeats):  # in turn, so that a busy machine slows both
        for name, form in forms.items():
            times[name].append(form(options.steps, options.step_ms / 1e3))
    best = {name: tuple(min(column) for column in zip(*rows, strict=True)) for name, rows in times.items()}
    rows = [[name, *best[name]] for name in forms]
    added = [ours_ms - plain_ms for ours_ms, plain_ms in zip(best["ours"], best["plain loop"], strict=True)]
    rows.append(["added", *added])
    print_table(["form", "ms a step", "CPU ms a step"], rows)
    share = added[1] / options.step_ms
    print(f"added at {options.step_ms:.0f} ms a step: {share:.2%} (target: below {TARGET:.0%})")
    verbs = {" ".join(words): start_up(words, options.repeats) for words in (["--help"], ["ls"])}
    print_table(["light verb", "CPU s"], [[f"omma {name}", seconds] for name, seconds in verbs.items()])
    write_json(options.json, {"machine": state, "best_ms": best, "share": share, "start_up_s": verbs})


if __name__ == "__main__":
    main()
