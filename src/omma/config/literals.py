"""Config files that are Python, read as data: assignments of plain values; nothing in them is run."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omma.errors import ConfigError

BASE, DELETE = "_base_", "_delete_"
_SIGNS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}
_HARMLESS = (ast.Import, ast.ImportFrom, ast.Pass)


@dataclass(frozen=True)
class Unreadable:
    """A value that would have to be run to be known.

    Args:
        text: its source.
        line: where it stands.
    """

    text: str
    line: int


class _UnreadableError(Exception):
    """An expression is no plain value."""


def read_assignments(file: Path) -> dict[str, Any]:
    """The names that a Python config file assigns at its top level, with their values.

    Read are numbers, texts, f-texts of earlier names, lists, tuples, dicts, `dict(...)`, earlier names, their
    elements, and sums and products. Files named by `_base_` are read first; a dict goes into theirs key by
    key, or replaces it with `_delete_=True`.

    Args:
        file: the config.

    Returns:
        name -> value; `Unreadable` in place of a value that is none of these.

    Raises:
        ConfigError: the file or one of its bases is missing, no Python, or does more than assign.
    """
    return _read(file, [])


def _read(file: Path, above: list[Path]) -> dict[str, Any]:
    if file.resolve() in above:
        raise ConfigError(f"{file}: {BASE} leads back to itself")
    own = _own_assignments(file)
    bases = own.pop(BASE, [])
    values: dict[str, Any] = {}
    for base in [bases] if isinstance(bases, str) else bases:
        path = file.parent / str(base)
        if not path.is_file():
            raise ConfigError(f"{file}: {BASE} names {base}, which is not there", "copy it to that place too")
        values = _merge(values, _read(path, [*above, file.resolve()]))
    return _merge(values, own)


def _own_assignments(file: Path) -> dict[str, Any]:
    try:
        tree = ast.parse(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such config file") from None
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise ConfigError(f"{file}{line}: cannot be read as Python: {error.args[0]}") from None
    names: dict[str, Any] = {}
    for statement in tree.body:
        target = _target(statement)
        if target is not None:
            names[target] = _value(statement.value, names)  # type: ignore[attr-defined]
        elif not isinstance(statement, _HARMLESS) and not _is_text(statement):
            shown = ast.unparse(statement).splitlines()[0]
            raise ConfigError(
                f"{file}, line {statement.lineno}: `{shown}` is not read",
                "this file is read as data, not run: only `name = value` may stand here",
            )
    return names


def _target(statement: ast.stmt) -> str | None:
    """The name of `name = value` and `name: type = value`."""
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target: ast.expr = statement.targets[0]
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        target = statement.target
    else:
        return None
    return target.id if isinstance(target, ast.Name) else None


def _is_text(statement: ast.stmt) -> bool:
    """A docstring."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:
    """The value of an expression; parts of a dict or list that cannot be known are `Unreadable` alone."""
    if isinstance(node, (ast.List, ast.Tuple)) and not any(isinstance(e, ast.Starred) for e in node.elts):
        items = [_value(element, names) for element in node.elts]
        return tuple(items) if isinstance(node, ast.Tuple) else items
    if isinstance(node, ast.Dict) and all(key is not None for key in node.keys):
        pairs = zip(node.keys, node.values, strict=True)
        return {_key(key, names): _value(value, names) for key, value in pairs}
    if _is_dict_call(node):
        assert isinstance(node, ast.Call)
        return {str(item.arg): _value(item.value, names) for item in node.keywords}
    try:
        return _plain(node, names)
    except (_UnreadableError, TypeError, KeyError, IndexError, ArithmeticError):
        return Unreadable(ast.unparse(node), node.lineno)


def _key(node: ast.expr | None, names: Mapping[str, Any]) -> str:
    assert node is not None
    return str(_value(node, names))


def _is_dict_call(node: ast.expr) -> bool:
    """`dict(a=1)`; positional words and `**other` are not read."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "dict"
        and not node.args
        and all(item.arg for item in node.keywords)
    )


def _plain(node: ast.expr, names: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name) and node.id in names:
        return _known(names[node.id])
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_plain(node.operand, names)
    if isinstance(node, ast.BinOp) and type(node.op) in _SIGNS:
        return _SIGNS[type(node.op)](_plain(node.left, names), _plain(node.right, names))
    if isinstance(node, ast.Subscript):
        return _known(_plain(node.value, names)[_plain(node.slice, names)])
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part, names) for part in node.values)
    raise _UnreadableError


def _text(node: ast.expr, names: Mapping[str, Any]) -> str:
    """A part of an f-text."""
    if isinstance(node, ast.FormattedValue):
        if node.format_spec is not None or node.conversion != -1:
            raise _UnreadableError
        return str(_plain(node.value, names))
    return str(_plain(node, names))


def _known(value: Any) -> Any:
    if isinstance(value, Unreadable):
        raise _UnreadableError
    return value


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        if isinstance(value, dict):
            replaces = value.get(DELETE) or not isinstance(old, dict)
            plain = {name: item for name, item in value.items() if name != DELETE}
            value = plain if replaces else _merge(old, plain)  # type: ignore[arg-type]
        result[key] = value
    return result
