"""A project with versions of its code, and a gateway that serves it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from load.processes import Failed, RunningServer, free_port, in_ram

CODE = Path(__file__).resolve().parent / "apps" / "shop.py"
COMMAND_SECONDS = 120.0
STATUS_SECONDS = 10.0
READ_AGAIN = 0.02
"""Seconds between two looks at the status."""

FUSED = """
listen = "127.0.0.1:{port}"
control = "{control}"
drain = "{drain:g}s"
[apps.shop]
asgi = "shop:asgi"
dir = "shop"
workers = 2
[sites."*"]
"/" = "shop"
"""

FRONT = """
listen = "127.0.0.1:{port}"
control = "{control}"
drain = "{drain:g}s"
[apps.shop]
wsgi = "shop:wsgi"
dir = "shop"
workers = 2
threads = 8
[apps.live]
asgi = "shop:asgi"
dir = "live"
workers = 2
[sites."*"]
"/" = "shop"
"/live" = "live"
"""

THREE = """
listen = "127.0.0.1:{port}"
control = "{control}"
drain = "{drain:g}s"
[apps.shop]
wsgi = "shop:wsgi"
dir = "shop"
threads = 8
[apps.live]
asgi = "shop:asgi"
dir = "live"
[apps.broken]
asgi = "shop:asgi"
dir = "broken"
[sites."*"]
"/" = "shop"
"/live" = "live"
"/broken" = "broken"
"""


def write(directory: Path, version: int) -> None:
    """Writes the application, in a version."""
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(CODE, directory / "shop.py")
    for name in ("version", "part"):
        (directory / f"{name}.py").write_text(f"{name.upper()} = {version}\n")


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """What servers are started with: nothing of whoever runs this.

    Without compiled code, of which two versions that were written in one second would be taken for the same.
    """
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
    return {**kept, "PYTHONDONTWRITEBYTECODE": "1", **(more or {})}


@dataclass(frozen=True)
class Kind:
    """How the processes stand to each other."""

    name: str
    config: str
    apps: tuple[str, ...]
    live: str
    """The path of what is asynchronous."""
    fronted: bool

    @property
    def live_app(self) -> str:
        """Who answers there."""
        return self.apps[-1]


KINDS = (
    Kind("fused", FUSED, ("shop",), "/", fronted=False),
    Kind("front", FRONT, ("shop", "live"), "/live/", fronted=True),
)
THREE_APPS = Kind("three", THREE, ("shop", "broken", "live"), "/live/", fronted=True)


class Gateway:
    """A gateway that serves on entry and has ended on exit."""

    def __init__(self, program: Path, kind: Kind, root: Path, drain: float) -> None:
        self.program = program
        self.kind = kind
        self.root = root
        self.drain = drain
        self.port = free_port()
        self.control = root / "control.sock"
        for app in kind.apps:
            write(root / app, 1)
        text = kind.config.format(port=self.port, control=self.control, drain=drain)
        (root / "hawksbill.toml").write_text(text)
        # Anywhere: what is measured is what is lost, and new processes are to start as fast as they would.
        words = [str(program), "run", "--log-level", "warn"]
        self._running = RunningServer(words, self.port, None, root, environment())

    def __enter__(self) -> Gateway:
        self._running.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.__exit__(kind, error, trace)

    @property
    def pid(self) -> int:
        """The supervisor's."""
        return self._running.pid

    def check(self) -> None:
        """Raises `Failed` if it has ended."""
        self._running.check()

    def pss(self) -> float:
        """Megabytes in RAM of the whole tree; what processes share is shared out among them."""
        return in_ram(self.pid).pss / 1e6

    async def command(self, *words: str | Path) -> float:
        """Runs `hawksbill WORDS`; gives the seconds that it took. Raises `Failed` if it fails."""
        began = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            self.program,
            *map(str, words),
            "--control",
            str(self.control),
            cwd=self.root,
            env=environment(),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            said, _ = await asyncio.wait_for(process.communicate(), COMMAND_SECONDS)
        except asyncio.TimeoutError:
            process.kill()
            await process.wait()
            raise Failed(f"{' '.join(map(str, words))} has not ended within {COMMAND_SECONDS:g} s") from None
        if process.returncode:
            self.check()
            raise Failed(f"{' '.join(map(str, words))}: {said.decode(errors='replace').strip()}")
        return time.monotonic() - began

    async def pools(self) -> dict[str, Any]:
        """The pools, as the control socket shows them."""

        async def ask() -> bytes:
            reader, writer = await asyncio.open_unix_connection(self.control)
            try:
                writer.write(b"GET /v1/status HTTP/1.1\r\nHost: hawksbill\r\nConnection: close\r\n\r\n")
                return await reader.read()
            finally:
                writer.close()

        head, _, body = (await asyncio.wait_for(ask(), STATUS_SECONDS)).partition(b"\r\n\r\n")
        if b"chunked" in head.lower() or not body:
            raise Failed(f"the status cannot be read: {head[:200]!r}")
        found: dict[str, Any] = json.loads(body)["pools"]
        return found

    async def until(self, what: Callable[[dict[str, Any]], bool], seconds: float) -> float | None:
        """Waits until the pools are so; gives the seconds that it took, `None` if they are not so in time."""
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            if what(await self.pools()):
                return time.monotonic() - began
            await asyncio.sleep(READ_AGAIN)
        return None

    async def settled(self, seconds: float) -> None:
        """Waits until only those are there who serve. Raises `Failed` if others are there after so long."""
        if await self.until(lambda pools: all(map(is_whole, pools.values())), seconds) is None:
            raise Failed(f"there are processes that should have ended: {json.dumps(await self.pools())}")


def serving(pool: dict[str, Any]) -> list[int]:
    """Who serves, as process numbers."""
    return [one["pid"] for one in pool["processes"] if one["state"] == "serving"]


def is_whole(pool: dict[str, Any]) -> bool:
    """Whether as many serve as should, and nobody else is there."""
    return bool(len(serving(pool)) == pool["workers"] == len(pool["processes"]))
