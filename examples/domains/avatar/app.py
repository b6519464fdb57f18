"""The Flask application: a form posts a name, the page shows its hash and its monster.

The picture comes over HTTP from a second application on monster.localhost, asked by
this one and remembered. Read from the environment:

- `MONSTER_URL`: where that application answers. Default: the port that this request
  came in by, on 127.0.0.1, since one server carries both sites.
- `AVATAR_SALT`: put before the name when hashing, so that two installations draw
  different monsters for one name.
"""

from __future__ import annotations

import hashlib
import os
import re

from flask import Flask, Response, abort, render_template, request

from .pictures import PictureError, Pictures

SALT = os.environ.get("AVATAR_SALT", "a pinch of salt")
LONGEST_NAME = 200

app = Flask(__name__)
app.config["MAX_CONTENT_LENGTH"] = 64 * 1024
pictures = Pictures(host="monster.localhost", capacity=500)


def hashed(name: str) -> str:
    """The salted SHA-256 of a name, in hexadecimal."""
    return hashlib.sha256(f"{SALT}{name}".encode()).hexdigest()


@app.route("/", methods=["GET", "POST"])
def home() -> str:
    """The form, and below it the monster of the name that was posted."""
    name = request.form.get("name", "")[:LONGEST_NAME].strip() or "Hawksbill"
    return render_template("home.html", name=name, digest=hashed(name))


@app.get("/monster/<digest>")
def monster(digest: str) -> Response:
    """The PNG of a hash; `X-Cache` tells whether it was remembered."""
    if not re.fullmatch("[0-9a-f]{64}", digest):
        abort(404)
    try:
        png, remembered = pictures.get(_monster_url(), digest)
    except PictureError as error:
        app.logger.warning("%s", error)
        abort(502)
    response = Response(png, mimetype="image/png")
    response.headers["X-Cache"] = "hit" if remembered else "miss"
    response.cache_control.public = True
    response.cache_control.max_age = 24 * 60 * 60
    return response


def _monster_url() -> str:
    # SERVER_PORT is what the server says; the Host header is what the client says, and
    # a client must not choose which local port is asked.
    port = request.environ["SERVER_PORT"]
    return os.environ.get("MONSTER_URL", f"http://127.0.0.1:{port}")
