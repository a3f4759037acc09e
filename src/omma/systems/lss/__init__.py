"""Lift-Splat-Shoot: multi-camera bird's-eye-view segmentation."""

from omma.systems import Demo, System

SYSTEM = System(
    name="lss",
    summary="Lift-Splat-Shoot: bird's-eye-view segmentation from several cameras (SimBEV, nuScenes)",
    config="config:LSSConfig",
    task="task:LSSTask",
    data="data:build",
    inputs="data:build_inputs",
    convert="convert",
    training_files="training_files",
    viz="viz:draw",
    diagnose="diagnose:run",
    doctor="doctor:check",
    prepare={"lss-resize": "prepare:resize", "lss-boxes": "prepare:boxes"},
    studies={"robustness": "studies:robustness"},
    aliases="aliases:ALIASES",
    originals="originals:PROGRAMS",
    best=("iou", "max"),
    pretrained_key="system.pretrained",
    memory_keys=(
        "train.precision=bf16-mixed",
        "train.activation_checkpointing=true",
        "train.batch_size=1",
        "data.image_size=[96, 256]",
        "data.num_cameras=3",
    ),
    demo=Demo(
        recipe="demo",
        world="simbev-seed",
        options={"scenes": 72, "val_scenes": 12, "frames": 4, "image_size": (96, 192)},
        default=True,
    ),
)
