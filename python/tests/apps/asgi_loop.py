"""What applications do with the event loop that they run in, one path each; the answer is JSON or text."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

MARK: contextvars.ContextVar[str] = contextvars.ContextVar("MARK", default="nobody")
EVENTS: list[str] = []
PAUSE: list[float] = []


async def loop() -> object:
    """Which loop it is, and that it knows itself."""
    running = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    assert task in asyncio.all_tasks()
    assert not task.done()
    return {
        "loop": f"{type(running).__module__}.{type(running).__name__}",
        "selector": isinstance(running, asyncio.SelectorEventLoop),
        "debug": running.get_debug(),
        "running": running.is_running(),
    }


async def sleep() -> object:
    """How long ten milliseconds are."""
    before = time.perf_counter()
    await asyncio.sleep(0.01)
    return time.perf_counter() - before


async def timeout() -> object:
    """A wait that is given up."""
    try:
        await asyncio.wait_for(asyncio.Event().wait(), 0.02)
    except asyncio.TimeoutError:
        pass
    else:
        return "no timeout"
    if sys.version_info >= (3, 11):
        try:
            async with asyncio.timeout(0.02):
                await asyncio.sleep(10)
        except TimeoutError:
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
        else:
            return "no timeout"
    return "given up"


async def timeout_at_once() -> object:
    """A timeout in the first step of a task, which never leaves it."""
    if sys.version_info >= (3, 11):
        async with asyncio.timeout(10):
            pass
    return "in time"


async def group() -> object:
    """Tasks of one's own, in the order in which they were made."""

    async def work(number: int) -> int:
        await asyncio.sleep(0)
        return number

    if sys.version_info < (3, 11):
        return list(await asyncio.gather(*(work(number) for number in range(5))))
    async with asyncio.TaskGroup() as tasks:
        made = [tasks.create_task(work(number)) for number in range(5)]
    return [task.result() for task in made]


async def group_fails() -> object:
    """One of a group fails: the others are cancelled, the request goes on."""
    if sys.version_info < (3, 11):
        return "cancelled"
    cancelled = False

    async def patient() -> None:
        nonlocal cancelled
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            cancelled = True
            raise

    async def hasty() -> None:
        raise ValueError("as expected")

    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(patient())
            await asyncio.sleep(0)
            tasks.create_task(hasty())
    except ExceptionGroup:  # noqa: F821
        return "cancelled" if cancelled else "not cancelled"
    return "no failure"


async def same_task() -> object:
    """The task of the first step is the task of all of them, whoever looked first."""
    first = asyncio.current_task()
    assert first is not None
    name = first.get_name()
    await asyncio.sleep(0)
    await asyncio.sleep(0.001)
    return [asyncio.current_task() is first, first.get_name() == name, "application" in repr(first)]


async def late_look() -> object:
    """Nobody looks before the first wait."""
    await asyncio.sleep(0)
    task = asyncio.current_task()
    assert task is not None
    return [task in asyncio.all_tasks(), "application" in repr(task), task.done()]


async def cancels_itself() -> object:
    """A task that is cancelled in its first step hears of it at its first wait, whatever it waits for."""
    seen = []
    task = asyncio.current_task()
    assert task is not None
    task.cancel("enough")
    try:
        await asyncio.sleep(PAUSE.pop() if PAUSE else 0)
    except asyncio.CancelledError:
        seen.append("cancelled")
    if sys.version_info >= (3, 11):
        assert task.cancelling() == 1
        task.uncancel()
    await asyncio.sleep(0.001)
    return seen


async def cancels_itself_long() -> object:
    """The same, where the wait is for a future."""
    PAUSE.append(30)
    return await cancels_itself()


async def never_waits() -> object:
    """A task that somebody looked at is told of the end, though it never waited."""
    EVENTS.clear()
    task = asyncio.current_task()
    assert task is not None
    task.add_done_callback(lambda task: EVENTS.append(f"over {task.done()}"))
    return "done"


async def leaves_cancelled() -> object:
    """A task that ends while it is cancelled."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    return "done"


async def executor() -> object:
    """Work on another thread."""
    here = threading.get_ident()
    there = await asyncio.get_running_loop().run_in_executor(None, threading.get_ident)
    other = await asyncio.to_thread(MARK.get)
    return {"elsewhere": here != there, "context": other}


async def connection() -> object:
    """A server and a client of one's own, on the same loop."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        payload = os.urandom(1_000_000)

        async def feed() -> None:
            writer.write(payload)
            await writer.drain()
            writer.write_eof()

        feeding = asyncio.create_task(feed())
        received = await reader.read(-1)
        await feeding
        writer.close()
    return received == payload


async def reader() -> object:
    """A descriptor that is watched, and read a byte at a time: it stays ready in between."""
    running = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    seen = bytearray()
    complete = running.create_future()

    def read() -> None:
        seen.extend(ours.recv(1))
        if len(seen) == 5:
            running.remove_reader(ours)
            complete.set_result(None)

    running.add_reader(ours, read)
    theirs.sendall(b"bytes")
    await asyncio.wait_for(complete, 5)
    ours.close()
    theirs.close()
    return seen.decode()


async def process() -> object:
    """A subprocess."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "print(input()[::-1])",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await child.communicate(b"elttut\n")
    return [child.returncode, output.decode().strip()]


async def thread() -> object:
    """A call from a thread while the loop has nothing to do."""
    running = asyncio.get_running_loop()
    future = running.create_future()
    called = 0.0

    def call() -> None:
        nonlocal called
        time.sleep(0.05)
        called = time.perf_counter()
        running.call_soon_threadsafe(future.set_result, None)

    threading.Thread(target=call).start()
    await future
    return time.perf_counter() - called


async def context() -> object:
    """Each request has a context of its own."""
    before = MARK.get()
    MARK.set("me")
    await asyncio.sleep(0.001)
    later = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(lambda: later.set_result(MARK.get()))
    return [before, MARK.get(), await later]


async def order() -> object:
    """Calls come in the order in which they were asked for, timers by their time."""
    running = asyncio.get_running_loop()
    seen: list[str] = []
    over = running.create_future()
    now = running.time()
    running.call_at(now + 0.02, seen.append, "late")
    running.call_at(now + 0.01, seen.append, "early")
    running.call_at(now + 0.01, seen.append, "early too")
    running.call_at(now + 0.015, seen.append, "never").cancel()
    running.call_later(0.03, over.set_result, None)
    running.call_soon(seen.append, "soon")
    running.call_soon(seen.append, "never").cancel()
    running.call_soon(seen.append, "sooner than timers")
    await over
    return seen


async def handles() -> object:
    """What the calls return."""
    running = asyncio.get_running_loop()
    soon = running.call_soon(print)
    later = running.call_later(100, print)
    assert not soon.cancelled()
    assert 99 < later.when() - running.time() <= 100
    soon.cancel()
    later.cancel()
    soon.cancel()
    for handle in (soon, later):
        assert handle.cancelled()
        assert "cancelled" in repr(handle)
    for number in range(1000):
        running.call_later(1000 + number, print).cancel()
    return "cancelled"


async def odd_times() -> object:
    """Times that are none."""
    running = asyncio.get_running_loop()
    called = running.create_future()
    running.call_later(float("inf"), print).cancel()
    running.call_at(-1e300, called.set_result, "called")
    return await asyncio.wait_for(called, 5)


async def broken_call() -> object:
    """A call that fails is told to the exception handler, and nobody else is harmed."""
    running = asyncio.get_running_loop()
    told = running.create_future()
    before = running.get_exception_handler()
    running.set_exception_handler(lambda _, context: told.set_result(context))
    running.call_soon(lambda: 1 / 0)
    context = await asyncio.wait_for(told, 5)
    running.set_exception_handler(before)
    assert isinstance(context["exception"], ZeroDivisionError)
    return context["message"].startswith("Exception in callback")


async def exits() -> object:
    """A task that wants to end the process."""
    raise SystemExit("not the server's affair")


async def exits_later() -> object:
    """A task that wants to end the process, later."""
    await asyncio.sleep(0)
    raise KeyboardInterrupt


async def factory() -> object:
    """Tasks made by a factory of the application's."""
    running = asyncio.get_running_loop()
    made: list[str] = []

    def make(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        made.append(coro.__name__)
        return asyncio.Task(coro, loop=loop, **options)

    running.set_task_factory(make)
    try:
        await asyncio.create_task(sleep())
    finally:
        running.set_task_factory(None)
    return made


async def busy() -> object:
    """Computing in steps, beside which others are served, until somebody has had enough of it."""
    EVENTS[:] = ["busy"]
    until = time.perf_counter() + 100.0
    steps = 0
    while "enough" not in EVENTS and time.perf_counter() < until:
        step = time.perf_counter() + 0.002
        while time.perf_counter() < step:
            pass
        steps += 1
        await asyncio.sleep(0)
    return steps


async def enough() -> object:
    """Ends what is busy."""
    EVENTS.append("enough")
    return "enough"


async def background() -> object:
    """Something that goes on after the answer."""

    async def later() -> None:
        await asyncio.sleep(0.01)
        EVENTS.append("happened")

    EVENTS.clear()
    task = asyncio.get_running_loop().create_task(later())
    task.add_done_callback(lambda _: EVENTS.append("over"))
    return "begun"


async def events() -> object:
    """What has happened."""
    return list(EVENTS)


async def patient() -> object:
    """A long request."""
    logging.getLogger("asgi_loop").warning("patient has begun")
    await asyncio.sleep(1.5)
    return "patient"


async def stuck() -> object:
    """A request that never ends by itself."""
    logging.getLogger("asgi_loop").warning("stuck has begun")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        logging.getLogger("asgi_loop").warning("stuck was cancelled")
        raise
    return "never"


PATHS: dict[str, Callable[[], Awaitable[object]]] = {
    name: value for name, value in list(globals().items()) if asyncio.iscoroutinefunction(value)
}


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Does what the path names."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    assert scope["type"] == "http"
    import json

    result = await PATHS[scope["path"][1:]]()
    body = json.dumps(result).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def lifespan(receive: Receive, send: Send) -> None:
    """Starts and ends, and says so; something ticks in between."""

    async def tick() -> None:
        while True:
            await asyncio.sleep(0.01)

    await receive()
    ticking = asyncio.create_task(tick())
    await send({"type": "lifespan.startup.complete"})
    await receive()
    ticking.cancel()
    print("the application has shut down", flush=True)
    await send({"type": "lifespan.shutdown.complete"})
