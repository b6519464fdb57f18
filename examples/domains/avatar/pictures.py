"""Pictures fetched over HTTP and remembered, the least recently used forgotten first."""

from __future__ import annotations

import http.client
from collections import OrderedDict
from threading import Lock
from urllib.parse import urlsplit

TIMEOUT = 10.0
"""Seconds that one step of a fetch (to connect, to read) may take."""

LARGEST = 1024 * 1024
"""Bytes of one picture; more is taken for a mistake."""


class PictureError(Exception):
    """The other site gave no picture; the text says why."""


class Pictures:
    """A bounded cache in front of the site `host`; safe to share between threads."""

    def __init__(self, host: str, capacity: int) -> None:
        self._host = host
        self._capacity = capacity
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._lock = Lock()

    def get(self, base: str, digest: str) -> tuple[bytes, bool]:
        """The PNG of a hash, and whether it was remembered.

        `base` is the URL of the server that carries the site. Raises `PictureError`.
        """
        with self._lock:
            if digest in self._kept:
                self._kept.move_to_end(digest)
                return self._kept[digest], True
        # Not under the lock: one slow fetch must not hold up the other pictures. Two
        # requests for a new picture may both fetch it, which does no harm.
        png = self._fetch(base, f"/{digest}.png")
        with self._lock:
            self._kept[digest] = png
            while len(self._kept) > self._capacity:
                self._kept.popitem(last=False)
        return png, False

    def _fetch(self, base: str, path: str) -> bytes:
        url = urlsplit(base)
        kinds = {
            "http": http.client.HTTPConnection,
            "https": http.client.HTTPSConnection,
        }
        if url.scheme not in kinds or url.hostname is None:
            raise PictureError(f"MONSTER_URL is {base!r}; it has to be an http(s) URL")
        connection = kinds[url.scheme](url.hostname, url.port, timeout=TIMEOUT)
        try:
            # `*.localhost` does not resolve everywhere, so the address is dialled and
            # the site named in Host.
            headers = {"Host": f"{self._host}:{connection.port}"}
            connection.request("GET", url.path.rstrip("/") + path, headers=headers)
            response = connection.getresponse()
            body: bytes = response.read(LARGEST + 1)
        except (OSError, http.client.HTTPException) as error:
            raise PictureError(f"{self._host} at {base}: {error!r}") from error
        finally:
            connection.close()
        if response.status != 200:
            raise PictureError(f"{self._host} at {base}: status {response.status}")
        if len(body) > LARGEST:
            raise PictureError(f"{self._host} at {base}: more than {LARGEST} bytes")
        return body
