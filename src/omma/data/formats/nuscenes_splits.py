"""Which nuScenes scenes train and which validate: the lists of PON and the official ones.

PON's lists (Roddick and Cipolla, arXiv 2003.13402) are those of the published bird's-eye-view numbers. 116 of
their 148 validation scenes are in the official training list, so weights trained on one must not be scored on
the other. A world whose scenes are named after `common_scenes` is split alike by both.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from omma.data.formats.nuscenes import val_scenes
from omma.errors import DataError

Lists = Literal["pon", "official"]

_PON_TRAIN = """
2-9 12-19 21-36 39 42-52 55-76 92-110 120 123-135 138 149-151 154-155 157-159 161-168 170-183 185
187-188 190-196 199-200 202-204 206-214 218-222 224-264 268 270-278 283-306 315-318 321 323-324
328-332 344-346 349-365 367 370-377 379-386 388 399-403 405-408 420-459 461-465 467-469 471-472
474-480 499-502 504-515 517-524 552-555 559-565 584-600 625-627 629-630 632-640 652-679 681 683-689
695-698 700-701 703-719 726-728 730-731 733-738 780-784 786-787 789-792 802 806 808-813 815-817
819-822 847-856 858 860-866 868-873 875-878 880 882-909 916-917 921-923 925-931 945 947 949 952-953
955-961 966-969 971-972 975-984 988-992 994-1001 1004-1015 1019-1025 1044-1054 1064-1102 1104-1110
"""
_PON_VAL = """
1 10-11 20 38 41 53-54 121-122 139 152 160 184 269 347-348 366 368-369 378 389-398 411-419 525-539
541-546 556-558 566 568 570-578 580 582-583 642-651 739-741 744 746-747 749-752 757-765 767-771 775
777-778 794-800 803-804 911-915 919-920 924 962-963 1002-1003 1016-1018 1055-1063
"""
_PON_CALIBRATION = """
2 7 26 58 94 105 108 133 166 171 190-191 194 206 231 251 260 283 287 294 296 302 321 344 363 429 584
596 635 639 668 710 735 782 789 791 811 815 847 852 866 876 885 900 909 956 1091 1100 1107 1110
"""


def pon_scenes(split: str) -> frozenset[str]:
    """Names of PON's 698 train, 148 val or 50 calibration scenes; the last are part of train.

    Raises:
        DataError: there is no such split.
    """
    lists = {"train": _PON_TRAIN, "val": _PON_VAL, "calibration": _PON_CALIBRATION}
    if split not in lists:
        raise DataError(f"split {split!r}: PON has {', '.join(lists)}", "data.split_file names other scenes")
    bounds = (tuple(map(int, word.split("-"))) for word in lists[split].split())
    return frozenset(f"scene-{number:04d}" for bound in bounds for number in range(bound[0], bound[-1] + 1))


def official_scenes(split: str, names: Iterable[str], version: str) -> frozenset[str]:
    """Those of the scenes that the official lists put into the split.

    Args:
        split: "train" or "val".
        names: scenes of the tables.
        version: name of the table folder; a mini version has its own list.

    Raises:
        DataError: there is no such split.
    """
    if split not in ("train", "val"):
        raise DataError(f"split {split!r}: nuScenes has train and val", "data.split_file names other scenes")
    held_out = val_scenes(version)
    return frozenset(name for name in names if (name in held_out) == (split == "val"))


def common_scenes(split: str) -> list[str]:
    """Scenes of trainval that both PON and the official lists put into train (582) or val (32), sorted."""
    names = pon_scenes(split)
    return sorted(official_scenes(split, names, "v1.0-trainval"))
