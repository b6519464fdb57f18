"""The ``hawksbill`` command, also as ``python -m hawksbill``."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys

from . import _core


def main() -> int:
    """Run the command line and return its exit code."""
    arguments = sys.argv[1:]
    if arguments == ["_worker"]:
        # A crash in an extension module shows where it was called.
        faulthandler.enable()
        if not getattr(sys.flags, "safe_path", False):
            # The working directory, which `-m` puts first: applications are imported from their own.
            del sys.path[0]
        # What the supervisor says to this process is not for programs that the application starts.
        arguments += [os.environ.pop(name) for name in ["HAWKSBILL_DESCRIPTORS"] if name in os.environ]
    # The gateway drains on SIGINT by itself; before it serves, Ctrl-C simply ends the program.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return _core.main(["hawksbill", *arguments])


if __name__ == "__main__":
    sys.exit(main())
