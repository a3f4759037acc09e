"""What is checked about depths before training: units, range, coverage, measured input against truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from omma.data.formats.rgbd import Depth
from omma.errors import Finding

# By what depths are too large, how that comes about, and the right number of units per metre.
_MISTAKES = {
    1000.0: ("factor 1000: millimetres are read as metres", 1000),
    256.0: ("factor 256: KITTI's coding is read as metres", 256),
    5000.0: ("factor 5000: TUM's coding is read as metres", 5000),
    1000 / 256: ("factor 3.9: millimetres are read with 256", 1000),
    256 / 1000: ("factor 0.256: KITTI's coding is read with 1000", 256),
    5.0: ("factor 5: TUM's coding is read with 1000", 5000),
    1 / 1000: ("factor 1/1000: metres are read as millimetres", 1),
    1 / 256: ("factor 1/256: metres are read with 256", 1),
}
_INDOOR_M, _INDOOR_UNITS, _OUTDOOR_UNITS = 20.0, 1000, 256  # what data of such a max_depth mostly have
_USUAL_REACH = (0.2, 1.0)  # of max_depth, where the 99th percentile of depths lies in ordinary data
_TYPICAL_REACH = 0.5
_CERTAINLY_SMALL = 0.02
_SAME_RATIO = 0.15  # a ratio this close to a mistake's factor is that mistake
_RATIO_RANGE = (0.8, 1.25)
_EQUAL, _MOST, _DENSE = 1e-4, 0.99, 0.9
_FEW, _SHIFT = 0.001, 4.0
_LISTED = 4
_CENTRE = (0.25, 0.75)  # of the width, where the principal point of a whole picture lies


def name_factor(depth_m: NDArray[np.floating], max_depth_m: float) -> str:
    """The mistake in the units that would explain known depths (P,), with its mending; empty if none does."""
    reach = float(np.percentile(depth_m, 99)) / max_depth_m
    low, high = _USUAL_REACH
    fitting = [factor for factor in _MISTAKES if low <= reach / factor <= high]
    if not fitting:
        return ""
    usual = _INDOOR_UNITS if max_depth_m <= _INDOOR_M else _OUTDOOR_UNITS

    def doubt(factor: float) -> tuple[bool, float]:
        return _MISTAKES[factor][1] != usual, abs(float(np.log(reach / factor / _TYPICAL_REACH)))

    text, units = _MISTAKES[min(fitting, key=doubt)]
    return f"{text}; set data.units_per_metre to {units}, or units_per_metre in rgbd.json"


def check_units(depths_m: Sequence[Depth], max_depth_m: float) -> Finding:
    """Whether depths are in metres and fit max_depth.

    Args:
        depths_m: (H, W) of some pictures, 0 where unknown, before anything is cut off.
        max_depth_m: depth that counts as 1 when normalised.
    """
    known = np.concatenate([depth[depth > 0].ravel() for depth in depths_m])
    if not known.size:
        return Finding(
            "error",
            "no depth is known in the pictures looked at",
            f"{len(depths_m)} pictures",
            "0 is unknown",
        )
    low, middle, high = (float(value) for value in np.percentile(known, (1, 50, 99)))
    above = float((known > max_depth_m).mean())
    evidence = (
        f"{len(depths_m)} pictures: 1 % below {low:.3g} m, median {middle:.3g} m, 1 % above {high:.3g} m, "
        f"largest {known.max():.3g} m; max_depth {max_depth_m:g} m"
    )
    mistake = name_factor(known, max_depth_m)
    if high > max_depth_m:
        title = f"{100 * above:.0f} % of depths exceed max_depth"
        larger = "raise data.max_depth; such depths do not count"
        fix = f"{mistake}; or, if these are metres, {larger}" if mistake else larger
        return Finding("error", title, evidence, fix)
    if high < _CERTAINLY_SMALL * max_depth_m:
        title = f"depths reach only {high:.3g} m"
        return Finding("error", title, evidence, mistake or "lower data.max_depth, or mend the units")
    if high < _USUAL_REACH[0] * max_depth_m:
        title = f"depths use only {100 * high / max_depth_m:.0f} % of max_depth"
        lower = "lower data.max_depth"
        return Finding("warning", title, evidence, f"{lower}, or else: {mistake}" if mistake else lower)
    if above:
        title = f"{100 * above:.2g} % of depths exceed max_depth and do not count"
        return Finding("info", title, evidence, "raise data.max_depth if they matter")
    return Finding("ok", "depths are in metres and fit max_depth", evidence)


def check_coverage(depths_m: Sequence[Depth], names: Sequence[str]) -> Finding:
    """Whether every picture has known depth.

    Args:
        depths_m: (H, W) of some pictures, 0 where unknown.
        names: of the pictures.
    """
    shares = np.array([(depth > 0).mean() for depth in depths_m])
    evidence = (
        f"{len(shares)} pictures: {100 * shares.min():.1f} to {100 * shares.max():.1f} % of pixels are known"
    )
    empty = [name for name, share in zip(names, shares, strict=True) if not share]
    if empty:
        return Finding(
            "error",
            f"{len(empty)} of {len(names)} pictures have no known depth, first {empty[0]}",
            evidence,
            "leave them out, or write their depth again",
        )
    if shares.max() < _FEW:
        return Finding("warning", "hardly any depth is known", evidence, "check how depths were projected")
    return Finding("ok", "all pictures have known depth", evidence)


def check_measured(raws_m: Sequence[Depth], depths_m: Sequence[Depth]) -> Finding:
    """Whether measured input depth has the units of the true depth and is not the true depth itself.

    Args:
        raws_m: (H, W) input depths of some pictures, 0 where unknown.
        depths_m: (H, W) true depths of the same pictures.
    """
    common = [(raw > 0) & (depth > 0) for raw, depth in zip(raws_m, depths_m, strict=True)]
    raw = np.concatenate([values[both] for values, both in zip(raws_m, common, strict=True)])
    true = np.concatenate([values[both] for values, both in zip(depths_m, common, strict=True)])
    if not raw.size:
        fix = "check that both belong to the same pictures"
        return Finding("warning", "input depth and true depth share no pixel", f"{len(common)} pictures", fix)
    ratio = float(np.median(raw / true))
    equal = float((np.abs(raw - true) <= _EQUAL * true).mean())
    covered = raw.size / max(1, sum(int((depth > 0).sum()) for depth in depths_m))
    evidence = (
        f"{len(common)} pictures, {raw.size} shared pixels ({100 * covered:.0f} % of the true depth): median "
        f"of input / true {ratio:.3g}, equal at {100 * equal:.1f} %"
    )
    for factor, (text, units) in _MISTAKES.items():
        if abs(np.log(ratio / factor)) < _SAME_RATIO:
            name, _, how = text.partition(": ")
            fix = f"input or true depth has the wrong units; if it is the input, {how}: its units are {units}"
            return Finding("error", f"input depth is off by {name}", evidence, fix)
    if not _RATIO_RANGE[0] < ratio < _RATIO_RANGE[1]:
        return Finding(
            "warning", "input depth does not agree with true depth", evidence, "check units and pairing"
        )
    if equal > _MOST and covered > _DENSE:
        fix = "raw/ must hold the sensor's own depth; take it away to have input made from the true depth"
        return Finding("error", "input depth is the true depth itself", evidence, fix)
    if equal > _MOST:
        fix = "scores at these pixels are no test; look at the error far from the given points"
        return Finding("warning", "input depths are picked from the true depth", evidence, fix)
    return Finding("ok", "input depth agrees with true depth and is not a copy", evidence)


def check_sparsity(train_shares: Sequence[float], val_shares: Sequence[float]) -> Finding:
    """Whether training sees input depth as sparse as validation has it.

    Args:
        train_shares: share of pixels with input depth in some training samples.
        val_shares: the same in validation.
    """
    train, val = np.asarray(train_shares), np.asarray(val_shares)
    given = train[train > 0]
    evidence = (
        f"{len(train)} training samples: {100 * train.min():.3g} to {100 * train.max():.3g} % of pixels "
        f"given, {int((train == 0).sum())} without any; {len(val)} validation samples: "
        f"{100 * val.min():.3g} to {100 * val.max():.3g} %"
    )
    fix = (
        "set data.degradation.pattern to what the network will be given, such as 0.5*uniform:1%+0.5*lidar, "
        "or data.val_patterns to what it is trained with"
    )
    if (val == 0).any() and not (train == 0).any():
        return Finding(
            "warning", "validation has pictures without input depth, training has none", evidence, fix
        )
    lowest, highest = (given.min() / _SHIFT, given.max() * _SHIFT) if given.size else (np.inf, 0.0)
    strange = ((val > 0) & ((val < lowest) | (val > highest))).any()
    if strange:
        return Finding("warning", "validation is of a sparsity that training never sees", evidence, fix)
    return Finding("ok", "training covers the sparsity of validation", evidence)


def check_sizes(
    split: str, sizes: Mapping[str, tuple[int, int]], crop: tuple[int, int] | None, *, must_agree: bool
) -> Finding:
    """Whether pictures are as large as the crop, and of one size where batches need that.

    Args:
        split: for the title.
        sizes: name -> (H, W) of some pictures.
        crop: (H, W) of training crops; none for a split that is not cropped.
        must_agree: whether several pictures of their own size make a batch.
    """
    least = (min(height for height, _ in sizes.values()), min(width for _, width in sizes.values()))
    kinds = sorted(set(sizes.values()))
    listed = ", ".join(f"{height} x {width}" for height, width in kinds[:_LISTED])
    more = f" and {len(kinds) - _LISTED} other sizes" if len(kinds) > _LISTED else ""
    evidence = f"{len(sizes)} pictures: {listed}{more}"
    if crop is not None and (least[0] < crop[0] or least[1] < crop[1]):
        small = next(name for name, (height, width) in sizes.items() if height < crop[0] or width < crop[1])
        fitting = [min(pair) for pair in zip(least, crop, strict=True)]
        title = f"{split}: pictures are smaller than the crop of {crop[0]} x {crop[1]}, first {small}"
        return Finding("error", title, evidence, f"set data.image_size={fitting}, or take them out")
    if must_agree and len(kinds) > 1:
        fix = "set validate.batch_size=1, or data.val_image_size to one size for all"
        return Finding("error", f"{split}: pictures of one batch differ in size", evidence, fix)
    crops = f"; crops of {crop[0]} x {crop[1]}" if crop else ""
    return Finding("ok", f"{split}: sizes of pictures", f"{evidence}{crops}")


def check_cameras(cameras: Mapping[str, tuple[NDArray[np.float64], tuple[int, ...]]]) -> Finding:
    """Whether camera matrices are those of the pictures.

    Args:
        cameras: name -> camera matrix (3, 3) and (H, W) of the picture.
    """
    for name, (matrix, (height, width)) in cameras.items():
        (fx, _, cx), (_, fy, cy) = matrix[:2]
        evidence = f"{name}: fx {fx:g}, fy {fy:g}, cx {cx:g}, cy {cy:g}; the picture is {height} x {width}"
        if fx <= 0 or fy <= 0 or not np.allclose(matrix[2], [0, 0, 1]):
            fix = "write fx 0 cx, 0 fy cy, 0 0 1, row by row"
            return Finding("error", "intrinsics are no camera matrix", evidence, fix)
        if not (_CENTRE[0] < cx / width < _CENTRE[1] and 0 < cy / height < 1):
            fix = "scale fx, cx by the width and fy, cy by the height; only point clouds need them"
            return Finding("warning", "intrinsics are those of another image size", evidence, fix)
    return Finding("ok", "intrinsics fit the images", f"{len(cameras)} pictures")


def check_use_of_measured(
    train: float | None, val: float | None, chance: float, patterns: Sequence[str]
) -> list[Finding]:
    """Whether measured input depth is asked for where there is none, or lies unused.

    Args:
        train: share of training pictures that have it; None without a training split.
        val: the same in validation.
        chance: data.measured.
        patterns: data.val_patterns.
    """
    findings = []
    if chance and train == 0:
        title = f"data.measured={chance:g}, but no training picture has measured depth"
        fix = "put it into raw/ beside depth/, or set data.measured=0"
        findings.append(Finding("warning", title, "", fix))
    if "measured" in patterns and val is not None and val < 1:
        title = f"data.val_patterns asks for measured depth, which {1 - val:.0%} of the pictures lack"
        fix = "these are predicted without any depth; put it into raw/, or take the pattern out"
        findings.append(Finding("warning", title, "", fix))
    if not chance and train and "measured" not in patterns:
        title = "measured input depth is there and not used"
        fix = "set data.measured=0.5, and add measured to data.val_patterns, to train and validate with it"
        findings.append(Finding("info", title, f"{train:.0%} of the training pictures have it", fix))
    return findings
