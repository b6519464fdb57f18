"""The table of servers: one entry each, one worker each."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from .workloads import Interface, Workload

OURS = "hawksbill"
OURS_DJANGO = "hawksbill-django"
"""Ours, with a Django project by its settings."""
OURS_FRONT = "hawksbill-front"
"""Ours, with the application in a process behind a front: what the hop between them costs."""
LIMIT = "hyper"
"""The HTTP library beneath ours, alone: nobody's peer, but as fast as it can get."""
NO_PEERS = (OURS, OURS_DJANGO, OURS_FRONT, LIMIT)


@dataclass(frozen=True)
class Server:
    """A server and how it is told to host `{module}:{attribute}` on `127.0.0.1:{port}`.

    In the command stand also `{bin}`, the directory of the peers' programs, `{python}`, their interpreter,
    `{hawksbill}`, the program to be measured, and `{limit}`, `benches/limit.rs`.
    """

    name: str
    interface: Interface
    command: str
    packages: tuple[str, ...] = ()
    """What pip has to install for it."""
    needs: str = ""
    """The program or module that is there when it is installed: a file of `{bin}`, or `import NAME`."""
    threads: str = ""
    """What is added where a workload wants `{threads}` threads."""
    usual: str = ""
    """What is added where it does not care."""
    http2: str | None = None
    """What is added for HTTP/2 without TLS; `None`: it does not speak it."""
    websocket: bool = False
    by_default: bool = True
    """Whether it is measured without being named."""
    does: tuple[str, ...] = ()
    """The only workloads that it can do, without the interface in their names; empty: all."""

    @property
    def is_peer(self) -> bool:
        """Whether it is one that ours is compared with."""
        return self.name not in NO_PEERS

    def takes(self, workload: Workload) -> bool:
        """Whether it can do that."""
        if self.interface != workload.interface:
            return False
        if self.does and workload.name.removeprefix(f"{self.interface}-") not in self.does:
            return False
        if "websocket" in workload.kind:
            return self.websocket
        if workload.kind == "http2":
            return self.http2 is not None
        return not workload.threads or bool(self.threads)

    def words(self, workload: Workload, place: Place, port: int) -> list[str]:
        """The command for a workload, as the words of it."""
        parts = [self.command, self.threads if workload.threads else self.usual]
        if workload.kind == "http2" and self.http2:
            parts.append(self.http2)
        values = {
            "bin": place.bin,
            "python": place.bin / "python",
            "hawksbill": place.hawksbill,
            "limit": place.limit,
            "port": port,
            "threads": workload.threads,
            "module": workload.module,
            "attribute": self.interface,
        }
        return [word.format(**values) for part in parts for word in shlex.split(part)]


@dataclass(frozen=True)
class Place:
    """Where the programs are."""

    bin: Path
    """The peers' programs."""
    hawksbill: Path
    """The program of ours."""
    limit: Path | None
    """What hyper alone does; `None`: it is not there."""


_HAWKSBILL = "{hawksbill} run {module}:{attribute} --listen 127.0.0.1:{port} --workers 1 --log-level error"
_GRANIAN = (
    "{bin}/granian {module}:{attribute} --host 127.0.0.1 --port {port} --workers 1 --backlog 2048 "
    "--log-level error"
)
_GUNICORN = (
    "{bin}/gunicorn {module}:{attribute} --bind 127.0.0.1:{port} --workers 1 --backlog 2048 "
    "--log-level error --keep-alive 75 --worker-connections 4000"
)
_UVICORN = (
    "{bin}/uvicorn {module}:{attribute} --host 127.0.0.1 --port {port} --backlog 2048 --log-level error "
    "--no-access-log --timeout-keep-alive 75"
)
_HYPERCORN = (
    "{bin}/hypercorn {module}:{attribute} --bind 127.0.0.1:{port} --workers 1 --log-level error "
    "--keep-alive 75 --config hypercorn.toml --worker-class uvloop"
)
# Its router in front keeps connections alive, which the worker alone does not.
_UWSGI = (
    "{bin}/uwsgi --http 127.0.0.1:{port} --http-keepalive --http-auto-chunked --tcp-nodelay --master "
    "--processes 1 --disable-logging --listen 1024 --die-on-term --need-app --module {module}:{attribute}"
)
_BJOERN = "import bjoern, {module}; bjoern.run({module}.{attribute}, '127.0.0.1', {port})"

_FRONT = "{hawksbill} run --listen 127.0.0.1:{port} --log-level error"
_HOPS = ("hello", "headers", "echo", "large", "stream", "http2", "one", "websocket-echo")
_PLAIN = ("hello", "headers", "echo", "large", "http2", "one", "idle")

SERVERS: tuple[Server, ...] = (
    Server(LIMIT, "wsgi", "{limit} {port}", http2="--http2", does=_PLAIN),
    Server(LIMIT, "asgi", "{limit} {port}", http2="--http2", does=_PLAIN),
    Server(OURS, "wsgi", f"{_HAWKSBILL} --wsgi", threads="--threads {threads}", http2=""),
    Server(OURS, "asgi", f"{_HAWKSBILL} --asgi", http2="", websocket=True),
    Server(
        OURS_DJANGO,
        "wsgi",
        "{hawksbill} run -c django.toml --listen 127.0.0.1:{port} --log-level error",
        does=("django",),
    ),
    Server(OURS_FRONT, "wsgi", f"{_FRONT} -c front-wsgi.toml", does=_HOPS, http2=""),
    Server(OURS_FRONT, "asgi", f"{_FRONT} -c front-asgi.toml", does=_HOPS, http2="", websocket=True),
    Server(
        "granian",
        "wsgi",
        f"{_GRANIAN} --interface wsgi --no-ws",
        packages=("granian[uvloop]",),
        needs="granian",
        threads="--blocking-threads {threads}",
        usual="--blocking-threads 1",
        http2="--http 2",
    ),
    Server(
        "granian",
        "asgi",
        f"{_GRANIAN} --interface asgi --loop uvloop",
        packages=("granian[uvloop]",),
        needs="granian",
        http2="--http 2",
        websocket=True,
    ),
    Server(
        "fastpysgi",
        "wsgi",
        "{bin}/fastpysgi {module}:{attribute} --host 127.0.0.1 --port {port}",
        packages=("fastpysgi",),
        needs="fastpysgi",
    ),
    Server(
        "fastpysgi",
        "asgi",
        "{bin}/fastpysgi {module}:{attribute} --host 127.0.0.1 --port {port}",
        packages=("fastpysgi",),
        needs="fastpysgi",
    ),
    Server("bjoern", "wsgi", f'{{python}} -c "{_BJOERN}"', packages=("bjoern",), needs="import bjoern"),
    Server("uwsgi", "wsgi", _UWSGI, packages=("uwsgi",), needs="uwsgi", threads="--threads {threads}"),
    Server(
        "gunicorn",
        "wsgi",
        f"{_GUNICORN} --worker-class gthread",
        packages=("gunicorn",),
        needs="gunicorn",
        threads="--threads {threads}",
        usual="--threads 4",
    ),
    Server(
        "uvicorn",
        "asgi",
        _UVICORN,
        packages=("uvicorn[standard]",),
        needs="uvicorn",
        websocket=True,
    ),
    Server(
        "hypercorn",
        "asgi",
        _HYPERCORN,
        packages=("hypercorn[uvloop]", "h2", "wsproto"),
        needs="hypercorn",
        http2="",
        websocket=True,
    ),
    Server(
        "wsgiref",
        "wsgi",
        "{python} wsgiref_server.py {port} {module}",
        by_default=False,
    ),
)


def chosen(names: list[str]) -> tuple[Server, ...]:
    """The servers of these names, with ours and its limit always; without names those measured by default.

    Raises `ValueError`, with what there is, for a name of none.
    """
    known = {server.name for server in SERVERS}
    for name in names:
        if name not in known:
            raise ValueError(f"no server is called '{name}'; there are {', '.join(sorted(known))}")
    wanted = {OURS, LIMIT, *names}
    return tuple(s for s in SERVERS if (s.name in wanted if names else s.by_default))
