#!/usr/bin/env bash
# The three stages in a row; the first failure ends it: ./scripts/train_all_stages.sh [options of train.py]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/config.sh"

"$PYTHON" "$ROOT/train.py" --stage all "${TRAIN_ARGS[@]}" "$@"
