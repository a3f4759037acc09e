@echo off
rem Stage 3, finetuning, from the best weights of stage 2: scripts\stage3_finetune_train.bat [options of train.py]
setlocal EnableExtensions DisableDelayedExpansion
call "%~dp0config.bat"

"%PYTHON%" "%~dp0..\train.py" --stage finetune %TRAIN_ARGS% %*
set "CODE=%errorlevel%"
if not "%CODE%"=="0" goto failed
pause
exit /b 0

:failed
echo stage 3 (finetune) failed with code %CODE%
pause
exit /b %CODE%
