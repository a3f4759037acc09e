"""What the doctors of all systems check alike: splits, files, doubles, and what labels hold."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from omma.config.base import DataSection
from omma.data.io import read_bytes
from omma.errors import Finding, OmmaError

_AGAIN = "copy the data again, or take such samples out of the lists that name them"
_Item = TypeVar("_Item")
_Split = TypeVar("_Split")


def as_finding(error: OmmaError, evidence: str = "") -> Finding:
    """An error that a check ran into."""
    return Finding("error", error.message, evidence, error.hint or _AGAIN)


def some(items: Sequence[_Item], number: int) -> list[_Item]:
    """So many of the items, spread evenly."""
    places = np.linspace(0, len(items) - 1, min(number, len(items))).round().astype(int)
    return [items[place] for place in np.unique(places)]


def read_splits(data: DataSection, read: Callable[[str], _Split]) -> tuple[list[Finding], dict[str, _Split]]:
    """Read the splits that a recipe trains and validates with.

    Args:
        data: names them.
        read: name of a split -> its content.

    Returns:
        findings about those that cannot be read, each once, and the others by name.
    """
    findings: list[Finding] = []
    splits: dict[str, _Split] = {}
    for split in dict.fromkeys((data.train_split, data.val_split)):
        try:
            splits[split] = read(split)
        except OmmaError as error:
            finding = as_finding(error)
            findings += [] if finding in findings else [finding]
    return findings, splits


def check_files(split: str, files: Collection[Path], what: str = "files", fix: str = "") -> Finding:
    """Whether files of a split are there.

    Args:
        split: its name.
        files: what it needs.
        what: they are.
        fix: what to do about missing ones instead of the usual.
    """
    missing = [path for path in files if not path.is_file()]
    if not missing:
        return Finding("ok", f"{what} of {split}", f"{len(files)} are there")
    title = f"{len(missing)} of {len(files)} {what} of {split} are missing"
    return Finding("error", title, f"first: {missing[0]}", fix or _AGAIN)


def check_overlap(
    data: DataSection, splits: Collection[str], what: str, shared: Callable[[str, str], Sequence[str]]
) -> list[Finding]:
    """Whether something is trained on and validated with.

    Args:
        data: names the splits.
        splits: those that could be read.
        what: the plural of what is compared.
        shared: names of both splits -> what is in both, in words.
    """
    train, val = data.train_split, data.val_split
    if train == val:
        fix = "set data.val_split to another split; scores on what was trained on say little"
        return [Finding("warning", f"training and validation are the same split {train}", "", fix)]
    if not {train, val} <= set(splits):
        return []
    found = shared(train, val)
    if not found:
        return [Finding("ok", f"no {what} of {val} are in {train}")]
    title = f"{len(found)} {what} of {val} are in {train} too"
    fix = f"take them out of {train}; split a data set by scenes, not by pictures"
    return [Finding("error", title, f"first: {found[0]}", fix)]


def same_files(train: Iterable[Path], val: Iterable[Path]) -> list[tuple[Path, Path]]:
    """Files of `val` that are in `train`, by name or by content, each with the one that it equals."""
    known = {path: path for path in train}
    sizes: dict[int, list[Path]] = defaultdict(list)
    for path in known:
        if path.is_file():
            sizes[path.stat().st_size].append(path)
    digests: dict[Path, bytes] = {}

    def digest(path: Path) -> bytes:
        if path not in digests:
            digests[path] = hashlib.sha256(read_bytes(path)).digest()
        return digests[path]

    pairs = []
    for path in val:
        same = known.get(path)
        if same is None and path.is_file():
            alike = sizes.get(path.stat().st_size, [])
            same = next((one for one in alike if digest(one) == digest(path)), None)
        if same is not None:
            pairs.append((same, path))
    return pairs


def check_shares(shares: Mapping[str, float], evidence: str, fix: str) -> Finding | None:
    """What no label has, or None where all have something.

    Args:
        shares: class -> share of the cells of all labels looked at.
        evidence: the numbers.
        fix: what to do where all are empty.
    """
    absent = [name for name, share in shares.items() if not share]
    if len(absent) == len(shares):
        return Finding(
            "error",
            "all labels looked at are empty",
            evidence,
            f"{fix}; a network trained on these learns to say nothing",
        )
    if absent:
        title = f"no label looked at has {', '.join(absent)}"
        return Finding("warning", title, evidence, "the IoU of such a class means nothing")
    return None
