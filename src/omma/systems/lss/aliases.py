"""Flags of the original training script and the keys that they set."""

from omma.systems import Alias


def _device(gpu: str) -> str:
    return "cpu" if gpu == "-1" else f"cuda:{gpu}"


ALIASES = {
    "--dataroot": Alias("data.root"),
    "--nepochs": Alias("train.length", "{} epochs".format),
    "--gpuid": Alias("train.device", _device),
    "--bsz": Alias("train.batch_size"),
    "--nworkers": Alias("train.workers"),
    "--lr": Alias("optim.lr"),
    "--weight_decay": Alias("optim.weight_decay"),
    "--H": Alias("data.source_size.0"),
    "--W": Alias("data.source_size.1"),
    "--final_h": Alias("data.image_size.0"),
    "--final_w": Alias("data.image_size.1"),
    "--ncams": Alias("data.num_cameras"),
    "--cam_sampling": Alias("data.camera_sampling"),
    "--frame_stride": Alias("data.frame_stride"),
    "--pretrained": Alias("system.pretrained"),
    "--trunk_bn_momentum": Alias("system.backbone_bn_momentum"),
    "--val_step": Alias("validate.every"),
    "--save_step": Alias("save.every"),
    "--max_grad_norm": Alias("optim.grad_clip"),
    "--scheduler": Alias("schedule.name", lambda name: "constant" if name == "none" else name),
    "--precision": Alias("train.precision"),
    "--seed": Alias("seed"),
    "--logdir": Alias(option="name"),
    "--resume": Alias(option="resume"),
}
