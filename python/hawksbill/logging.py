"""What log records can say of the request that they belong to.

In Django's settings::

    LOGGING = {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"request_id": {"()": "hawksbill.logging.RequestId"}},
        "formatters": {"line": {"format": "{levelname} [{request_id}] {message}", "style": "{"}},
        "handlers": {
            "console": {"class": "logging.StreamHandler", "filters": ["request_id"], "formatter": "line"},
        },
        "root": {"handlers": ["console"], "level": "INFO"},
    }

Without any such settings records go to the gateway's log as they are, and have the id there.
"""

from __future__ import annotations

import logging

from ._core import request_id

__all__ = ["RequestId", "request_id"]


class RequestId(logging.Filter):
    """Gives each record the attribute `request_id`, or `-` where none is known.

    It is that of the request under way, where the site has `request_id = true`.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        # A record of the gateway itself, in a program that has one inside, knows its own.
        record.request_id = request_id() or getattr(record, "request_id", None) or "-"
        return True
