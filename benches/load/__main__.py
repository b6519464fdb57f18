"""The program: `python -m load`."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import install, machine, measure, report, sections, servers, soak, workloads
from .generators import tool
from .measure import Cores
from .processes import Failed, RunningServer, free_port
from .servers import Place, Server
from .workloads import Workload

APPS = Path(__file__).resolve().parent / "apps"
RESULTS = Path(__file__).resolve().parents[1] / "RESULTS.md"
FILES = 8192
"""Connections need file descriptors, here and in each server."""


@dataclass
class Options:
    """What was asked for."""

    servers: list[str]
    only: list[str]
    rounds: int
    seconds: float
    warm: float
    connections: int
    minutes: float
    soak: float | None
    report: Path | None
    hawksbill: Path | None
    limit: Path | None
    peers: Path | None


@dataclass
class Visit:
    """A server, started once for all the workloads that it can have in one go."""

    server: Server
    workloads: list[Workload] = field(default_factory=list)


def arguments(words: Sequence[str]) -> Options:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m load", description="Measures Hawksbill beside its peers."
    )

    def names(flag: str, says: str) -> None:
        parser.add_argument(flag, metavar="A,B", default=[], type=lambda text: text.split(","), help=says)

    names("--servers", "these peers alone (ours is always there)")
    names("--only", "these workloads alone: wsgi-hello, hello, asgi, ...")
    parser.add_argument("--rounds", type=int, help="how often each is measured (3)")
    parser.add_argument("--seconds", type=float, help="how long each measurement lasts (4)")
    parser.add_argument(
        "--quick", action="store_true", help="one round of one second: whether it works, no figures"
    )
    parser.add_argument("--connections", type=int, help="idle connections that are held (1000)")
    parser.add_argument("--minutes", type=float, default=90, help="after these nothing more is begun (90)")
    parser.add_argument(
        "--soak",
        type=float,
        metavar="MINUTES",
        help="instead of the comparison: ours, and the servers named, under mixed requests for so long; a "
        "line a minute says what they hold in memory",
    )
    parser.add_argument(
        "--report", type=Path, help=f"where to write ({RESULTS.name} if all is measured, else nowhere)"
    )
    parser.add_argument("--hawksbill", type=Path, help="measure this program, instead of building one")
    parser.add_argument(
        "--limit", type=Path, help="the program of benches/limit.rs; without --hawksbill it is built, too"
    )
    parser.add_argument(
        "--peers", type=Path, help="the directory of the peers' programs, instead of installing them"
    )
    found = parser.parse_args(words)
    quick = found.quick
    options = Options(
        servers=found.servers,
        only=found.only,
        rounds=found.rounds or (1 if quick else 3),
        seconds=found.seconds or (1.0 if quick else 4.0),
        warm=0.0,
        connections=found.connections or (100 if quick else 1000),
        minutes=found.minutes,
        soak=found.soak,
        report=found.report,
        hawksbill=found.hawksbill.absolute() if found.hawksbill else None,
        limit=found.limit.absolute() if found.limit else None,
        peers=found.peers.absolute() if found.peers else None,
    )
    options.warm = min(1.0, options.seconds)
    whole = not (quick or options.servers or options.only or options.soak)
    if whole and options.report is None:
        options.report = RESULTS
    return options


def visits(chosen: Sequence[Server], asked: Sequence[Workload]) -> list[Visit]:
    """Which servers to start, for what.

    Memory is measured on a fresh start: what was freed would be used again.
    """
    found: dict[object, Visit] = {}
    for server in chosen:
        for workload in asked:
            if server.takes(workload):
                alike = (workload.module, workload.threads, workload.kind == "http2")
                key = (server.name, server.interface, workload.name if workload.is_idle else alike)
                found.setdefault(key, Visit(server)).workloads.append(workload)
    return list(found.values())


class Session:
    """All rounds of it."""

    def __init__(self, options: Options, place: Place, scratch: Path) -> None:
        self.options = options
        self.place = place
        self.results = report.Results()
        cores = sorted(os.sched_getaffinity(0))
        self.cores = Cores(server=cores[0], load=cores[1] if len(cores) > 1 else cores[0])
        kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
        self.env = {**kept, "PYTHONPATH": str(APPS), "PYTHONDONTWRITEBYTECODE": "1"}
        self.env["LOAD_DATABASE"] = str(scratch / "page.sqlite3")

    def prepare(self, asked: Sequence[Workload]) -> None:
        """Makes the database, if it is asked for."""
        if not any(workload.module == "django_page" for workload in asked):
            return
        command = [str(self.place.bin / "python"), "django_page.py"]
        done = subprocess.run(command, cwd=APPS, env=self.env, capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise Failed(f"the database of the Django page cannot be made: {done.stderr.strip()[-300:]}")

    def run(self, plan: Sequence[Visit]) -> None:
        """Takes turns."""
        end = time.monotonic() + self.options.minutes * 60
        for number in range(self.options.rounds):
            # Every other round the other way round: nobody always comes after the same.
            for visit in plan if number % 2 == 0 else reversed(plan):
                if time.monotonic() > end:
                    self._leave_out(
                        f"what came after {self.options.minutes:g} minutes, in round {number + 1}"
                    )
                    return
                self._visit(visit, number)

    def soak_each(self, chosen: Sequence[Server], asked: Sequence[Workload], minutes: float) -> None:
        """Loads one server after the other, for minutes."""
        interfaces = {workload.interface for workload in asked}
        for server in chosen:
            if server.interface not in interfaces:
                continue
            mixed = soak.mixture(server.interface)
            port = free_port()
            words = server.words(mixed[0], self.place, port)
            try:
                with RunningServer(words, port, self.cores.server, APPS, self.env) as running:
                    seen = soak.minutes(running, server.interface, minutes, self.cores, self._told(server))
                    self.results.soaks.setdefault(server.interface, {})[server.name] = seen
            except (Failed, OSError) as error:
                self._leave_out(f"{server.name} ({server.interface}), {minutes:g} minutes: {_line(error)}")

    @staticmethod
    def _told(server: Server) -> Callable[[int, soak.Minute], None]:
        def tell(number: int, minute: soak.Minute) -> None:
            seen = f"{minute.requests:,} requests, {minute.errors} errors, PSS {minute.pss:.1f} MB"
            print(f"minute {number}  {server.interface}  {server.name:10} {seen}", flush=True)

        return tell

    def _visit(self, visit: Visit, number: int) -> None:
        first = visit.workloads[0]
        port = free_port()
        words = visit.server.words(first, self.place, port)
        http2 = first.kind == "http2"
        called = f"{visit.server.name} ({visit.server.interface})"
        left = list(visit.workloads)
        while left:
            before = len(left)
            try:
                with RunningServer(words, port, self.cores.server, APPS, self.env, http2) as server:
                    while left:
                        # One that ends its server is not tried again; those after it get a new one.
                        self._measure(visit.server, server, left.pop(0), number)
                        server.check()
            except Failed as error:
                if len(left) == before:
                    self._leave_out(f"{called}: {_line(error)}")
                    return

    def _measure(self, who: Server, server: RunningServer, workload: Workload, number: int) -> None:
        told = f"round {number + 1}  {workload.name:16} {who.name:10} "
        options = self.options
        try:
            if workload.is_idle:
                memory = measure.memory(server, workload, options.connections, self.cores)
                self.results.memories.setdefault(workload, {}).setdefault(who.name, []).append(memory)
                print(f"{told} {memory.rest:.1f} MB, {memory.each:.1f} KB each", flush=True)
            else:
                speed = measure.speed(server, workload, options.seconds, options.warm, self.cores)
                self.results.speeds.setdefault(workload, {}).setdefault(who.name, []).append(speed)
                print(f"{told} {speed.rate:,.0f}/s, {speed.cpu:,.1f} µs, {speed.errors} errors", flush=True)
        except (Failed, OSError) as error:
            # That the server has ended says more than what the load saw of it.
            self._leave_out(f"{who.name}, {workload.name}: {_line(server.ended() or error)}")

    def _leave_out(self, line: str) -> None:
        self.results.left_out.append(line)
        print(f"load: not measured: {line}", flush=True)


def facts(
    options: Options, session: Session, asked: Sequence[Workload], loads: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """The machine, its state, the versions."""
    yield "date", datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    yield "machine", machine.description()
    cores = session.cores
    where = f"server on core {cores.server}, load on core {cores.load}"
    yield "cores", where if cores.server != cores.load else "one for both: rates and latencies mean nothing"
    yield "load of the machine", f"{loads[0]} before, {loads[1]} after (1 minute; its own part included)"
    how = f"{options.rounds} times {options.seconds:g} s, after {options.warm:g} s of warming up"
    yield "measured", f"{options.soak:g} minutes of mixed requests" if options.soak else how
    if options.soak:
        asked = [one for interface in session.results.soaks for one in soak.mixture(interface)]
    tools = sorted({name for w in asked if not w.is_idle and (name := tool(w, options.seconds))})
    yield "load programs", ", ".join(map(_tool_version, tools)) or report.NONE
    results = session.results
    names = {name for speeds in results.speeds.values() for name in speeds}
    names |= {name for memories in results.memories.values() for name in memories}
    names |= {name for soaked in results.soaks.values() for name in soaked}
    yield "Python", f"CPython {platform.python_version()}"
    beside = ("uvloop", "httptools", "websockets", "django")
    for whose, programs, wanted in (
        ("Hawksbill", session.place.hawksbill.parent, (servers.OURS, *beside)),
        ("peers", session.place.bin, (*sorted(names - {servers.OURS}), *beside)),
    ):
        known = install.versions(programs)
        found = [f"{name} {known[name]}" for name in wanted if name in known]
        yield f"environment of {whose}", ", ".join(found) or report.NONE


def _tool_version(name: str) -> str:
    program = shutil.which(name)
    if program is None:
        return f"{name} (ours)"
    text = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10)
    said = (text.stdout + text.stderr).split("\n")[0]
    return " ".join(said.replace("nghttp2/", "").split()[:2])


def _load_average() -> str:
    return f"{os.getloadavg()[0]:.2f}"


def _line(error: Exception | str) -> str:
    return " ".join(str(error).split())


def _more_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft < enough:
        resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))


def main(words: Sequence[str]) -> int:
    """Runs it all; gives the exit status."""
    options = arguments(words)
    # Asked to end, it ends what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    _more_files()
    try:
        # Minutes of load are for ours; who is beside it has to be named.
        names = options.servers or ([servers.OURS] if options.soak else [])
        chosen, asked = servers.chosen(names), workloads.chosen(options.only)
        if options.soak:
            chosen = tuple(server for server in chosen if not server.does)
        place = Place(
            bin=options.peers or install.peers(chosen),
            hawksbill=options.hawksbill or install.ours(),
            limit=options.limit or (None if options.hawksbill or options.soak else install.limit()),
        )
        with tempfile.TemporaryDirectory() as scratch:
            session = Session(options, place, Path(scratch))
            for server in chosen:
                if not install.present(server, place):
                    session.results.left_out.append(f"{server.name}: it is not installed")
            chosen = tuple(s for s in chosen if install.present(s, place))
            before = _load_average()
            if options.soak:
                session.soak_each(chosen, asked, options.soak)
            else:
                session.prepare(asked)
                session.run(visits(chosen, asked))
            about = list(facts(options, session, asked, (before, _load_average())))
    except (Failed, ValueError) as error:
        print(f"load: {error}", file=sys.stderr)
        return 1
    text = report.write(session.results, about, asked)
    if options.report:
        sections.replace(options.report, "load", text)
        print(f"load: written to {options.report}")
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
