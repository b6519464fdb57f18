"""One measurement: a server under a load, or holding idle connections."""

from __future__ import annotations

import select
import socket
import time
from dataclasses import dataclass, replace

from . import generators
from .processes import Failed, RunningServer, busy_seconds, cpu_seconds, pss, tree
from .websocket_load import handshake
from .workloads import Workload

REST = 0.3
"""Seconds after which a server has come to rest."""
BURST = 0.5
"""Seconds of requests before the memory is looked at, so that all is loaded that requests need."""


@dataclass(frozen=True)
class Speed:
    """A server under load."""

    rate: float
    """Requests (messages) a second."""
    megabytes: float
    """Million bytes a second."""
    p50: float
    """Milliseconds."""
    p99: float
    """Milliseconds."""
    cpu: float
    """User and system microseconds of the server's tree for each request."""
    busy: float
    """Share of its core that the server used."""
    load_busy: float
    """Share of its core that the load used."""
    other: float
    """Share of these cores that anything else used."""
    errors: int


@dataclass(frozen=True)
class Memory:
    """A server at rest."""

    start: float
    """Milliseconds from the start to the first answer."""
    rest: float
    """Million bytes, the tree's PSS."""
    processes: int
    each: float
    """Thousand bytes more for each connection that is held open."""
    held: int
    """Connections that stayed open."""
    wanted: int
    """Connections that were opened."""


@dataclass(frozen=True)
class Cores:
    """Which core is whose."""

    server: int
    load: int

    def all(self) -> set[int]:
        """Both; one where the machine has but one."""
        return {self.server, self.load}


def speed(server: RunningServer, workload: Workload, seconds: float, warm: float, cores: Cores) -> Speed:
    """Puts load on a server for some seconds, after it was warmed up for others."""
    generators.run(workload, server.port, warm, cores.load)
    server.check()
    begin, used, busy = time.perf_counter(), cpu_seconds(server.pid), busy_seconds(cores.all())
    loaded = generators.run(workload, server.port, seconds, cores.load)
    wall = time.perf_counter() - begin
    used = cpu_seconds(server.pid) - used
    busy = busy_seconds(cores.all()) - busy
    server.check()
    load = loaded.load
    # A large answer that the end of the time cut off was work, too.
    requests = load.received / workload.size if workload.bulk else load.requests
    if not requests:
        raise Failed(f"no request was answered within {seconds:g} s, {load.errors} failed")
    return Speed(
        rate=requests / load.seconds,
        megabytes=load.received / load.seconds / 1e6,
        p50=load.p50,
        p99=load.p99,
        cpu=used / requests * 1e6,
        busy=used / wall,
        load_busy=loaded.cpu_seconds / wall,
        other=max(0.0, busy - used - loaded.cpu_seconds) / wall / len(cores.all()),
        errors=load.errors,
    )


def memory(server: RunningServer, workload: Workload, connections: int, cores: Cores) -> Memory:
    """Lets a server rest, then hold connections."""
    generators.run(
        replace(workload, kind="http", path="/", connections=1, body=0, size=1),
        server.port,
        BURST,
        cores.load,
    )
    time.sleep(REST)
    before = pss(server.pid)
    held = _hold(server.port, workload, connections)
    try:
        time.sleep(REST)
        grown = pss(server.pid) - before
        open_still = len(held) - _closed(held)
    finally:
        for connection in held:
            connection.close()
    server.check()
    if not held:
        raise Failed("it took no connection")
    return Memory(
        start=server.start_seconds * 1000,
        rest=before / 1e6,
        processes=len(tree(server.pid)),
        each=grown / len(held) / 1000,
        held=open_still,
        wanted=connections,
    )


def _hold(port: int, workload: Workload, connections: int) -> list[socket.socket]:
    """Opens connections that have had one answer, or are a WebSocket. Those that fail are left out."""
    held: list[socket.socket] = []
    for _ in range(connections):
        connection = socket.create_connection(("127.0.0.1", port), timeout=2)
        try:
            if workload.kind == "idle websocket":
                handshake(connection, port, workload.path)
            else:
                connection.sendall(workload.request("127.0.0.1"))
                if b" 200 " not in connection.recv(4096)[:16]:
                    raise ValueError("it is not answered")
        except (OSError, ValueError):
            connection.close()
            # A server that keeps none is not asked a thousand times.
            if len(held) == 0:
                break
        else:
            held.append(connection)
    return held


def _closed(connections: list[socket.socket]) -> int:
    """How many the server has closed."""
    poll = select.poll()
    for connection in connections:
        connection.setblocking(False)
        poll.register(connection, select.POLLIN)
    closed = 0
    by_number = {connection.fileno(): connection for connection in connections}
    for number, _ in poll.poll(0):
        try:
            # The rest of an answer may be waiting; the end comes after it.
            while by_number[number].recv(1 << 16):
                pass
            closed += 1
        except BlockingIOError:
            pass
        except OSError:
            closed += 1
    return closed
