#!/usr/bin/env bash
# Training on GPU 0: bash scripts/training/run_baseline_nuscenes.sh [more options of tools/train.py]
exec bash "$(dirname "$0")/train.sh" baseline/lss_swin_nuscenes.py runs/baseline "$@"
