"""What all clients have in common: a steady pace, a bound on every wait, exact counts of what was lost."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from load.processes import Failed

from .tally import Category, Loss, Reset, Tally, Truncated, Versions, Who, Wrong, who


@dataclass(frozen=True)
class Target:
    """Whom to ask."""

    port: int
    path: str
    """A directory's, with `/` at its end."""
    versions: Versions
    keeps: bool
    """Whether a connection outlives a change of code, so that each request may meet another version."""
    patience: float
    """Seconds after which an answer is taken for one that does not come."""


@dataclass
class Attempt:
    """One request, or one connection of a protocol that is no request and answer."""

    opened: float = field(default_factory=time.monotonic)
    began: float = field(default_factory=time.monotonic)
    port: int | None = None
    pid: int | None = None


class Client(ABC):
    """One client, which asks until it is told to stop."""

    kind: str

    def __init__(self, target: Target, tally: Tally, pace: float) -> None:
        self.target = target
        self.tally = tally
        self.pace = pace
        self.over = asyncio.Event()
        self.attempt = Attempt()

    async def run(self) -> None:
        """Asks, counts, rests."""
        while not self.over.is_set():
            self.attempt = Attempt()
            await self.counted(self.ask())
            await asyncio.sleep(self.pace)
        await self.leave()

    async def counted(self, request: Awaitable[None]) -> None:
        """Waits for a request; what it raises is a loss."""
        try:
            await request
        except ConnectionRefusedError as error:
            self.lose("refused", error)
        except asyncio.TimeoutError:
            self.lose("hung", f"nothing within {self.target.patience:g} s")
        except (Wrong, Truncated) as error:
            self.lose("failed", error)
        except (Reset, OSError) as error:
            self.lose("reset", error)

    @abstractmethod
    async def ask(self) -> None:
        """One attempt; what it raises is counted as a loss."""

    @abstractmethod
    def drop(self) -> None:
        """Lets go of a connection that was lost."""

    async def leave(self) -> None:
        """Lets go of the connection at the end."""
        self.drop()

    def lose(self, category: Category, error: object) -> None:
        """Counts a loss, and drops its connection."""
        at, status = self.attempt, error.status if isinstance(error, Wrong) else None
        text = str(error) or type(error).__name__
        now = time.monotonic()
        loss = Loss(self.kind, category, text, at.opened, at.began, now, at.port, at.pid, status)
        self.tally.losses.append(loss)
        # One that is a whole answer ends no connection.
        if status is None:
            self.drop()

    def heard(self, line: str) -> Who:
        """Whose answer it is."""
        since = self.attempt.began if self.target.keeps else self.attempt.opened
        found = who(line, self.target.versions, since)
        self.attempt.pid = found.pid
        return found


class Load:
    """Clients that ask while it is open.

    At its end all have to be gone within a bound: each of their waits has one.
    """

    def __init__(self, clients: Sequence[Client]) -> None:
        self.clients = clients
        self.tallies = unique(client.tally for client in clients)

    async def __aenter__(self) -> Load:
        self._tasks = [asyncio.ensure_future(client.run()) for client in self.clients]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self.clients:
            client.over.set()
        patience = max(client.target.patience for client in self.clients)
        _, late = await asyncio.wait(self._tasks, timeout=3 * patience)
        for task in late:
            task.cancel()
        ends = await asyncio.gather(*self._tasks, return_exceptions=True)
        if error is not None:
            return
        if late:
            raise Failed(f"{len(late)} clients did not end")
        # A client that fails by itself has counted nothing since.
        for end in ends:
            if isinstance(end, BaseException):
                raise end


def unique(tallies: Iterable[Tally]) -> list[Tally]:
    """Each once."""
    return list({id(tally): tally for tally in tallies}.values())
