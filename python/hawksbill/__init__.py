"""An embeddable gateway for WSGI and ASGI applications.

The same words as in ``hawksbill.toml``, as Python::

    from hawksbill import Gateway

    gateway = Gateway(listen="127.0.0.1:8000")
    gateway.app("shop", wsgi="shop.wsgi")
    site = gateway.site("example.com www.example.com", log="-")
    site.route("/", "shop")
    site.route("/api", my_asgi_app)          # a live object: hosted in this process
    site.route("/static", files="static")
    gateway.run()
"""

from __future__ import annotations

from ._core import ClientDisconnected, ConfigError, StartError, __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._gateway import Application, Gateway, Running, Setting, Site

__all__ = [
    "Application",
    "ClientDisconnected",
    "ConfigError",
    "Gateway",
    "Running",
    "Setting",
    "Site",
    "StartError",
    "__version__",
]


def __getattr__(name: str) -> object:
    """Give what the module of :class:`Gateway` defines.

    The command needs nothing of it, and its processes neither the memory nor the time that asyncio takes.
    """
    if name in __all__:
        from . import _gateway

        return getattr(_gateway, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
