"""Plots of latency and bus bandwidth over the size of the message, as SVG that follows the page's colours."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

_WIDTH, _HEIGHT = 460, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 14, 14, 40
_MARKS = ("circle", "square", "triangle", "diamond", "cross")
_UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B"))


@dataclass(frozen=True)
class Plot:
    """One picture: its title in words, and the SVG."""

    title: str
    svg: str


@dataclass(frozen=True)
class _Axis:
    """A logarithmic axis between two decades or powers of the base, onto `start` to `end` in pixels."""

    base: int
    lowest: int
    highest: int
    start: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], base: int, start: float, end: float) -> _Axis:
        logs = [math.log(value, base) for value in values]
        lowest = math.floor(min(logs) + 1e-9)
        return cls(base, lowest, max(math.ceil(max(logs) - 1e-9), lowest + 1), start, end)

    def at(self, value: float) -> float:
        share = (math.log(value, self.base) - self.lowest) / (self.highest - self.lowest)
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int) -> list[float]:
        step = max(1, math.ceil((self.highest - self.lowest) / most))
        return [float(self.base) ** power for power in range(self.lowest, self.highest + 1, step)]


def plots(points: Sequence[Mapping[str, Any]]) -> dict[str, list[Plot]]:
    """Return for each collective its latency and its bus bandwidth, a line for each number of ranks."""
    by_collective: dict[str, list[Mapping[str, Any]]] = {}
    for point in points:
        by_collective.setdefault(point["collective"], []).append(point)
    return {
        name: [
            _plot(f"{name}: latency", chosen, "latency_us", _microseconds),
            _plot(f"{name}: bus bandwidth", chosen, "busbw", _gigabytes),
        ]
        for name, chosen in by_collective.items()
    }


def size_text(size: float) -> str:
    """Return a number of bytes as one reads it: 8 B, 64 KiB, 1.5 MiB."""
    for unit, name in _UNITS:
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size:g} B"


def _microseconds(value: float) -> str:
    return f"{value:g} µs" if value < 1000 else f"{value / 1000:.6g} ms"


def _gigabytes(value: float) -> str:
    if value >= 1:
        return f"{value:g} GB/s"
    return f"{value * 1e3:.4g} MB/s" if value >= 1e-3 else f"{value * 1e6:.4g} kB/s"


def _plot(title: str, points: Sequence[Mapping[str, Any]], key: str, text: Callable[[float], str]) -> Plot:
    drawn = [point for point in points if point["bytes"] > 0 and point[key] > 0]
    if not drawn:
        return Plot(title, "")
    x = _Axis.over([point["bytes"] for point in drawn], 2, _LEFT, _WIDTH - _RIGHT)
    y = _Axis.over([point[key] for point in drawn], 10, _HEIGHT - _BOTTOM, _TOP)
    lines = []
    for index, ranks in enumerate(sorted({point["ranks"] for point in drawn})):
        series = sorted((p for p in drawn if p["ranks"] == ranks), key=lambda point: point["bytes"])
        lines.append(_line(series, [(x.at(p["bytes"]), y.at(p[key])) for p in series], index, key, text))
    legend = _legend(sorted({point["ranks"] for point in drawn}))
    return Plot(
        title,
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"{_grid(x, y, text)}{''.join(lines)}{legend}</svg>",
    )


def _grid(x: _Axis, y: _Axis, text: Callable[[float], str]) -> str:
    parts = []
    for value in y.ticks(5):
        at = y.at(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{text(value)}</text>')
    for value in x.ticks(6):
        at = x.at(value)
        parts.append(f'<line class="grid" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" x1="{at:.1f}" x2="{at:.1f}"/>')
        parts.append(
            f'<text x="{at:.1f}" y="{_HEIGHT - _BOTTOM + 15}" text-anchor="middle">{size_text(value)}</text>'
        )
    return "".join(parts)


def _line(
    series: Sequence[Mapping[str, Any]],
    places: Sequence[tuple[float, float]],
    index: int,
    key: str,
    text: Callable[[float], str],
) -> str:
    path = " ".join(f"{px:.1f},{py:.1f}" for px, py in places)
    marks = "".join(
        _mark(
            index,
            px,
            py,
            f"{point['ranks']} ranks, {size_text(point['bytes'])}: {text(round(point[key], 4))}",
        )
        for (px, py), point in zip(places, series, strict=True)
    )
    return f'<g class="series s{index % len(_MARKS)}"><polyline points="{path}"/>{marks}</g>'


def _mark(index: int, x: float, y: float, title: str) -> str:
    shape = {
        "circle": f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5"',
        "square": f'<rect x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6"',
        "triangle": f'<path d="M{x:.1f} {y - 4:.1f}l4 7h-8z"',
        "diamond": f'<path d="M{x:.1f} {y - 4.5:.1f}l4.5 4.5l-4.5 4.5l-4.5-4.5z"',
        "cross": f'<path d="M{x - 4:.1f} {y - 1:.1f}h8v2h-8z"',
    }[_MARKS[index % len(_MARKS)]]
    tag = shape[1:].split(" ", 1)[0]
    return f"{shape}><title>{escape(title)}</title></{tag}>"


def _legend(ranks: Sequence[int]) -> str:
    parts = []
    for index, number in enumerate(ranks):
        x, y = _LEFT + index * 90 + 6, _HEIGHT - 8
        parts.append(
            f'<g class="series s{index % len(_MARKS)}">{_mark(index, x, y - 4, f"{number} ranks")}'
            f'<text x="{x + 9}" y="{y}">{number} {"rank" if number == 1 else "ranks"}</text></g>'
        )
    return "".join(parts)
