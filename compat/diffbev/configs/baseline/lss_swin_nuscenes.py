"""What is usually changed; all else is as in the recipe. Read as data, never run."""

_base_ = ["../_base_/datasets/nuscene.py"]
recipe = "diffbev/baseline_lss_swin"

optimizer = dict(type="AdamW", lr=2e-4, betas=(0.9, 0.999), weight_decay=0.01)
runner = dict(type="IterBasedRunner", max_iters=200000)
checkpoint_config = dict(by_epoch=False, interval=5000, max_keep_ckpts=3)
evaluation = dict(interval=20000, metric="mIoU")
log_config = dict(interval=50)
