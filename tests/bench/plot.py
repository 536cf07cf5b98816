"""How cost grows with the number of hooks, as SVG; where both are logarithmic, proportion is a line."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

_WIDTH, _HEIGHT, _MARGIN = 360, 260, 48
_COLOURS = {"operator": "#0b6e99", "floor": "#999999"}
_PANELS = {"create_all": "all Ready, s", "create_p99": "p99, s", "create_cpu": "CPU, s", "memory": "memory, MB"}


def draw(measured: Mapping[str, Any]) -> str:
    """Return a picture of the medians by number of resources, a panel for each of four figures."""
    sizes = measured["sizes"]
    panels = [_panel(index, name, title, sizes) for index, (name, title) in enumerate(_PANELS.items())]
    legend = [
        f'<text x="{_MARGIN + index * 90}" y="16" fill="{colour}">{who}</text>'
        for index, (who, colour) in enumerate(_COLOURS.items())
    ]
    width, height = 2 * _WIDTH, 2 * _HEIGHT + 24
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
    white = f'<rect width="{width}" height="{height}" fill="white"/>'
    return "\n".join([f'{head} font-size="12">', white, *legend, *panels, "</svg>", ""])


def _panel(index: int, name: str, title: str, sizes: Sequence[Mapping[str, Any]]) -> str:
    left, top = index % 2 * _WIDTH + _MARGIN, index // 2 * _HEIGHT + _MARGIN
    width, height = _WIDTH - 2 * _MARGIN, _HEIGHT - 2 * _MARGIN
    counts = [size["resources"] for size in sizes]
    lines = {who: [size["medians"][name][who] for size in sizes] for who in _COLOURS}
    values = [value for of_who in lines.values() for value in of_who]
    low, high = _decade(min(values), math.floor), _decade(max(values), math.ceil)

    def place(count: float, value: float) -> tuple[float, float]:
        return left + width * _share(count, min(counts), max(counts)), top + height * (1 - _share(value, low, high))

    parts = [
        f'<text x="{left}" y="{top - 8}">{title}</text>',
        f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" stroke="#ccc"/>',
    ]
    parts += [
        f'<text x="{place(count, low)[0]:.0f}" y="{top + height + 16}" text-anchor="middle">{count}</text>'
        for count in counts
    ]
    value = low
    while value <= high * 1.001:
        y = place(counts[0], value)[1]
        parts.append(f'<line x1="{left}" x2="{left + width}" y1="{y:.1f}" y2="{y:.1f}" stroke="#eee"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
        value *= 10
    for who, of_who in lines.items():
        points = [place(count, value) for count, value in zip(counts, of_who, strict=True)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{_COLOURS[who]}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{_COLOURS[who]}"/>' for x, y in points]
    return "\n".join(parts)


def _decade(value: float, round_: Any) -> float:
    return float(10 ** round_(math.log10(value)))


def _share(value: float, low: float, high: float) -> float:
    return (math.log(value) - math.log(low)) / (math.log(high) - math.log(low)) if high > low else 0.5
