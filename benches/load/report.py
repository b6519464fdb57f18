"""What was measured, as tables in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TypeVar

from .measure import Memory, Speed
from .servers import LIMIT, NO_PEERS
from .soak import Minute, mixture
from .workloads import Interface, Workload

Round = TypeVar("Round", Speed, Memory)

BAD = 0.01
"""A peer that fails more than this share of its requests is nobody's measure."""
NONE = "\u2013"
BEST = "\u00d7 best"
TO_LIMIT = f"\u00d7 {LIMIT}"


@dataclass
class Results:
    """All that was measured."""

    speeds: dict[Workload, dict[str, list[Speed]]] = field(default_factory=dict)
    """By workload and server, one a round."""
    memories: dict[Workload, dict[str, list[Memory]]] = field(default_factory=dict)
    """By workload and server, one a round."""
    soaks: dict[Interface, dict[str, list[Minute]]] = field(default_factory=dict)
    """By interface and server, one a minute."""
    left_out: list[str] = field(default_factory=list)
    """What was not measured, and why."""


def write(results: Results, facts: Sequence[tuple[str, str]], order: Sequence[Workload]) -> str:
    """The whole report."""
    parts = [
        "# Hawksbill beside its peers",
        "Written by `make bench-load`. One worker each on one core, the load on another, loopback, no TLS; "
        "the servers take turns, and each figure is the median of the rounds. Ratios count, not the absolute "
        "figures.",
        "| | |\n|---|---|\n" + "\n".join(f"| {name} | {text} |" for name, text in facts),
        "*CPU µs* is the user and system time of the server's whole process tree for each request: the "
        f"figure that other work moves least. *{BEST}* is the ratio to the best peer, which is a server "
        f"other than Hawksbill; *{TO_LIMIT}* that to the HTTP library beneath Hawksbill without any Python. "
        "Where *load busy* is near 100 %, the rate is that of the load program.",
    ]
    for workload in order:
        if speeds := results.speeds.get(workload):
            parts += [f"## {workload.title}", f"`{workload.name}`", _speeds(workload, speeds), _noise(speeds)]
        if memories := results.memories.get(workload):
            parts += [
                f"## {workload.interface.upper()}, {workload.title}"
                if workload.kind == "idle websocket"
                else f"## {workload.title}",
                f"`{workload.name}`",
                _memories(memories),
            ]
    for interface, soaked in results.soaks.items():
        mixed = ", ".join(workload.name for workload in mixture(interface))
        parts += [
            f"## {interface.upper()}, minutes of full load: {mixed} at once",
            f"`{interface}-soak`",
            _soaked(soaked),
        ]
    if results.left_out:
        parts += ["## Not measured", "\n".join(f"- {line}" for line in dict.fromkeys(results.left_out))]
    return "\n\n".join(parts) + "\n"


def _speeds(workload: Workload, speeds: dict[str, list[Speed]]) -> str:
    def rate(speed: Speed) -> float:
        return speed.megabytes if workload.bulk else speed.rate

    good = {
        name: rounds
        for name, rounds in speeds.items()
        if name not in NO_PEERS
        and sum(s.errors for s in rounds) <= BAD * sum(s.errors + s.rate for s in rounds)
    }
    best_rate = _best(good, rate, max)
    best_p50 = _best(good, lambda speed: speed.p50, min)
    best_cpu = _best(good, lambda speed: speed.cpu, min)
    unit = "MB/s" if workload.bulk else "messages/s" if workload.kind == "websocket" else "requests/s"
    limit = speeds.get(LIMIT)
    to_limit = [TO_LIMIT] if limit else []
    columns = ["server", unit, BEST, "p50 ms", BEST, *to_limit, "p99 ms", "CPU µs", BEST, *to_limit]
    rows = []
    for name, rounds in sorted(speeds.items(), key=lambda item: median(s.cpu for s in item[1])):
        mid_rate, mid_p50, mid_cpu = (
            _mid(rounds, rate),
            _mid(rounds, lambda s: s.p50),
            _mid(rounds, lambda s: s.cpu),
        )
        rows.append(
            [
                name,
                f"{mid_rate:,.0f}",
                _ratio(mid_rate, best_rate),
                f"{mid_p50:.3f}",
                _ratio(mid_p50, best_p50),
                *([_ratio(mid_p50, _mid(limit, lambda s: s.p50))] if limit else []),
                f"{_mid(rounds, lambda s: s.p99):.3f}",
                f"{mid_cpu:,.1f}",
                _ratio(mid_cpu, best_cpu),
                *([_ratio(mid_cpu, _mid(limit, lambda s: s.cpu))] if limit else []),
                f"{_mid(rounds, lambda s: s.busy):.0%}",
                f"{_mid(rounds, lambda s: s.load_busy):.0%}",
                str(sum(s.errors for s in rounds)),
            ]
        )
    return _table([*columns, "server busy", "load busy", "errors"], rows)


def _memories(memories: dict[str, list[Memory]]) -> str:
    peers = {name: rounds for name, rounds in memories.items() if name not in NO_PEERS}
    best_rest = _best(peers, lambda memory: memory.rest, min)
    # One that does not hold them has no figure for them.
    holding = {name: rounds for name, rounds in peers.items() if _holds(rounds)}
    best_each = _best(holding, lambda memory: memory.each, min)
    rows = []
    for name, rounds in sorted(memories.items(), key=lambda item: median(m.rest for m in item[1])):
        rest, each = _mid(rounds, lambda m: m.rest), _mid(rounds, lambda m: m.each)
        held = _holds(rounds)
        rows.append(
            [
                name,
                f"{rest:.1f}",
                _ratio(rest, best_rest),
                f"{each:.1f}" if held else NONE,
                _ratio(each, best_each) if held else NONE,
                f"{min(m.held for m in rounds)} of {rounds[0].wanted}",
                f"{_mid(rounds, lambda m: m.processes):.0f}",
                f"{_mid(rounds, lambda m: m.start):.0f}",
            ]
        )
    columns = [
        "server",
        "PSS at rest, MB",
        BEST,
        "KB each connection",
        BEST,
        "held open",
        "processes",
    ]
    return _table([*columns, "start ms"], rows)


def _soaked(servers: dict[str, list[Minute]]) -> str:
    rows = []
    for name, minutes in servers.items():
        for number, minute in enumerate(minutes, 1):
            rows.append(
                [
                    name,
                    str(number),
                    f"{minute.requests:,}",
                    str(minute.errors),
                    f"{minute.busy:.0%}",
                    f"{minute.pss:.2f}",
                    _ratio(minute.pss, minutes[0].pss),
                    f"{minute.rss:.2f}",
                    _ratio(minute.rss, minutes[0].rss),
                ]
            )
    first = "\u00d7 first"
    return _table(
        ["server", "minute", "requests", "errors", "server busy", "PSS, MB", first, "RSS, MB", first], rows
    )


def _holds(rounds: list[Memory]) -> bool:
    return all(memory.held >= 0.95 * memory.wanted for memory in rounds)


def _noise(speeds: dict[str, list[Speed]]) -> str:
    every = [speed for rounds in speeds.values() for speed in rounds]
    other = [speed.other for speed in every]
    counts = sorted({len(rounds) for rounds in speeds.values()})
    spreads = []
    for rounds in speeds.values():
        cpu = [speed.cpu for speed in rounds]
        spreads.append((max(cpu) - min(cpu)) / max(median(cpu), 1e-9))
    return (
        f"Rounds: {NONE.join(map(str, counts))}. Other work on these cores: median {median(other):.0%}, "
        f"most {max(other):.0%}. CPU µs differ between rounds by {median(spreads):.0%} (median)."
    )


def _mid(rounds: list[Round], figure: Callable[[Round], float]) -> float:
    return median(map(figure, rounds))


def _best(
    peers: dict[str, list[Round]], figure: Callable[[Round], float], choose: Callable[[list[float]], float]
) -> float | None:
    return choose([_mid(rounds, figure) for rounds in peers.values()]) if peers else None


def _ratio(value: float, best: float | None) -> str:
    return f"{value / best:.2f}" if best else NONE


def _table(columns: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|---|" + "---:|" * (len(columns) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
