"""The clients that are there at the same time."""

from __future__ import annotations

from collections.abc import Mapping

from .clients import Client, Target
from .gateway import Gateway
from .http1 import Events, Http1, Idle, KeepAlive, NewConnection, Upload
from .http2 import Shared, Streams
from .plan import Size
from .tally import Tally, Versions
from .websocket import Echo


def everyone(gateway: Gateway, versions: Mapping[str, Versions], size: Size, patience: float) -> list[Client]:
    """All kinds of clients of a gateway, of which one application answers at once and one what lasts."""
    kind = gateway.kind
    # Where it keeps the connections: behind a front each request may meet another version.
    first = Target(gateway.port, "/", versions[kind.apps[0]], kind.fronted, patience)
    live = Target(gateway.port, kind.live, versions[kind.live_app], kind.fronted, patience)

    def several(number: int, make: type[Http1] | type[Echo], target: Target, pace: float) -> list[Client]:
        tally = Tally(make.kind)
        return [make(target, tally, pace) for _ in range(number)]

    shared, streams = Shared(gateway.port), Tally(Streams.kind)
    return [
        *several(size.keep_alive, KeepAlive, first, size.pace),
        *several(size.new, NewConnection, first, size.pace),
        *(Streams(first, streams, size.pace, shared) for _ in range(size.streams)),
        *several(size.uploads, Upload, first, size.upload_pace),
        *several(size.events, Events, live, size.pace),
        *several(size.websockets, Echo, live, size.pace),
        *several(size.idle, Idle, live, size.pace),
    ]
