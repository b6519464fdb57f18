"""Servers that are told by SIGHUP to load the code again, under the same load: what do their clients lose?"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from load import install
from load.processes import Failed, RunningServer, free_port
from load.servers import OURS, Place, Server

from .clients import Load, Target
from .gateway import environment, write
from .http1 import Connection, KeepAlive, NewConnection
from .plan import Plan
from .tally import AnyVersion, Tally

DELAY = 0.02
"""Seconds that an answer takes."""
IN_A_ROW = 20
"""So many answers of the new code, each on a connection of its own, mean that it serves."""
PATIENCE = 30.0
"""Seconds in which that has to come."""

_OURS = "{hawksbill} run shop:{attribute} --listen 127.0.0.1:{port} --workers 2 --log-level error"

SERVERS: tuple[Server, ...] = (
    Server(OURS, "wsgi", f"{_OURS} --wsgi --threads 8"),
    Server(OURS, "asgi", f"{_OURS} --asgi"),
    Server(
        "gunicorn",
        "wsgi",
        "{bin}/gunicorn shop:{attribute} --bind 127.0.0.1:{port} --workers 2 --worker-class gthread "
        "--threads 8 --keep-alive 75 --log-level error",
        packages=("gunicorn",),
        needs="gunicorn",
    ),
    Server(
        "uvicorn",
        "asgi",
        "{bin}/uvicorn shop:{attribute} --host 127.0.0.1 --port {port} --workers 2 --timeout-keep-alive 75 "
        "--log-level error --no-access-log",
        packages=("uvicorn[standard]",),
        needs="uvicorn",
    ),
    Server(
        "granian",
        "wsgi",
        "{bin}/granian shop:{attribute} --host 127.0.0.1 --port {port} --workers 2 --interface wsgi "
        "--blocking-threads 8 --log-level error",
        packages=("granian[uvloop]",),
        needs="granian",
    ),
    Server(
        "granian",
        "asgi",
        "{bin}/granian shop:{attribute} --host 127.0.0.1 --port {port} --workers 2 --interface asgi "
        "--log-level error",
        packages=("granian[uvloop]",),
        needs="granian",
    ),
    Server(
        "uwsgi",
        "wsgi",
        "{bin}/uwsgi --master --http 127.0.0.1:{port} --http-keepalive --http-auto-chunked --processes 2 "
        "--threads 8 --enable-threads --need-app --die-on-term --disable-logging --module shop:{attribute}",
        packages=("uwsgi",),
        needs="uwsgi",
    ),
)
"""Two worker processes each, and what their own manuals say for keeping connections."""


@dataclass
class Peer:
    """What came of one server."""

    server: Server
    tallies: list[Tally] = field(default_factory=list)
    took: list[float] = field(default_factory=list)
    """Seconds from the signal to the first of `IN_A_ROW` answers of the new code."""
    failed: str = ""
    """What kept it from going on."""


class Serving:
    """One server under load, and its reloads."""

    def __init__(self, server: Server, running: RunningServer, root: Path, plan: Plan) -> None:
        self._running = running
        self._root = root
        self._plan = plan
        self._result = Peer(server)

    async def run(self) -> Peer:
        """All of it."""
        plan, port = self._plan, self._running.port
        target = Target(port, "/", AnyVersion(), keeps=True, patience=plan.patience)
        tallies = (Tally(KeepAlive.kind), Tally(NewConnection.kind))
        kinds = zip((KeepAlive, NewConnection), tallies, strict=True)
        clients = [
            make(target, tally, plan.size.pace) for make, tally in kinds for _ in range(plan.peer_clients)
        ]
        self._result.tallies = list(tallies)
        async with Load(clients):
            await asyncio.sleep(1.0)
            try:
                for version in range(2, plan.peer_reloads + 2):
                    write(self._root, version)
                    self._running.check()
                    os.kill(self._running.pid, signal.SIGHUP)
                    self._result.took.append(await self._serves(version))
                    await asyncio.sleep(plan.peer_rest)
                self._running.check()
            except Failed as error:
                self._result.failed = str(error)
        return self._result

    async def _serves(self, version: int) -> float:
        """Waits until only the new code answers new connections."""
        began = since = time.monotonic()
        row = 0
        while row < IN_A_ROW:
            if time.monotonic() - began > PATIENCE:
                raise Failed(f"after {PATIENCE:g} s the new code does not serve")
            if row == 0:
                since = time.monotonic()
            row = row + 1 if await self._version() == version else 0
            if row == 0:
                await asyncio.sleep(0.02)
        return since - began

    async def _version(self) -> int | None:
        """Which code answers; `None` if nothing does. These requests count for nobody."""

        async def ask() -> int:
            connection = await Connection.open(self._running.port)
            try:
                await connection.send("/")
                head = await connection.head()
                return int((await connection.body(head)).split()[0])
            finally:
                connection.close()

        try:
            return await asyncio.wait_for(ask(), self._plan.patience)
        except Exception:
            return None


def words(server: Server, place: Place, port: int) -> list[str]:
    """The command, as the words of it."""
    values = {"bin": place.bin, "hawksbill": place.hawksbill, "port": port, "attribute": server.interface}
    return [word.format(**values) for word in shlex.split(server.command)]


def run(server: Server, place: Place, root: Path, plan: Plan) -> Peer:
    """One server, from its start to its end."""
    if server.is_peer and not install.present(server, place):
        return Peer(server, failed="it is not installed")
    write(root, 1)
    port = free_port()
    env = environment({"PYTHONPATH": str(root), "RELOAD_DELAY": str(DELAY)})
    try:
        with RunningServer(words(server, place, port), port, None, root, env) as running:
            return asyncio.run(Serving(server, running, root, plan).run())
    except Failed as error:
        return Peer(server, failed=str(error))


def chosen(names: Sequence[str]) -> list[Server]:
    """Ours, and the peers of these names; all of them without names."""
    return [server for server in SERVERS if not names or server.name in {OURS, *names}]
