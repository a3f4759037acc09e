"""What can be wrong with predicted depths: one rule a function, on sums over some samples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from omma.errors import Finding

Map = NDArray[np.floating]

BARS = "patterns.png"  # picture of the errors by pattern
CONSTANT = 0.02  # spread of predictions over that of the truth; a poor network has a tenth
ALIKE = 0.05  # spread between pictures over that of the truth
FEW_SAMPLES = 4
OFF = 1.25  # median of prediction / truth from which the scale is off
EXPLAINED = 0.6  # part of the error that is left once the scale is mended
NEAR_FACTOR = 0.2  # of the logarithm
NEGATIVE = 0.01
IGNORED = 0.9  # error at given points over that elsewhere; a network that uses them is far below
MATTERS = 0.02  # mean error over the median depth: smaller ones are not judged
DEAD = 1e-4  # of a block's factor, which starts at 0 and grows to 0.01 and more
MANY_DEAD = 0.5
DROWNED, STEEP = 0.8, "rgrad"  # share of the loss from which the gradient term is told about
_FACTORS = {1000.0: "1000: metres and millimetres", 256.0: "256: metres and KITTI's coding"}
_COARSE = 8  # rows and columns that predictions of several pictures are compared at


@dataclass(frozen=True)
class SampleScore:
    """One sample, errors in metres over the pixels with truth.

    Args:
        name: of the sample.
        pattern: of its input depth.
        given: share of pixels with input depth.
        rmse: of the prediction.
        fill: RMSE of the nearest given depth; NaN where none is given.
        ratio: median of prediction / truth.
        at_given: mean absolute error at given pixels; NaN where there are none.
        elsewhere: the same at the others; NaN where there are none.
        abs_rel: mean of error / truth.
        scaled_abs_rel: the same of the prediction over `ratio`.
    """

    name: str
    pattern: str
    given: float
    rmse: float
    fill: float
    ratio: float
    at_given: float
    elsewhere: float
    abs_rel: float
    scaled_abs_rel: float


@dataclass
class Seen:
    """Sums over the samples of a diagnosis.

    Args:
        alphas: factors of residual blocks, in the order they run; empty for networks without.
        weights: loss term -> its weight.
        terms: loss and its terms -> a value of each sample.
    """

    alphas: list[float] = field(default_factory=list)
    weights: dict[str, float] = field(default_factory=dict)
    terms: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    scores: list[SampleScore] = field(default_factory=list)
    max_depth_m: float = 0.0
    not_finite: int = 0
    negative: int = 0
    pixels: int = 0
    lowest: float = np.inf
    highest: float = -np.inf
    _truths: list[Map] = field(default_factory=list)
    _found: list[Map] = field(default_factory=list)
    _coarse: list[tuple[Map, Map]] = field(default_factory=list)

    def add_truth(self, true: Map, max_depth_m: float) -> None:
        """Count the true depth (H, W) of a sample, metres, 0 where unknown."""
        self._truths.append(true[true > 0])
        self.max_depth_m = max(self.max_depth_m, max_depth_m)

    def add_prediction(self, name: str, pattern: str, maps: tuple[Map, Map, Map], fill: Map | None) -> None:
        """Count a prediction.

        Args:
            name: of the sample.
            pattern: of its input depth.
            maps: predicted, true and given depth (H, W) in metres, the latter two 0 where unknown.
            fill: nearest fill of the given depth; None where nothing is given.
        """
        pred, true, given = maps
        finite = np.isfinite(pred)
        self.not_finite += int((~finite).sum())
        pred = np.where(finite, pred, 0.0)
        known = true > 0
        found, truth = pred[known], true[known]
        self.negative += int((found < 0).sum())
        self.pixels += found.size
        self.lowest, self.highest = min(self.lowest, float(pred.min())), max(self.highest, float(pred.max()))
        self._found.append(found)
        self._coarse.append((_coarse(pred), _coarse(true)))
        error, ratio = np.abs(found - truth), float(np.median(found / truth))
        at = given[known] > 0
        scaled = found / ratio if ratio > 0 else found
        self.scores.append(
            SampleScore(
                name,
                pattern,
                given=float((given > 0).mean()),
                rmse=_rmse(found, truth),
                fill=np.nan if fill is None else _rmse(fill[known], truth),
                ratio=ratio,
                at_given=_mean(error[at]),
                elsewhere=_mean(error[~at]),
                abs_rel=float((error / truth).mean()),
                scaled_abs_rel=float((np.abs(scaled - truth) / truth).mean()),
            )
        )

    @property
    def truth(self) -> Map:
        """Known true depths of all samples, (P,)."""
        return np.concatenate(self._truths) if self._truths else np.zeros(0)

    @property
    def found(self) -> Map:
        """Predictions at known pixels of all samples, (P,)."""
        return np.concatenate(self._found) if self._found else np.zeros(0)

    def spread_between_pictures(self) -> tuple[float, float]:
        """Spread of predictions, and of the truth, at one place from picture to picture, in metres."""
        found, true = (np.stack([pair[kind] for pair in self._coarse]) for kind in (0, 1))
        return float(found.std(0).mean()), float(true.std(0).mean())

    def by_pattern(self) -> dict[str, dict[str, float]]:
        """Pattern -> mean over its samples of each number; with `constant`, the RMSE of one depth for all."""
        constant = float(self.truth.std())
        groups: dict[str, list[SampleScore]] = defaultdict(list)
        for score in self.scores:
            groups[score.pattern].append(score)
        names = ("given", "rmse", "fill", "ratio", "at_given", "elsewhere", "abs_rel")
        return {
            pattern: {name: _mean(np.array([getattr(one, name) for one in group])) for name in names}
            | {"constant": constant}
            for pattern, group in groups.items()
        }

    def truth_lines(self) -> list[str]:
        """Of summary.txt."""
        if not self.truth.size:
            return ["nothing was read"]
        numbers = ", ".join(f"{value:.3g}" for value in np.percentile(self.truth, (0, 1, 50, 99, 100)))
        return [
            f"smallest, 1 %, median, 99 %, largest: {numbers} m; max_depth {self.max_depth_m:g} m",
            f"spread (standard deviation): {self.truth.std():.3g} m",
        ]

    def found_lines(self) -> list[str]:
        """Of summary.txt."""
        if not self.scores:
            return ["the network was not run"]
        return [
            f"outputs between {self.lowest:.4g} and {self.highest:.4g} m; not finite: {self.not_finite}; "
            f"below 0: {self.negative / self.pixels:.2%} of the pixels with truth",
            f"spread (standard deviation): {self.found.std():.3g} m",
            f"median of prediction / truth: {np.median([one.ratio for one in self.scores]):.3f}",
        ]

    def metric_lines(self) -> list[str]:
        """Of summary.txt: one row a pattern."""
        if not self.scores:
            return ["the network was not run"]
        table = self.by_pattern()
        width = max(map(len, table))
        titles = ("given", "rmse", "nearest fill", "constant", "at given", "elsewhere", "ratio")
        keys = ("given", "rmse", "fill", "constant", "at_given", "elsewhere", "ratio")
        head = " " * width + "".join(f"  {title:>12}" for title in titles)
        rows = [
            f"{name:<{width}}" + "".join(f"  {row[key]:>12.4f}" for key in keys)
            for name, row in table.items()
        ]
        shares = [f"{name}: {share:.1%} of the loss" for name, share in self.loss_shares().items()]
        return ["metres; ratio is the median of prediction / truth", head, *rows, *shares]

    def loss_shares(self) -> dict[str, float]:
        """Loss term -> its share of the loss; empty where weights are not known."""
        sizes = {
            name: weight * abs(_mean(np.array(self.terms[name])))
            for name, weight in self.weights.items()
            if self.terms.get(name)
        }
        whole = sum(sizes.values())
        return {name: size / whole for name, size in sizes.items()} if whole > 0 else {}

    def alpha_lines(self) -> list[str]:
        """Of summary.txt: the factors of residual blocks."""
        if not self.alphas:
            return ["this network has no factors of residual blocks"]
        sizes = np.abs(self.alphas)
        counts, edges = np.histogram(np.log10(np.maximum(sizes, 1e-6)), bins=(-6, -4, -3, -2, -1, 0, 9))
        ranges = [f"1e{int(low)} to 1e{int(high)}" for low, high in pairwise(edges)]
        ranges[0], ranges[-1] = "below 1e-4", "above 1"
        return [
            f"|alpha| of {len(sizes)} blocks: smallest {sizes.min():.3g}, median {np.median(sizes):.3g}, "
            f"largest {sizes.max():.3g}",
            *(f"{name}: {count}" for name, count in zip(ranges, counts, strict=True)),
        ]


Rule = Callable[[Seen, str], Finding | None]


def _rmse(found: Map, truth: Map) -> float:
    return float(np.sqrt(np.mean((found - truth) ** 2)))


def _mean(values: Map) -> float:
    """Mean of those that are numbers; NaN of none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")


def _coarse(values: Map) -> Map:
    """Every few rows and columns, of any size of map."""
    rows, columns = (np.linspace(0, side - 1, _COARSE).round().astype(int) for side in values.shape)
    return values[rows][:, columns]


def not_finite(seen: Seen, run: str) -> Finding | None:
    """NaN or infinity comes out of the network."""
    if not seen.not_finite:
        return None
    return Finding(
        "error",
        "the network's outputs are not finite",
        f"{seen.not_finite} values are NaN or infinite",
        f"take an earlier checkpoint (`omma diagnose {run}@final`), or train in 32 bit with a lower rate: "
        f"`omma train {run} train.precision=32 optim.grad_clip=1`",
    )


def constant(seen: Seen, run: str) -> Finding | None:
    """One depth everywhere, or the same map for every picture."""
    if not seen.scores or seen.not_finite:
        return None
    spread, true = float(seen.found.std()), float(seen.truth.std())
    fix = (
        "check learning rate and loss weights; a network that works learns a few samples by heart: "
        f"`omma train {run} --overfit 4 train.length=300`"
    )
    if true > 0 and spread < CONSTANT * true:
        middle = seen.found.mean()
        evidence = f"spread {spread:.3g} m around {middle:.3g} m; that of the truth is {true:.3g} m"
        return Finding("error", "constant prediction: one depth everywhere", evidence, fix, BARS)
    if len(seen.scores) < FEW_SAMPLES:
        return None
    between, true_between = seen.spread_between_pictures()
    if between >= ALIKE * true_between:
        return None
    evidence = f"from picture to picture by {between:.3g} m, the truth by {true_between:.3g} m"
    return Finding("error", "constant prediction: the same map for every picture", evidence, fix, BARS)


def scale(seen: Seen, run: str) -> Finding | None:
    """Predictions that are right but for a factor."""
    scores = [one for one in seen.scores if one.given > 0] or seen.scores
    if not scores or constant(seen, run):
        return None
    ratio = float(np.median([one.ratio for one in scores]))
    if ratio <= 0 or 1 / OFF < ratio < OFF:
        return None
    left = _mean(np.array([one.scaled_abs_rel for one in scores]))
    before = _mean(np.array([one.abs_rel for one in scores]))
    if left > EXPLAINED * before:
        return None
    away = {text: abs(abs(np.log(ratio)) - np.log(factor)) for factor, text in _FACTORS.items()}
    named = [text for text, distance in away.items() if distance < NEAR_FACTOR]
    text = f"; near {named[0]}" if named else ""
    more = ratio if ratio > 1 else 1 / ratio
    return Finding(
        "error",
        f"predictions are {more:.3g} times too {'large' if ratio > 1 else 'small'}{text}",
        f"median of prediction / truth {ratio:.3g}; relative error {before:.3g}, {left:.3g} once rescaled",
        "were the weights trained with another data.max_depth or other units? compare both: "
        f"`omma show {run}` and `omma doctor {run}`",
        BARS,
    )


def negative(seen: Seen, run: str) -> Finding | None:
    """Depths below 0, which the published head allows."""
    share = seen.negative / max(seen.pixels, 1)
    if not share:
        return None
    return Finding(
        "warning" if share > NEGATIVE else "info",
        f"{share:.2%} of the predictions are below 0",
        "the head is linear; scores raise them to 1 mm",
        f"train longer, or with a head above 0: `omma train {run} system.network.activation=softplus`",
    )


def ignores_points(seen: Seen, run: str) -> Finding | None:
    """Errors at given points are as large as elsewhere."""
    scores = [one for one in seen.scores if np.isfinite(one.at_given) and np.isfinite(one.elsewhere)]
    if not scores or constant(seen, run):
        return None
    at, elsewhere = (
        _mean(np.array([getattr(one, key) for one in scores])) for key in ("at_given", "elsewhere")
    )
    if at < IGNORED * elsewhere or at < MATTERS * float(np.median(seen.truth)):
        return None
    return Finding(
        "warning",
        "given depths are hardly used",
        f"mean error {at:.3g} m at given pixels, {elsewhere:.3g} m at the others, {len(scores)} samples",
        "train longer, with patterns that give depth more often (data.degradation.pattern), and without much "
        f"noise on them: `omma doctor {run} --out DIR` draws what is given",
        BARS,
    )


def worse_than_fill(seen: Seen, run: str) -> Finding | None:
    """Repeating the nearest given depth would do better."""
    table = seen.by_pattern()
    worse = {name: row for name, row in table.items() if row["fill"] < row["rmse"] and row["given"] < 1}
    if not worse or constant(seen, run):
        return None
    listed = "; ".join(
        f"{name}: {row['rmse']:.3g} m, nearest fill {row['fill']:.3g} m" for name, row in worse.items()
    )
    of = sum(1 for row in table.values() if row["given"] > 0)
    return Finding(
        "warning",
        f"worse than repeating the nearest given depth with {len(worse)} of {of} patterns",
        f"RMSE {listed}",
        f"train longer, or give depth in training as it is given here; `omma eval {run}` scores all samples",
        BARS,
    )


def dead_blocks(seen: Seen, run: str) -> Finding | None:
    """Residual blocks that add nothing."""
    dead = [place for place, value in enumerate(seen.alphas) if abs(value) < DEAD]
    if not seen.scores or not seen.alphas or len(dead) < MANY_DEAD * len(seen.alphas):
        return None
    evidence = f"|alpha| below {DEAD:g}, the first is block {dead[0]}; it starts at 0 and grows with training"
    fix = f"train longer or at a higher rate; without decay of alpha: `omma train {run} optim.weight_decay=0`"
    title = f"{len(dead)} of {len(seen.alphas)} blocks do nothing"
    return Finding("warning", title, evidence, fix)


def loss_balance(seen: Seen, run: str) -> Finding | None:
    """How much of the loss each term is."""
    shares = seen.loss_shares()
    if not shares:
        return None
    listed = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
    if shares.get(STEEP, 0.0) <= DROWNED:
        return Finding("ok", "loss terms on these samples", listed)
    fix = f"lower its weight if absolute depths do not improve: `omma train {run} system.loss.gradient=0.1`"
    return Finding("warning", f"the gradient term is {shares[STEEP]:.0%} of the loss", listed, fix)


RULES: tuple[Rule, ...] = (  # cause before effect
    not_finite,
    constant,
    scale,
    negative,
    dead_blocks,
    ignores_points,
    worse_than_fill,
    loss_balance,
)
