"""The training loop: load, step, log, validate, save. It and engine.fabric alone import Lightning.

Everything random is a function of (seed, step, micro-step, rank), and the samples of a step follow from the
position in their sequence, so a run that stops and resumes repeats the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from omma.config.base import Period, RunConfig
from omma.data.dataset import Collate, Samples
from omma.data.loader import to_device
from omma.data.sampler import steps_per_epoch
from omma.engine.checkpoint import TrainingState, prune, save_checkpoint, step_name
from omma.engine.ema import Ema
from omma.engine.evaluate import Evaluator, metric_names
from omma.engine.fabric import open_fabric
from omma.engine.failures import Activity, check_finite, explained
from omma.engine.judge import Judge
from omma.engine.launch import world
from omma.engine.optim import build_optimizer, set_lr
from omma.engine.ranks import leave, mean_over_ranks, rank
from omma.engine.record import Recorder, StepClock, columns, memory_gib
from omma.engine.rng import seed_step
from omma.engine.schedule import lr_factor
from omma.engine.setup import (
    Say,
    describe,
    deterministic_kernels,
    evaluator,
    prepare_task,
    train_loader,
)
from omma.engine.sharding import gathered, joined, shard
from omma.engine.signals import StopRequested, StopSignal
from omma.engine.state import Progress, TrainState
from omma.engine.task import Batch, StepInfo, Task
from omma.errors import ConfigError, Preempted
from omma.runs.console import RunLog
from omma.runs.files import remove_abandoned
from omma.runs.folder import RunFolder

ReferenceWriter = Callable[[Task, TrainingState], None]


@dataclass(frozen=True)
class FitResult:
    """How a training ended.

    Args:
        step: optimiser steps finished.
        best_value: best value of the best metric; None without validation.
        best_step: its step.
        stopped: "length" (all steps done) or "early_stop".
    """

    step: int
    best_value: float | None
    best_step: int
    stopped: str


def fit(
    task: Task,
    train_data: Samples,
    val_data: Samples | None,
    collate: Collate,
    config: RunConfig,
    run: RunFolder,
    *,
    best: tuple[str, str],
    console: RunLog,
    memory_keys: Sequence[str] = (),
    reference_writer: ReferenceWriter | None = None,
) -> FitResult:
    """Train, from the run folder's last checkpoint if it has one.

    Args:
        task: with its initial weights; is trained in place.
        train_data: training set.
        val_data: validation set; None trains without.
        collate: joins samples into a batch.
        config: the recipe.
        run: an existing run folder; checkpoints, metrics.csv and status.json are written there.
        best: metric of best/ and its direction, ("val/iou", "max"); `save.best` overrides the metric.
        console: for lines and the progress bar.
        memory_keys: overrides that lower memory, in order of effect, for the out-of-memory message.
        reference_writer: called after each save with the task, which has the evaluated weights for best/ and
            final/, and the state of the training.

    Raises:
        ConfigError: the recipe asks for what is not possible here.
        DataError: too few samples, or one that cannot be read.
        OutOfMemoryError: see `memory_keys`.
        NonFiniteError: the loss or its gradient; nothing was updated.
        Preempted: a signal stopped the run after saving.
    """
    console = console if world().rank == 0 else RunLog(None, quiet=True)
    if world().rank == 0 and (count := remove_abandoned(run.path)):
        console.line(f"removed {count} unfinished files and folders of a process that was killed")
    fabric = open_fabric(config.train, console.line)
    stop, activity = StopSignal(), Activity("while setting up")
    with (
        stop.installed(),
        deterministic_kernels(config.deterministic),
        explained(activity, fabric.device, memory_keys),
    ):
        training = Training(
            fabric,
            task,
            (train_data, val_data, collate),
            config,
            run,
            best=best,
            console=console,
            stop=stop,
            activity=activity,
            reference_writer=reference_writer,
        )
        try:
            result = training.run()
        finally:
            training.close()
    leave()
    return result


class Training:
    """A training under way, taken up from the run folder's last checkpoint; see `fit` for the arguments."""

    def __init__(
        self,
        fabric: Fabric,
        task: Task,
        data: tuple[Samples, Samples | None, Collate],
        config: RunConfig,
        run: RunFolder,
        *,
        best: tuple[str, str],
        console: RunLog,
        stop: StopSignal,
        activity: Activity,
        reference_writer: ReferenceWriter | None,
    ) -> None:
        train_data, val_data, collate = data
        self.fabric, self.task, self.config, self.console = fabric, task, config, console
        self.run_folder, self.stop, self.activity = run, stop, activity
        self.reference_writer = reference_writer
        self.num_samples = len(train_data)
        self.judge = Judge(config, best, metric_names(task))
        self.module, self.optimizer, self.state = _set_up(fabric, task, config, len(train_data), console.line)
        self.state.resume(run, config, console.line)
        progress = self.state.progress
        self.judge.take_up(progress, run, console.line)
        self.first_step = progress.step
        self.length = progress.length(config.train.length, len(train_data))
        num_steps = self.length.total - progress.step
        self.loader = train_loader(train_data, collate, config, progress.position, num_steps, fabric.device)
        self.batches = iter(self.loader)
        self.evaluator = evaluator(val_data, collate, config, fabric.device) if val_data is not None else None
        self.clock = StepClock(progress.time_s)
        names = columns(task.train_terms, metric_names(task))
        self.recorder = Recorder(run, config.log, names, progress.step, self.length.total, console)
        describe(config, self.length, progress, self.judge, fabric.device, console.line)

    def run(self) -> FitResult:
        """Train to the end, or until a signal or a failure."""
        progress = self.state.progress
        with self.recorder.opened(progress.step):
            try:
                self._loop()
                self._save("final")
            except StopRequested:
                self._save(step_name(progress.step))
                self.recorder.status("preempted", step=progress.step)
                text = f"stopped by a signal and saved at step {progress.step}"
                raise Preempted(text, f'`omma resume "{self.run_folder.name}"` goes on') from None
            except BaseException as error:
                text = next(iter(str(error).splitlines()), type(error).__name__)
                self.recorder.status("failed", step=progress.step, error=text)
                raise
        self.recorder.status("finished", step=progress.step)
        stopped = "length" if progress.step >= self.length.total else "early_stop"
        return FitResult(progress.step, progress.best_value, progress.best_step, stopped)

    def close(self) -> None:
        """End the data-loading processes."""
        self.loader.close()
        if self.evaluator is not None:
            self.evaluator.close()

    def _loop(self) -> None:
        progress = self.state.progress
        self.recorder.status("running", step=progress.step, error=None, best=self.judge.told(progress))
        if progress.pending_validation:
            self._validate_and_save()
        self.clock.restart()
        while not self._finished():
            values = self._step()
            self._log(values)
            self._validate_and_save()

    def _step(self) -> dict[str, float]:
        """One optimiser step: gradients of all micro-steps, check, update.

        Returns:
            the loss, its terms, grad_norm and lr; means over micro-steps and processes.
        """
        progress, optim = self.state.progress, self.config.optim
        self.activity.text = f"in step {progress.step + 1}"
        factor = lr_factor(self.config.schedule, progress.step, self.length) * progress.plateau.factor
        set_lr(self.state.optimizer, factor)
        micro_terms, tokens = self._accumulate_gradients()
        grad_norm = self.fabric.clip_gradients(
            self.module, self.optimizer, max_norm=optim.grad_clip or math.inf, error_if_nonfinite=False
        )
        terms = mean_over_ranks(micro_terms.mean(0))
        names = ("loss", *self.task.train_terms, "grad_norm")
        values = dict(zip(names, torch.cat([terms, grad_norm.view(1)]).tolist(), strict=True))
        scaled = self.config.train.precision == "16-mixed"  # the scaler skips steps of infinite gradient
        check_finite(progress.step + 1, values, micro_terms, tokens, optim, gradient=not scaled)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        progress.advance(self.num_samples)
        if self.state.ema is not None:
            self.state.ema.update(progress.step)
        return {**values, "lr": optim.lr * factor}

    def _accumulate_gradients(self) -> tuple[Tensor, list[list[str]]]:
        """Forward and backward passes of one step's micro-batches.

        Returns:
            loss and terms by micro-step, (M, 1 + terms); names of the samples by micro-step.

        Raises:
            StopRequested: between micro-steps; the buffers are then as they were before the step.
        """
        progress, num_micro = self.state.progress, self.config.train.accumulate
        info = StepInfo(progress.step, progress.position.epoch, progress.step / self.length.total)
        micro_terms, tokens = [], []
        compiles = progress.step == self.first_step and self._may_compile
        with self.state.buffers_kept_by_stop(needed=compiles or num_micro > 1), self._left_at_once(compiles):
            for micro in range(num_micro):
                self.stop.check()
                with self.clock.waiting():
                    batch = to_device(next(self.batches), self.fabric.device)
                seed_step(self.config.seed, progress.step, micro, rank())
                with self.fabric.no_backward_sync(self.module, enabled=micro < num_micro - 1):
                    loss, terms = self.module(batch, info)
                    self.fabric.backward(loss / num_micro)
                micro_terms.append(terms)
                tokens.append(list(batch.get("token", ())))
        return torch.stack(micro_terms), tokens

    def _log(self, values: dict[str, float]) -> None:
        step, epoch = self.state.progress.step, self.state.progress.position.epoch
        self.clock.tick()
        self.recorder.advance(step)
        if step % self.config.log.every == 0:
            measured = self.clock.lap() | {"memory": memory_gib(self.fabric.device)}
            self.recorder.train_row(step, epoch, values | measured, ("loss", *self.task.train_terms))

    def _validate_and_save(self) -> None:
        """Validate, then save, where it is due after this step."""
        pending = self.state.progress.pending_validation
        if self.evaluator is not None and (pending or self._due(self.config.validation.every)):
            self._validate(self.evaluator)
        if self._due(self.config.save.every):
            self._save(step_name(self.state.progress.step))

    def _validate(self, evaluator: Evaluator) -> None:
        progress = self.state.progress
        self.activity.text = f"in the validation after step {progress.step}"
        progress.pending_validation = True
        with self.state.evaluated_weights(), gathered(self.task), self._left_at_once(self._may_compile):
            metrics = evaluator.run(self.task, self.console, check_stop=self._between_batches).metrics
        progress.pending_validation = False
        better = self.judge.judge(progress, metrics)
        values = {"time_s": round(self.clock.total_s(), 3), **metrics}
        self.recorder.val_row(progress.step, progress.position.epoch, values, self.judge.told(progress))
        if better:
            self._save("best")
        self.clock.restart()

    @property
    def _may_compile(self) -> bool:
        """Whether a pass may take minutes at first, in a process that nobody waits for."""
        return self.config.train.compile and self.fabric.world_size == 1

    def _left_at_once(self, on: bool) -> AbstractContextManager[None]:
        return self.stop.at_once() if on else nullcontext()

    def _between_batches(self) -> None:
        self.recorder.heartbeat(self.state.progress.step)
        self.stop.check()

    def _save(self, name: str) -> None:
        """Write step_N (all that a resume needs), best or final (weights)."""
        self.state.progress.time_s = self.clock.total_s()
        is_step = name.startswith("step_")
        snapshot = self.state.snapshot(with_optimizer=is_step)  # sharded weights are gathered by all together
        if rank() == 0:
            save_checkpoint(self.run_folder, name, snapshot, self.config)
            if is_step:
                prune(self.run_folder, self.config.save.keep_last)
        if self.reference_writer is not None:
            self._write_reference(self.reference_writer, "step" if is_step else name)
        self.recorder.line(f"saved checkpoints/{name}")
        self.clock.restart()

    def _write_reference(self, write: ReferenceWriter, kind: str) -> None:
        """Let the first process write files of the original project; all gather what is sharded."""
        state = self.state.original_project(kind)
        with nullcontext() if kind == "step" else self.state.evaluated_weights(), joined(self.task):
            if rank() == 0:
                write(self.task, state)

    def _due(self, period: Period) -> bool:
        """Whether a period ends with this step; the last step ends all."""
        return period.due(self.state.progress.step, self.length.steps_per_epoch) or self._finished()

    def _finished(self) -> bool:
        return self.state.progress.step >= self.length.total or self.judge.stops_early(self.state.progress)


class _TrainStep(nn.Module):
    """What Fabric wraps: its forward is the task's training step."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task
        self.names = ("loss", *task.train_terms)

    def forward(self, batch: Batch, info: StepInfo) -> tuple[Tensor, Tensor]:
        """The loss, and the detached loss and terms as one tensor, (1 + terms,) float32."""
        terms = self.task.training_step(batch, info)
        return terms["loss"], torch.stack([terms[name].detach().float() for name in self.names])


def _set_up(
    fabric: Fabric, task: Task, config: RunConfig, num_samples: int, say: Say
) -> tuple[nn.Module, Any, TrainState]:
    """The training step and the optimiser as Fabric wraps them, and the state at step 0."""
    train, optim = config.train, config.optim
    if train.batch_size == "auto":
        raise ConfigError("train.batch_size=auto has to be found before a training", "give a number")
    progress = Progress(global_batch=train.batch_size * train.accumulate * fabric.world_size)
    steps_per_epoch(num_samples, progress.global_batch)
    prepare_task(task, train, fabric.device, say)
    if train.strategy == "fsdp" and fabric.world_size > 1:
        shard(task, config)
    groups = task.param_groups(optim.lr, optim.weight_decay)
    optimizer = build_optimizer(optim, groups, fused=train.precision != "16-mixed")
    module, wrapped = fabric.setup(_TrainStep(task), optimizer)
    ema = Ema(task, train.ema) if train.ema else None
    return module, wrapped, TrainState(task, optimizer, ema, fabric.strategy.precision, progress)
