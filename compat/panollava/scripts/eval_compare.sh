#!/usr/bin/env bash
# Both stages side by side, and which is better: ./scripts/eval_compare.sh [CSV] [options of eval_comprehensive.py]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/config.sh"

"$PYTHON" "$ROOT/eval_comprehensive.py" --stage both "${EVAL_ARGS[@]}" "$@"
