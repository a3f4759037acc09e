"""PanoLLaVA: questions about panoramas, answered by a language model that sees their views."""

from omma.systems import Demo, System

SYSTEM = System(
    name="panollava",
    summary="PanoLLaVA: questions about 360 degree photos, learned in three stages",
    config="config:PanoConfig",
    task="task:PanoTask",
    data="data:build",
    inputs="data:build_inputs",
    convert="convert",
    training_files="training_files",
    viz="viz:draw",
    studies={"rotation": "studies:rotation", "view_drop": "studies:view_drop"},
    diagnose="diagnose:run",
    doctor="doctor:check",
    aliases="aliases:ALIASES",
    originals="originals:PROGRAMS",
    best=("loss", "min"),
    eval_settings=("system.generate.answers=true",),
    stage_key="system.stage",
    pretrained="pretrained",
    memory_keys=(
        "train.precision=bf16-mixed",
        "train.activation_checkpointing=true",
        "train.batch_size=8",
        "system.projector.pool=2",
    ),
    demo=Demo(
        recipe="world",
        world="quic360",
        options={"scenes": 120, "val_scenes": 16, "frames": 6, "image_size": (128, 256)},
    ),
)
