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
