@echo off
rem The three stages in a row; the first failure ends it: scripts\train_all_stages.bat [options of train.py]
setlocal EnableExtensions DisableDelayedExpansion
call "%~dp0config.bat"

"%PYTHON%" "%~dp0..\train.py" --stage all %TRAIN_ARGS% %*
set "CODE=%errorlevel%"
if not "%CODE%"=="0" goto failed
pause
exit /b 0

:failed
echo the training failed with code %CODE%
pause
exit /b %CODE%
