@echo off
rem Settings of all scripts. A variable that is set outside goes first:
rem   set "LM_MODEL=Qwen/Qwen2.5-1.5B"
rem   scripts\stage2_resampler_train.bat

rem quotes that came with a path, as in set DATA_DIR="C:\my data", are taken off: each gets its own below
if defined DATA_DIR set "DATA_DIR=%DATA_DIR:"=%"
if defined CSV_TRAIN set "CSV_TRAIN=%CSV_TRAIN:"=%"
if defined CSV_VAL set "CSV_VAL=%CSV_VAL:"=%"
if defined CSV_TEST set "CSV_TEST=%CSV_TEST:"=%"
if defined RUNS_DIR set "RUNS_DIR=%RUNS_DIR:"=%"
if defined LOG_DIR set "LOG_DIR=%LOG_DIR:"=%"
if defined EVAL_DIR set "EVAL_DIR=%EVAL_DIR:"=%"
if defined VISION_MODEL set "VISION_MODEL=%VISION_MODEL:"=%"
if defined LM_MODEL set "LM_MODEL=%LM_MODEL:"=%"
if defined PYTHON set "PYTHON=%PYTHON:"=%"

rem models: names of the hub, or folders
if not defined VISION_MODEL set "VISION_MODEL=google/siglip-base-patch16-224"
if not defined LM_MODEL set "LM_MODEL=Qwen/Qwen2.5-0.5B"
if not defined RESAMPLER set "RESAMPLER=mlp"

rem data
if not defined DATA_DIR set "DATA_DIR=data\quic360"
rem tables; empty: train.csv and valid.csv in DATA_DIR
if not defined CSV_TRAIN set "CSV_TRAIN="
if not defined CSV_VAL set "CSV_VAL="
if not defined CSV_TEST set "CSV_TEST=%DATA_DIR%\test.csv"

rem views and prompt
if not defined CROP_STRATEGY set "CROP_STRATEGY=e2p"
if not defined IMAGE_SIZE set "IMAGE_SIZE=224"
if not defined OVERLAP_RATIO set "OVERLAP_RATIO=0.5"
if not defined FOV set "FOV=90"
if not defined SYSTEM_MSG set "SYSTEM_MSG=You are a helpful assistant."

rem stage 1
if not defined VISION_EPOCHS set "VISION_EPOCHS=3"
if not defined VISION_BATCH_SIZE set "VISION_BATCH_SIZE=32"
if not defined VISION_LR set "VISION_LR=5e-6"
if not defined VISION_MAX_TEXT_LENGTH set "VISION_MAX_TEXT_LENGTH=32"
if not defined VICREG_LOSS_WEIGHT set "VICREG_LOSS_WEIGHT=1"

rem stage 2
if not defined RESAMPLER_EPOCHS set "RESAMPLER_EPOCHS=5"
if not defined RESAMPLER_BATCH_SIZE set "RESAMPLER_BATCH_SIZE=16"
if not defined RESAMPLER_LR set "RESAMPLER_LR=2e-5"
if not defined RESAMPLER_MAX_TEXT_LENGTH set "RESAMPLER_MAX_TEXT_LENGTH=64"

rem stage 3
if not defined FINETUNE_EPOCHS set "FINETUNE_EPOCHS=10"
if not defined FINETUNE_BATCH_SIZE set "FINETUNE_BATCH_SIZE=8"
if not defined FINETUNE_LR set "FINETUNE_LR=1e-5"
if not defined FINETUNE_MAX_TEXT_LENGTH set "FINETUNE_MAX_TEXT_LENGTH=128"

rem answers of the evaluation
if not defined EVAL_BATCH_SIZE set "EVAL_BATCH_SIZE=8"
if not defined MAX_NEW_TOKENS set "MAX_NEW_TOKENS=64"
if not defined TEMPERATURE set "TEMPERATURE=0"
if not defined SAVE_SAMPLES set "SAVE_SAMPLES=5"

rem folders, and the runs' names: vlm_vision, vlm_resampler, vlm_finetune
if not defined RUNS_DIR set "RUNS_DIR=runs"
if not defined LOG_DIR set "LOG_DIR=logs"
if not defined EVAL_DIR set "EVAL_DIR=eval_results"
if not defined PREFIX set "PREFIX=vlm"

rem machine: GPU 0, or none (-1)
if not defined CUDA_VISIBLE_DEVICES set "CUDA_VISIBLE_DEVICES=0"
if not defined NUM_WORKERS set "NUM_WORKERS=8"
if not defined PYTHON set "PYTHON=python"

rem W&B: its key is taken from the environment; WANDB_MODE=disabled goes without it
if not defined WANDB_PROJECT set "WANDB_PROJECT=panollava-training"

rem a backslash at a quote's end would take the quote with it
if "%DATA_DIR:~-1%"=="\" set "DATA_DIR=%DATA_DIR%."
if "%RUNS_DIR:~-1%"=="\" set "RUNS_DIR=%RUNS_DIR%."
if "%LOG_DIR:~-1%"=="\" set "LOG_DIR=%LOG_DIR%."
if "%EVAL_DIR:~-1%"=="\" set "EVAL_DIR=%EVAL_DIR%."
if "%VISION_MODEL:~-1%"=="\" set "VISION_MODEL=%VISION_MODEL%."
if "%LM_MODEL:~-1%"=="\" set "LM_MODEL=%LM_MODEL%."

rem the options that these become; DRY_RUN=1 prints what they come to, and does nothing
if not defined DRY_RUN set "DRY_RUN=0"
set SHARED_ARGS=--runs-dir "%RUNS_DIR%" --prefix "%PREFIX%" --num-workers "%NUM_WORKERS%"
if "%DRY_RUN%"=="1" set SHARED_ARGS=%SHARED_ARGS% --dry-run
set TRAIN_ARGS=%SHARED_ARGS%
set TRAIN_ARGS=%TRAIN_ARGS% --vision-name "%VISION_MODEL%" --lm-name "%LM_MODEL%" --resampler "%RESAMPLER%" --data-dir "%DATA_DIR%"
set TRAIN_ARGS=%TRAIN_ARGS% --crop-strategy "%CROP_STRATEGY%" --image-size "%IMAGE_SIZE%" --overlap-ratio "%OVERLAP_RATIO%" --fov "%FOV%"
set TRAIN_ARGS=%TRAIN_ARGS% --system-msg "%SYSTEM_MSG%" --vision-epochs "%VISION_EPOCHS%" --vision-batch-size "%VISION_BATCH_SIZE%" --vision-lr "%VISION_LR%"
set TRAIN_ARGS=%TRAIN_ARGS% --vision-max-text-length "%VISION_MAX_TEXT_LENGTH%" --vision-vicreg-loss-weight "%VICREG_LOSS_WEIGHT%" --resampler-epochs "%RESAMPLER_EPOCHS%" --resampler-batch-size "%RESAMPLER_BATCH_SIZE%"
set TRAIN_ARGS=%TRAIN_ARGS% --resampler-lr "%RESAMPLER_LR%" --resampler-max-text-length "%RESAMPLER_MAX_TEXT_LENGTH%" --finetune-epochs "%FINETUNE_EPOCHS%" --finetune-batch-size "%FINETUNE_BATCH_SIZE%"
set TRAIN_ARGS=%TRAIN_ARGS% --finetune-lr "%FINETUNE_LR%" --finetune-max-text-length "%FINETUNE_MAX_TEXT_LENGTH%" --project "%WANDB_PROJECT%" --log-dir "%LOG_DIR%"
if defined CSV_TRAIN set TRAIN_ARGS=%TRAIN_ARGS% --csv-train "%CSV_TRAIN%"
if defined CSV_VAL set TRAIN_ARGS=%TRAIN_ARGS% --csv-val "%CSV_VAL%"
set EVAL_ARGS=%SHARED_ARGS%
set EVAL_ARGS=%EVAL_ARGS% --csv "%CSV_TEST%" --batch-size "%EVAL_BATCH_SIZE%" --max-new-tokens "%MAX_NEW_TOKENS%" --temperature "%TEMPERATURE%"
set EVAL_ARGS=%EVAL_ARGS% --save-samples "%SAVE_SAMPLES%" --output-dir "%EVAL_DIR%"
exit /b 0
