"""The code changes, again and again, in all ways that there are, under load."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path

from .clients import Load
from .crowd import everyone
from .gateway import Gateway, Kind, write
from .plan import Plan
from .tally import Tally, Versions

SETTLES = 30.0
"""Seconds after `drain` by when those who are replaced are gone."""
KEPT = "2s"
"""How long a rollback may be asked for after a deploy is in practice: its processes are there for so long."""


@dataclass
class Changes:
    """What came of it."""

    kind: str
    tallies: list[Tally] = field(default_factory=list)
    took: dict[str, list[float]] = field(default_factory=dict)
    """Seconds, by command."""
    memory: list[tuple[str, float]] = field(default_factory=list)
    """Megabytes of the tree, after what."""
    seconds: float = 0.0


class Changing:
    """A gateway under load, and what is done with it."""

    def __init__(self, gateway: Gateway, plan: Plan) -> None:
        self._gateway = gateway
        self._plan = plan
        self._versions = {app: Versions(1, plan.drain) for app in gateway.kind.apps}
        self._latest = 1
        self._result = Changes(gateway.kind.name)

    async def run(self) -> Changes:
        """All of it."""
        began = time.monotonic()
        plan, result = self._plan, self._result
        load = Load(everyone(self._gateway, self._versions, plan.size, plan.patience))
        result.tallies = load.tallies
        async with load:
            await asyncio.sleep(1.0)
            await self._remember("the start")
            for _ in range(plan.reloads):
                await self._reload("reload")
            await self._remember(f"reloads: {plan.reloads}")
            for number in range(plan.deploys):
                before = self._versions["shop"].current
                await self._deploy()
                if number < plan.rollbacks:
                    await self._change(("shop",), before, "rollback", "shop")
            await self._remember(f"deploys: {plan.deploys}, rollbacks: {plan.rollbacks}")
            for _ in range(plan.upgrades):
                await self._reload("upgrade")
            await self._remember(f"upgrades: {plan.upgrades}")
        result.seconds = time.monotonic() - began
        return result

    async def _reload(self, command: str) -> None:
        """New code for all, where it lies."""
        version = self._next()
        kind = self._gateway.kind
        for app in kind.apps:
            write(self._gateway.root / app, version)
        await self._change(kind.apps, version, command)

    async def _deploy(self) -> None:
        """New code for one, elsewhere."""
        version = self._next()
        directory = self._gateway.root / f"shop-{version}"
        write(directory, version)
        words = ("deploy", "shop", "--dir", directory, "--keep", KEPT, "--probation", "1s")
        await self._change(("shop",), version, *words)

    async def _change(self, apps: tuple[str, ...], to: int, *words: str | Path) -> None:
        for app in apps:
            self._versions[app].begin(to)
        took = await self._gateway.command(*words)
        if words[0] == "rollback":
            # It starts nothing and waits for nobody: whoever serves hears of it at about this time.
            await asyncio.sleep(self._plan.rest)
        for app in apps:
            self._versions[app].settle()
        self._result.took.setdefault(str(words[0]), []).append(took)
        await asyncio.sleep(self._plan.rest)

    async def _remember(self, after: str) -> None:
        """Measures when everybody is gone who is to go, so that like is compared with like."""
        await self._gateway.settled(self._plan.drain + SETTLES)
        self._result.memory.append((after, self._gateway.pss()))

    def _next(self) -> int:
        self._latest += 1
        return self._latest


def run(program: Path, kind: Kind, root: Path, plan: Plan) -> Changes:
    """One gateway of a kind, from its start to its end."""
    with Gateway(program, kind, root, plan.drain) as gateway:
        return asyncio.run(Changing(gateway, plan).run())
