#!/usr/bin/env bash
# Answers and metrics of the finetune stage's best checkpoint: ./scripts/eval_finetune.sh [CSV] [options of eval_comprehensive.py]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/config.sh"

"$PYTHON" "$ROOT/eval_comprehensive.py" --stage finetune "${EVAL_ARGS[@]}" "$@"
