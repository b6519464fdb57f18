"""The command line once more: in the place of another program, and in the processes that it starts."""

from __future__ import annotations

import os
import sys

# Each process of the gateway begins here, and few need what `typing` brings along: a megabyte.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

SWITCHES = ("bytes_warning", "isolated", "no_site", "no_user_site", "optimize", "verbose")
"""What `sys.flags` has of the interpreter's flags, where it is not zero (`sys._xoptions` has the others)."""


def command() -> list[str]:
    """Give the command of further processes: with the interpreter's flags, under the debugger of this one.

    The debuggers of VS Code (debugpy) and PyCharm change the commands of what Python itself starts, so that
    breakpoints hold there; the gateway's processes are started by other means. Both debuggers do it by the
    same function.
    """
    debugger = _debugger()
    if debugger is None or not _is_followed():
        return [sys.executable, *_flags(), "-m", "hawksbill"]
    flags = _flags()
    if sys.version_info >= (3, 11) and "frozen_modules" not in sys._xoptions:
        # Without it a debugger warns of what it may miss, in each process.
        flags += ["-X", "frozen_modules=off"]
    # Its last word is the module, so that arguments can follow.
    return list(debugger.patch_args([sys.executable, *flags, "-m", "hawksbill"]))


def become(arguments: list[str]) -> NoReturn:
    """Go on as ``hawksbill ARGUMENTS``."""
    if _debugger() is None:
        os.execv(sys.executable, [sys.executable, *_flags(), "-m", "hawksbill", *arguments])
    # Whoever waits for an editor to come is gone with the process, so it stays.
    from .__main__ import main

    sys.exit(main(arguments))


def _debugger() -> Any:
    return sys.modules.get("_pydev_bundle.pydev_monkey")


def _is_followed() -> bool:
    """Whether the debugger is to follow processes: "subProcess" in VS Code, a setting in PyCharm."""
    import importlib

    try:
        setup = importlib.import_module("pydevd").SetupHolder.setup or {}
    except (ImportError, AttributeError):
        return False
    # The one name is debugpy's, the other PyCharm's.
    return any(setup.get(name) for name in ("multiprocess", "multiproc"))


def _flags() -> list[str]:
    """Give the interpreter's own flags, such as ``-X dev`` and ``-W error``, again."""
    if not (sys.warnoptions or sys._xoptions or any(getattr(sys.flags, name) for name in SWITCHES)):
        # The usual case, in which the supervisor needs nothing of subprocess.
        return []
    import subprocess

    return subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined, no-any-return]
