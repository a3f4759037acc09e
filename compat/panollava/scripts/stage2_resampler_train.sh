#!/usr/bin/env bash
# Stage 2, the resampler, from the best weights of stage 1: ./scripts/stage2_resampler_train.sh [options of train.py]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/config.sh"

"$PYTHON" "$ROOT/train.py" --stage resampler "${TRAIN_ARGS[@]}" "$@"
