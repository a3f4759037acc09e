"""Findings as text, the same in `omma doctor` and `omma diagnose`."""

from __future__ import annotations

from omma.errors import Finding

_MARK = {"ok": "ok     ", "info": "info   ", "warning": "WARNING", "error": "ERROR  "}


def finding_text(finding: Finding) -> str:
    """Severity and title, then evidence, fix and picture on lines of their own."""
    lines = [f"{_MARK[finding.severity]}  {finding.title}"]
    lines += [f"         {finding.evidence}"] if finding.evidence else []
    lines += [f"         fix: {finding.fix}"] if finding.fix else []
    lines += [f"         picture: {finding.figure}"] if finding.figure else []
    return "\n".join(lines)
