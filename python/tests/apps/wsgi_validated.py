"""`wsgi_probe` behind `wsgiref.validate`, which judges both sides of every request.

The standard library's validator forbids `read()` without a size, which PEP 3333 leaves open; the probe reads
so on purpose. Between the two, `read()` becomes `read(-1)`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any
from wsgiref.validate import validator

import wsgi_probe

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


class Input:
    """A `wsgi.input` whose sizes are always named."""

    def __init__(self, source: Any) -> None:
        self._source = source

    def read(self, size: int | None = -1) -> bytes:
        """As the stream's own, with the size said."""
        data: bytes = self._source.read(size)
        return data

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._source)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)


def sized_reads(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The probe, with an `Input`."""
    return wsgi_probe.application({**environ, "wsgi.input": Input(environ["wsgi.input"])}, start_response)


application = validator(sized_reads)
