"""The ``hawksbill`` command, also as ``python -m hawksbill``."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys

from . import _again, _core


def main(arguments: list[str] | None = None) -> int:
    """Run the command line, by default that of this process, and return its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments == ["_worker"]:
        # A crash in an extension module shows where it was called.
        faulthandler.enable()
        if not getattr(sys.flags, "safe_path", False) and _is_here(sys.path[0]):
            # The working directory, which `-m` puts first: applications are imported from their own. Under a
            # debugger something else may stand there.
            del sys.path[0]
        # What the supervisor says to this process is not for programs that the application starts.
        arguments += [os.environ.pop(name) for name in ["HAWKSBILL_DESCRIPTORS"] if name in os.environ]
    # The gateway drains on SIGINT by itself; before it serves, Ctrl-C simply ends the program.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return _core.main(["hawksbill", *arguments], _again.command())


def _is_here(path: str) -> bool:
    try:
        return os.path.samefile(path or ".", ".")
    except OSError:
        # A working directory that was removed has no other name.
        return not os.path.isdir(path)


if __name__ == "__main__":
    sys.exit(main())
