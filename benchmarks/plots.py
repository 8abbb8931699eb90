"""The plots of RESULTS.md as SVG: text, without a library, in colours that can be read on light and on dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from benchmarks.harness import OURS, Outcome

__all__ = ["growth", "rates"]

_STYLE = """
<style>
  text { font: 12px system-ui, sans-serif; fill: #24292f }
  .title { font-weight: 600 }
  .value, .unit { fill: #57606a }
  .ours { fill: #0969da } .mark { fill: #8c959f } .peer { fill: #c6cdd5 }
  .first { stroke: #0969da } .second { stroke: #bc4c00 } .first-dot { fill: #0969da } .second-dot { fill: #bc4c00 }
  .axis { stroke: #d0d7de }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .value, .unit { fill: #9198a1 }
    .ours { fill: #4493f8 } .mark { fill: #6e7681 } .peer { fill: #3d444d }
    .first { stroke: #4493f8 } .second { stroke: #db6d28 } .first-dot { fill: #4493f8 } .second-dot { fill: #db6d28 }
    .axis { stroke: #3d444d }
  }
</style>
"""
_WIDTH = 900
_COLUMN = 455
_NAMES = 180
_BARS = 200
_LINE = 18


def rates(outcomes: Sequence[Outcome]) -> str:
    """Draw a panel for each workload that peers take part in: a bar for each side, all on the scale of the panel."""
    shown = [outcome for outcome in outcomes if outcome.workload.name[0] == "W"]
    heights = [0, 0]
    parts: list[str] = []
    for outcome in shown:
        column = heights.index(min(heights))
        panel, height = _panel(outcome)
        parts.append(f'<g transform="translate({column * _COLUMN} {heights[column]})">{panel}</g>')
        heights[column] += height
    return _svg(max(heights), "Rates by workload, beside the raw driver and peers", parts)


def growth(outcomes: Sequence[Outcome]) -> str:
    """Draw our rates of appends and reads by the length of the log, each in parts of its rate in the shortest one."""
    lines = [outcome for outcome in outcomes if outcome.workload.name[0] == "G"]
    left, top, width, height = 50, 40, 620, 180
    parts = [
        '<text x="0" y="16" class="title">Rates by the length of the log, in parts of the rate in the shortest</text>'
    ]
    shares = [_in_parts_of_the_last([outcome.middle(side) for side in outcome.figures]) for outcome in lines]
    highest = max([1.25, *(share for line in shares for share in line)])
    for step in range(int(highest / 0.25) + 1):
        y = top + height * (1 - step * 0.25 / highest)
        parts.append(f'<line class="axis" x1="{left}" x2="{left + width}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end" class="unit">{step * 0.25:.2f}</text>')
    for style, outcome, line in zip(("first", "second"), lines, shares, strict=False):
        sides = list(reversed(outcome.figures))
        points = [
            (left + 40 + index * (width - 80) / max(len(sides) - 1, 1), top + height * (1 - share / highest))
            for index, share in enumerate(reversed(line))
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline class="{style}" fill="none" stroke-width="2" points="{path}"/>')
        parts += [f'<circle class="{style}-dot" cx="{x:.1f}" cy="{y:.1f}" r="4"/>' for x, y in points]
        if style == "first":
            parts += [
                f'<text x="{x:.1f}" y="{top + height + 20}" text-anchor="middle">{escape(side)}</text>'
                for (x, _), side in zip(points, sides, strict=True)
            ]
        row = top + 60 + (0 if style == "first" else 24)
        parts.append(f'<circle class="{style}-dot" cx="{left + width + 20}" cy="{row - 4}" r="4"/>')
        parts.append(f'<text x="{left + width + 30}" y="{row}">{"appends" if style == "first" else "reads"}</text>')
    return _svg(top + height + 40, "Rates of appends and reads by the length of the log", parts)


def _in_parts_of_the_last(values: Sequence[float]) -> list[float]:
    return [value / values[-1] for value in values]


def _panel(outcome: Outcome) -> tuple[str, int]:
    workload = outcome.workload
    best = max(outcome.middle(side) for side in outcome.figures)
    parts = [
        f'<text x="0" y="16" class="title">{workload.name}</text>',
        f'<text x="48" y="16">{escape(workload.title)}, {workload.unit}</text>',
    ]
    ordered = sorted(outcome.figures, key=outcome.middle, reverse=True)
    for row, side in enumerate(ordered):
        y = 28 + row * _LINE
        kind = (
            "ours" if side.startswith(OURS) else "mark" if side == workload.mark or side.startswith("raw") else "peer"
        )
        width = max(_BARS * outcome.middle(side) / best, 1)
        parts.append(f'<text x="{_NAMES - 6}" y="{y + 11}" text-anchor="end">{escape(side)}</text>')
        parts.append(f'<rect class="{kind}" x="{_NAMES}" y="{y}" width="{width:.1f}" height="13" rx="2"/>')
        value = f"{outcome.middle(side):,.0f}"
        parts.append(f'<text x="{_NAMES + width + 6:.1f}" y="{y + 11}" class="value">{value}</text>')
    return "".join(parts), 28 + len(ordered) * _LINE + 26


def _svg(height: int, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'role="img" aria-label="{escape(title)}">{_STYLE}{"".join(parts)}</svg>\n'
    )
