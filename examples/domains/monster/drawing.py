"""The monster itself: which features a hash gives it, and how they are drawn."""

from __future__ import annotations

import colorsys
import hashlib
import math

from .canvas import Canvas, Colour, blob, stroke

INK: Colour = (38, 32, 48)
WHITE: Colour = (255, 255, 255)


class Traits:
    """Choices drawn from a seed, one after the other and always the same."""

    def __init__(self, seed: str) -> None:
        self._bytes = iter(hashlib.shake_256(seed.encode()).digest(64))

    def pick(self, count: int) -> int:
        """A number from 0 to count - 1; count is at most 256."""
        return next(self._bytes) * count // 256

    def span(self, low: float, high: float) -> float:
        """A number from low to high."""
        return low + (high - low) * next(self._bytes) / 255


class Monster:
    """Draws one monster in units of a hundredth of the picture's side."""

    def __init__(self, seed: str, size: int) -> None:
        self._traits = traits = Traits(seed)
        self._unit = size / 100
        hue = traits.span(0, 1)
        self._skin = _colour(hue, 0.60, traits.span(0.55, 0.75))
        self._shade = _colour(hue + 0.06, 0.65, 0.42)
        self._accent = _colour(hue + traits.span(0.3, 0.7), 0.75, 0.62)
        self._canvas = Canvas(size, _colour(hue + 0.5, 0.45, 0.92))
        self._width = traits.span(23, 31)
        self._height = traits.span(25, 32)

    def png(self) -> bytes:
        """The finished picture, from back to front."""
        self._limbs()
        self._headgear()
        power = (2.0, 2.6, 3.6, 5.0)[self._traits.pick(4)]
        body = (50, 53, self._width, self._height, power)
        self._blob(*body, self._skin, self._shade)
        self._markings()
        self._eyes()
        self._mouth()
        return self._canvas.png()

    def _blob(
        self,
        x: float,
        y: float,
        rx: float,
        ry: float,
        power: float,
        colour: Colour,
        fade: Colour | None = None,
    ) -> None:
        u = self._unit
        self._canvas.paint(blob(x * u, y * u, rx * u, ry * u, power), colour, fade)

    def _dot(self, x: float, y: float, radius: float, colour: Colour) -> None:
        self._blob(x, y, radius, radius, 2.0, colour)

    def _line(self, points: list[tuple[float, float]], width: float, colour: Colour) -> None:
        u = self._unit
        scaled = [(x * u, y * u) for x, y in points]
        self._canvas.paint(stroke(scaled, width * u), colour)

    def _limbs(self) -> None:
        reach, lift = self._traits.span(8, 14), self._traits.span(-18, 12)
        foot = self._traits.span(5, 9)
        for side in (-1, 1):
            shoulder = 50 + side * (self._width - 4)
            hand = shoulder + side * reach
            self._line([(shoulder, 56), (hand, 58 + lift)], 7, self._shade)
            self._dot(hand, 58 + lift, 4.6, self._accent)
            leg = 50 + side * self._width * 0.45
            self._line([(leg, 70), (leg, 90)], 8, self._shade)
            self._blob(leg + side * 2, 91, foot, 4, 2.4, self._accent)

    def _headgear(self) -> None:
        kind, top = self._traits.pick(4), 53 - self._height
        spread = self._traits.span(8, 15)
        for side in (-1, 1):
            root, tip = 50 + side * spread * 0.8, 50 + side * spread * 1.5
            if kind == 0:  # Antennae
                self._line([(root, top + 8), (tip, top - 9)], 2.4, self._shade)
                self._dot(tip, top - 10, 4, self._accent)
            elif kind == 1:  # Horns, as a tapering row of dots
                for step in range(9):
                    bend = math.sin(step / 8 * 1.4)
                    self._dot(
                        root + side * 7 * bend,
                        top + 6 - step * 2,
                        4.4 - step * 0.42,
                        self._accent,
                    )
            elif kind == 2:  # Ears
                self._dot(tip, top + 6, 8, self._shade)
                self._dot(tip, top + 6, 4.6, self._accent)
        if kind == 3:  # Hair
            for step in range(-3, 4):
                end = (50 + step * 6.5, top - 7 + abs(step) * 2)
                self._line([(50 + step * 3.5, top + 9), end], 3.2, self._accent)

    def _markings(self) -> None:
        kind = self._traits.pick(3)
        belly = self._width * 0.62
        if kind == 0:
            self._blob(50, 68, belly, self._height * 0.42, 2.2, self._accent)
        elif kind == 1:
            for _ in range(5):
                x = 50 + self._traits.span(-0.6, 0.6) * self._width
                y = 62 + self._traits.span(0, 0.5) * self._height
                self._dot(x, y, self._traits.span(1.6, 3.4), self._accent)

    def _eyes(self) -> None:
        count, radius = 1 + self._traits.pick(3), self._traits.span(5.5, 8)
        look_x, look_y = self._traits.span(-0.4, 0.4), self._traits.span(-0.3, 0.4)
        if count == 1:
            radius += 4
        gap = min(radius * 2 + 1.5, (self._width - radius) * 2 / max(1, count - 1))
        for number in range(count):
            x = 50 + (number - (count - 1) / 2) * gap
            y = 44 - (2.5 if count == 3 and number == 1 else 0)
            self._dot(x, y, radius, WHITE)
            pupil = radius * 0.52
            x, y = x + look_x * radius, y + look_y * radius
            self._dot(x, y, pupil, INK)
            self._dot(x - pupil * 0.3, y - pupil * 0.35, pupil * 0.34, WHITE)

    def _mouth(self) -> None:
        kind, half = self._traits.pick(4), self._traits.span(7, 12)
        if kind == 3:  # Wide open
            self._blob(50, 64, half * 0.8, 6, 2.4, INK)
            self._blob(50, 67.2, half * 0.5, 2.6, 2.0, (226, 92, 104))
            return
        depth = (5.0, 1.0, -3.0)[kind]  # A smile, a straight face, a grumble
        curve = [(50 + half * step / 6, 62 + depth * (1 - (step / 6) ** 2)) for step in range(-6, 7)]
        self._line(curve, 2.2, INK)
        for side in range(self._traits.pick(3)):
            tooth = 50 + (half * 0.4 if side else -half * 0.4)
            self._blob(tooth, 64 + depth * 0.84, 2, 2.6, 3.0, WHITE)


def draw(seed: str, size: int) -> bytes:
    """The monster of a seed as PNG, `size` pixels wide and high."""
    return Monster(seed, size).png()


def _colour(hue: float, saturation: float, lightness: float) -> Colour:
    r, g, b = colorsys.hls_to_rgb(hue % 1, lightness, saturation)
    return round(r * 255), round(g * 255), round(b * 255)
