"""PanoLLaVA's batch files as text: no Windows is needed."""

from __future__ import annotations

import re

import pytest
from tests.e2e.compat_scripts import NAMES, text_of, variables_of

from omma.systems.panollava.originals import PROGRAMS

pytestmark = pytest.mark.e2e


def test_both_configs_say_the_same():
    """R1, R11: the same variables, defaults and options; on Windows 8 workers (R41)."""
    linux, windows = variables_of(text_of("config.sh")), variables_of(text_of("config.bat"))
    assert linux.keys() == windows.keys()
    differing = {name for name in linux if linux[name] != windows[name]}
    assert differing == {"DATA_DIR", "CSV_TEST", "NUM_WORKERS"}
    assert windows["NUM_WORKERS"] == "8"
    assert windows["DATA_DIR"].replace("\\", "/") == linux["DATA_DIR"] == "data/quic360"
    pairs = [re.findall(r'(--[a-z-]+)(?: "[$%](\w+)%?")?', text_of(f"config.{end}")) for end in ("sh", "bat")]
    assert set(pairs[0]) == set(pairs[1])
    assert {name for _, name in pairs[0] if name} <= linux.keys()


# lists of options, which are quoted inside; the exit code
_BARE = {"%SHARED_ARGS%", "%TRAIN_ARGS%", "%EVAL_ARGS%", "%CODE%"}


@pytest.mark.parametrize("name", NAMES)
def test_batch_file(name):
    """R11 to R20."""
    text = text_of(f"{name}.bat")
    lines = text.split("\r\n")
    assert text.endswith("\r\n")
    assert not re.search(r"(?<!\r)\n|\r(?!\n)", text)
    assert text.isascii()
    commands = [line for line in lines if not line.startswith("rem ")]
    assert lines[0] == "@echo off"
    if name != "config":
        own = "setlocal EnableExtensions DisableDelayedExpansion"
        assert commands[1:3] == [own, 'call "%~dp0config.bat"']
    for line in commands:
        bare = re.sub(r'"[^"]*"', '""', line)  # what no quotes are around
        assert set(re.findall(r"%(?:~[a-z0-9]+|\w+%)", bare)) <= _BARE, line
        assert "\\" not in bare, line
    calls = [number for number, line in enumerate(lines) if line.startswith('"%PYTHON%"')]
    assert bool(calls) == (name != "config")
    for number in calls:
        assert lines[number + 1 : number + 3] == [
            'set "CODE=%errorlevel%"',
            'if not "%CODE%"=="0" goto failed',
        ]
        script = re.match(r'"%PYTHON%" "%~dp0\.\.\\(\w+\.py)" ', lines[number])[1]
        known = set(PROGRAMS[script].flags)
        assert set(re.findall(r"(?<![\w-])--[a-z-]+", lines[number])) <= known
        own = re.search(r"%(\w+_ARGS)%", lines[number])[1]
        config = text_of("config.bat").split("\r\n")
        passed = [line for line in config if f"set {own}=" in line or "set SHARED_ARGS=" in line]
        assert {flag for line in passed for flag in re.findall(r"--[a-z-]+", line)} <= known
    ends = [number for number, line in enumerate(lines) if line.startswith("exit /b")]
    assert len(ends) == (1 if name == "config" else 2)
    assert all(lines[number - 1] == "pause" for number in ends) or name == "config"


def test_batch_files_do_what_the_others_do():
    for name in NAMES[1:]:
        found = []
        for end in ("sh", "bat"):
            text = text_of(f"{name}.{end}")
            calls = re.findall(r'^"[$%]PYTHON%?" "[^"]*?(\w+\.py)"(.*)$', text, re.MULTILINE)
            found.append(
                [(script, re.findall(r"--stage \w+|--dry-run|\w+_ARGS", rest)) for script, rest in calls]
            )
        assert found[0] == found[1] != [], name
