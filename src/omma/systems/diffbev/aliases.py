"""Flags of the original training script and the keys that they set."""

from omma.systems import Alias

ALIASES = {
    "--work-dir": Alias(option="name"),
    "--resume-from": Alias(option="resume"),
    "--load-from": Alias(option="init"),
    "--gpu-ids": Alias("train.device", "cuda:{}".format),
    "--device": Alias("train.device"),
    "--seed": Alias("seed"),
    "--data-root": Alias("data.root"),
    "--nuscenes-root": Alias("data.root"),
    "--max-iters": Alias("train.length"),
    "--samples-per-gpu": Alias("train.batch_size"),
    "--workers-per-gpu": Alias("train.workers"),
    "--checkpoint-interval": Alias("save.every"),
    "--max-keep-ckpts": Alias("save.keep_last"),
    "--log-interval": Alias("log.every"),
    "--eval-interval": Alias("validate.every"),
    "--lr": Alias("optim.lr"),
}
