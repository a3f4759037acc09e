"""Names of the reference's settings as flags, and the keys that they set."""

from __future__ import annotations

import re
from collections.abc import Callable

from omma.errors import UsageError
from omma.systems import Alias

_SIZE = re.compile(r"[\[(]?\s*(\d+)(?:\s*[,xX ]\s*(\d+))?\s*[\])]?")


def _size(text: str) -> str:
    """`480,640`, `480x640`, `(480, 640)` or, for a square, `320`."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"--img_size {text}: not a size", "write height and width: --img_size 480,640")
    return f"[{match[1]}, {match[2] or match[1]}]"


def _clip(text: str) -> str:
    """0 switches clipping off."""
    return "null" if text.strip() in {"0", "0.0"} else text


def _none(flag: str, why: str) -> Alias:
    """A flag that no key corresponds to."""

    def refuse(value: str) -> str:
        raise UsageError(f"{flag} {value}: {why}", f"leave {flag} out")

    return Alias(read=refuse)


_EPOCHS: Callable[[str], str] = "{} epochs".format
_STEP = ("schedule.name=step",)

_FLAGS = {
    "--data_root": Alias("data.root"),
    "--img_size": Alias("data.image_size", _size),
    "--layers": Alias("system.network.layers"),
    "--features": Alias("system.network.features"),
    "--in_channels": _none("--in_channels", "the network reads image, depth and its mask, always 5 channels"),
    "--out_channels": _none("--out_channels", "the network gives depth, always 1 channel"),
    "--batch_size": Alias("train.batch_size"),
    "--learning_rate": Alias("optim.lr"),
    "--lr": Alias("optim.lr"),
    "--weight_decay": Alias("optim.weight_decay"),
    "--epochs": Alias("train.length", _EPOCHS),
    "--start_epoch": _none("--start_epoch", "`omma resume RUN` goes on where the run's checkpoint stands"),
    "--lr_step_size": Alias("schedule.every", _EPOCHS, with_it=_STEP),
    "--lr_gamma": Alias("schedule.gamma", with_it=_STEP),
    "--grad_clip": Alias("optim.grad_clip", _clip),
    "--log_interval": Alias("log.every"),
    "--val_interval": Alias("validate.every", _EPOCHS),
    "--save_interval": Alias("save.every", _EPOCHS),
    "--checkpoint_dir": Alias(option="name"),
    "--port": _none("--port", "a free port is found for the processes of one machine; torchrun has its own"),
    "--num_workers": Alias("train.workers"),
    "--seed": Alias("seed"),
    "--resume": Alias(option="resume"),
}
ALIASES = _FLAGS | {f"--{flag[2:].replace('_', '-')}": alias for flag, alias in _FLAGS.items()}
