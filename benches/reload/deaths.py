"""Workers are killed, one after the other, under load: only what they had is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from load.processes import PROC

from .clients import Load
from .crowd import everyone
from .gateway import Gateway, Kind, serving
from .http1 import Events
from .plan import Plan
from .tally import Loss, Tally, Versions
from .websocket import Echo

WHOLE_SECONDS = 30.0
"""After this a pool that is not whole is given up."""
STOPS_SECONDS = 2.0
AT_ONCE = 1.0
"""Seconds within which those hear of it whose worker was killed."""
BAD_GATEWAY = 502


@dataclass(frozen=True)
class Kill:
    """A worker that was killed."""

    pid: int
    began: float
    """Shortly before."""
    ended: float
    """When it was gone."""
    ports: frozenset[int]
    """The clients' ports of the connections that it had; none behind a front."""
    whole: float | None
    """Seconds after which the pool had all its workers again; `None`: not within `WHOLE_SECONDS`."""


@dataclass
class Deaths:
    """What came of it."""

    kind: str
    tallies: list[Tally] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    own: list[Loss] = field(default_factory=list)
    """What the killed workers were at."""
    others: list[Loss] = field(default_factory=list)
    """What nobody should have lost."""
    late: list[Loss] = field(default_factory=list)
    """Of the workers' own, what was not told of at once."""


def connections(pid: int, port: int) -> Iterator[int]:
    """The clients' ports of a process's connections to this port of the loopback."""
    held = set()
    for entry in (PROC / str(pid) / "fd").iterdir():
        with suppress(OSError):
            held.add(os.readlink(entry))
    for line in (PROC / "net" / "tcp").read_text().splitlines()[1:]:
        fields = line.split()
        local, remote, inode = fields[1], fields[2], fields[9]
        if int(local.rpartition(":")[2], 16) == port and f"socket:[{inode}]" in held:
            yield int(remote.rpartition(":")[2], 16)


def state(pid: int) -> str:
    """What a process does, as `/proc/PID/stat` has it: `T` is stopped."""
    return (PROC / str(pid) / "stat").read_text().rpartition(") ")[2][0]


def kill(pid: int, port: int) -> tuple[float, float, frozenset[int]]:
    """Kills a process; gives from when until when that was, and which connections were its own.

    It is stopped first, so that these are no others when it dies. Until it is gone its sockets take what is
    sent to it.
    """
    began = time.monotonic()
    os.kill(pid, signal.SIGSTOP)
    while state(pid) != "T" and time.monotonic() - began < STOPS_SECONDS:
        time.sleep(0)
    ports = frozenset(connections(pid, port))
    os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    while (PROC / str(pid)).exists() and time.monotonic() - killed < STOPS_SECONDS:
        time.sleep(0.0005)
    return began, time.monotonic(), ports


def is_own(loss: Loss, kills: Sequence[Kill], fronted: bool) -> bool:
    """Whether somebody lost this because of a death that was its own affair."""
    during = [kill for kill in kills if loss.opened <= kill.ended and loss.ended >= kill.began]
    broken = loss.status is None and loss.category in ("reset", "failed")
    if not fronted:
        return broken and any(loss.port in kill.ports for kill in during)
    # A front says 502 to those who have had nothing yet; it can only cut what has begun.
    if broken and loss.kind in (Events.kind, Echo.kind):
        return any(loss.pid == kill.pid for kill in during)
    return loss.status == BAD_GATEWAY and any(loss.began <= kill.ended for kill in during)


class Killing:
    """A gateway under load, whose workers are killed."""

    def __init__(self, gateway: Gateway, plan: Plan) -> None:
        self._gateway = gateway
        self._plan = plan
        self._random = Random(9)
        self._result = Deaths(gateway.kind.name)

    async def run(self) -> Deaths:
        """All of it."""
        plan, result, gateway = self._plan, self._result, self._gateway
        versions = {app: Versions(1, plan.drain) for app in gateway.kind.apps}
        load = Load(everyone(gateway, versions, plan.size, plan.patience))
        result.tallies = load.tallies
        async with load:
            await asyncio.sleep(1.0)
            for number in range(plan.kills):
                began = time.monotonic()
                await self._kill(gateway.kind.apps[number % len(gateway.kind.apps)])
                await asyncio.sleep(max(0.0, plan.every - (time.monotonic() - began)))
        self._sort()
        return result

    async def _kill(self, app: str) -> None:
        """Kills one worker of an application, and waits until there are as many again."""
        gateway = self._gateway
        pool = (await gateway.pools())[app]
        # Who has the most to lose; behind a front nobody has connections, so anybody.
        lots = {pid: self._random.random() for pid in serving(pool)}
        victim = max(lots, key=lambda pid: (len([*connections(pid, gateway.port)]), lots[pid]))
        began, ended, ports = await asyncio.to_thread(kill, victim, gateway.port)
        whole = await gateway.until(
            lambda pools: victim not in serving(pools[app]) and len(serving(pools[app])) == pool["workers"],
            WHOLE_SECONDS,
        )
        self._result.kills.append(Kill(victim, began, ended, ports, whole))
        gateway.check()

    def _sort(self) -> None:
        result, fronted = self._result, self._gateway.kind.fronted
        for tally in result.tallies:
            for loss in tally.losses:
                if not is_own(loss, result.kills, fronted):
                    result.others.append(loss)
                    continue
                result.own.append(loss)
                death = max(kill.ended for kill in result.kills if kill.began <= loss.ended)
                if loss.ended - death > AT_ONCE:
                    result.late.append(loss)


def run(program: Path, kind: Kind, root: Path, plan: Plan) -> Deaths:
    """One gateway of a kind, from its start to its end."""
    with Gateway(program, kind, root, plan.drain) as gateway:
        return asyncio.run(Killing(gateway, plan).run())
