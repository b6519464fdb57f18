"""The Python spelling of the configuration."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeAlias

from . import _core

Setting: TypeAlias = (
    "str | int | float | bool | os.PathLike[str] | Sequence[Setting] | Mapping[str, Setting] | None"
)
"""The value of a key; ``None`` means that the key is not given."""

Application: TypeAlias = Callable[..., Any]
"""A WSGI or ASGI application; which of the two is found by looking at it."""


class Gateway:
    """A gateway: sockets, applications and the sites that lead to them.

    Every keyword is a key of ``hawksbill.toml``'s top level. Nothing is opened or imported before
    :meth:`run` or :meth:`start`.
    """

    def __init__(
        self,
        listen: str | socket.socket | Sequence[str | socket.socket] | None = None,
        *,
        dir: str | os.PathLike[str] | None = None,
        **settings: Setting,
    ) -> None:
        """Begin a gateway.

        ``listen`` names the sockets (``":80"``, ``"127.0.0.1:0"``, ``"unix:/run/site.sock"``, ``"fd:3"``)
        or is a listening socket of this program. ``dir`` is the directory from which relative paths count:
        the working directory by default.
        """
        self._dir = os.fspath(dir) if dir is not None else "."
        self._sockets: list[socket.socket] = []
        self._live: dict[str, Application] = {}
        self._apps: dict[str, Setting] = {}
        self._sites: dict[str, Setting] = {}
        self._config: dict[str, Setting] = {**settings, "apps": self._apps, "sites": self._sites}
        if listen is not None:
            listeners = [listen] if isinstance(listen, (str, socket.socket)) else list(listen)
            self._config["listen"] = [self._listener(one) for one in listeners]
        self._running: Running | None = None

    def _listener(self, listen: str | socket.socket) -> str:
        if isinstance(listen, str):
            return listen
        # The gateway makes a duplicate when it starts; until then the socket must not be let go.
        self._sockets.append(listen)
        return f"fd:{listen.fileno()}"

    def app(self, name: str, application: Application | None = None, /, **settings: Setting) -> None:
        """Add a named application: ``wsgi="mod:attr"``, ``asgi="..."``, ``django="..."``, a live object."""
        if name in self._apps or name in self._live:
            raise ConfigError(f"app({name!r}): there is an application of this name already")
        if application is None:
            self._apps[name] = settings
        elif settings:
            raise ConfigError(f"app({name!r}): a live object takes no further keys: {', '.join(settings)}")
        else:
            self._live[name] = application

    def site(self, hosts: str, **settings: Setting) -> Site:
        """Add a site that answers for these hosts, separated by spaces; ``"*"`` answers for every host."""
        if hosts in self._sites:
            raise ConfigError(f"site({hosts!r}): there is a site of this name already")
        table: dict[str, Setting] = dict(settings)
        self._sites[hosts] = table
        return Site(self, table)

    def tree(self) -> str:
        """Read the configuration and return the tree of turtles as text, as ``hawksbill check`` prints it."""
        return _core.tree(self._config, self._live, self._dir)

    def start(self) -> Running:
        """Start serving in the background and return when every application is ready.

        Raises :class:`ConfigError` when the configuration is wrong, :class:`StartError` when a socket cannot
        be opened or an application does not start.
        """
        return Running(_core.start(self._config, self._live, self._dir))

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then finish the requests under way and return.

        To be called on the main thread. Raises as :meth:`start`.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("run() handles signals and needs the main thread; use start() on another one")
        stop = threading.Event()
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in before:
            signal.signal(number, lambda *_: stop.set())
        try:
            with self.start():
                # A wait with a limit lets Python run the signal handlers above.
                while not stop.wait(0.2):
                    pass
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def __aenter__(self) -> Running:
        """Start without blocking the running event loop."""
        self._running = await asyncio.to_thread(self.start)
        return self._running

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop and wait without blocking the running event loop."""
        running, self._running = self._running, None
        if running is not None:
            await asyncio.to_thread(running.stop)


class Site:
    """The routes of one site of a :class:`Gateway`."""

    def __init__(self, gateway: Gateway, table: dict[str, Setting]) -> None:
        """Begin a site; use :meth:`Gateway.site`."""
        self._gateway = gateway
        self._table = table

    def route(self, path: str, target: str | Application | None = None, /, **settings: Setting) -> Site:
        """Lead a path prefix to an application and return the site.

        ``target`` is the name of an application or a live object; without it, the keywords say what answers
        (``files="static"``, ``mount="blog"``, ...). Further keywords are layers (``log``, ``max_body``, ...).
        """
        if path in self._table:
            raise ConfigError(f"route({path!r}): this site has a route of this path already")
        if target is None:
            self._table[path] = settings
            return self
        name = target if isinstance(target, str) else self._name_of(target)
        self._table[path] = {"app": name, **settings} if settings else name
        return self

    def _name_of(self, application: Application) -> str:
        live = self.gateway_live
        for name, known in live.items():
            if known is application:
                return name
        kind = type(application)
        base = getattr(application, "__qualname__", None) or kind.__qualname__
        module = getattr(application, "__module__", None) or kind.__module__
        name = f"{module}:{base}"
        count = 1
        while name in live:
            count += 1
            name = f"{module}:{base}#{count}"
        live[name] = application
        return name

    @property
    def gateway_live(self) -> dict[str, Application]:
        """The live objects of the gateway, by name."""
        return self._gateway._live


class Running:
    """A gateway that serves; a context manager that stops it."""

    def __init__(self, core: _core.Running) -> None:
        """Wrap a started gateway; use :meth:`Gateway.start`."""
        self._core = core

    @property
    def addresses(self) -> list[str]:
        """The addresses really bound: ``"127.0.0.1:43121"``, ``"unix:/run/hawksbill.sock"``."""
        return self._core.addresses

    @property
    def port(self) -> int:
        """The TCP port of the first address that has one."""
        for address in self.addresses:
            host, _, port = address.rpartition(":")
            if host and port.isdecimal():
                return int(port)
        raise LookupError("this gateway listens on no TCP port")

    def shutdown(self) -> None:
        """Ask the gateway to stop: no new connections, requests under way finish. Returns at once."""
        self._core.shutdown()

    def wait(self) -> None:
        """Wait until the gateway has stopped."""
        self._core.wait()

    def stop(self) -> None:
        """Ask the gateway to stop and wait until it has."""
        self.shutdown()
        self.wait()

    def __enter__(self) -> Running:
        """Give the gateway itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop and wait."""
        self.stop()


ConfigError = _core.ConfigError
