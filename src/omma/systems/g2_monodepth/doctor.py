"""`omma doctor g2_monodepth/...`: are pictures and depths there, paired, in metres, and what is given?"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from rich.progress import track

from omma.data.dataset import Sample
from omma.data.formats.rgbd import Colour, Depth, DepthFile, DepthSource, ImageFile, RgbdFrame
from omma.errors import DataError, Finding
from omma.systems.data_checks import as_finding, check_files, check_overlap, read_splits, same_files, some
from omma.systems.g2_monodepth.checks import (
    check_cameras,
    check_coverage,
    check_measured,
    check_sizes,
    check_sparsity,
    check_units,
    check_use_of_measured,
)
from omma.systems.g2_monodepth.config import G2Config
from omma.systems.g2_monodepth.data import build
from omma.systems.g2_monodepth.samples import RgbdSamples, TrainingSamples, ValidationSamples, read_depth
from omma.systems.g2_monodepth.sheet import draw_depths, draw_given, draw_inputs
from omma.viz.curves import save_figure
from omma.viz.image import save_png

NUM_PICTURES, NUM_SIZES, NUM_FED, NUM_SHOWN = 16, 64, 32, 4
SHEET, DEPTHS, GIVEN = "g2_monodepth_inputs.png", "g2_monodepth_depths.png", "g2_monodepth_given.png"
_Item = TypeVar("_Item")


def check(config: G2Config, out: Path | None) -> list[Finding]:
    """Everything that can be wrong with a recipe's data, on some of its pictures.

    Args:
        config: the recipe.
        out: folder for a sheet of what the network is fed and for histograms; none draws none.

    Returns:
        findings in the order of checking; without any split it ends there.
    """
    findings, splits = _splits(config)
    for split, samples in splits.items():
        findings += _files(split, samples.frames)
    findings += check_overlap(config.data, splits, "pictures", partial(_shared, splits))
    looks = {split: _look(split, samples.frames) for split, samples in splits.items()}
    for split, look in looks.items():
        findings += look.errors
        findings += _sizes(config, split, splits[split])
        findings += _contents(split, look)
    if splits:
        findings += _measured_input(config, splits)
    try:
        findings += _fed(splits, looks, out)
    except DataError as error:
        wrong = any(finding.severity == "error" for finding in findings)
        findings += [] if wrong else [as_finding(error)]
    return findings


def _splits(config: G2Config) -> tuple[list[Finding], dict[str, RgbdSamples]]:
    """The samples that are trained and validated with; a split that is both is augmented."""
    train = config.data.train_split
    findings, splits = read_splits(config.data, lambda split: build(config, split, augment=split == train)[0])
    for split, samples in splits.items():
        samples.seed = config.seed
        frames = samples.frames
        sets = sorted({frame.dataset for frame in frames})
        limits = ", ".join(f"{limit:g} m" for limit in sorted({frame.max_depth_m for frame in frames}))
        evidence = f"{len(frames)} pictures of {', '.join(sets)}; max_depth {limits}"
        findings.append(Finding("ok", f"split {split}", evidence))
    return findings, splits


def _files(split: str, frames: Sequence[RgbdFrame]) -> list[Finding]:
    """Files that are gone, and depths that no picture belongs to."""
    found = check_files(split, sorted({file for frame in frames for file in frame.files}))
    if found.severity != "ok":
        return [found]
    used = {frame.depth.path for frame in frames if isinstance(frame.depth, DepthFile)}
    kinds = {(path.parent, path.suffix) for path in used}
    there = {file for folder, suffix in kinds for file in folder.glob(f"*{suffix}")}
    alone = sorted(there - used)
    if not alone:
        return [found]
    title = f"{len(alone)} depth files of {split} belong to no picture"
    return [
        found,
        Finding("info", title, f"first: {alone[0]}", "they are not used; pairs have the same name"),
    ]


def _shared(splits: Mapping[str, RgbdSamples], train: str, val: str) -> list[str]:
    """Pictures of both splits: with the same source, or files of the same content."""
    frames, others = splits[train].frames, splits[val].frames
    sources = {frame.image: frame for frame in frames}
    pairs = [(sources[frame.image], frame) for frame in others if frame.image in sources]
    files, known = (
        {frame.image.path: frame for frame in some if isinstance(frame.image, ImageFile)}
        for some in (frames, others)
    )
    pairs += [(files[a], known[b]) for a, b in same_files(files, known) if a != b]
    return [f"{second.token} is {first.token}" for first, second in pairs]


@dataclass
class _Look:
    """Some pictures of a split as stored, with the errors of those that cannot be read.

    Args:
        frames: the readable ones.
        depths_m: their true depths (H, W), nothing cut off.
        raws_m: their measured depths; None where there is none.
        errors: findings.
    """

    frames: list[RgbdFrame] = field(default_factory=list)
    depths_m: list[Depth] = field(default_factory=list)
    raws_m: list[Depth | None] = field(default_factory=list)
    errors: list[Finding] = field(default_factory=list)


def _look(split: str, frames: Sequence[RgbdFrame]) -> _Look:
    """Read some pictures of a split."""
    look, errors = _Look(), []
    chosen = some(frames, NUM_PICTURES)
    for frame in _progress(chosen, f"pictures of {split}"):
        try:
            image = frame.image.read()
            assert frame.depth is not None, "frames of a split have true depth"
            depth = _read_metres(frame, frame.depth, image)
            raw = None if frame.raw is None else _read_metres(frame, frame.raw, image)
        except DataError as error:
            errors.append(error)
            continue
        look.frames.append(frame)
        look.depths_m.append(depth)
        look.raws_m.append(raw)
    if errors:
        evidence = f"{len(errors)} of {len(chosen)} pictures looked at in {split} cannot be used"
        look.errors.append(replace(as_finding(errors[0]), evidence=evidence))
    return look


def _read_metres(frame: RgbdFrame, source: DepthSource, image: Colour) -> Depth:
    """A depth map as stored, nothing cut off."""
    depth = source.read()
    if depth.shape != image.shape[:2]:
        read_depth(frame, source, image)  # complains about the size
    return depth


def _progress(items: Sequence[_Item], label: str) -> Iterable[_Item]:
    """The items behind a bar, where someone is watching."""
    return track(items, label, transient=True) if sys.stdout.isatty() else items


def _sizes(config: G2Config, split: str, samples: RgbdSamples) -> list[Finding]:
    """Sizes of pictures against the crop, and against the batches of the validation."""
    sizes = {}
    for frame in some(samples.frames, NUM_SIZES):
        try:
            sizes[frame.token] = frame.image.size()
        except DataError:
            continue  # a picture that cannot be read is found by _look, or by the training
    if not sizes:
        return []
    crop = samples.size if isinstance(samples, TrainingSamples) else None
    one_each = samples.size is None and (config.validation.batch_size or config.train.batch_size) == 1
    return [check_sizes(split, sizes, crop, must_agree=samples.size is None and not one_each)]


def _contents(split: str, look: _Look) -> list[Finding]:
    """Units, coverage, cameras and measured depths of the pictures looked at."""
    findings: list[Finding] = []
    groups: dict[tuple[str, float], list[int]] = defaultdict(list)
    for index, frame in enumerate(look.frames):
        groups[frame.dataset, frame.max_depth_m].append(index)
    for (dataset, max_depth_m), indices in groups.items():
        depths = [look.depths_m[index] for index in indices]
        name = f"{split}, {dataset}" if len(groups) > 1 else split
        coverage = check_coverage(depths, [str(_depth_file(look.frames[index])) for index in indices])
        if any(depth.any() for depth in depths):
            findings.append(_titled(name, check_units(depths, max_depth_m)))
        findings.append(_titled(name, coverage))
        pairs = [(raw, depth) for index, depth in zip(indices, depths, strict=True)
                 if (raw := look.raws_m[index]) is not None]  # fmt: skip
        if pairs:
            raws, trues = zip(*pairs, strict=True)
            findings.append(_titled(name, check_measured(raws, trues)))
    cameras = {
        frame.token: (frame.intrinsics, depth.shape)
        for frame, depth in zip(look.frames, look.depths_m, strict=True)
        if frame.intrinsics is not None
    }
    return [*findings, _titled(split, check_cameras(cameras))] if cameras else findings


def _titled(name: str, finding: Finding) -> Finding:
    return replace(finding, title=f"{name}: {finding.title}")


def _depth_file(frame: RgbdFrame) -> Path:
    assert frame.depth is not None
    return frame.depth.files[0]


def _measured_input(config: G2Config, splits: Mapping[str, RgbdSamples]) -> list[Finding]:
    """Whether measured input depth is used where it is there, and there where it is used."""
    shares = {
        split: float(np.mean([frame.raw is not None for frame in samples.frames]))
        for split, samples in splits.items()
    }
    train, val = shares.get(config.data.train_split), shares.get(config.data.val_split)
    return check_use_of_measured(train, val, config.data.measured, config.data.val_patterns)


def _fed(splits: Mapping[str, RgbdSamples], looks: Mapping[str, _Look], out: Path | None) -> list[Finding]:
    """What samples hold after all changes; drawn if wanted."""
    train: list[Sample] = []
    val: list[Sample] = []
    for split, samples in splits.items():
        chosen = train if isinstance(samples, TrainingSamples) else val
        chosen += [samples[place] for place in _progress(_places(samples), f"samples of {split}")]
    shares = [[_share(sample) for sample in part] for part in (train, val)]
    findings = [check_sparsity(*shares)] if train and val else []
    if out is None or not (train or val):
        return findings
    given = sorted((sample for sample in train if _share(sample)), key=_share)
    shown = [*some(given or train, NUM_SHOWN), *val[:NUM_SHOWN]]
    save_png(out / SHEET, draw_inputs(shown, title="what the network is fed: training, then validation"))
    depths = {split: look.depths_m for split, look in looks.items()}
    limits = {frame.max_depth_m for look in looks.values() for frame in look.frames}
    save_figure(draw_depths(depths, sorted(limits)), out / DEPTHS)
    named = {name: part for name, part in zip(("training", "validation"), shares, strict=True) if part}
    save_figure(draw_given(named), out / GIVEN)
    look_at = "edges of depth must lie on edges of the picture; given and true depth have the same colours"
    return [
        *findings,
        Finding("info", "sheet of what the network is fed", "", look_at, str(out / SHEET)),
        Finding("info", "histogram of the depths as stored", "", "", str(out / DEPTHS)),
        Finding("info", "how much depth samples are given", "", "", str(out / GIVEN)),
    ]


def _share(sample: Sample) -> float:
    """Of pixels with given depth."""
    return float(sample["hole_point"].mean())


def _places(samples: RgbdSamples) -> list[tuple[int, int]]:
    """(epoch, index) spread over the pictures; of validation pictures all patterns, of few others epochs."""
    if isinstance(samples, ValidationSamples):
        patterns = len(samples.patterns)
        pictures = some(range(len(samples) // patterns), max(1, NUM_FED // patterns))
        return [(0, picture * patterns + pattern) for picture in pictures for pattern in range(patterns)]
    chosen = some(range(len(samples)), NUM_FED)
    return [(draw // len(chosen), chosen[draw % len(chosen)]) for draw in range(NUM_FED)]
