#!/usr/bin/env bash
# Stage 1, the image tower: ./scripts/stage1_vision_train.sh [options of train.py]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/config.sh"

"$PYTHON" "$ROOT/train.py" --stage vision "${TRAIN_ARGS[@]}" "$@"
