"""The parts of `RESULTS.md`: each program replaces its own and leaves the others."""

from __future__ import annotations

from pathlib import Path


def replace(path: Path, name: str, text: str) -> None:
    """Puts `text` between the marks of this name; at the end, with marks, where there are none."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    part = f"{begin}\n\n{text.strip()}\n\n{end}\n"
    whole = path.read_text() if path.exists() else ""
    before, found, rest = whole.partition(begin)
    _, closed, after = rest.partition(end)
    if found and closed:
        # As it was, the line's end with it.
        path.write_text(before + part.rstrip("\n") + after)
    else:
        path.write_text(f"{whole.rstrip()}\n\n{part}".lstrip())
