"""The ``hawksbill`` command, also as ``python -m hawksbill``."""

from __future__ import annotations

import signal
import sys

from . import _core


def main() -> int:
    """Run the command line and return its exit code."""
    # The gateway drains on SIGINT by itself; before it serves, Ctrl-C simply ends the program.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return _core.main(["hawksbill", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
