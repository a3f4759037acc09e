"""The command blocks of the documentation, and the small stand-ins for what they name."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    "README.md",
    "README.ko.md",
    "README.zh.md",
    "CONTRIBUTING.md",
    *sorted(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md")),
    *sorted(file.relative_to(ROOT).as_posix() for file in (ROOT / "src/omma/systems").glob("*/README.md")),
]
_FENCE = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]*) -->\n)?^```(?P<kind>\w*)[^\n]*\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Args:
        kind: word after the fence, such as bash.
        text: its content.
        reason: why it is not run; empty if it is.
    """

    kind: str
    text: str
    reason: str

    def commands(self) -> list[list[str]]:
        """The words of each command line; lines that end with a backslash go on."""
        lines = self.text.replace("\\\n", " ").splitlines()
        if self.kind == "console":
            lines = [line[2:] for line in lines if line.startswith("$ ")]
        words = [shlex.split(line, comments=True) for line in lines]
        return [["omma", *line[1:]] if line[0].endswith("/omma") else line for line in words if line]


def blocks(page: str) -> list[Block]:
    """All fenced blocks of a page, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [Block(m["kind"], m["text"], m["reason"] or "") for m in _FENCE.finditer(text)]
