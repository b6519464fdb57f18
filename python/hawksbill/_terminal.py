"""The output of a process that serves for somebody who develops: as the project writes it, and no log."""

from __future__ import annotations

import sys


def speak_plainly() -> None:
    """Print what the project prints, and what it logs, as it is."""
    plain = open(1, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.stdout = sys.stderr = plain
