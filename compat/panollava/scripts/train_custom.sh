#!/usr/bin/env bash
# A training with options of your own: --stage, --epochs, --batch-size, --lr, --resume ...: ./scripts/train_custom.sh [options of train.py]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/config.sh"

"$PYTHON" "$ROOT/train.py" "${TRAIN_ARGS[@]}" "$@"
