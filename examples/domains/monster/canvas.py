"""A square canvas with anti-aliased shapes, written out as PNG; standard library alone.

A shape is a function that gives the signed distance, in pixels, from a point to the
shape's edge (negative inside). The distance at a pixel's centre tells how much of the
pixel the shape covers, so edges come out smooth from one sample per pixel.
"""

from __future__ import annotations

import itertools
import math
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255 each."""


@dataclass(frozen=True)
class Shape:
    """A signed distance and the box (left, top, right, bottom) that holds the shape."""

    distance: Callable[[float, float], float]
    box: tuple[float, float, float, float]


def blob(cx: float, cy: float, rx: float, ry: float, power: float = 2.0) -> Shape:
    """A superellipse: an ellipse at power 2, ever more of a box above it."""

    def distance(x: float, y: float) -> float:
        dx, dy = abs(x - cx) / rx, abs(y - cy) / ry
        # The implicit function divided by the length of its gradient is the distance to
        # first order: exact enough within the one pixel that anti-aliasing looks at.
        value = dx**power + dy**power
        slope = power * math.hypot(dx ** (power - 1) / rx, dy ** (power - 1) / ry)
        return (value - 1) / slope if slope > 1e-9 else -min(rx, ry)

    return Shape(distance, (cx - rx, cy - ry, cx + rx, cy + ry))


def stroke(points: list[tuple[float, float]], width: float) -> Shape:
    """A line through the points, `width` pixels wide, with round ends and joints."""
    radius = width / 2
    segments = list(itertools.pairwise(points))

    def distance(x: float, y: float) -> float:
        nearest = math.inf
        for (ax, ay), (bx, by) in segments:
            ux, uy = bx - ax, by - ay
            along = ((x - ax) * ux + (y - ay) * uy) / ((ux * ux + uy * uy) or 1.0)
            along = min(1.0, max(0.0, along))
            nearest = min(nearest, math.hypot(x - ax - ux * along, y - ay - uy * along))
        return nearest - radius

    xs, ys = [x for x, _ in points], [y for _, y in points]
    return Shape(
        distance,
        (min(xs) - radius, min(ys) - radius, max(xs) + radius, max(ys) + radius),
    )


class Canvas:
    """`size` by `size` pixels of one colour, to be painted on."""

    def __init__(self, size: int, background: Colour) -> None:
        self.size = size
        self._pixels = bytearray(bytes(background) * (size * size))

    def paint(self, shape: Shape, colour: Colour, fade: Colour | None = None) -> None:
        """Lays the shape over what is there, fading downwards to `fade` if given."""
        left, top, right, bottom = shape.box
        rows = range(max(0, int(top) - 1), min(self.size, math.ceil(bottom) + 1))
        columns = range(max(0, int(left) - 1), min(self.size, math.ceil(right) + 1))
        pixels, distance = self._pixels, shape.distance
        for row in rows:
            part = (row - top) / (bottom - top) if fade else 0.0
            shade = _between(colour, fade or colour, min(1.0, max(0.0, part)))
            at = (row * self.size + columns.start) * 3
            for column in columns:
                cover = 0.5 - distance(column + 0.5, row + 0.5)
                if cover >= 1.0:
                    pixels[at : at + 3] = bytes(shade)
                elif cover > 0.0:
                    for channel in range(3):
                        old = pixels[at + channel]
                        pixels[at + channel] = round(old + (shade[channel] - old) * cover)
                at += 3

    def png(self) -> bytes:
        """The canvas as a PNG file of 8-bit RGB."""
        stride = self.size * 3
        lines = b"".join(
            # Filter type 0: each line as it is.
            b"\0" + self._pixels[start : start + stride]
            for start in range(0, len(self._pixels), stride)
        )
        header = struct.pack(">IIBBBBB", self.size, self.size, 8, 2, 0, 0, 0)
        return (
            b"\x89PNG\r\n\x1a\n"
            + _chunk(b"IHDR", header)
            + _chunk(b"IDAT", zlib.compress(lines, 6))
            + _chunk(b"IEND", b"")
        )


def _between(first: Colour, second: Colour, part: float) -> Colour:
    r, g, b = (round(one + (other - one) * part) for one, other in zip(first, second, strict=True))
    return r, g, b


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)
