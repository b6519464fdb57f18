"""The Django application."""

from __future__ import annotations

from django.apps import AppConfig

__all__ = ["HawksbillConfig"]


class HawksbillConfig(AppConfig):  # type: ignore[misc]
    """Registers the checks; the command is found by its place."""

    name = "hawksbill.django"
    label = "hawksbill"
    verbose_name = "Hawksbill"

    def ready(self) -> None:
        """Register the checks."""
        from . import checks

        checks.register()
