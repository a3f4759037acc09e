@echo off
rem Answers and metrics of the finetune stage's best checkpoint: scripts\eval_finetune.bat [CSV] [options of eval_comprehensive.py]
setlocal EnableExtensions DisableDelayedExpansion
call "%~dp0config.bat"

"%PYTHON%" "%~dp0..\eval_comprehensive.py" --stage finetune %EVAL_ARGS% %*
set "CODE=%errorlevel%"
if not "%CODE%"=="0" goto failed
pause
exit /b 0

:failed
echo the evaluation failed with code %CODE%
pause
exit /b %CODE%
