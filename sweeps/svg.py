"""The drawings of a report's page: an interval in a table's cell, and a chart of lines with bands."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from html import escape

from sweeps.curves import Chart
from sweeps.findings import Row
from sweeps.settings import Names

COLORS = 7  # --c0 to --c6 in page.css
WIDTH, HEIGHT = 420, 240  # of a chart, about as many pixels on a phone: text keeps its size
LEFT, RIGHT, TOP, BOTTOM = 46, WIDTH - 18, 8, HEIGHT - 34


def whisker(row: Row, scale: tuple[float, float], references: Sequence[float], color: int) -> str:
    """The interval as a line, the mean as a large dot, the seeds as small ones, the references as thin upright lines."""
    if row.score is None:
        return ""
    width, height = 180, 22
    low, high = scale

    def x(value: float) -> float:
        return 6 + (width - 12) * min(1.0, max(0.0, (value - low) / (high - low)))

    score, stroke = row.score, f"var(--c{color})"
    parts = [f'<line x1="{x(v):.1f}" x2="{x(v):.1f}" y1="2" y2="{height - 2}" class="grid"/>' for v in references]
    ends = f'x1="{x(score.low):.1f}" x2="{x(score.high):.1f}"'
    parts.append(f'<line {ends} y1="11" y2="11" style="stroke:{stroke};stroke-width:2"/>')
    seeds = [value for value in row.seeds.values() if isinstance(value, float)]
    parts += [f'<circle cx="{x(v):.1f}" cy="11" r="2.5" style="fill:{stroke};opacity:.55"/>' for v in seeds if len(seeds) > 1]
    parts.append(f'<circle cx="{x(score.mean):.1f}" cy="11" r="4.5" style="fill:{stroke}"/>')
    label = f"{score.mean:.3f}, from {score.low:.3f} to {score.high:.3f}"
    return f'<svg width="{width}" height="{height}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def chart(found: Chart, colors: Mapping[Names, int], labels: Mapping[Names, str]) -> str:
    """A figure; its values stand beside it as JSON for page.js."""
    xs = [x for line in found.lines for x in line.x]
    ys = [y for line in found.lines for y in (*line.low, *line.high)]
    marks_x, marks_y = ticks(min(xs), max(xs), 5), ticks(min(ys), max(ys), 5)
    x0, x1 = min(xs), max(xs)
    y0, y1 = min(*ys, marks_y[0]), max(*ys, marks_y[-1])

    def x(value: float) -> float:
        return LEFT + (RIGHT - LEFT) * (value - x0) / (x1 - x0)

    def y(value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (value - y0) / ((y1 - y0) or 1.0)

    parts = []
    for mark in marks_y:
        parts.append(f'<line x1="{LEFT}" x2="{RIGHT}" y1="{y(mark):.1f}" y2="{y(mark):.1f}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(mark) + 4:.1f}" text-anchor="end">{short(mark)}</text>')
    for mark in marks_x:
        if x0 <= mark <= x1:
            parts.append(f'<text x="{x(mark):.1f}" y="{BOTTOM + 16}" text-anchor="middle">{short(mark)}</text>')
    parts.append(f'<text x="{(LEFT + RIGHT) / 2}" y="{HEIGHT - 4}" text-anchor="middle">{escape(found.x_title)}</text>')
    for line in found.lines:
        color = f"var(--c{colors[line.names]})"
        if line.seeds > 1:
            upper = [f"{x(u):.1f},{y(v):.1f}" for u, v in zip(line.x, line.high, strict=True)]
            lower = [f"{x(u):.1f},{y(v):.1f}" for u, v in zip(line.x, line.low, strict=True)]
            parts.append(f'<polygon points="{" ".join([*upper, *reversed(lower)])}" class="band" style="fill:{color}"/>')
        points = " ".join(f"{x(u):.1f},{y(v):.1f}" for u, v in zip(line.x, line.mean, strict=True))
        parts.append(f'<polyline points="{points}" class="curve" style="stroke:{color}"/>')
    parts.append(f'<line class="guide" x1="{LEFT}" x2="{LEFT}" y1="{TOP}" y2="{BOTTOM}"/>')
    values = [
        {"name": labels[line.names], "color": colors[line.names], "x": line.x, "mean": [float(f"{v:.4g}") for v in line.mean]}
        for line in found.lines
    ]
    data = {"width": WIDTH, "left": LEFT, "right": RIGHT, "low": x0, "high": x1, "unit": found.x_title, "lines": values}
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    drawn = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(found.title)}">{"".join(parts)}</svg>'
    script = f'<script type="application/json">{text}</script>'
    return f'<figure><figcaption>{escape(found.title)}</figcaption>{drawn}<div class="tip"></div>{script}</figure>'


def ticks(low: float, high: float, number: int) -> list[float]:
    """Round numbers from about `low` to about `high`."""
    if high <= low:
        return [low]
    rough = (high - low) / number
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = math.floor(low / step) * step
    count = math.ceil((high - first) / step)
    return [first + step * i for i in range(count + 1)]


def short(value: float) -> str:
    return f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{float(f'{value:.6g}'):g}"
