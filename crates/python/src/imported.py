"""The files of what was imported that somebody may edit."""

from __future__ import annotations

import sys
import sysconfig

MOST = 2000
"""So many files are told at most."""

INSTALLED = ("/site-packages/", "/dist-packages/")


def files() -> str:
    """The paths of modules that belong neither to Python nor to an installed package, one to a line."""
    places = ("stdlib", "platstdlib", "purelib", "platlib")
    library = tuple(f"{sysconfig.get_path(place)}/" for place in places if sysconfig.get_path(place))
    found: set[str] = set()
    # While this looks, another thread may import something.
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if (
            isinstance(path, str)
            and path.endswith(".py")
            and path.startswith("/")
            and "\n" not in path
            and not path.startswith(library)
            and not any(part in path for part in INSTALLED)
        ):
            found.add(path)
    return "\n".join(sorted(found)[:MOST])
