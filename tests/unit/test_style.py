"""Ceilings that keep the code readable at a glance."""

import ast
from pathlib import Path

import omma

PACKAGE = Path(omma.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
FUNCTION_LINES = 80
FILE_LINES = {"model.py": 600}


def _functions(file: Path):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_no_file_is_too_long():
    lengths = {f: len(f.read_text(encoding="utf-8").splitlines()) for f in FILES}
    assert {str(f): n for f, n in lengths.items() if n > FILE_LINES.get(f.name, 400)} == {}


def test_no_function_is_too_long():
    long = [
        f"{file.name}:{node.lineno} {node.name}"
        for file in FILES
        for node in _functions(file)
        if node.end_lineno - node.lineno + 1 > FUNCTION_LINES
    ]
    assert long == []


def test_every_function_is_annotated():
    bare = [
        f"{file.name}:{node.lineno} {node.name}"
        for file in FILES
        for node in _functions(file)
        if node.returns is None and not (node.name == "__init__" and node.args.args)
    ]
    assert bare == []


def test_open_always_names_its_encoding():
    """UTF-8 everywhere: on Windows the default is another."""
    missing = []
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            keywords = {keyword.arg for keyword in node.keywords}
            if name in {"read_text", "write_text"} and "encoding" not in keywords:
                missing.append(f"{file.name}:{node.lineno}")
    assert missing == []
