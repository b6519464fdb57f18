"""Imported by the process that serves for ``flask hawksbill``: to import it is to load the application."""

from __future__ import annotations

from . import _served

application = _served.start()
