"""The WSGI application: `/` shows a gallery, `/<hash>.png` one monster.

`/<hash>.png?size=N` gives N by N pixels, 16 to 512. The hash is 8 to 128 hexadecimal
digits. Nothing is kept between requests: who asks often should cache.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from .drawing import draw

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_PICTURE = re.compile(r"/([0-9a-f]{8,128})\.png")
_SMALLEST, _USUAL, _LARGEST = 16, 240, 512

_GALLERY = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Monsters</title>
<style>
  body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 44rem; margin: 2rem auto }}
  img {{ border-radius: 1rem; margin: .25rem }}
</style>
<h1>Monsters</h1>
<p>One for every hash; <a href="//{avatar}/">avatar.localhost</a> asks for them.</p>
<p>{pictures}</p>
"""


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """One request (PEP 3333)."""
    if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
        return _text(start_response, "405 Method Not Allowed", [("Allow", "GET, HEAD")])
    path = environ.get("PATH_INFO", "")
    if path in ("", "/"):
        page = _gallery(environ.get("HTTP_HOST", ""))
        return _answer(environ, start_response, "text/html; charset=utf-8", page)
    picture = _PICTURE.fullmatch(path)
    if picture is None:
        return _text(start_response, "404 Not Found")
    size = _size(environ.get("QUERY_STRING", ""))
    if size is None:
        return _text(start_response, "400 Bad Request")
    png = draw(picture[1], size)
    caching = ("Cache-Control", "public, max-age=31536000, immutable")
    return _answer(environ, start_response, "image/png", png, caching)


def _size(query: str) -> int | None:
    text = parse_qs(query).get("size", [str(_USUAL)])[-1]
    if not re.fullmatch("[0-9]{1,4}", text):
        return None
    size = int(text)
    return size if _SMALLEST <= size <= _LARGEST else None


def _gallery(host: str) -> bytes:
    avatar = "avatar.localhost" + (re.search(r":[0-9]{1,5}$", host) or [""])[0]
    seeds = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(12)]
    pictures = "".join(f'<img src="/{seed}.png?size=160" width="160" height="160" alt="">' for seed in seeds)
    return _GALLERY.format(avatar=avatar, pictures=pictures).encode()


def _answer(
    environ: WSGIEnvironment,
    start_response: StartResponse,
    content_type: str,
    body: bytes,
    *headers: tuple[str, str],
) -> Iterable[bytes]:
    length = ("Content-Length", str(len(body)))
    start_response("200 OK", [("Content-Type", content_type), length, *headers])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


def _text(
    start_response: StartResponse,
    status: str,
    headers: list[tuple[str, str]] | None = None,
) -> Iterable[bytes]:
    body = f"{status}\n".encode()
    plain = ("Content-Type", "text/plain; charset=utf-8")
    length = ("Content-Length", str(len(body)))
    start_response(status, [plain, length, *(headers or [])])
    return [body]
