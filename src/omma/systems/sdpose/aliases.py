"""Flags of the original's scripts and the names of its config files, and the keys that they set."""

from __future__ import annotations

from collections.abc import Callable

from omma.errors import UsageError
from omma.systems import Alias

_EPOCHS: Callable[[str], str] = "{} epochs".format
_STEP = ("schedule.name=step",)
_MASKED = ("system.distill.loss=masked",)
_OWN_NUMBERS = "AP, AR and where joints are off are always measured; `omma eval RUN`"
_ON, _OFF = {"1", "true", "yes"}, {"0", "false", "no"}


def _milestones(text: str) -> str:
    """`[200, 260]` or `200,260` as epochs."""
    numbers = [part.strip() for part in text.strip("[]() ").split(",")]
    return f"[{', '.join(f'{number} epochs' for number in numbers if number)}]"


def _clip(text: str) -> str:
    """`1.0`; None or 0 switches clipping off."""
    return "null" if text.strip().lower() in {"none", "null", "0", "0.0"} else text


def _on(text: str) -> bool:
    word = text.strip().lower()
    if word not in _ON | _OFF:
        raise UsageError(f"{text}: neither true nor false", "write true or false")
    return word in _ON


def _boxes(text: str) -> str:
    """Annotated boxes if true; a detector's need their file."""
    if _on(text):
        from omma.core.keypoint_meter import GROUND_TRUTH  # imports torch, which `omma show` does without

        return GROUND_TRUTH
    raise UsageError("--use-gt-bbox false: a detector's boxes are in a file", "--bbox-file FILE")


def _clip_of_config(text: str) -> str:
    """`dict(max_norm=1.0)` or None."""
    return _clip(text.partition("=")[2].rstrip(") ") if "=" in text else text)


def _metric(text: str) -> str:
    if text.strip().strip("'\"").lower() in {"map", "ap"}:
        return f"nothing to set: {_OWN_NUMBERS}"
    raise UsageError(f"--eval {text}: no such metric", _OWN_NUMBERS)


def _save_last(text: str) -> str:
    if _on(text):
        return "nothing to set: the last step is always saved, and RUN@last names it"
    raise UsageError(f"--save-last {text}: the last step is always saved", "leave --save-last out")


def _best(text: str) -> str:
    return f"val/{text.strip()}"


def _none(flag: str, why: str, *, switch: bool = False) -> Alias:
    """A flag that no key corresponds to."""

    def refuse(value: str) -> str:
        raise UsageError(f"{flag} {value}".strip() + f": {why}", f"leave {flag} out")

    return Alias(read=refuse, switch="" if switch else None)


_LENGTHS = {
    "--total-epochs": Alias("train.length", _EPOCHS),
    "--max-epochs": Alias("train.length", _EPOCHS),
    "--checkpoint-interval": Alias("save.every", _EPOCHS),
    "--evaluation-interval": Alias("validate.every", _EPOCHS),
    "--eval-interval": Alias("validate.every", _EPOCHS),
    "--log-interval": Alias("log.every"),
    "--max-keep-ckpts": Alias("save.keep_last"),
    "--save-last": Alias(read=_save_last),
    "--save-best": Alias("save.best", _best),
    "--no-validate": Alias("validate.every", switch="0"),
}
_START = {
    "--exp-name": Alias(option="exp_name"),
    "--work-dir": Alias(option="name"),
    "--resume-from": Alias(option="resume"),
    "--load-from": Alias(option="init"),
    "--gpus": Alias("train.devices"),
    "--gpu-ids": Alias("train.device", "cuda:{}".format),
    "--seed": Alias("seed"),
    "--deterministic": Alias("deterministic", switch="true"),
}
_DATA = {
    "--data-root": Alias("data.root"),
    "--bbox-file": Alias("data.boxes"),
    "--use-gt-bbox": Alias("data.boxes", _boxes),
    "--det-bbox-thr": Alias("data.box_score"),
    "--samples-per-gpu": Alias("train.batch_size"),
    "--workers-per-gpu": Alias("train.workers"),
}
_OPTIMISER = {
    "--lr": Alias("optim.lr"),
    "--step": Alias("schedule.at", _milestones, with_it=_STEP),
    "--warmup-iters": Alias("schedule.warmup"),
    "--warmup-ratio": Alias("schedule.warmup_factor"),
    "--max-norm": Alias("optim.grad_clip", _clip),
    "--grad-clip": Alias("optim.grad_clip", _clip_of_config),
}
_DISTILLATION = {
    "--loss-weight": Alias("system.distill.loss_weight"),
    "--mask-ratio": Alias("system.distill.mask_ratio", with_it=_MASKED),
    "--mask-strategy": Alias("system.distill.mask_strategy", with_it=_MASKED),
    "--num-cycles": Alias("system.cycles"),
}
_SCORES = {
    "--eval": Alias(read=_metric),
    "--metric": Alias(read=_metric),
    "--oks-thr": Alias("evaluation.nms_oks"),
    "--vis-thr": Alias("evaluation.visible_score"),
    "--soft-nms": Alias("evaluation.nms", lambda text: "soft" if _on(text) else "oks"),
    "--flip-test": Alias("evaluation.flip", lambda text: str(_on(text)).lower()),
}
_REFUSED = {
    "--autoscale-lr": _none(
        "--autoscale-lr",
        "the rate stays as given; the published 1e-3 is for 512 samples a step, so "
        "optim.lr=1.25e-4 scales it for 64",
        switch=True,
    ),
    "--interval": _none("--interval", "of --checkpoint-interval, --evaluation-interval and --log-interval?"),
    "--out-dir": _none("--out-dir", "checkpoints lie in the run's folder; --runs-dir moves the runs"),
    "--cfg-options": _none("--cfg-options", "settings are key.path=value words; `omma show sdpose`"),
    "--launcher": _none("--launcher", "train.devices=8 starts the processes; torchrun and SLURM are found"),
    "--local-rank": _none("--local-rank", "train.devices=8 starts the processes; torchrun has its own"),
    "--fuse-conv-bn": _none("--fuse-conv-bn", "norms and convolutions stay apart", switch=True),
    "--gpu-collect": _none("--gpu-collect", "the processes' results are always joined", switch=True),
    "--tmpdir": _none("--tmpdir", "the processes' results are joined without files"),
}
_FLAGS = _START | _LENGTHS | _DATA | _OPTIMISER | _DISTILLATION | _SCORES | _REFUSED
ALIASES = _FLAGS | {f"--{flag[2:].replace('-', '_')}": alias for flag, alias in _FLAGS.items()}
