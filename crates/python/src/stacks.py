"""The stacks of all Python threads, and of what waits on the event loops, as text.

It runs on a thread of its own while the others go on, and may find them anywhere.
"""

from __future__ import annotations

import os.path
import sys
import threading
import traceback
import weakref
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any

MOST_FRAMES = 50
"""The most frames of a stack that are shown, the innermost ones."""
MOST_TASKS = 100
"""The most tasks of an event loop that are shown."""

_loops: list[weakref.ref[Any]] = []


def know(loop: Any) -> None:
    """Has the tasks of a loop shown from now on, as long as the loop is there."""
    _loops[:] = [other for other in _loops if other() is not None]
    _loops.append(weakref.ref(loop))


def threads(names: dict[int, str]) -> str:
    """The stacks of all threads but this one; `names` knows those that Python did not start."""
    here = threading.get_ident()
    # Not `threading.enumerate()`: whoever hangs may hold its lock.
    python = {ident: thread.name for ident, thread in list(getattr(threading, "_active", {}).items())}
    shown = []
    for ident, frame in sys._current_frames().items():
        if ident == here:
            continue
        name = names.get(ident) or python.get(ident) or str(ident)
        shown.append(f"thread {name}:\n{_show(_outermost_first(frame))}")
    return "".join(shown)


def tasks() -> str:
    """The stacks of the tasks of all loops that are known."""
    shown = []
    asyncio = sys.modules.get("asyncio")
    for known in list(_loops):
        loop = known()
        if loop is None or asyncio is None or loop.is_closed():
            continue
        found = list(asyncio.all_tasks(loop))
        shown += [f"task {each.get_name()}:\n{task(each)}" for each in found[:MOST_TASKS]]
        if len(found) > MOST_TASKS:
            shown.append(f"{len(found) - MOST_TASKS} further tasks\n")
    return "".join(shown)


def task(waiting: Any) -> str:
    """Where a task waits, from what it runs to what that awaits."""
    return _show(_awaited(waiting.get_coro()))


def thread_at(ident: int) -> tuple[str, str]:
    """The stack of one thread, and its innermost line that is no library's."""
    return _at(_outermost_first(sys._current_frames().get(ident)))


def task_at(waiting: Any) -> tuple[str, str]:
    """Where a task waits, and the innermost line there that is no library's."""
    return _at(list(_awaited(waiting.get_coro())))


def _at(frames: list[FrameType]) -> tuple[str, str]:
    if not frames:
        return "", ""
    own = [frame for frame in frames if not _is_library(frame.f_code.co_filename)]
    frame = (own or frames)[-1]
    line = frame.f_lineno or frame.f_code.co_firstlineno
    return _show(frames), f"{frame.f_code.co_filename}:{line} in {frame.f_code.co_name}"


def _is_library(file: str) -> bool:
    # `os` stands where the standard library does.
    library = os.path.dirname(os.__file__)
    return file.startswith((library, "<")) or "site-packages" in file or "dist-packages" in file


def _outermost_first(frame: FrameType | None) -> list[FrameType]:
    frames: list[FrameType] = []
    while frame is not None and len(frames) < MOST_FRAMES:
        frames.append(frame)
        frame = frame.f_back
    return frames[::-1]


def _awaited(awaitable: Any) -> Iterator[FrameType]:
    for _ in range(MOST_FRAMES):
        for frame, then in (
            ("cr_frame", "cr_await"),
            ("gi_frame", "gi_yieldfrom"),
            ("ag_frame", "ag_await"),
        ):
            found = getattr(awaitable, frame, None)
            if found is not None:
                yield found
                awaitable = getattr(awaitable, then, None)
                break
        else:
            return


def _show(frames: Iterable[FrameType]) -> str:
    # A frame that has just been left has no line.
    lines = ((frame, frame.f_lineno or frame.f_code.co_firstlineno) for frame in frames)
    return "".join(traceback.StackSummary.extract(lines).format())
