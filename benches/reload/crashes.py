"""Three applications, of which one crashes again and again: what do the other two's clients notice?"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from .clients import Client, Load, Target
from .gateway import THREE_APPS, Gateway, serving
from .http1 import KeepAlive, NewConnection
from .plan import Plan
from .tally import Tally, Versions

SECOND_DEATH = 20.0
"""Seconds within which an application that crashes has to have done so twice."""


@dataclass
class Neighbour:
    """One that does not crash."""

    app: str
    before: float
    """The 99th percentile, in milliseconds, while nothing crashes."""
    during: float


@dataclass
class Crashes:
    """What came of it."""

    tallies: list[Tally] = field(default_factory=list)
    neighbours: list[Neighbour] = field(default_factory=list)
    restarts: int = 0


async def measure(gateway: Gateway, plan: Plan) -> Crashes:
    """All of it."""
    versions = Versions(1, plan.drain)
    tallies = {app: Tally(f"application {app}") for app in ("shop", "live")}
    clients: list[Client] = []
    for app, path in (("shop", "/"), ("live", "/live/")):
        target = Target(gateway.port, path, versions, keeps=True, patience=plan.patience)
        for make, number in ((KeepAlive, plan.size.keep_alive), (NewConnection, plan.size.new)):
            clients += [make(target, tallies[app], plan.size.pace) for _ in range(number)]
    async with Load(clients):
        await asyncio.sleep(1.0)
        began = time.monotonic()
        await asyncio.sleep(plan.watched)
        before = {app: percentile(tally, began, time.monotonic()) for app, tally in tallies.items()}
        await _break(gateway)
        began = time.monotonic()
        await asyncio.sleep(plan.watched)
        during = {app: percentile(tally, began, time.monotonic()) for app, tally in tallies.items()}
        restarts = (await gateway.pools())["broken"]["restarts"]
    neighbours = [Neighbour(app, before[app], during[app]) for app in tallies]
    return Crashes(list(tallies.values()), neighbours, restarts)


async def _break(gateway: Gateway) -> None:
    """From now on one application ends soon after each of its starts."""
    (gateway.root / "broken" / "crashes").touch()
    for pid in serving((await gateway.pools())["broken"]):
        os.kill(pid, signal.SIGKILL)
    # The first was ours.
    if await gateway.until(lambda pools: pools["broken"]["restarts"] >= 2, SECOND_DEATH) is None:
        raise TimeoutError("the application that is to crash does not")


def percentile(tally: Tally, since: float, until: float) -> float:
    """The 99th, in milliseconds, of the answers of a time."""
    return tally.quantile(0.99, since, until) * 1000


def run(program: Path, root: Path, plan: Plan) -> Crashes:
    """One gateway, from its start to its end."""
    with Gateway(program, THREE_APPS, root, plan.drain) as gateway:
        return asyncio.run(measure(gateway, plan))
