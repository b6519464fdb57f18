"""Letters are written by a worker, not by the request that asks for them."""

from .tasks import celery

__all__ = ["celery"]
