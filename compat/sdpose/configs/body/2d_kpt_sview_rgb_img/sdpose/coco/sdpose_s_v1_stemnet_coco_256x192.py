"""The guide's config: change what stands here; all else is as in the recipe. Read as data, never run."""

# ============================================================================
# Experiment Configuration - MODIFY HERE
# ============================================================================

exp_name = "sdpose_s_v1_stemnet_coco_256x192"
work_dir = f"./work_dirs/{exp_name}"
resume_from = None
load_from = None

recipe = "sdpose/base"  # another network: sdpose/s_v2, sdpose/b, sdpose/t; `omma ls sdpose`

data_root = "/dockerdata/coco/"

checkpoint_config = dict(
    interval=10,
    max_keep_ckpts=3,
    save_last=True,
    out_dir=None,
)
evaluation = dict(
    interval=10,
    metric="mAP",
    save_best="AP",
)

data = dict(
    samples_per_gpu=64,
    workers_per_gpu=2,
)
optimizer = dict(
    type="Adam",
    lr=1e-3,
)
optimizer_config = dict(grad_clip=dict(max_norm=1.0))
lr_config = dict(
    policy="step",
    warmup="linear",
    warmup_iters=500,
    warmup_ratio=0.001,
    step=[200, 260],
)
total_epochs = 300

log_config = dict(
    interval=50,
    hooks=[
        dict(type="TextLoggerHook"),
        # dict(type="TensorboardLoggerHook"),
    ],
)

# MaskedKD: take the comments away
# mask_ratio = 0.3
# loss_weight = 1e-5
# mask_strategy = "random"
# loss_vis_token_dist = dict(
#     type="MaskedTokenDistilLoss",
#     loss_weight=loss_weight,
#     mask_ratio=mask_ratio,
#     mask_strategy=mask_strategy,
# )
