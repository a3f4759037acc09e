#!/usr/bin/env bash
# 모든 스크립트의 설정 (settings of all scripts). A variable that is set outside goes first:
#   LM_MODEL=Qwen/Qwen2.5-1.5B scripts/stage2_resampler_train.sh
# shellcheck disable=SC2034  # the scripts use these

# models: names of the hub, or folders
VISION_MODEL="${VISION_MODEL:-google/siglip-base-patch16-224}"
LM_MODEL="${LM_MODEL:-Qwen/Qwen2.5-0.5B}"
RESAMPLER="${RESAMPLER:-mlp}"

# data
DATA_DIR="${DATA_DIR:-data/quic360}"
# tables; empty: train.csv and valid.csv in DATA_DIR
CSV_TRAIN="${CSV_TRAIN:-}"
CSV_VAL="${CSV_VAL:-}"
CSV_TEST="${CSV_TEST:-$DATA_DIR/test.csv}"

# views and prompt
CROP_STRATEGY="${CROP_STRATEGY:-e2p}"
IMAGE_SIZE="${IMAGE_SIZE:-224}"
OVERLAP_RATIO="${OVERLAP_RATIO:-0.5}"
FOV="${FOV:-90}"
SYSTEM_MSG="${SYSTEM_MSG:-You are a helpful assistant.}"

# stage 1
VISION_EPOCHS="${VISION_EPOCHS:-3}"
VISION_BATCH_SIZE="${VISION_BATCH_SIZE:-32}"
VISION_LR="${VISION_LR:-5e-6}"
VISION_MAX_TEXT_LENGTH="${VISION_MAX_TEXT_LENGTH:-32}"
VICREG_LOSS_WEIGHT="${VICREG_LOSS_WEIGHT:-1}"

# stage 2
RESAMPLER_EPOCHS="${RESAMPLER_EPOCHS:-5}"
RESAMPLER_BATCH_SIZE="${RESAMPLER_BATCH_SIZE:-16}"
RESAMPLER_LR="${RESAMPLER_LR:-2e-5}"
RESAMPLER_MAX_TEXT_LENGTH="${RESAMPLER_MAX_TEXT_LENGTH:-64}"

# stage 3
FINETUNE_EPOCHS="${FINETUNE_EPOCHS:-10}"
FINETUNE_BATCH_SIZE="${FINETUNE_BATCH_SIZE:-8}"
FINETUNE_LR="${FINETUNE_LR:-1e-5}"
FINETUNE_MAX_TEXT_LENGTH="${FINETUNE_MAX_TEXT_LENGTH:-128}"

# answers of the evaluation
EVAL_BATCH_SIZE="${EVAL_BATCH_SIZE:-8}"
MAX_NEW_TOKENS="${MAX_NEW_TOKENS:-64}"
TEMPERATURE="${TEMPERATURE:-0}"
SAVE_SAMPLES="${SAVE_SAMPLES:-5}"

# folders, and the runs' names: vlm_vision, vlm_resampler, vlm_finetune
RUNS_DIR="${RUNS_DIR:-runs}"
LOG_DIR="${LOG_DIR:-logs}"
EVAL_DIR="${EVAL_DIR:-eval_results}"
PREFIX="${PREFIX:-vlm}"

# machine: GPU 0, or none (-1); workers as many as processors, at most 8
export CUDA_VISIBLE_DEVICES="${CUDA_VISIBLE_DEVICES:-0}"
PROCESSORS="$(getconf _NPROCESSORS_ONLN)"
NUM_WORKERS="${NUM_WORKERS:-$((PROCESSORS < 8 ? PROCESSORS : 8))}"
PYTHON="${PYTHON:-python}"

# W&B: its key is taken from the environment; WANDB_MODE=disabled goes without it
WANDB_PROJECT="${WANDB_PROJECT:-panollava-training}"

# the options that these become; DRY_RUN=1 prints what they come to, and does nothing
DRY_RUN="${DRY_RUN:-0}"
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
SHARED_ARGS=(
    --runs-dir "$RUNS_DIR"
    --prefix "$PREFIX"
    --num-workers "$NUM_WORKERS"
)
if [ "$DRY_RUN" = 1 ]; then SHARED_ARGS+=(--dry-run); fi
TRAIN_ARGS=(
    "${SHARED_ARGS[@]}"
    --vision-name "$VISION_MODEL"
    --lm-name "$LM_MODEL"
    --resampler "$RESAMPLER"
    --data-dir "$DATA_DIR"
    --crop-strategy "$CROP_STRATEGY"
    --image-size "$IMAGE_SIZE"
    --overlap-ratio "$OVERLAP_RATIO"
    --fov "$FOV"
    --system-msg "$SYSTEM_MSG"
    --vision-epochs "$VISION_EPOCHS"
    --vision-batch-size "$VISION_BATCH_SIZE"
    --vision-lr "$VISION_LR"
    --vision-max-text-length "$VISION_MAX_TEXT_LENGTH"
    --vision-vicreg-loss-weight "$VICREG_LOSS_WEIGHT"
    --resampler-epochs "$RESAMPLER_EPOCHS"
    --resampler-batch-size "$RESAMPLER_BATCH_SIZE"
    --resampler-lr "$RESAMPLER_LR"
    --resampler-max-text-length "$RESAMPLER_MAX_TEXT_LENGTH"
    --finetune-epochs "$FINETUNE_EPOCHS"
    --finetune-batch-size "$FINETUNE_BATCH_SIZE"
    --finetune-lr "$FINETUNE_LR"
    --finetune-max-text-length "$FINETUNE_MAX_TEXT_LENGTH"
    --project "$WANDB_PROJECT"
    --log-dir "$LOG_DIR"
)
if [ -n "$CSV_TRAIN" ]; then TRAIN_ARGS+=(--csv-train "$CSV_TRAIN"); fi
if [ -n "$CSV_VAL" ]; then TRAIN_ARGS+=(--csv-val "$CSV_VAL"); fi
EVAL_ARGS=(
    "${SHARED_ARGS[@]}"
    --csv "$CSV_TEST"
    --batch-size "$EVAL_BATCH_SIZE"
    --max-new-tokens "$MAX_NEW_TOKENS"
    --temperature "$TEMPERATURE"
    --save-samples "$SAVE_SAMPLES"
    --output-dir "$EVAL_DIR"
)
