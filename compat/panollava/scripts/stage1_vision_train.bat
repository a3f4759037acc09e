@echo off
rem Stage 1, the image tower: scripts\stage1_vision_train.bat [options of train.py]
setlocal EnableExtensions DisableDelayedExpansion
call "%~dp0config.bat"

"%PYTHON%" "%~dp0..\train.py" --stage vision %TRAIN_ARGS% %*
set "CODE=%errorlevel%"
if not "%CODE%"=="0" goto failed
pause
exit /b 0

:failed
echo stage 1 (vision) failed with code %CODE%
pause
exit /b %CODE%
