"""A debugger in a worker, used by a person at a real terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import subprocess
import termios
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import httpx
import pytest
from harness import COMMAND, READY, fetch
from watching import PATIENCE, until

WSGI = """
def application(environ, start_response):
    x = 41
    breakpoint()
    start_response("200 OK", [])
    return [f"the answer is {x}".encode()]
"""

ASGI = """
async def application(scope, receive, send):
    assert scope["type"] == "http"
    x = 41
    breakpoint()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": f"the answer is {x}".encode()})
"""

PROMPT = r"\(Pdb\) $"


def take_terminal() -> None:
    """Has standard input be what the keyboard of this session is."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def start(dir: Path, screen: int) -> subprocess.Popen[bytes]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HAWKSBILL_")}
    return subprocess.Popen(
        [*COMMAND, "run", "main", "--reload", "--listen", "127.0.0.1:0"],
        stdin=screen,
        stdout=screen,
        stderr=screen,
        cwd=dir,
        env={**kept, "TERM": "dumb"},
        start_new_session=True,
        preexec_fn=take_terminal,
    )


class Terminal:
    """A gateway in development at a terminal of its own."""

    def __init__(self, dir: Path) -> None:
        self._dir = dir
        self._text = ""
        self._changed = threading.Condition()

    def __enter__(self) -> Terminal:
        self._keyboard, self.screen = pty.openpty()
        self.process = start(self._dir, self.screen)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.base = self.wait_for(READY.pattern)["url"]
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.wait(PATIENCE)
            os.close(self.screen)
            self._reader.join(PATIENCE)
            os.close(self._keyboard)

    def type(self, text: str) -> None:
        os.write(self._keyboard, text.encode())

    def wait_for(self, pattern: str, after: int = 0) -> re.Match[str]:
        """Waits until what was shown since then matches."""
        deadline = time.monotonic() + PATIENCE
        with self._changed:
            while True:
                found = re.compile(pattern, re.MULTILINE).search(self._text, after)
                if found:
                    return found
                left = deadline - time.monotonic()
                assert left > 0, f"{pattern!r} was not shown:\n{self._text}"
                self._changed.wait(left)

    def _read(self) -> None:
        # The end of a terminal is an error.
        with suppress(OSError):
            while piece := os.read(self._keyboard, 65536):
                with self._changed:
                    self._text += piece.decode(errors="replace").replace("\r\n", "\n")
                    self._changed.notify_all()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


def ask(terminal: Terminal) -> str:
    """The answer; what becomes of the connection, where there is none."""
    try:
        return fetch(terminal.base, timeout=120).text
    except httpx.TransportError as error:
        return type(error).__name__


def stop_at_prompt(terminal: Terminal, threads: ThreadPoolExecutor) -> tuple[Future[str], int]:
    answer = threads.submit(ask, terminal)
    return answer, terminal.wait_for(PROMPT).end()


@pytest.mark.parametrize("app", [WSGI, ASGI], ids=["wsgi", "asgi"])
def test_a_breakpoint_is_stopped_at_and_gone_on_from(
    tmp_path: Path, threads: ThreadPoolExecutor, app: str
) -> None:
    (tmp_path / "main.py").write_text(app)
    with Terminal(tmp_path) as terminal:
        answer, at = stop_at_prompt(terminal, threads)
        terminal.type("p x + 100\n")
        at = terminal.wait_for(r"^141\n\(Pdb\) $", at).end()
        terminal.type("x = 42\n")
        at = terminal.wait_for(r"\(Pdb\) $", at).end()
        terminal.type("c\n")
        assert answer.result(PATIENCE) == "the answer is 42"


@pytest.mark.parametrize("app", [WSGI, ASGI], ids=["wsgi", "asgi"])
def test_an_interrupt_ends_the_gateway_while_a_debugger_waits(
    tmp_path: Path, threads: ThreadPoolExecutor, app: str
) -> None:
    (tmp_path / "main.py").write_text(app)
    with Terminal(tmp_path) as terminal:
        before = termios.tcgetattr(terminal.screen)
        stop_at_prompt(terminal, threads)
        terminal.type("\x03")
        assert terminal.process.wait(PATIENCE) == 0
        # Whoever types next sees it.
        assert termios.tcgetattr(terminal.screen) == before


def test_a_save_is_live_while_a_debugger_waits(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    (tmp_path / "main.py").write_text(WSGI)
    with Terminal(tmp_path) as terminal:
        stop_at_prompt(terminal, threads)
        (tmp_path / "main.py").write_text(WSGI.replace("breakpoint()", "print('no', 'halt')"))
        terminal.wait_for("the new generation serves")
        # It is said a moment before the front hears of it; who asks in between meets the former breakpoint.
        until(lambda: ask(terminal) == "the answer is 41")
        # What is printed is shown as it is.
        terminal.wait_for("^no halt$")


def test_a_terminal_that_is_closed_ends_the_gateway(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(WSGI)
    keyboard, screen = pty.openpty()
    process = start(tmp_path, screen)
    os.close(screen)
    try:
        shown = ""
        while not READY.search(shown.replace("\r\n", "\n")):
            shown += os.read(keyboard, 65536).decode()
        os.close(keyboard)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait(PATIENCE)
