"""The scripts of compat/panollava as text."""

from __future__ import annotations

import re

from tests.e2e.compat_shell import COMPAT

SCRIPTS = COMPAT / "panollava" / "scripts"
NAMES = (
    "config stage1_vision_train stage2_resampler_train stage3_finetune_train train_all_stages train_custom "
    "eval_finetune eval_resampler eval_compare test_config"
).split()


def text_of(name: str) -> str:
    """A script with its ends of lines."""
    return (SCRIPTS / name).read_bytes().decode("utf-8")


def variables_of(text: str) -> dict[str, str]:
    """Variables of config.sh or config.bat that can be set outside, with their defaults."""
    found = re.findall(r'^(?:export )?([A-Z_]+)="\$\{\1:-(.*)\}"$', text, re.MULTILINE)
    return dict(found or re.findall(r'^if not defined ([A-Z_]+) set "\1=(.*)"\r$', text, re.MULTILINE))
