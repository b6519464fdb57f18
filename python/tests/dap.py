"""A client of the Debug Adapter Protocol, as little of one as an editor needs to stop a program at a line.

https://microsoft.github.io/debug-adapter-protocol/
"""

from __future__ import annotations

import json
import queue
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

GENEROUS = 60.0
"""Seconds: a machine that is busy with other things is slow, and still right."""

Message = dict[str, Any]
Arguments = dict[str, Any]


class Editor:
    """Where breakpoints are set: one session for each process of the program, as debugpy tells of them."""

    def __init__(self, port: int, breakpoints: dict[Path, list[int]]) -> None:
        self.breakpoints = breakpoints
        self.sessions: list[Session] = []
        self._stops: queue.Queue[Stop] = queue.Queue()
        self._attach({"connect": {"host": "127.0.0.1", "port": port}})

    def __enter__(self) -> Editor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for session in self.sessions:
            session.close()

    def _attach(self, where: Arguments) -> None:
        session = Session(self, where)
        self.sessions.append(session)
        session.begin(where, self.breakpoints)

    def told(self, session: Session, event: Message) -> None:
        """Follow the program into a process of its own, as an editor does."""
        if event["event"] == "debugpyAttach":
            threading.Thread(target=self._attach, args=[event["body"]], daemon=True).start()
        elif event["event"] == "stopped":
            self._stops.put(Stop(session, event["body"]["threadId"]))

    def stopped(self, unless: Callable[[], bool]) -> Stop | None:
        """Wait until the program has stopped, in any of its processes, or something else has come about."""
        deadline = time.monotonic() + GENEROUS
        while time.monotonic() < deadline:
            with suppress(queue.Empty):
                return self._stops.get(timeout=0.05)
            if unless():
                return None
        raise AssertionError(f"it did not stop: {[session.log for session in self.sessions]}")


class Stop:
    """A thread that waits at a breakpoint."""

    def __init__(self, session: Session, thread: int) -> None:
        self.session, self.thread = session, thread

    def top(self) -> Message:
        """The innermost frame."""
        trace = self.session.request("stackTrace", threadId=self.thread, levels=1)
        frame: Message = trace["stackFrames"][0]
        return frame

    def evaluate(self, expression: str) -> str:
        """The value of an expression there."""
        frame = self.top()["id"]
        answer = self.session.request("evaluate", expression=expression, frameId=frame, context="repl")
        return str(answer["result"])

    def go_on(self) -> None:
        self.session.request("continue", threadId=self.thread)


class Session:
    """One connection to the adapter, for one process."""

    def __init__(self, editor: Editor, where: Arguments) -> None:
        self.log: list[Message] = []
        self._editor = editor
        self._count = 0
        self._answers: dict[int, Message] = {}
        self._changed = threading.Condition()
        self._sending = threading.Lock()
        self._socket = _connect(where["connect"])
        threading.Thread(target=self._read, daemon=True).start()

    def begin(self, where: Arguments, breakpoints: dict[Path, list[int]]) -> None:
        """Attach, set the breakpoints, and let the process go on."""
        self.request("initialize", adapterID="debugpy", pathFormat="path", linesStartAt1=True)
        # It is answered when the configuration is done.
        attach = self._send("attach", {**where, "justMyCode": False})
        self._until(lambda: any(one.get("event") == "initialized" for one in self.log))
        for path, lines in breakpoints.items():
            wanted = [{"line": line} for line in lines]
            self.request("setBreakpoints", source={"path": str(path)}, breakpoints=wanted)
        self.request("configurationDone")
        self._answer(attach)

    def request(self, command: str, **arguments: Any) -> Message:
        return self._answer(self._send(command, arguments))

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _send(self, command: str, arguments: Arguments) -> int:
        with self._sending:
            self._count += 1
            message = {"seq": self._count, "type": "request", "command": command, "arguments": arguments}
            text = json.dumps(message).encode()
            self._socket.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(text), text))
            return self._count

    def _answer(self, number: int) -> Message:
        self._until(lambda: number in self._answers)
        answer = self._answers[number]
        assert answer["success"], answer
        body: Message = answer.get("body") or {}
        return body

    def _until(self, what: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(what, GENEROUS), f"the adapter did not say it: {self.log}"

    def _read(self) -> None:
        # What is closed has nothing more to say.
        with suppress(OSError, ValueError), self._socket.makefile("rb") as stream:
            while header := stream.readline():
                length = int(header.split(b":")[1])
                stream.readline()
                self._take(json.loads(stream.read(length)))

    def _take(self, message: Message) -> None:
        with self._changed:
            self.log.append(message)
            if message["type"] == "response":
                self._answers[message["request_seq"]] = message
            self._changed.notify_all()
        if message["type"] == "event":
            self._editor.told(self, message)


def _connect(where: Message) -> socket.socket:
    """The debugger listens once the program has come so far."""
    deadline = time.monotonic() + GENEROUS
    while True:
        try:
            connection = socket.create_connection((where["host"], where["port"]), timeout=GENEROUS)
            connection.settimeout(None)
            return connection
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, f"nobody listens at {where}"
            time.sleep(0.05)
