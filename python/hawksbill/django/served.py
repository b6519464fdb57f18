"""Imported by the process that serves for ``manage.py runserver``: to import it is to start the project."""

from __future__ import annotations

from . import _development

application = _development.start()
