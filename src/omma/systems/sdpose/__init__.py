"""SDPose: keypoints of people from one transformer that learns from its own next pass."""

from omma.systems import Demo, System

SYSTEM = System(
    name="sdpose",
    summary="SDPose: COCO keypoints of people, with self-distillation between passes",
    config="config:SDPoseConfig",
    task="task:SDPoseTask",
    data="data:build",
    inputs="data:build_inputs",
    convert="convert",
    training_files="training_files",
    viz="viz:draw",
    studies={"cycles": "studies:cycles"},
    diagnose="diagnose:run",
    doctor="doctor:check",
    aliases="aliases:ALIASES",
    originals="originals:PROGRAMS",
    best=("AP", "max"),
    scored_by=("data.boxes",),
    pretrained_key="system.backbone.pretrained",
    memory_keys=(
        "train.precision=bf16-mixed",
        "train.activation_checkpointing=true",
        "train.batch_size=32",
        "train.workers=1",
    ),
    demo=Demo(
        recipe="demo",
        world="coco-solo",
        options={"scenes": 112, "val_scenes": 20, "frames": 8, "image_size": (192, 144)},
    ),
)
