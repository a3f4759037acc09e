"""DiffBEV and its baselines: bird's-eye-view segmentation from one camera."""

from omma.systems import Demo, System

SYSTEM = System(
    name="diffbev",
    summary="DiffBEV and its LSS + Swin baseline: bird's-eye-view segmentation from one camera (nuScenes)",
    config="config:DiffBEVConfig",
    task="task:DiffBEVTask",
    data="data:build",
    inputs="data:build_inputs",
    convert="convert",
    training_files="training_files",
    viz="viz:draw",
    diagnose="diagnose:run",
    doctor="doctor:check",
    prepare={
        "nuscenes-bev-labels": "prepare:bev_labels",
        "nuscenes-depth": "prepare:depth",
        "nuscenes-resize": "prepare:resize",
    },
    aliases="aliases:ALIASES",
    originals="originals:PROGRAMS",
    best=("mIoU", "max"),
    pretrained_key="system.backbone.pretrained",
    memory_keys=(
        "train.precision=bf16-mixed",
        "train.activation_checkpointing=true",
        "train.batch_size=1",
        "data.image_size=[448, 608]",
    ),
    demo=Demo(
        recipe="demo",
        world="bev-dirs",
        options={"scenes": 10, "val_scenes": 3, "frames": 4, "image_size": (192, 320)},
    ),
)
