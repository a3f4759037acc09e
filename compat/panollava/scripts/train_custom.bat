@echo off
rem A training with options of your own: --stage, --epochs, --batch-size, --lr, --resume ...: scripts\train_custom.bat [options of train.py]
setlocal EnableExtensions DisableDelayedExpansion
call "%~dp0config.bat"

"%PYTHON%" "%~dp0..\train.py" %TRAIN_ARGS% %*
set "CODE=%errorlevel%"
if not "%CODE%"=="0" goto failed
pause
exit /b 0

:failed
echo the training failed with code %CODE%
pause
exit /b %CODE%
