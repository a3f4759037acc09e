"""Which validation is the best: the deciding metric, and what becomes of best/ when another one decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from omma.config.base import PlateauSchedule, RunConfig
from omma.engine.checkpoint import (
    AVERAGED,
    WEIGHTS,
    Snapshot,
    is_complete,
    read_meta,
    read_weights,
    save_checkpoint,
    step_name,
)
from omma.engine.ranks import from_first, rank
from omma.engine.schedule import Patience, improved
from omma.engine.state import Progress
from omma.errors import ConfigError
from omma.runs.folder import RunFolder
from omma.runs.metrics import direction, read_metrics, series

Say = Callable[[str], None]
_META = ("step", "epoch", "samples_seen", "metrics")


class Judge:
    """Decides by one metric about best/, early stop and the plateau schedule.

    Args:
        config: the recipe.
        best: the system's metric and its direction, ("val/iou", "max").
        names: the metrics that a validation gives.

    Raises:
        ConfigError: the metric is none of them.
    """

    def __init__(self, config: RunConfig, best: tuple[str, str], names: Sequence[str]) -> None:
        self._config, self._best = config, best
        self.metric = (config.save.best or best[0]).removeprefix("val/")
        self.mode = self._mode(self.metric)
        if self.metric not in names:
            raise ConfigError(
                f"save.best: a validation gives no {self.metric}", f"there are {', '.join(sorted(names))}"
            )

    def _mode(self, metric: str) -> str:
        return self._best[1] if metric == self._best[0].removeprefix("val/") else direction(metric)

    def take_up(self, progress: Progress, run: RunFolder, say: Say) -> None:
        """Put the best value so far in `progress`; it belongs to one metric, and a resume may bring another.

        Then the best of the new metric is looked up in metrics.csv among the validations whose weights are
        there, in best/ or a step's checkpoint, and best/ gets these. Without any, the next validation is the
        best. Every process has to call it.

        Args:
            progress: of the checkpoint that the training goes on from, or of a start.
            run: the run folder.
            say: takes a line.
        """
        before = progress.judged_by or self._judged_by_status(run, progress)
        progress.judged_by = self.metric, self.mode
        if before is None or before == progress.judged_by:
            return
        found = from_first(self._of_history(progress, run) if rank() == 0 else None)
        progress.best_value, progress.best_step, highest = found
        progress.judged_since = progress.step
        progress.early_stop = Patience(highest)
        progress.plateau.waiting = Patience(highest)
        value, step = progress.best_value, progress.best_step
        known = f"it was {value:.4g} at step {step}" if value is not None else "no value of it so far"
        say(f"best/ was kept by {before[0]}, from here by {self.metric}; {known}")

    def _judged_by_status(self, run: RunFolder, progress: Progress) -> tuple[str, str] | None:
        """What judged a training whose checkpoint does not say it."""
        told = run.status().get("best") if progress.best_value is not None else None
        return (told["metric"], self._mode(told["metric"])) if told else None

    def _of_history(self, progress: Progress, run: RunFolder) -> tuple[float | None, int, float | None]:
        """Value and step of the best validation whose weights best/ now has; the best value of all."""
        rows = [row for row in read_metrics(run.metrics_file) if row["step"] <= progress.step]
        values = dict(zip(*series(rows, "val", self.metric), strict=True))
        sources = {step: _source(run, step) for step in values}
        step = self._choose({step: value for step, value in values.items() if sources[step]})
        if step is None:
            return None, 0, self._extreme(values)
        if sources[step] != "best":
            _fill_best(run, step_name(step), self._config)
        return values[step], step, self._extreme(values)

    def _extreme(self, values: Mapping[int, float]) -> float | None:
        step = self._choose(values)
        return None if step is None else values[step]

    def _choose(self, values: Mapping[int, float]) -> int | None:
        """The step of the best value, of equal ones the first; None without a number."""
        chosen = None
        for step, value in sorted(values.items()):
            if improved(value, None if chosen is None else values[chosen], self.mode):
                chosen = step
        return chosen

    def judge(self, progress: Progress, metrics: dict[str, float]) -> bool:
        """Count one validation in `progress`; whether it is the best so far."""
        value, schedule, early_stop = (
            metrics[self.metric],
            self._config.schedule,
            self._config.train.early_stop,
        )
        progress.metrics = metrics
        if isinstance(schedule, PlateauSchedule):
            progress.plateau.update(schedule, value, self.mode)
        progress.early_stop.count(value, self.mode, early_stop.min_delta if early_stop else 0.0)
        better = improved(value, progress.best_value, self.mode)
        if better:
            progress.best_value, progress.best_step = value, progress.step
        return better

    def stops_early(self, progress: Progress) -> bool:
        """Whether the recipe's patience is at its end."""
        early_stop = self._config.train.early_stop
        return early_stop is not None and progress.early_stop.bad >= early_stop.patience

    def told(self, progress: Progress) -> dict[str, object] | None:
        """The best validation for status.json; None before the first.

        "since" is there where another metric judged before: of validations up to that step, whose weights
        may be gone, only the best one counts.
        """
        if progress.best_value is None:
            return None
        best = {"metric": self.metric, "value": progress.best_value, "step": progress.best_step}
        return best | ({"since": progress.judged_since} if progress.judged_since else {})


def _source(run: RunFolder, step: int) -> str | None:
    """The checkpoint that holds the weights of a step's validation."""
    for name in ("best", step_name(step)):
        folder = run.checkpoints / name
        if is_complete(folder) and read_meta(folder)["step"] == step:
            return name
    return None


def _fill_best(run: RunFolder, source: str, config: RunConfig) -> None:
    """Give best/ the weights of a step's checkpoint."""
    folder = run.checkpoints / source
    meta, averaged = read_meta(folder), folder / AVERAGED
    snapshot = Snapshot(
        read_weights(folder / WEIGHTS),
        read_weights(averaged) if averaged.is_file() else None,
        meta={key: meta[key] for key in _META},
    )
    save_checkpoint(run, "best", snapshot, config)
