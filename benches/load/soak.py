"""Full load for minutes: whether the memory of a server grows with what it has served."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from statistics import median

from . import generators
from .measure import Cores
from .processes import InRam, RunningServer, cpu_seconds, in_ram
from .workloads import WORKLOADS, Interface, Workload

CONNECTIONS = {"hello": 16, "headers": 16, "echo": 16, "stream": 2, "websocket-echo": 8}
"""What is asked at the same time, by how many connections each."""
WARM = 10.0
"""Seconds at most before the first minute, so that all is loaded that requests need."""
LOOK = 2.0
"""Seconds between two looks at the memory, at most."""


@dataclass(frozen=True)
class Minute:
    """What was seen in a minute, or a part of one."""

    seconds: float
    requests: int
    """Answers and messages of all sorts."""
    errors: int
    pss: float
    """Million bytes, the median of several looks at the whole tree."""
    rss: float
    """The same."""
    busy: float
    """Share of its core that the server used."""


def mixture(interface: Interface) -> list[Workload]:
    """What is asked of applications of an interface."""
    mixed = []
    for workload in WORKLOADS:
        name = workload.name.removeprefix(f"{interface}-")
        if workload.interface == interface and name in CONNECTIONS:
            mixed.append(replace(workload, connections=CONNECTIONS[name]))
    return mixed


def minutes(
    server: RunningServer,
    interface: Interface,
    length: float,
    cores: Cores,
    tell: Callable[[int, Minute], None],
) -> list[Minute]:
    """Loads a server for so many minutes, in parts of a minute at most, of which there are two at least."""
    mixed = mixture(interface)
    parts = max(2, math.ceil(length))
    seconds = length * 60 / parts
    _load(server, mixed, min(WARM, seconds), cores)
    seen: list[Minute] = []
    for number in range(1, parts + 1):
        seen.append(_load(server, mixed, seconds, cores))
        tell(number, seen[-1])
        server.check()
    return seen


def _load(server: RunningServer, mixed: Sequence[Workload], seconds: float, cores: Cores) -> Minute:
    looks: list[InRam] = []
    begin, used = time.perf_counter(), cpu_seconds(server.pid)
    with ThreadPoolExecutor(len(mixed)) as pool:
        running = [
            pool.submit(generators.run, workload, server.port, seconds, cores.load) for workload in mixed
        ]
        while not all(load.done() for load in running):
            time.sleep(min(LOOK, seconds / 4))
            looks.append(in_ram(server.pid))
        loads = [load.result().load for load in running]
    return Minute(
        seconds=seconds,
        requests=sum(load.requests for load in loads),
        errors=sum(load.errors for load in loads),
        pss=median(look.pss for look in looks) / 1e6,
        rss=median(look.rss for look in looks) / 1e6,
        busy=(cpu_seconds(server.pid) - used) / (time.perf_counter() - begin),
    )
