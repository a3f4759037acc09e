"""G2-MonoDepth: dense metric depth from an image and any sparse depth."""

from omma.systems import Demo, System

SYSTEM = System(
    name="g2_monodepth",
    summary="G2-MonoDepth: dense depth from an image and whatever depth is known",
    config="config:G2Config",
    task="task:G2Task",
    data="data:build",
    inputs="data:build_inputs",
    sparse_inputs=True,
    convert="convert",
    training_files="training_files",
    viz="viz:draw",
    studies={"densities": "studies:densities"},
    prepare={"rgbd-cache": "prepare:rgbd_cache"},
    diagnose="diagnose:run",
    doctor="doctor:check",
    aliases="aliases:ALIASES",
    originals="originals:PROGRAMS",
    best=("rmse", "min"),
    pretrained_key="system.pretrained",
    memory_keys=(
        "train.precision=bf16-mixed",
        "train.activation_checkpointing=true",
        "train.batch_size=2",
        "data.image_size=[192, 192]",
    ),
    demo=Demo(
        recipe="demo",
        world="rgbd-nyu",
        options={"scenes": 24, "val_scenes": 4, "frames": 4, "image_size": (96, 128)},
    ),
)
