"""The parts, one after the other, and what would be a fault of the gateway."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from load.processes import Failed
from load.servers import Place, Server

from . import changes, crashes, deaths, peers
from .gateway import KINDS
from .plan import Plan
from .report import Results
from .tally import lost

FACTOR = 2.0
"""The 99th percentile of the others may be so much greater while one crashes."""
WHOLE_AGAIN = 1.0
"""Seconds within which a pool has all its workers again."""


class Running:
    """All that is asked for."""

    def __init__(self, place: Place, scratch: Path, plan: Plan) -> None:
        self._place = place
        self._scratch = scratch
        self._plan = plan
        self._count = 0
        self.results = Results()

    def run(self, parts: Sequence[str], kinds: Sequence[str], servers: Sequence[Server]) -> Results:
        """Runs these parts."""
        program, plan, results = self._place.hawksbill, self._plan, self.results
        chosen = [kind for kind in KINDS if kind.name in kinds]
        for kind in chosen if "changes" in parts else ():
            with self._told(f"changes, {kind.name}"):
                results.changes.append(changes.run(program, kind, self._root(), plan))
        for kind in chosen if "deaths" in parts else ():
            with self._told(f"deaths, {kind.name}"):
                results.deaths.append(deaths.run(program, kind, self._root(), plan))
        if "crashes" in parts:
            with self._told("crashes"):
                results.crashes = crashes.run(program, self._root(), plan)
        for server in servers if "peers" in parts else ():
            with self._told(f"{server.name} ({server.interface})"):
                results.peers.append(peers.run(server, self._place, self._root(), plan))
        return results

    def _root(self) -> Path:
        """A fresh directory; its name is short, for sockets are in it."""
        self._count += 1
        root = self._scratch / str(self._count)
        root.mkdir()
        return root

    def _told(self, what: str) -> _Told:
        return _Told(what, self.results)


class _Told:
    """Says what is done; what fails is left out, and said."""

    def __init__(self, what: str, results: Results) -> None:
        self._what = what
        self._results = results

    def __enter__(self) -> None:
        print(f"reload: {self._what}", flush=True)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, (Failed, OSError)):
            return False
        line = f"{self._what}: {' '.join(str(error).split())}"
        print(f"reload: not done: {line}", flush=True)
        self._results.left_out.append(line)
        return True


def faults(results: Results) -> list[str]:
    """What a gateway that loses nothing would not have done."""
    return [*_faults(results)]


def _faults(results: Results) -> Iterator[str]:
    yield from results.left_out
    for change in results.changes:
        yield from (f"changes, {change.kind}: {line}" for line in lost(change.tallies))
    for death in results.deaths:
        where = f"deaths, {death.kind}"
        yield from (f"{where}: lost by somebody else: {loss}" for loss in death.others)
        yield from (f"{where}: told late: {loss}" for loss in death.late)
        for kill in death.kills:
            if kill.whole is None or kill.whole > WHOLE_AGAIN:
                yield f"{where}: the pool was not whole within {WHOLE_AGAIN:g} s, but {kill.whole}"
    if results.crashes:
        yield from (f"crashes: {line}" for line in lost(results.crashes.tallies))
        for one in results.crashes.neighbours:
            if one.during > FACTOR * one.before:
                yield f"crashes: p99 of {one.app} went from {one.before:.1f} to {one.during:.1f} ms"
