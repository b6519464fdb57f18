"""What clients count, and which versions of the code may answer them."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

Category = Literal["refused", "reset", "failed", "hung"]

CATEGORIES: tuple[Category, ...] = ("refused", "reset", "failed", "hung")
"""No connection; one that ended without an answer; a wrong, truncated or 5xx answer; none in time."""

CLOSED_1012 = "WebSocket closed with 1012"
STREAM_ENDED = "event stream ended at the deadline"
IDLE_CLOSED = "idle connection closed"
RETRIED = "asked to ask elsewhere"
"""HTTP/2: the stream is behind GOAWAY's last one, or refused: nothing was done (RFC 9113, section 8.7)."""

GOODBYE = 2.0
"""Seconds before the end of `drain` from when on what is idle is let go; half of a shorter `drain`."""


@dataclass(frozen=True)
class Loss:
    """A request that was not answered well."""

    kind: str
    """The client's."""
    category: Category
    text: str
    opened: float
    """When its connection was opened, as `time.monotonic` says."""
    began: float
    """When it was sent."""
    ended: float
    port: int | None = None
    """The client's port."""
    pid: int | None = None
    """Who had answered on this connection before."""
    status: int | None = None


class Wrong(Exception):
    """An answer that is not what it should be."""

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


class Reset(Exception):
    """The connection ended before anything of the answer had come."""


class Truncated(Exception):
    """The connection ended in the middle of an answer."""


@dataclass
class Tally:
    """What the clients of one kind have seen."""

    kind: str
    ok: int = 0
    apart: Counter[str] = field(default_factory=Counter)
    """What is no loss: the server said so, and nothing was under way."""
    losses: list[Loss] = field(default_factory=list)
    latencies: list[tuple[float, float]] = field(default_factory=list)
    """When an answer came, and how many seconds it took."""

    def good(self, began: float) -> None:
        """Counts an answer."""
        now = time.monotonic()
        self.ok += 1
        self.latencies.append((now, now - began))

    def count(self, category: Category) -> int:
        """How many were lost in this way."""
        return sum(loss.category == category for loss in self.losses)

    def quantile(self, part: float, since: float = 0.0, until: float = math.inf) -> float:
        """Seconds that this part of the answers of a time took at most; 0 without any."""
        ordered = sorted(seconds for at, seconds in self.latencies if since <= at <= until)
        return ordered[int((len(ordered) - 1) * part)] if ordered else 0.0


@dataclass
class Change:
    """A change of the code, or of the processes alone."""

    began: float
    before: int
    to: int
    settled: float | None = None
    """When the command had returned; `None`: it is under way."""


class Versions:
    """Which version of the code serves, and which did."""

    def __init__(self, first: int, drain: float) -> None:
        self.current = first
        self._first = first
        self._changes: list[Change] = []
        self._least = drain - min(GOODBYE, drain / 2)

    def begin(self, to: int) -> None:
        """From now on either may answer."""
        self._changes.append(Change(time.monotonic(), self.current, to))

    def settle(self) -> None:
        """From now on only the new one may, on connections that are opened from now on."""
        last = self._changes[-1]
        last.settled = time.monotonic()
        self.current = last.to

    def allowed(self, opened: float) -> set[int]:
        """Who may answer now, on a connection that was opened then."""
        since = [change for change in self._changes if change.settled is None or change.settled >= opened]
        return {self.current, *(version for change in since for version in (change.before, change.to))}

    def is_due(self, opened: float) -> bool:
        """Whether a change is so long past that what was opened then, and rests, may be closed now."""
        latest = time.monotonic() - self._least
        return any(
            change.began <= latest and (change.settled is None or change.settled >= opened)
            for change in self._changes
        )


class AnyVersion(Versions):
    """For servers that promise nothing: every version may answer, everything may be closed."""

    def __init__(self) -> None:
        super().__init__(0, 0.0)

    def allowed(self, opened: float) -> set[int]:
        """Every one."""
        return set(range(1000))

    def is_due(self, opened: float) -> bool:
        """At any time."""
        return True


@dataclass(frozen=True)
class Who:
    """Who gave an answer."""

    version: int
    pid: int


def who(line: str, versions: Versions, opened: float) -> Who:
    """Reads `VERSION PART PID`; raises `Wrong` if that is no one version, or one that no longer serves."""
    try:
        version, part, pid = map(int, line.split())
    except ValueError:
        raise Wrong(f"an answer of something else: {line[:80]!r}") from None
    if version != part:
        raise Wrong(f"an answer of two versions, {version} and {part}")
    if version not in (allowed := versions.allowed(opened)):
        raise Wrong(f"an answer of version {version} where {sorted(allowed)} may answer")
    return Who(version, pid)


def same(line: str, before: Who) -> Who:
    """As before on this stream; raises `Wrong` otherwise."""
    if line != f"{before.version} {before.version} {before.pid}":
        raise Wrong(f"{before} began it, and {line[:80]!r} went on")
    return before


def lost(tallies: Iterable[Tally]) -> list[str]:
    """One line for each loss."""
    return [f"{tally.kind}: {loss.category}: {loss.text}" for tally in tallies for loss in tally.losses]
