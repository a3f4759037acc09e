#!/usr/bin/env bash
# Full training: bash configs/simbev_default.sh [more options of train_simbev.py]
set -euo pipefail

# 이 부분을 실제 데이터셋 경로로 수정 (the data set; a variable DATAROOT from outside goes first)
DATAROOT="${DATAROOT:-/path/to/simbev/dataset}"

GPUID=0
NEPOCHS=100
BSZ=4
NWORKERS=4
LR=1e-3
LOGDIR="./runs/simbev_$(date +%Y%m%d_%H%M%S)"

"${PYTHON:-python}" "$(dirname "$0")/../train_simbev.py" \
    --dataroot "$DATAROOT" \
    --gpuid "$GPUID" \
    --nepochs "$NEPOCHS" \
    --bsz "$BSZ" \
    --nworkers "$NWORKERS" \
    --lr "$LR" \
    --H 224 --W 480 \
    --final_h 128 --final_w 352 \
    --ncams 6 \
    --logdir "$LOGDIR" \
    --val_step 500 \
    --save_step 1000 \
    "$@"
