"""What Python writes and logs in a worker, for the one log of the gateway."""

from __future__ import annotations

import io
import logging
import sys
import threading
from collections.abc import Callable
from typing import Any, TextIO

MOST = 32 * 1024
"""So many characters are kept of a line that has not come to its end."""


class Stream(io.TextIOBase):
    """Stands for standard output or standard error: whole lines go to the log, each thread's for itself.

    What is written past it, through `buffer` or `fileno()`, goes where it always went.
    """

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, name: str, real: TextIO, say: Callable[[str, str], None]) -> None:
        self.name = f"<{name}>"
        self._stream = name
        self._real = real
        self._say = say
        self._pending: dict[int, list[str]] = {}

    @property
    def buffer(self) -> Any:
        return self._real.buffer

    def fileno(self) -> int:
        return self._real.fileno()

    def isatty(self) -> bool:
        return False

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        pieces = self._pending.setdefault(threading.get_ident(), [])
        pieces.append(text)
        if text.endswith("\n") or len(text) > MOST or len(pieces) > MOST:
            self.flush()
        return len(text)

    def flush(self) -> None:
        pieces = self._pending.pop(threading.get_ident(), None)
        if pieces:
            self._say(self._stream, "".join(pieces))


class Handler(logging.Handler):
    """Hands the records of `logging` to the log, but for those that another handler writes there anyway."""

    def __init__(self, log: Callable[[int, str, str], None]) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if not self._is_written(record):
                self._log(record.levelno, record.name, self.format(record))
        except Exception:
            self.handleError(record)

    def _is_written(self, record: logging.LogRecord) -> bool:
        logger: logging.Logger | None = logging.getLogger(record.name)
        while logger is not None:
            for handler in logger.handlers:
                if (
                    isinstance(handler, logging.StreamHandler)
                    and isinstance(handler.stream, Stream)
                    and record.levelno >= handler.level
                    and handler.filter(record)
                ):
                    return True
            logger = logger.parent if logger.propagate else None
        return False


def capture(say: Callable[[str, str], None], streams: list[str]) -> None:
    """Has what is printed go to the log."""
    for name in streams:
        real = getattr(sys, name)
        if real is not None:
            setattr(sys, name, Stream(name, real, say))


def join(log: Callable[[int, str, str], None]) -> None:
    """Has what is logged go to the log, where the application has not seen to it."""
    if not isinstance(sys.stderr, Stream):
        # The application prints where it wants, so what Python logs without any handler goes there too.
        return
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(Handler(log))
