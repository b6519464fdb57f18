"""For Flask: ``flask --app x hawksbill`` serves as ``flask run`` does, with the same flags, by Hawksbill."""

from __future__ import annotations

from ._command import command

__all__ = ["command"]
