"""How much of everything is done, in the long form and in the short one."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Size:
    """How many clients there are of each kind, and how many seconds they rest after each answer."""

    keep_alive: int = 4
    new: int = 4
    streams: int = 4
    """On one connection."""
    uploads: int = 1
    events: int = 4
    websockets: int = 4
    idle: int = 4
    pace: float = 0.02
    upload_pace: float = 0.3


@dataclass(frozen=True)
class Plan:
    """One plan for all parts: what they share is the same for all of them."""

    size: Size = field(default_factory=Size)
    drain: float = 8.0
    """Seconds that a gateway gives to those who are replaced."""
    patience: float = 5.0
    """Seconds after which a client gives an answer up."""

    reloads: int = 20
    deploys: int = 5
    """Each of them followed by a rollback for as long as there are any."""
    rollbacks: int = 5
    upgrades: int = 1
    rest: float = 0.3
    """Seconds between two changes."""

    kills: int = 60
    every: float = 1.0
    """Seconds from one kill to the next; longer where the pool is not whole by then."""

    watched: float = 20.0
    """Seconds in which the neighbours of an application are measured, before it crashes and while it does."""

    peer_reloads: int = 5
    peer_rest: float = 2.0
    """Seconds for what follows a peer's reload: its old workers end after the new ones serve."""
    peer_clients: int = 8
    """Of each kind."""


WHOLE = Plan()
QUICK = Plan(drain=4.0, reloads=2, deploys=1, rollbacks=1, kills=3, watched=3.0, peer_reloads=1)
