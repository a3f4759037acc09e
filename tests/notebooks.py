"""Runs the code cells of a notebook without Jupyter, as its test does, and keeps what they show.

`python -m tests.notebooks FILE.ipynb` runs one in the working folder and writes its outputs into the file.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

Cell = dict[str, Any]
WIDEST = 760  # pixels of a kept picture


def read(file: Path) -> dict[str, Any]:
    """A notebook's content."""
    return json.loads(file.read_text(encoding="utf-8"))


def run(notebook: dict[str, Any], parameters: str | None = None) -> dict[str, Any]:
    """Run all code cells in order and set their outputs.

    Args:
        notebook: changed in place.
        parameters: source in place of the cell that is tagged "parameters".

    Returns:
        the names that the cells have defined.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(code, 1):
        source = "".join(cell["source"])
        if parameters is not None and "parameters" in cell["metadata"].get("tags", ()):
            source = parameters
        cell["outputs"] = _run_cell(source, f"cell {number}", names)
        cell["execution_count"] = number
        for output in cell["outputs"]:
            if output["output_type"] == "execute_result":
                output["execution_count"] = number
    return names


def _run_cell(source: str, place: str, names: dict[str, Any]) -> list[Cell]:
    """What a cell prints, and the value of its last line if that is an expression."""
    tree = ast.parse(source, place)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, place, "exec"), names)
        value = eval(compile(ast.Expression(last.value), place, "eval"), names) if last else None
    text = printed.getvalue()
    outputs: list[Cell] = [{"output_type": "stream", "name": "stdout", "text": _lines(text)}] if text else []
    if value is not None:
        outputs.append({"output_type": "execute_result", "metadata": {}, "data": _shown(value)})
    return outputs


def _shown(value: Any) -> dict[str, Any]:
    """As Jupyter shows a value: its picture if it has one, and its text."""
    picture = value._repr_png_() if hasattr(value, "_repr_png_") else _figure(value)
    data: dict[str, Any] = {"text/plain": _lines(repr(value))}
    return {**data, "image/jpeg": _small(picture)} if picture else data


def _figure(value: Any) -> bytes | None:
    """A matplotlib figure as a picture; Jupyter adds this to the class."""
    if not hasattr(value, "savefig"):
        return None
    stream = io.BytesIO()
    value.savefig(stream, format="png", dpi=90)
    return stream.getvalue()


def _small(png: bytes) -> str:
    """A picture as a JPEG of moderate size: notebooks lie in the repository."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.thumbnail((WIDEST, 4 * WIDEST))
    stream = io.BytesIO()
    picture.save(stream, format="JPEG", quality=75, optimize=True)
    return base64.b64encode(stream.getvalue()).decode()


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def main(files: Sequence[str]) -> None:
    """Run notebooks and write their outputs."""
    for name in files:
        notebook = read(Path(name))
        run(notebook)
        text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
        Path(name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
