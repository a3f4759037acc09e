@echo off
rem Stage 2, the resampler, from the best weights of stage 1: scripts\stage2_resampler_train.bat [options of train.py]
setlocal EnableExtensions DisableDelayedExpansion
call "%~dp0config.bat"

"%PYTHON%" "%~dp0..\train.py" --stage resampler %TRAIN_ARGS% %*
set "CODE=%errorlevel%"
if not "%CODE%"=="0" goto failed
pause
exit /b 0

:failed
echo stage 2 (resampler) failed with code %CODE%
pause
exit /b %CODE%
