#!/usr/bin/env bash
# Quick test: bash configs/simbev_small.sh [more options of train_simbev.py]
set -euo pipefail

# 이 부분을 실제 데이터셋 경로로 수정 (the data set; a variable DATAROOT from outside goes first)
DATAROOT="${DATAROOT:-/path/to/simbev/dataset}"

GPUID=0
NEPOCHS=10
BSZ=2
NWORKERS=2
LR=1e-3
LOGDIR="./runs/simbev_test_$(date +%Y%m%d_%H%M%S)"

"${PYTHON:-python}" "$(dirname "$0")/../train_simbev.py" \
    --dataroot "$DATAROOT" \
    --gpuid "$GPUID" \
    --nepochs "$NEPOCHS" \
    --bsz "$BSZ" \
    --nworkers "$NWORKERS" \
    --lr "$LR" \
    --logdir "$LOGDIR" \
    --val_step 50 \
    --save_step 100 \
    "$@"
