"""Threads of the gateway, as debuggers and tools like coverage know those of Python."""

from __future__ import annotations

import sys


def begin(name: str) -> None:
    """Do what `threading.Thread` does when it begins, if there is anybody for whom it matters.

    The functions of `threading.settrace` and `threading.setprofile` are set here as they are for Python's own
    threads. pydevd, the debugger of VS Code and PyCharm, stops in no thread that `threading` does not list.
    """
    threading = sys.modules.get("threading")
    if threading is None:
        return
    trace, profile = threading.gettrace(), threading.getprofile()
    if trace is None and profile is None and "pydevd" not in sys.modules:
        return
    thread = threading.current_thread()
    if thread is not threading.main_thread():
        thread.name = name
    if profile is not None and sys.getprofile() is None:
        sys.setprofile(profile)
    if trace is not None and sys.gettrace() is None:
        sys.settrace(trace)
