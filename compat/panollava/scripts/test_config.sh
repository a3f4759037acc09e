#!/usr/bin/env bash
# Are the settings what you meant? Makes the folders, prints every value: ./scripts/test_config.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/config.sh"

echo "time  $(date +%Y%m%d_%H%M%S)"
mkdir -p "$RUNS_DIR" "$LOG_DIR" "$EVAL_DIR"
"$PYTHON" "$ROOT/train.py" --stage all "${TRAIN_ARGS[@]}" --dry-run "$@"
"$PYTHON" "$ROOT/eval_comprehensive.py" --stage both "${EVAL_ARGS[@]}" --dry-run
FOUND="$(LM_MODEL=another bash -c 'source "$1" && echo "$LM_MODEL"' - "$ROOT/scripts/config.sh")"
if [ "$FOUND" != another ]; then
    echo "LM_MODEL=another does not reach the scripts: config.sh has set it to $FOUND" >&2
    exit 1
fi
echo "a variable from outside goes first: yes"
