"""Checks of a training that has not started: its name, length and schedule, start, disk and memory."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omma.config.base import Period, RunConfig, Share, StepSchedule
from omma.data.sampler import steps_per_epoch
from omma.doctor.environment import cores
from omma.engine.checkpoint import find_checkpoint, find_last
from omma.engine.estimate import MemoryEstimate
from omma.errors import DataError, Finding, OmmaError
from omma.runs.folder import RunFolder, split_reference
from omma.runs.names import check_name

MIB, GIB = 2**20, 2**30
SAFE_DISK = 1.2  # free space over what the checkpoints take


@dataclass(frozen=True)
class Plan:
    """A training as it would be started.

    Args:
        config: the recipe.
        root: folder of the runs.
        num_samples: of the training set; None where it cannot be read.
        name: of the run; None: one with the time in it.
        init: run or file of its weights.
        resume: run or file that it goes on from.
    """

    config: RunConfig
    root: Path
    num_samples: int | None = None
    name: str | None = None
    init: str | None = None
    resume: str | None = None


def check_plan(plan: Plan) -> list[Finding]:
    """Name, start, length, schedule, clipping and loading of a training."""
    return [*_name(plan), *_start(plan), *_length(plan), *_schedule(plan), *_clipping(plan), *_loading(plan)]


def _name(plan: Plan) -> Iterator[Finding]:
    if plan.resume:
        return
    if plan.name is None:
        yield Finding("ok", "the run is named by system, recipe and time; --name NAME gives another")
        return
    try:
        check_name(plan.name)
    except OmmaError as error:
        yield _as_finding(error)
        return
    folder = plan.root / plan.name
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        fix = f"another --name, `omma resume {plan.name}`, or --overwrite, which moves it aside"
        yield Finding("error", f"{folder} is in use by an earlier run", "", fix)
    else:
        yield Finding("ok", f"{folder} is a new run")


def _start(plan: Plan) -> Iterator[Finding]:
    """Whether what the training starts from is there."""
    if plan.init and plan.resume:
        yield both_given(plan.init, plan.resume)
        return
    if plan.init and not Path(plan.init).is_file():
        name, which = split_reference(plan.init)
        yield _found("--init", plan.init, name, plan, which or "best")
    elif plan.init:
        yield _file("--init", plan.init, "weights alone; the training starts at step 0")
    if plan.resume and not Path(plan.resume).is_file():
        yield _found("--resume", plan.resume, plan.resume, plan, "last")
    elif plan.resume:
        yield _file("--resume", plan.resume, "it goes on from there with the optimiser's state")


def both_given(init: str, resume: str) -> Finding:
    """The finding about a training that is to start from two places."""
    fix = "--resume goes on with step and optimiser; --init takes weights alone: give one of them"
    return Finding("error", f"--init {init} and --resume {resume} exclude each other", "", fix)


def _file(option: str, given: str, evidence: str) -> Finding:
    """Whether a checkpoint file can be read."""
    try:
        with Path(given).open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        fix = "the file may belong to another user: copy it"
        return Finding("error", f"{option} {given} cannot be read", error.strerror or "", fix)
    if empty:
        return Finding("error", f"{option} {given} is empty", "", "copy it again")
    return Finding("ok", f"{option} {given}", evidence)


def _found(option: str, given: str, name: str, plan: Plan, which: str) -> Finding:
    """Whether a run is there, of this system, and has the checkpoint."""
    try:
        run = RunFolder.open(name, plan.root)
        system = run.config()["system"]["name"]
        if system != plan.config.system.name:
            fix = f"take a run of {plan.config.system.name}; `omma runs` lists them"
            return Finding("error", f"{option} {given} is a run of {system}", f"{run.path}", fix)
        last = find_last(run)
        place = last if which == "last" and last is not None else find_checkpoint(run, which)
    except OmmaError as error:
        return Finding("error", f"{option} {given} cannot be used", error.message, error.hint or "")
    return Finding("ok", f"{option} {given}", f"{place}")


def _length(plan: Plan) -> Iterator[Finding]:
    train = plan.config.train
    if plan.num_samples is None or train.batch_size == "auto":
        return
    batch = train.batch_size * train.accumulate * train.devices
    try:
        epoch = steps_per_epoch(plan.num_samples, batch)
    except DataError as error:
        yield _as_finding(error)
        return
    total = train.length.steps(epoch)
    evidence = f"{total} steps of {batch} samples, {epoch} steps an epoch, {plan.num_samples} samples"
    if not total:
        fix = "train.length='100 epochs', or a number of steps"
        yield Finding("error", f"train.length={train.length}: nothing is trained", evidence, fix)
        return
    yield Finding("ok", f"training of {train.length}", evidence)


def _schedule(plan: Plan) -> Iterator[Finding]:
    """Steps of the learning rate that would never come, and a warm-up without an end."""
    schedule, length = plan.config.schedule, plan.config.train.length
    if not length.count:
        return
    if isinstance(schedule, StepSchedule):
        times = schedule.at if schedule.at is not None else [schedule.every]
        late = [time for time in times if (share := _share(plan, time)) is not None and share >= 1]
        if late:
            listed = ", ".join(map(str, times))
            yield Finding(
                "warning",
                f"{len(late)} of {len(times)} steps of the learning rate lie beyond the training",
                f"schedule steps at {listed}; train.length={length}",
                _moved(schedule, times, length),
            )
        elif schedule.at:
            yield Finding("ok", f"learning rate x {schedule.gamma:g} at {', '.join(map(str, times))}")
    warmup = _share(plan, schedule.warmup)
    if warmup is not None and warmup > 0.5:
        evidence = f"schedule.warmup={schedule.warmup}, train.length={length}"
        fix = "schedule.warmup='10 %', or a longer training"
        yield Finding("warning", "the warm-up takes more than half of the training", evidence, fix)


def _clipping(plan: Plan) -> Iterator[Finding]:
    clip = plan.config.optim.grad_clip
    if clip is None:
        yield Finding("info", "gradients are not clipped", "", "optim.grad_clip=1 if the loss diverges")
    else:
        yield Finding("ok", f"gradients are clipped: optim.grad_clip={clip:g}")


def _loading(plan: Plan) -> Iterator[Finding]:
    """Whether there are cores for the processes that load data."""
    train, there = plan.config.train, cores()
    evidence = f"train.workers={train.workers} for each of {train.devices} devices, {there} cores"
    if train.workers * train.devices > there:
        fix = f"train.workers={there // train.devices}"
        yield Finding("info", "more processes load data than there are cores", evidence, fix)


def _share(plan: Plan, time: Period | Share) -> float | None:
    """Of the training that is over at a time; None where steps and epochs cannot be compared."""
    if isinstance(time, Share):
        return time.percent / 100
    length, train = plan.config.train.length, plan.config.train
    if time.unit == length.unit:
        return time.count / max(1, length.count)
    if plan.num_samples is None or train.batch_size == "auto":
        return None
    epoch = max(1, plan.num_samples // (train.batch_size * train.accumulate * train.devices))
    return time.steps(epoch) / max(1, length.steps(epoch))


def _moved(schedule: StepSchedule, times: list[Period], length: Period) -> str:
    """Steps at two thirds and seven eighths, as of 300 epochs with steps at 200 and 260; or fewer epochs."""
    if schedule.at is None:
        return f"schedule.every={Period(max(1, length.count // 3), length.unit)}"
    ends = [round(length.count * (2 / 3 + 0.2 * place)) for place in range(min(2, len(times)))]
    moved = ", ".join(str(Period(end, length.unit)) for end in ends)
    return f'move them along: schedule.at="[{moved}]"'


def check_disk(plan: Plan, memory: MemoryEstimate) -> Finding:
    """Whether the planned checkpoints fit the disk; one more is written before the oldest goes."""
    keep = plan.config.save.keep_last
    copies = keep + 3 if plan.config.save.reference else 0  # with the latest, the best and the one written
    needed = (keep + 1 + copies) * memory.checkpoint + 2 * memory.weights_file
    existing = next(path for path in (plan.root, *plan.root.resolve().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    also = ", and as files in the original form" if copies else ""
    evidence = (
        f"save.keep_last={keep} checkpoints of {memory.checkpoint / MIB:.0f} MiB, best/ and final/{also}: "
        f"{needed / GIB:.2f} GiB; {free / GIB:.1f} GiB free in {existing}"
    )
    if free < SAFE_DISK * needed:
        fix = "save.keep_last=1 save.reference=false, free some space, or runs elsewhere: --runs-dir"
        return Finding("error", "the planned checkpoints do not fit the disk", evidence, fix)
    return Finding("ok", "the planned checkpoints fit the disk", evidence)


def check_memory(plan: Plan, memory: MemoryEstimate, limit: int, keys: tuple[str, ...]) -> Finding:
    """Whether a batch fits the memory.

    Args:
        plan: whose batch.
        memory: its estimate.
        limit: bytes that may be used.
        keys: settings that lower memory.
    """
    batch, largest = plan.config.train.batch_size, memory.largest_batch(limit)
    room = f"{memory.per_sample / MIB:.0f} MiB a sample; {limit / GIB:.1f} GiB may be used, for {largest}"
    if batch == "auto" and largest:
        return Finding("ok", f"train.batch_size=auto, about {largest}", room)
    size = 1 if batch == "auto" else batch
    bound = "at least " if memory.at_least else ""
    evidence = f"{bound}{memory.step(size) / GIB:.2f} GiB estimated, {room}"
    if size <= largest:
        return Finding("ok", f"a batch of {size} fits the memory", evidence)
    parts = [part for part in range(1, largest + 1) if size % part == 0]  # of equal size: the same training
    accumulate = plan.config.train.accumulate * size
    smaller = [f"train.batch_size={part} train.accumulate={accumulate // part}" for part in parts[-1:]]
    other = [key for key in keys if not key.startswith(("train.batch_size", "train.workers"))]
    fix = " or ".join([*smaller, *other[:2]]) or "a device with more memory"
    return Finding("error", f"a batch of {size} does not fit the memory", evidence, fix)


def _as_finding(error: OmmaError) -> Finding:
    return Finding("error", error.message, "", error.hint or "")
