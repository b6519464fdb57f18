"""Bodies of any size in which a lost, doubled or displaced byte changes the hash."""

from __future__ import annotations

import random
from collections.abc import Iterator

NOISE = random.Random(2026).randbytes(2**20)
"""One MiB without a period; the same in every process."""


def pieces(size: int, piece: int) -> Iterator[bytes]:
    """`size` bytes, `piece` (8 to 2**20) at a time, each begun by its own offset."""
    for offset in range(0, size, piece):
        block = offset.to_bytes(8, "big") + NOISE[8:piece]
        yield block[: size - offset]
