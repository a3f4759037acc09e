#!/usr/bin/env bash
# Training on GPU 0: bash scripts/training/run_diffbev_nuscenes.sh [more options of tools/train.py]
exec bash "$(dirname "$0")/train.sh" diffbev/diffbev_lss_swin_nuscenes.py runs/diffbev_default "$@"
