"""Findings as text, the same in `omma doctor` and `omma diagnose`."""

from __future__ import annotations

import textwrap

from omma.errors import Finding

_MARK = {"ok": "ok     ", "info": "info   ", "warning": "WARNING", "error": "ERROR  "}
_INDENT = " " * 9
_SHORT = 100  # characters of a title with its evidence that stay on one line


def finding_text(finding: Finding, width: int | None = None) -> str:
    """Severity and title, then evidence, fix and picture on lines of their own; short good news on one.

    Args:
        finding: what was found.
        width: columns to wrap at; none leaves lines as long as they are.
    """
    title, evidence = finding.title, finding.evidence
    if finding.severity == "ok" and evidence and len(title) + len(evidence) <= _SHORT:
        title, evidence = f"{title}: {evidence}", ""
    todo = "fix" if finding.severity in ("warning", "error") else "hint"
    lines = [f"{_MARK[finding.severity]}  {title}"]
    lines += [f"{_INDENT}{evidence}"] if evidence else []
    lines += [f"{_INDENT}{todo}: {finding.fix}"] if finding.fix else []
    lines += [f"{_INDENT}picture: {finding.figure}"] if finding.figure else []
    return "\n".join(part for line in lines for part in _wrapped(line, width))


def _wrapped(line: str, width: int | None) -> list[str]:
    """A line that may hold a path or a command, which stay whole."""
    if width is None or len(line) <= width:
        return [line]
    return textwrap.wrap(
        line, width, subsequent_indent=_INDENT, break_long_words=False, break_on_hyphens=False
    )


def summary_text(findings: list[Finding]) -> str:
    """How many errors and warnings there are."""
    counts = {word: sum(one.severity == word for one in findings) for word in ("error", "warning")}
    told = [f"{number} {word}{'s' * (number > 1)}" for word, number in counts.items() if number]
    return ", ".join(told) or "nothing is wrong"
