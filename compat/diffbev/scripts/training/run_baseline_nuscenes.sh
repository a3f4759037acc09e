#!/usr/bin/env bash
# Training of configs/baseline/lss_swin_nuscenes.py on GPU 0: bash scripts/training/run_baseline_nuscenes.sh [more options of tools/train.py]
set -euo pipefail

HERE="$(cd "$(dirname "$0")/../.." && pwd)"
WORK_DIR="${WORK_DIR:-runs/baseline}"
CONFIG="$HERE/configs/baseline/lss_swin_nuscenes.py"
LOG="$WORK_DIR/train_$(date +%Y%m%d_%H%M%S).log"

mkdir -p "$WORK_DIR"
echo "config:   $CONFIG"
echo "work dir: $WORK_DIR"
echo "log:      $LOG"
"${PYTHON:-python}" "$HERE/tools/train.py" "$CONFIG" --work-dir "$WORK_DIR" --gpu-ids 0 "$@" 2>&1 | tee "$LOG"
echo "✓ 训练完成！ (training complete: $WORK_DIR)"
