#!/usr/bin/env bash
# Training on several GPUs of this machine: ./tools/dist_train.sh CONFIG GPUS [more options of tools/train.py]
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG GPUS [options of tools/train.py]" >&2
    exit 2
fi
"${PYTHON:-python}" "$(dirname "$0")/train.py" "$1" --gpus "$2" "${@:3}"
