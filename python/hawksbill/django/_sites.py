"""What ``hawksbill.toml`` says of the sites that lead to this project."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.conf import settings

NAME = "hawksbill.toml"
BYTES = 2**20
"""A larger file is not read: it is no configuration that a person wrote."""
FILES = 1000
"""So many files are read at most, the included ones with it."""


@dataclass
class Sites:
    """The part of a configuration that concerns this project."""

    file: Path
    hosts: list[str] = field(default_factory=list)
    """As they are written: ``example.com``, ``*.example.com``, ``*``."""
    trusts_proxies: bool = False
    request_id: bool = False


def find() -> Sites | None:
    """Read the configuration, if there is one that leads to this project and can be read.

    It is the one that the setting ``HAWKSBILL_CONFIG`` names, else ``hawksbill.toml`` in the working
    directory, else beside the project (``BASE_DIR``). Python 3.10 reads it if ``tomli`` is installed. What is
    wrong with a file is for ``hawksbill check`` to say.
    """
    for file in _places():
        if file.is_file():
            config = _read(file)
            return None if config is None else _sites(file, config)
    return None


def _places() -> Iterator[Path]:
    named = getattr(settings, "HAWKSBILL_CONFIG", None)
    if named:
        yield Path(named)
        return
    yield Path.cwd() / NAME
    base = getattr(settings, "BASE_DIR", None)
    if base:
        yield Path(base) / NAME


def _read(file: Path) -> dict[str, Any] | None:
    """Read a file and what it includes."""
    config = _parse(file)
    if config is None:
        return None
    included = config.get("include", [])
    patterns = [included] if isinstance(included, str) else included
    read = 0
    for pattern in patterns if isinstance(patterns, list) else []:
        for other in _matching(file.parent, pattern):
            read += 1
            part = _parse(other) if read < FILES else None
            for key in ("apps", "sites"):
                _table(config, key).update(_table(part or {}, key))
    return config


def _matching(directory: Path, pattern: object) -> list[Path]:
    import glob

    text = _expanded(str(pattern))
    return [Path(found) for found in sorted(glob.glob(os.path.join(glob.escape(str(directory)), text)))]


def _parse(file: Path) -> dict[str, Any] | None:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ImportError:
            return None
    try:
        with file.open("rb") as opened:
            text = opened.read(BYTES + 1)
        return tomllib.loads(text.decode()) if len(text) <= BYTES else None
    except (OSError, ValueError, RecursionError):
        return None


def _expanded(text: str) -> str:
    """Replace ``${VAR}`` and ``${VAR:-default}`` as the gateway does."""

    def value(found: re.Match[str]) -> str:
        return os.environ.get(found[1], found[2] or "")

    return re.sub(r"\$\{(\w+)(?::-([^}]*))?\}", value, text)


def _table(table: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = table.get(key)
    if isinstance(found, dict):
        return found
    made: dict[str, Any] = {}
    if isinstance(table, dict):
        table[key] = made
    return made


def _sites(file: Path, config: dict[str, Any]) -> Sites | None:
    names = {name for name, app in _table(config, "apps").items() if _is_this(app)}
    hosts = []
    request_id = config.get("request_id") is True
    for title, site in _table(config, "sites").items():
        if isinstance(site, dict) and any(_leads(route, names) for route in site.values()):
            hosts += title.split()
            request_id |= site.get("request_id") is True
    if not hosts:
        return None
    trusts = bool(config.get("trusted_proxies")) or config.get("trust_unix") is True
    return Sites(file, hosts, trusts, request_id)


def _leads(route: object, names: set[str]) -> bool:
    """Whether a site's key is a route to one of these applications, or to this project by itself."""
    if isinstance(route, dict):
        return _is_this(route) or route.get("app") in names or route.get("mount") in names
    return route in names


def _is_this(app: object) -> bool:
    """Whether a table of keys hosts this project: the settings module, or a module of its handlers."""
    if not isinstance(app, dict):
        return False
    if "django" in app:
        return _expanded(str(app["django"])) == str(getattr(settings, "SETTINGS_MODULE", ""))
    own = {_module(getattr(settings, f"{kind}_APPLICATION", None)) for kind in ("WSGI", "ASGI")} - {""}
    return any(_expanded(str(app[kind])).partition(":")[0] in own for kind in ("wsgi", "asgi") if kind in app)


def _module(path: object) -> str:
    """Name the module of ``shop.wsgi.application``."""
    return path.rpartition(".")[0] if isinstance(path, str) else ""
