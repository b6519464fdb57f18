"""What Django looks for when ``INSTALLED_APPS`` says ``"hawksbill"``; nothing else imports it."""

from __future__ import annotations

from .django.apps import HawksbillConfig

__all__ = ["HawksbillConfig"]
