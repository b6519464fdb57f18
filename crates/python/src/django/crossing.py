"""Cheaper crossings between the event loop and threads, for Django under ASGI.

``asgiref.sync`` makes a ``ThreadPoolExecutor``, a thread and, at the end, a thread that joins it, for each
request. Here a request leases a thread that is kept: still one thread for the whole request, used by no other
meanwhile, so that what is local to a thread (a database connection) is found again by each of its calls.
Results come home through one wake-up of the event loop for all that are there.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from queue import SimpleQueue
from typing import Any
from weakref import WeakKeyDictionary

MOST_IDLE = 32
"""So many threads without a request are kept; their database connections stay open with them."""


class Returns:
    """The way back to one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._arrived: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._called = False

    def bring(self, future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        """Have the loop resolve a future. Called on any thread."""
        self._arrived.append((future, result, error))
        if not self._called:
            self._called = True
            try:
                self.loop.call_soon_threadsafe(self._resolve)
            except RuntimeError:
                # The loop is closed: nobody waits any more.
                self._arrived.clear()

    def _resolve(self) -> None:
        # Whatever arrives from here on calls again; what came before is found below.
        self._called = False
        while True:
            try:
                future, result, error = self._arrived.popleft()
            except IndexError:
                return
            if future.done():
                pass
            elif error is None:
                future.set_result(result)
            elif isinstance(error, StopIteration):
                # A future cannot raise it, since a coroutine cannot.
                raised = RuntimeError("a synchronous function raised StopIteration")
                raised.__cause__ = error
                future.set_exception(raised)
            else:
                future.set_exception(error)
            del future, result, error


class Worker:
    """A thread that does the calls of one lease after the other."""

    idle: list[Worker] = []
    count = 0

    def __init__(self) -> None:
        Worker.count += 1
        self.calls: SimpleQueue[Any] = SimpleQueue()
        thread = threading.Thread(target=self._run, name=f"asgi-sync-{Worker.count}", daemon=True)
        thread.start()

    @classmethod
    def lease(cls) -> Worker:
        """A thread that nobody uses: the one that was last given back, whose caches are warm."""
        try:
            return cls.idle.pop()
        except IndexError:
            return cls()

    def release(self) -> None:
        """Give the thread back, or let it end."""
        if len(Worker.idle) < MOST_IDLE:
            Worker.idle.append(self)
        else:
            self.calls.put(None)

    def _run(self) -> None:
        while True:
            call = self.calls.get()
            if call is None:
                return
            call()
            # Nothing of a request is kept alive by a thread that waits.
            del call


class Call:
    """A call on its way to a lease's thread."""

    __slots__ = ("_args", "_function", "_future", "_kwargs", "_lease")

    def __init__(
        self,
        lease: Lease,
        future: asyncio.Future[Any],
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self._lease, self._future = lease, future
        self._function, self._args, self._kwargs = function, args, kwargs

    def run(self) -> None:
        """Call, unless whoever waited was cancelled before."""
        lease, future = self._lease, self._future
        if future.cancelled():
            lease.finish(future, None, None)
            return
        try:
            result = self._function(*self._args, **self._kwargs)
        except BaseException as error:
            lease.finish(future, None, error)
            # The traceback holds this frame: what it refers to would keep the lease from being given back.
            del self, lease, future
        else:
            lease.finish(future, result, None)


class Lease(Executor):
    """A thread for one request: what ``asgiref`` takes for a ``ThreadPoolExecutor(max_workers=1)``.

    It is given back when the request's context ends, at the latest when nothing refers to the lease any more.
    """

    def __init__(self, returns: Returns) -> None:
        self._returns = returns
        self._worker: Worker | None = None
        self._owed: list[Worker] = []
        self._given = 0
        self._done = 0
        self._quiet = threading.Event()
        self._closed = False

    def is_busy(self) -> bool:
        """Whether a call is under way."""
        return self._given != self._done

    def submit(  # type: ignore[override]
        self, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> asyncio.Future[Any]:
        """Have a function called on the thread. Called on the thread of the event loop."""
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        returns = self._returns
        future = returns.loop.create_future()
        if self._worker is None:
            self._worker = Worker.lease()
        self._given += 1

        self._worker.calls.put(Call(self, future, function, args, kwargs).run)
        return future

    def finish(self, future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        """One call more is done. Called on the lease's thread."""
        self._done += 1
        self._settle()
        if self._closed and self._given == self._done:
            self._quiet.set()
        self._returns.bring(future, result, error)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no further call, and wait for those under way."""
        self._closed = True
        while wait and self.is_busy() and not self._quiet.wait(0.1):
            pass
        self.give_back()

    def give_back(self) -> None:
        """Give the thread back, once it has done what it was given."""
        self._closed = True
        worker, self._worker = self._worker, None
        if worker is not None:
            self._owed.append(worker)
            self._settle()

    def _settle(self) -> None:
        """Give back what is owed, if nothing is under way any more. Called on either thread."""
        if self.is_busy():
            return
        with suppress(IndexError):
            self._owed.pop().release()

    def __del__(self) -> None:
        if self._worker is not None:
            self.give_back()


class Leases(WeakKeyDictionary[Any, Any]):
    """The executors of ``asgiref``'s contexts; a context takes its own out when it ends."""

    def pop(self, context: Any, *default: Any) -> Any:
        """Give a lease back that has nothing to do; one that has is shut down and waited for, as ever."""
        executor = super().pop(context, *default)
        # Whoever gives no default wants the executor itself.
        if default and isinstance(executor, Lease) and not executor.is_busy():
            executor.give_back()
            return None
        return executor


last: Returns | None = None


def forget() -> None:
    """A process that was forked has none of the threads."""
    global last
    last = None
    Worker.idle.clear()


os.register_at_fork(after_in_child=forget)


def executor(max_workers: int | None = None, *args: Any, **kwargs: Any) -> Any:
    """A lease where an event loop runs, as for a request; elsewhere what it always was."""
    global last
    if max_workers == 1 and not args and not kwargs:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            returns = last
            if returns is None or returns.loop is not loop:
                returns = last = Returns(loop)
            return Lease(returns)
    return ThreadPoolExecutor(max_workers, *args, **kwargs)


def install() -> bool:
    """Have ``asgiref`` lease threads; false where it is not as known, and then left alone."""
    from asgiref import sync

    leave = sync.ThreadSensitiveContext.__aexit__.__code__
    call = sync.SyncToAsync.__call__.__code__
    known = (
        getattr(sync, "ThreadPoolExecutor", None) is ThreadPoolExecutor
        and "ThreadPoolExecutor" in call.co_names
        and {"context_to_thread_executor", "pop"} <= set(leave.co_names)
    )
    if known:
        leases = Leases()
        leases.update(sync.SyncToAsync.context_to_thread_executor)
        sync.SyncToAsync.context_to_thread_executor = leases
        vars(sync)["ThreadPoolExecutor"] = executor
    return known or getattr(sync, "ThreadPoolExecutor", None) is executor
