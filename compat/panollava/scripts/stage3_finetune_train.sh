#!/usr/bin/env bash
# Stage 3, finetuning, from the best weights of stage 2: ./scripts/stage3_finetune_train.sh [options of train.py]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/config.sh"

"$PYTHON" "$ROOT/train.py" --stage finetune "${TRAIN_ARGS[@]}" "$@"
