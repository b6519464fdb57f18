"""The case list of the Autobahn test suite, an independent client of WebSocket servers, from its source
archive.

See `autobahn.py`. The groups: 1 framing, 2 pings and pongs, 3 reserved bits, 4 opcodes, 5 fragmentation, 6
UTF-8, 7 closing, 9 limits, 10 automatic fragmentation, 12 and 13 compression.
"""

from __future__ import annotations

import asyncio
from functools import cache
from pathlib import Path
from typing import Any

import autobahn
import pytest
from harness import Server
from sources import unpack

pytestmark = pytest.mark.suite

GROUPS = {
    "1": 16,
    "2": 11,
    "3": 7,
    "4": 10,
    "5": 20,
    "6": 145,
    "7": 37,
    "9": 54,
    "10": 1,
    "12": 90,
    "13": 126,
}
"""How many cases each group has."""

MESSAGES = 20
"""How often a message goes to and fro in the groups that the suite repeats a thousand times."""

AT_ONCE = 24
"""Most cases wait for a second."""


@cache
def cases(directory: Path) -> dict[str, type[Any]]:
    """All cases, loaded once in a process."""
    return autobahn.load(unpack("autobahntestsuite", directory, autobahn.VERSION))


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the archive is unpacked."""
    return tmp_path_factory.mktemp("autobahn")


@pytest.mark.parametrize("group", GROUPS)
def test_the_cases_of_a_group(asgi_probe: Server, directory: Path, group: str) -> None:
    chosen = {number: kind for number, kind in cases(directory).items() if number.split(".")[0] == group}
    assert len(chosen) == GROUPS[group], f"the suite has {len(chosen)} cases in group {group}"
    for kind in chosen.values():
        if hasattr(kind, "COUNT"):
            kind.COUNT = min(kind.COUNT, MESSAGES)

    async def play_all() -> dict[str, str]:
        turn = asyncio.Semaphore(AT_ONCE if group not in ("9", "12", "13") else 2)

        async def play(number: str, kind: type[Any]) -> tuple[str, str]:
            async with turn:
                return number, await autobahn.play(kind, asgi_probe.port, "/ws")

        return dict(await asyncio.gather(*(play(number, kind) for number, kind in chosen.items())))

    failed = {number: what for number, what in asyncio.run(play_all()).items() if what}
    assert not failed, "\n".join(f"{number}: {what}" for number, what in failed.items())
