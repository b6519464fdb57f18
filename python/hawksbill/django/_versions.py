"""Releases that are known not to go together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

Version = tuple[int, ...]


class Pair(NamedTuple):
    """A release of one package that needs another release of a second one."""

    package: str
    since: str
    """This release of the package, and later ones, ..."""
    other: str
    needs: str
    """... need this one of the other, or a later one."""
    why: str


PAIRS = [
    # https://channels.readthedocs.io/en/latest/releases/4.1.0.html: URLRouter updated for changes in
    # Django; the change itself (django/channels pull request 2085) names Django 5.1.
    Pair(
        "Django", "5.1", "channels", "4.1", "the URLRouter of earlier releases does not know its URL patterns"
    ),
    # https://channels.readthedocs.io/en/latest/releases/4.1.0.html: Django 4.2 is the minimum
    # supported version.
    Pair("channels", "4.1", "Django", "4.2", "Channels supports no earlier one"),
    # https://channels.readthedocs.io/en/latest/releases/4.3.0.html: updated asgiref dependency to v3.9+.
    Pair("channels", "4.3", "asgiref", "3.9", "Channels supports no earlier one"),
    # https://channels.readthedocs.io/en/latest/releases/4.0.0.html: released with the matching Daphne 4 and
    # channels-redis 4; runserver was moved into Daphne.
    Pair("channels", "4.0", "channels-redis", "4.0", "the two were released together"),
    Pair("channels", "4.0", "daphne", "4.0", "the two were released together"),
    # channels_redis, changelog of 4.1.0: the minimum redis-py is 4.5.3, because of a security release.
    Pair("channels-redis", "4.1", "redis", "4.5.3", "earlier ones have a hole that channels_redis names"),
]


def installed() -> dict[str, str]:
    """Give the versions of the packages that are spoken of here."""
    found = {}
    for package in {name for pair in PAIRS for name in (pair.package, pair.other)}:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def unfit(versions: Mapping[str, str]) -> list[Pair]:
    """Choose those of the pairs that these versions violate; what is not installed fits."""
    return [
        pair
        for pair in PAIRS
        if pair.package in versions
        and pair.other in versions
        and _parsed(versions[pair.package]) >= _parsed(pair.since)
        and _parsed(versions[pair.other]) < _parsed(pair.needs)
    ]


def _parsed(text: str) -> Version:
    """Read the numbers of a release; what follows them (``rc1``, ``.post1``) counts as that release."""
    found = re.match(r"\d+(?:\.\d+)*", text)
    numbers = [int(part[:9]) for part in found[0].split(".")] if found else [0]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
