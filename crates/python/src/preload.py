"""Looks whether what an application has made while it was imported outlives a fork, and prepares for one."""

from __future__ import annotations

import gc
import os
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

PATIENCE = 2.0
"""How long threads that are about to end may take, in seconds."""

_before: set[str] = set()
"""The sockets that were there before the import, as `/proc` names them."""


def begin() -> None:
    """Notes what is there before anything is imported."""
    _before.update(_sockets())


def settle() -> str | None:
    """Says why the process must not be forked; else prepares it."""
    _close_connections_of_django()
    # What nobody needs is not to be kept for ever, by each worker.
    gc.collect()
    wrong = _threads() or _event_loops() or _connections()
    if wrong:
        return wrong
    # Objects that the collector never looks at again stay shared.
    gc.freeze()
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        # What is in a buffer would be written by each worker.
        with suppress(Exception):
            if stream is not None:
                stream.flush()
    return None


def check() -> str | None:
    """Says why the process must not be forked as it is now."""
    return _threads()


def _threads() -> str | None:
    deadline = time.monotonic() + PATIENCE
    others = _tasks()
    while others and time.monotonic() < deadline:
        # A thread that was waited for is still there for a moment.
        time.sleep(0.005)
        others = _tasks()
    if not others:
        return None
    names = sorted(thread.name for thread in threading.enumerate() if thread is not threading.main_thread())
    foreign = len(others) - len(names)
    if foreign > 0:
        names.append(f"{foreign} of native code, such as numpy's: OPENBLAS_NUM_THREADS=1 in env")
    count = "a thread" if len(others) == 1 else f"{len(others)} threads"
    return (
        f"the application started {count} while it was imported ({', '.join(names)}); threads do not survive "
        "a fork: start them later, with the first request or when the application starts, or remove preload"
    )


def _tasks() -> list[str]:
    """The numbers of all threads but this one."""
    own = str(threading.get_native_id())
    return [task for task in os.listdir("/proc/self/task") if task != own]


def _event_loops() -> str | None:
    """Loops have descriptors of the kernel's, which all workers would share."""
    events = sys.modules.get("asyncio.events")
    if events is None:
        return None
    for found in _instances(events.AbstractEventLoop):
        with suppress(Exception):
            if not found.is_closed():
                kind = type(found)
                return (
                    f"the application made an event loop ({kind.__module__}.{kind.__qualname__}) while it "
                    "was imported, which forked workers would share: make it where it runs, or remove preload"
                )
    return None


def _close_connections_of_django() -> None:
    """Closes what looking at the database at import has opened; it is opened again when it is needed."""
    base = sys.modules.get("django.db.backends.base.base")
    if base is None:
        return
    for wrapper in _instances(base.BaseDatabaseWrapper):
        if getattr(wrapper, "connection", None) is None:
            continue
        with suppress(Exception):
            # It belongs to the thread that has imported.
            wrapper.inc_thread_sharing()
            try:
                wrapper.close()
            finally:
                wrapper.dec_thread_sharing()


def _connections() -> str | None:
    """Two processes that write to one connection make nonsense of it."""
    for name in sorted(_sockets() - _before):
        with suppress(OSError, ValueError):
            peer = _peer(int(name.partition(" ")[0]))
            if peer is not None:
                return (
                    f"the application holds an open connection ({peer}) after it was imported, to which all "
                    "forked workers would write: open it when it is needed, or remove preload"
                )
    return None


def _peer(number: int) -> str | None:
    """To whom a descriptor is connected, if it is a stream; datagrams of several processes do not mix."""
    with socket.socket(fileno=os.dup(number)) as found:
        if found.type != socket.SOCK_STREAM:
            return None
        # Raises where it is not connected.
        address: Any = found.getpeername()
    if isinstance(address, tuple):
        return f"to {address[0]} port {address[1]}"
    path = address.decode(errors="replace") if isinstance(address, bytes) else address
    return f"to {path}" if path else "a pair of sockets"


def _sockets() -> set[str]:
    """The open sockets: descriptor and what `/proc` says of it."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            target = os.readlink(Path("/proc/self/fd") / name)
            if target.startswith("socket:"):
                found.add(f"{name} {target}")
    return found


def _instances(kind: type) -> list[Any]:
    """All objects of a class. Their types are asked and not they: what is lazy stays so."""
    return [found for found in gc.get_objects() if issubclass(type(found), kind)]
