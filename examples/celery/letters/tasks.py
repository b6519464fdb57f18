"""What the worker does, and what beat has it do every second."""

from __future__ import annotations

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "letters.settings")

from django.conf import settings
from django.core.cache import cache

celery = Celery("letters", broker=f"{settings.REDIS}/0", backend=f"{settings.REDIS}/0")
celery.conf.beat_schedule = {"tick": {"task": "letters.tasks.tick", "schedule": 1.0}}
celery.conf.broker_connection_retry_on_startup = True


@celery.task
def write(name: str) -> str:
    """Write a letter."""
    return f"Dear {name}, this was written by process {os.getpid()}."


@celery.task
def tick() -> None:
    """Count a second."""
    cache.add("ticks", 0, timeout=None)
    cache.incr("ticks")
