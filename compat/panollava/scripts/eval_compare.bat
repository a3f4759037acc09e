@echo off
rem Both stages side by side, and which is better: scripts\eval_compare.bat [CSV] [options of eval_comprehensive.py]
setlocal EnableExtensions DisableDelayedExpansion
call "%~dp0config.bat"

"%PYTHON%" "%~dp0..\eval_comprehensive.py" --stage both %EVAL_ARGS% %*
set "CODE=%errorlevel%"
if not "%CODE%"=="0" goto failed
pause
exit /b 0

:failed
echo the evaluation failed with code %CODE%
pause
exit /b %CODE%
