"""What clients saw, as tables in Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

from .changes import Changes
from .crashes import Crashes
from .deaths import Deaths
from .peers import Peer
from .tally import CATEGORIES, Tally

NONE = "\u2013"
TIMES = "\u00d7"


@dataclass
class Results:
    """All that came of it."""

    changes: list[Changes] = field(default_factory=list)
    deaths: list[Deaths] = field(default_factory=list)
    crashes: Crashes | None = None
    peers: list[Peer] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    """What could not be done, and why."""


def write(results: Results, facts: Sequence[tuple[str, str]]) -> str:
    """The whole section."""
    parts = [
        "# Deploying under load",
        "Written by `make bench-reload`. All clients ask at the same time and at a steady pace, on loopback, "
        "without TLS. *Refused*: no connection. *Reset*: the connection ended without an answer. *Failed*: a "
        "truncated, wrong or 5xx answer, or one of code that no longer serves. *Hung*: none in time. What "
        "stands under *told* is no loss: the server closed what had nothing under way, or what lasts for "
        "ever at the end of `drain`.",
        "| | |\n|---|---|\n" + "\n".join(f"| {name} | {text} |" for name, text in facts),
    ]
    for change in results.changes:
        parts += _changes(change)
    for death in results.deaths:
        parts += _deaths(death)
    if results.crashes:
        parts += _crashes(results.crashes)
    if results.peers:
        parts += _peers(results.peers)
    if results.left_out:
        parts += ["## Not done", "\n".join(f"- {line}" for line in results.left_out)]
    return "\n\n".join(parts) + "\n"


def _processes(kind: str) -> str:
    return "behind a front, two applications" if kind == "front" else "each worker a whole gateway"


def _changes(change: Changes) -> list[str]:
    times = ", ".join(f"{len(took)} {TIMES} `{name}`" for name, took in change.took.items())
    took = [f"{name} {median(took):.2f} s, at most {max(took):.2f}" for name, took in change.took.items()]
    memory = [[after, f"{size:.1f}", f"{size / change.memory[0][1]:.2f}"] for after, size in change.memory]
    return [
        f"## The code changes: {_processes(change.kind)}",
        f"{times}, in {change.seconds:.0f} s. A command took (median): {'; '.join(took)}.",
        _tallies(change.tallies),
        "Memory of all processes together, once those that were replaced had ended:",
        _table(["after", "PSS, MB", f"{TIMES} the start"], memory),
    ]


def _deaths(death: Deaths) -> list[str]:
    whole = [kill.whole for kill in death.kills if kill.whole is not None]
    never = len(death.kills) - len(whole)
    own = Counter("502" if loss.status else "reset or cut" for loss in death.own)
    lines = [
        f"- The pool was whole again after {median(whole):.2f} s (median), {max(whole):.2f} s at most."
        if whole
        else "- The pool was never whole again.",
        f"- Requests, streams and connections of the killed workers: {len(death.own)}"
        f" ({', '.join(f'{count} {how}' for how, count in own.items()) or 'none'}); told after more than a "
        f"second: {len(death.late)}.",
        f"- Lost by anybody else: {len(death.others)}.",
    ]
    if never:
        lines.append(f"- The pool was not whole again: {never} times.")
    return [
        f"## {len(death.kills)} workers are killed: {_processes(death.kind)}",
        "\n".join(lines),
        _tallies(death.tallies),
    ]


def _crashes(crashes: Crashes) -> list[str]:
    rows = [
        [one.app, f"{one.before:.1f}", f"{one.during:.1f}", f"{one.during / max(one.before, 1e-9):.2f}"]
        for one in crashes.neighbours
    ]
    losses = sum(len(tally.losses) for tally in crashes.tallies)
    return [
        "## One of three applications crashes again and again",
        f"It died {crashes.restarts} times. Lost by the clients of the other two: {losses}.",
        _table(["application", "p99 before, ms", "p99 meanwhile, ms", TIMES], rows),
    ]


def _peers(peers: Sequence[Peer]) -> list[str]:
    rows = []
    for peer in peers:
        for tally in peer.tallies or [Tally(NONE)]:
            counts = [str(tally.count(category)) for category in CATEGORIES]
            closed = sum(tally.apart.values())
            took = f"{median(peer.took):.2f}" if peer.took else NONE
            name = f"{peer.server.name} ({peer.server.interface})"
            rows.append([name, tally.kind, str(len(peer.took)), f"{tally.ok:,}", *counts, str(closed), took])
    notes = [
        f"- {p.server.name} ({p.server.interface}): {' '.join(p.failed.split())}" for p in peers if p.failed
    ]
    return [
        "## SIGHUP, beside other servers",
        "Two workers each, answers of 20 ms, new code for each reload. *Idle closed*: a kept connection was "
        "closed between two requests, without `Connection: close` before; had the next one been a moment "
        "earlier, it would have been lost. *Seconds*: from the signal until only the new code answered new "
        "connections.",
        _table(
            ["server", "client", "reloads", "ok", *CATEGORIES, "idle closed", "seconds"],
            rows,
            texts=2,
        ),
        *(["\n".join(notes)] if notes else []),
    ]


def _tallies(tallies: Iterable[Tally]) -> str:
    rows = []
    for tally in tallies:
        told = ", ".join(f"{count} {TIMES} {what}" for what, count in sorted(tally.apart.items()))
        counts = [str(tally.count(category)) for category in CATEGORIES]
        rows.append(
            [tally.kind, f"{tally.ok:,}", *counts, f"{tally.quantile(0.99) * 1000:.1f}", told or NONE]
        )
    return _table(["clients", "ok", *CATEGORIES, "p99 ms", "told"], rows)


def _table(columns: list[str], rows: list[list[str]], texts: int = 1) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|---" * texts + "|" + "---:|" * (len(columns) - texts)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
