"""Draws the plot of the page: challenges a second and CPU per challenge of each program, as an SVG file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

_WIDTH: Final = 800
_LABELS: Final = 120
_VALUES: Final = 70
_BAR: Final = 26
_STEP: Final = 38
_TOP: Final = 44
_GAP: Final = 30
_OURS: Final = "signer"
_COLOURS: Final = {True: "#0b6e4f", False: "#9aa5b1"}
_PANELS: Final = (
    ("rate", "Challenges a second, one process (more is better)"),
    ("cpu", "CPU µs per challenge (less is better)"),
)
_STYLE: Final = (
    "text { font: 14px system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: #1f2933 } "
    ".title { font-size: 15px; font-weight: 600 } .ours { font-weight: 600 } "
    "rect.paper { fill: #ffffff } line { stroke: #cbd2d9 }"
)


def draw(result: Mapping[str, Any]) -> str:
    """Return the plot of a result: one panel for each figure, one bar for each program."""
    rows: Sequence[Mapping[str, Any]] = result.get("programs", {}).get("rows", ())
    panel = _TOP + len(rows) * _STEP
    height = len(_PANELS) * panel + _GAP
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" aria-labelledby="title">',
        '<title id="title">Challenges a second and CPU per challenge of each program</title>',
        f"<style>{_STYLE}</style>",
        f'<rect class="paper" width="{_WIDTH}" height="{height}" rx="8"/>',
    ]
    for number, (figure, title) in enumerate(_PANELS):
        lines += _panel(number * panel + _GAP // 2, title, [(str(row["name"]), float(row[figure])) for row in rows])
    return "\n".join([*lines, "</svg>"]) + "\n"


def _panel(top: int, title: str, bars: Sequence[tuple[str, float]]) -> Iterator[str]:
    yield f'<text class="title" x="16" y="{top + 24}">{title}</text>'
    longest = max((value for _, value in bars), default=1.0)
    for number, (name, value) in enumerate(bars):
        y = top + _TOP + number * _STEP
        width = value / longest * (_WIDTH - _LABELS - _VALUES - 32)
        baseline, is_ours = y + _BAR * 0.7, name == _OURS
        css = ' class="ours"' if is_ours else ""
        yield f'<text{css} x="{_LABELS + 8}" y="{baseline:g}" text-anchor="end">{name}</text>'
        yield (
            f'<rect x="{_LABELS + 16}" y="{y}" width="{width:.1f}" height="{_BAR}" rx="3" fill="{_COLOURS[is_ours]}"/>'
        )
        yield f'<text{css} x="{_LABELS + 24 + width:.1f}" y="{baseline:g}">{value:,.0f}</text>'
    axis, start, end = _LABELS + 16, top + _TOP - 6, top + _TOP + len(bars) * _STEP - 6
    yield f'<line x1="{axis}" x2="{axis}" y1="{start}" y2="{end}"/>'
