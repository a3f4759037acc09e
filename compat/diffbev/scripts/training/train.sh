#!/usr/bin/env bash
# What both trainings do: train.sh CONFIG WORK_DIR [more options of tools/train.py]; a variable WORK_DIR from outside goes first
set -euo pipefail

HERE="$(cd "$(dirname "$0")/../.." && pwd)"
CONFIG="$HERE/configs/$1"
WORK_DIR="${WORK_DIR:-$2}"
LOG="$WORK_DIR/train_$(date +%Y%m%d_%H%M%S).log"

mkdir -p "$WORK_DIR"
echo "config:   $CONFIG"
echo "work dir: $WORK_DIR"
echo "log:      $LOG"
"${PYTHON:-python}" "$HERE/tools/train.py" "$CONFIG" --work-dir "$WORK_DIR" --gpu-ids 0 "${@:3}" 2>&1 | tee "$LOG"
echo "✓ 训练完成！ (training complete: $WORK_DIR)"
