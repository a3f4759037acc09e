@echo off
rem Are the settings what you meant? Makes the folders, prints every value: scripts\test_config.bat
setlocal EnableExtensions DisableDelayedExpansion
call "%~dp0config.bat"

for /f %%t in ('powershell -NoProfile -Command "Get-Date -Format yyyyMMdd_HHmmss"') do echo time  %%t
for %%d in ("%RUNS_DIR%" "%LOG_DIR%" "%EVAL_DIR%") do if not exist %%d mkdir %%d
"%PYTHON%" "%~dp0..\train.py" --stage all %TRAIN_ARGS% --dry-run %*
set "CODE=%errorlevel%"
if not "%CODE%"=="0" goto failed
"%PYTHON%" "%~dp0..\eval_comprehensive.py" --stage both %EVAL_ARGS% --dry-run
set "CODE=%errorlevel%"
if not "%CODE%"=="0" goto failed
setlocal
set "LM_MODEL=another"
call "%~dp0config.bat"
if not "%LM_MODEL%"=="another" echo LM_MODEL=another does not reach the scripts
if not "%LM_MODEL%"=="another" set "CODE=1"
endlocal & set "CODE=%CODE%"
if not "%CODE%"=="0" goto failed
echo a variable from outside goes first: yes
pause
exit /b 0

:failed
echo the settings cannot be used: code %CODE%
pause
exit /b %CODE%
