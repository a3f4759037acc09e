"""Flags of the original's training and evaluation scripts, and the keys that they set."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from omma.errors import UsageError
from omma.systems import Alias

_EPOCHS: Callable[[str], str] = "{} epochs".format
_SIZE = re.compile(r"[\[(]?\s*(\d+)(?:\s*[,xX ]\s*(\d+))?\s*[\])]?")
_STAGES = ("vision", "resampler", "finetune", "all")


def _stage(text: str) -> str:
    if text in _STAGES:
        return text
    raise UsageError(f"--stage {text}: no such stage", f"stages: {', '.join(_STAGES)}")


def _size(text: str) -> str:
    """`224`, `224,224` or `224x224`."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"--image-size {text}: not a size", "write height and width: --image-size 224,224")
    return f"[{match[1]}, {match[2] or match[1]}]"


def _names(text: str) -> str:
    """`q_proj,v_proj`."""
    return json.dumps([name.strip() for name in text.strip("[] ").split(",") if name.strip()])


def _none(flag: str, why: str, *, switch: bool = False) -> Alias:
    """A flag that no key corresponds to."""

    def refuse(value: str) -> str:
        raise UsageError(f"{flag} {value}".strip() + f": {why}", f"leave {flag} out")

    return Alias(read=refuse, switch="" if switch else None)


_TRAINING = {
    "--stage": Alias(option="recipe", read=_stage),
    "--stages": _none("--stages", "`omma train panollava/all` trains the three in a row"),
    "--epochs": Alias("train.length", _EPOCHS),
    "--batch-size": Alias("train.batch_size"),
    "--lr": Alias("optim.lr"),
    "--num-workers": Alias("train.workers"),
    "--workers": Alias("train.workers"),
    "--val-interval": Alias("validate.every"),
    "--resume-from": Alias(option="resume"),
    "--project": Alias("log.wandb.project"),
    "--wandb-project": Alias("log.wandb.project"),
    "--wandb-name": Alias("log.wandb.name"),
    "--prefix": Alias(option="exp_name"),
}
_DATA = {
    "--data-dir": Alias("data.root"),
    "--csv-train": Alias("data.train_csv"),
    "--csv-val": Alias("data.val_csv"),
    "--crop-strategy": Alias("data.views.name"),
    "--image-size": Alias("data.views.image_size", _size),
    "--overlap-ratio": Alias("data.views.overlap"),
    "--fov": Alias("data.views.fov_deg"),
}
_NETWORK = {
    "--vision-name": Alias("system.vision.name"),
    "--lm-name": Alias("system.language.name"),
    "--resampler": Alias("system.resampler.name"),
    "--system-msg": Alias("system.text.system"),
    "--max-text-length": Alias("system.text.max_length"),
    "--vicreg-loss-weight": Alias("system.overlap.weight"),
    "--use-lora": Alias("system.lora", switch="{}"),
    "--lora-rank": Alias("system.lora.rank"),
    "--lora-alpha": Alias("system.lora.alpha"),
    "--lora-dropout": Alias("system.lora.dropout"),
    "--lora-target-modules": Alias("system.lora.targets", _names),
    "--save-lora-only": _none(
        "--save-lora-only", "lora_weights/ in the run's folder is written anyway", switch=True
    ),
}
_ANSWERS = {
    "--csv": Alias("data.val_csv"),
    "--max-new-tokens": Alias("system.generate.max_new_tokens"),
    "--temperature": Alias("system.generate.temperature"),
    "--top-p": Alias("system.generate.top_p"),
    "--top-k": Alias("system.generate.top_k"),
    "--repetition-penalty": Alias("system.generate.repetition_penalty"),
}
_FLAGS = _TRAINING | _DATA | _NETWORK | _ANSWERS
ALIASES = _FLAGS | {f"--{flag[2:].replace('-', '_')}": alias for flag, alias in _FLAGS.items()}
