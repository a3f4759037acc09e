"""Flags of the original, and names in its config files, with the keys that they set."""

from omma.systems import Alias


def _epochs(text: str) -> str:
    return f"{text} epochs"


def _steps(text: str) -> str:
    """`[200, 260]` or `200,260` as epochs."""
    numbers = [part.strip() for part in text.strip("[]() ").split(",")]
    return f"[{', '.join(f'{number} epochs' for number in numbers if number)}]"


ALIASES = {
    "--exp-name": Alias(option="name"),
    "--exp_name": Alias(option="name"),
    "--work-dir": Alias(option="name"),
    "--resume-from": Alias(option="resume"),
    "--gpu-ids": Alias("train.device", "cuda:{}".format),
    "--gpus": Alias("train.devices"),
    "--seed": Alias("seed"),
    "--data-root": Alias("data.root"),
    "--data_root": Alias("data.root"),
    "--samples-per-gpu": Alias("train.batch_size"),
    "--samples_per_gpu": Alias("train.batch_size"),
    "--workers-per-gpu": Alias("train.workers"),
    "--workers_per_gpu": Alias("train.workers"),
    "--total-epochs": Alias("train.length", _epochs),
    "--total_epochs": Alias("train.length", _epochs),
    "--lr": Alias("optim.lr"),
    "--step": Alias("schedule.at", _steps),
    "--max-norm": Alias("optim.grad_clip"),
    "--max_norm": Alias("optim.grad_clip"),
    "--interval": Alias("save.every", _epochs),
    "--max-keep-ckpts": Alias("save.keep_last"),
    "--max_keep_ckpts": Alias("save.keep_last"),
    "--evaluation-interval": Alias("validate.every", _epochs),
    "--log-interval": Alias("log.every"),
    "--mask-ratio": Alias("system.distill.mask_ratio"),
    "--mask_ratio": Alias("system.distill.mask_ratio"),
    "--mask-strategy": Alias("system.distill.mask_strategy"),
    "--mask_strategy": Alias("system.distill.mask_strategy"),
    "--loss-weight": Alias("system.distill.loss_weight"),
    "--loss_weight": Alias("system.distill.loss_weight"),
    "--bbox-file": Alias("data.boxes"),
}
