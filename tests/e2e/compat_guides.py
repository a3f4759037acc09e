"""Command blocks of the users' guides that compat/ answers, as they are written there."""

DIFFBEV, NUSCENES = "/media/ldk950413/data0/DiffBEV", "/media/ldk950413/data0/nuScenes"

SIMBEV_TRAIN = [
    """
python train_simbev.py \\
    --dataroot /path/to/simbev/dataset \\
    --gpuid 0 \\
    --nepochs 100 \\
    --bsz 4 \\
    --nworkers 4 \\
    --logdir ./runs/my_experiment
""",
    """
python train_simbev.py \\
    --dataroot /path/to/simbev \\
    --nepochs 1 \\
    --bsz 2 \\
    --nworkers 0 \\
    --val_step 10 \\
    --save_step 20
""",
    """
python train_simbev.py \\
    --dataroot /path/to/simbev \\
    --nepochs 100 \\
    --bsz 8 \\
    --nworkers 8 \\
    --lr 1e-3 \\
    --logdir ./runs/full_training
""",
]
SIMBEV_RESUME = """
python train_simbev.py \\
    --dataroot /path/to/simbev/dataset \\
    --resume ./runs/simbev/model_010000.pt \\
    --logdir ./runs/simbev
"""
SIMBEV_SCRIPTS = ["bash configs/simbev_default.sh", "bash configs/simbev_small.sh"]
SIMBEV_OPTIONS = """
--bsz 2
--final_h 96 --final_w 256
--ncams 3
--lr 0.001
--bsz 4
--weight_decay 1e-7
--bsz 1
--nworkers 0
--lr 1e-4
"""
SIMBEV_INFERENCE = """
import torch
from src.models import compile_model

grid_conf = {
    'xbound': [-50.0, 50.0, 0.5],
    'ybound': [-50.0, 50.0, 0.5],
    'zbound': [-10.0, 10.0, 20.0],
    'dbound': [4.0, 45.0, 1.0],
}

data_aug_conf = {
    'resize_lim': (0.9, 1.1),
    'final_dim': (128, 352),
    'rot_lim': (-5.4, 5.4),
    'H': 224,
    'W': 480,
    'rand_flip': True,
    'bot_pct_lim': (0.0, 0.0),
    'Ncams': 6,
}

model = compile_model(grid_conf, data_aug_conf, outC=1)
checkpoint = torch.load('runs/simbev/model_best.pt')
model.load_state_dict(checkpoint['model_state_dict'])
model.cuda()
model.eval()

with torch.no_grad():
    preds = model(imgs, rots, trans, intrins, post_rots, post_trans)
"""

_SMOKE = f"{DIFFBEV}/configs/baseline/lss_swin_nuscenes_smoke.py"
_BASELINE = f"{DIFFBEV}/configs/baseline/lss_swin_nuscenes.py"
_CONFIG = f"{DIFFBEV}/configs/diffbev/diffbev_lss_swin_nuscenes.py"
RUNBOOK_SMOKE = [
    f"""
test -f {DIFFBEV}/scripts/training/run_baseline_nuscenes.sh && \\
test -f {DIFFBEV}/scripts/training/run_diffbev_nuscenes.sh && \\
echo "Scripts exist"
""",
    f"""
test -f {_BASELINE} && \\
test -f {_CONFIG} && \\
echo "Configs exist"
""",
    f"cp {_BASELINE} {_SMOKE}",
    f"""
cat >> {_SMOKE} << 'EOF'
# 冒烟测试：覆盖runner配置，将max_iters设置为300
runner = dict(type='IterBasedRunner', max_iters=300)
# 冒烟测试：覆盖checkpoint_config，设置更小的interval以便保存checkpoint
checkpoint_config = dict(by_epoch=False, interval=100)
EOF
""",
    f'grep "max_iters=300" {_SMOKE}',
    f"""
cd {DIFFBEV}
export DIFFBEV_ALLOW_PYTORCH2=1
python tools/train.py configs/baseline/lss_swin_nuscenes_smoke.py --work-dir runs/baseline_smoke --gpu-ids 0 \
2>&1 | tee runs/baseline_smoke/smoke_test.log
""",
    f"tail -1 {DIFFBEV}/runs/baseline_smoke/metrics.csv",
    f"""
test -f {DIFFBEV}/runs/baseline_smoke/metrics.csv && \\
wc -l {DIFFBEV}/runs/baseline_smoke/metrics.csv
""",
]
RUNBOOK_DEPTH = [
    *[
        f"""
python {DIFFBEV}/tools/data/prepare_nuscenes_depth_gt.py \\
  --nuscenes-root {NUSCENES} \\
  --version v1.0-trainval \\
  --output-dir {NUSCENES}/ann_bev_dir \\
  --split {split} \\
  --img-dir {NUSCENES}/img_dir/{split} \\
  --cameras CAM_FRONT \\
  --height 600 --width 800 \\
  --min-depth 1 --max-depth 50
"""
        for split in ("train", "val")
    ],
    f"""
ls -d \\
    {NUSCENES}/ann_bev_dir/train_depth \\
    {NUSCENES}/ann_bev_dir/val_depth
""",
]
RUNBOOK_CHECK = f"""
python {DIFFBEV}/tools/debug/check_depth_gt.py \\
  --config {_CONFIG}
"""


def _training(script: str, run: str) -> list[str]:
    return [
        f"mkdir -p {DIFFBEV}/runs/{run}",
        f"""
cd {DIFFBEV}
export DIFFBEV_ALLOW_PYTORCH2=1
bash scripts/training/{script}
""",
        f"ls -lht {DIFFBEV}/runs/{run}/train_*.log | head -1",
        f"ls -lh {DIFFBEV}/runs/{run}/*.pth",
        f"""
test -f {DIFFBEV}/runs/{run}/metrics.csv && \\
tail -5 {DIFFBEV}/runs/{run}/metrics.csv
""",
    ]


RUNBOOK_BASELINE = _training("run_baseline_nuscenes.sh", "baseline")
RUNBOOK_DIFFBEV = _training("run_diffbev_nuscenes.sh", "diffbev_default")
RUNBOOK_RESULTS = [
    f"mkdir -p {DIFFBEV}/reports/comparison/plots",
    f"""
cd {DIFFBEV}
python tools/plot_metrics.py \\
    {DIFFBEV}/runs/baseline \\
    {DIFFBEV}/runs/diffbev_default \\
    --output-dir {DIFFBEV}/reports/comparison \\
    --experiment-names "Baseline" "DiffBEV"
""",
    f"ls -lh {DIFFBEV}/reports/comparison/plots/*.png",
    f"""
test -f {DIFFBEV}/reports/comparison/summary.md && \\
head -20 {DIFFBEV}/reports/comparison/summary.md
""",
    f"""
test -f {DIFFBEV}/runs/baseline/best_mIoU.pth && \\
test -f {DIFFBEV}/runs/diffbev_default/best_mIoU.pth && \\
echo "Both checkpoints exist"
""",
    f"""
cd {DIFFBEV}
python tools/vis_nuscenes_bev.py \\
    {_BASELINE} \\
    {DIFFBEV}/runs/baseline/best_mIoU.pth \\
    --diffbev-config {_CONFIG} \\
    --diffbev-checkpoint {DIFFBEV}/runs/diffbev_default/best_mIoU.pth \\
    --indices 0 10 20 30 40 50 \\
    --work-dir {DIFFBEV}/runs/vis_comparison \\
    --device cuda:0
""",
    f"ls -lh {DIFFBEV}/runs/vis_comparison/vis/*.png",
    *[
        f"""
python {DIFFBEV}/tools/debug/diagnose_segmentation.py \\
  --config {_CONFIG} \\
  --checkpoint {DIFFBEV}/runs/diffbev_default/latest.pth \\
  --num-samples 50 \\
  --vis-num {number} \\
  --out-dir {DIFFBEV}/runs/diagnose \\
  --device cuda:0 \\
  --seed 42
"""
        for number in (0, 8)
    ],
    f"""
ls -lh {DIFFBEV}/runs/baseline/best_mIoU.pth
ls -lh {DIFFBEV}/runs/baseline/metrics.csv
ls -lh {DIFFBEV}/runs/diffbev_default/best_mIoU.pth
ls -lh {DIFFBEV}/runs/diffbev_default/metrics.csv
ls -lh {DIFFBEV}/reports/comparison/plots/*.png | wc -l
ls -lh {DIFFBEV}/runs/vis_comparison/vis/*.png | wc -l
""",
]

DEPTH_NAMES = """
from src.src_main import Trainer
from config import Config
from src.networks import UNet
from src.losses import WeightedDataLoss, WeightedMSGradLoss
from src.utils import StandardizeData
"""
DEPTH_MODEL = """
model = UNet(
    in_channels=5,        # RGB + point + hole_point
    out_channels=1,       # depth
    layers=config.layers,      # 7
    features=config.features   # 64
)
loss_fns = {
    'data_loss': WeightedDataLoss().to(device),
    'grad_loss': WeightedMSGradLoss(scales=[1, 2, 4, 8]).to(device),
    'standardize': StandardizeData().to(device)
}
checkpoint = torch.load(checkpoint_path, map_location=device)
model_state = checkpoint['model_state_dict']
model.load_state_dict(model_state)
inputs = torch.cat([rgb, point, hole_point], dim=1)  # [B, 5, H, W]
mask = (depth_gt > 0).float()
pred_depth = model(inputs)
loss_adepth = loss_fns['data_loss'](pred_depth, depth_gt, mask)
sta_depth, sta_gt = loss_fns['standardize'](pred_depth, depth_gt, mask)
loss_rdepth = loss_fns['data_loss'](sta_depth, sta_gt, mask)
loss_rgrad = loss_fns['grad_loss'](sta_depth, sta_gt, mask)
total_loss = loss_adepth + loss_rdepth + 0.5 * loss_rgrad
total_loss.backward()
"""

_POSE = "configs/body/2d_kpt_sview_rgb_img/sdpose/coco/sdpose_s_v1_stemnet_coco_256x192.py"
POSE_CONFIG = _POSE
POSE_TRAIN = f"python tools/train.py {_POSE}"
POSE_DIST = f"./tools/dist_train.sh {_POSE} 8"
POSE_RESUME = f"""
python tools/train.py {_POSE} \\
    --resume-from work_dirs/sdpose_s_v1_stemnet_coco_256x192/latest.pth
"""
POSE_TEST = f"""
python tools/test.py {_POSE} \\
    work_dirs/sdpose_s_v1_stemnet_coco_256x192/best_AP_epoch_250.pth \\
    --eval mAP
"""
# what the guide tells to write into the config, and what it means here
POSE_SETTINGS = {
    "exp_name = 'x'\nwork_dir = f'./work_dirs/{exp_name}'": "",
    "resume_from = './work_dirs/a/epoch_100.pth'": "--resume-from ./work_dirs/a/epoch_100.pth",
    "load_from = './pretrained_model/sdpose_s_v1.pth'": "--load-from ./pretrained_model/sdpose_s_v1.pth",
    """checkpoint_config = dict(
    interval=10,
    max_keep_ckpts=3,
    save_last=True,
    out_dir=None
)""": "--checkpoint-interval 10 --max-keep-ckpts 3 --save-last true",
    "data_root = 'D:/datasets/coco/'": "--data-root D:/datasets/coco/",
    """data = dict(
    samples_per_gpu=64,    # GPU
    workers_per_gpu=2,
)
optimizer = dict(
    type='Adam',
    lr=1e-3,
)
lr_config = dict(
    policy='step',
    step=[200, 260],
)
total_epochs = 300""": "--samples-per-gpu 64 --workers-per-gpu 2 optim.name=adam --lr 0.001 "
    "schedule.name=step schedule.at=[200 epochs, 260 epochs] --total-epochs 300",
    """log_config = dict(
    interval=50,
    hooks=[
        dict(type='TextLoggerHook'),
    ])""": "--log-interval 50 log.tensorboard=false",
    """log_config = dict(
    interval=50,
    hooks=[
        dict(type='TextLoggerHook'),
        dict(type='TensorboardLoggerHook')
    ])""": "--log-interval 50 log.tensorboard=true",
    """evaluation = dict(
    interval=10,
    metric='mAP',
    save_best='AP',
)""": "--eval-interval 10 --metric mAP --save-best AP",
    """loss_vis_token_dist=dict(
    type='MaskedTokenDistilLoss',
    loss_weight=1e-5,     # Loss weight
    mask_ratio=0.3,
    mask_strategy='random'  # 'random' or 'importance'
),""": "system.distill.visual.loss=masked system.distill.visual.loss_weight=1e-05 "
    "system.distill.visual.mask_ratio=0.3 system.distill.visual.mask_strategy=random",
    "exp_name = 'sdpose_s_v1_maskedkd_ratio_0.5'\nmask_ratio = 0.5": "--mask-ratio 0.5",
    "exp_name = 'sdpose_s_v1_maskedkd_weight_1e4'\nloss_weight = 1e-4": "--loss-weight 0.0001",
    "mask_strategy = 'importance'": "--mask-strategy importance",
    "optimizer_config = dict(grad_clip=dict(max_norm=1.0))": "optim.grad_clip=1.0",
    "samples_per_gpu=32  # 64\nworkers_per_gpu=1   # 2": "--samples-per-gpu 32 --workers-per-gpu 1",
    "workers_per_gpu=4   # 2": "--workers-per-gpu 4",
}
# the names of mmpose's configs
POSE_NETWORK = """
channel_cfg = dict(num_output_channels=17, dataset_joints=17, inference_channel=[
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16])
model = dict(
    type='TopDown',
    pretrained=None,
    backbone=dict(type='StemNet'),
    keypoint_head=dict(
        type='Head',
        in_channels=256,
        out_channels=channel_cfg['num_output_channels'],
        tokenpose_cfg=dict(
            feature_size=[32, 24], patch_size=[2, 2], dim=192, depth=6, heads=8, mlp_ratio=3,
            heatmap_size=[32, 24], pos_embedding_type='sine-full', apply_init=True),
        loss_keypoint=dict(type='JointsMSELoss', use_target_weight=True)),
    train_cfg=dict(),
    test_cfg=dict(flip_test=False, post_process='default', modulate_kernel=11))
data_cfg = dict(
    image_size=[96, 128],
    heatmap_size=[24, 32],
    num_joints=channel_cfg['dataset_joints'],
    inference_channel=channel_cfg['inference_channel'])
"""

PANO_STAGES = [
    """
chmod +x scripts/stage1_vision_train.sh
./scripts/stage1_vision_train.sh
""",
    """
chmod +x scripts/stage2_resampler_train.sh
./scripts/stage2_resampler_train.sh
""",
    """
chmod +x scripts/stage3_finetune_train.sh
./scripts/stage3_finetune_train.sh
""",
]
PANO_ALL = """
chmod +x scripts/train_all_stages.sh
./scripts/train_all_stages.sh
"""
PANO_CUSTOM = [
    """
chmod +x scripts/train_custom.sh
./scripts/train_custom.sh --stage vision --epochs 5 --batch-size 16
""",
    "./scripts/train_custom.sh --stage all --data-dir /path/to/data",
    "./scripts/train_custom.sh --stage finetune --resume runs/vlm_resampler/checkpoints/best.ckpt",
    "./scripts/train_custom.sh --help",
]
PANO_EVALUATION = """
./scripts/eval_finetune.sh data/quic360/test.csv
./scripts/eval_resampler.sh data/quic360/test.csv
./scripts/eval_compare.sh data/quic360/test.csv
"""
# of the guide's section on problems
PANO_PROBLEMS = ["--batch-size 8", "--num-workers 2", "--data-dir /correct/path"]
