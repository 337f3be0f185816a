"""Plots as SVG, written by hand: readable in light and dark, without a plotting library."""

from __future__ import annotations

from typing import TypeAlias
from xml.sax.saxutils import escape

# A title that says the unit, and bars by name and value.
Panel: TypeAlias = tuple[str, list[tuple[str, float]]]

_STYLE = """<style>
text { font: 13px system-ui, sans-serif; fill: #24292f; }
.title { font-weight: 600; }
.bar { fill: #afb8c1; }
.ours { fill: #0969da; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; } .bar { fill: #484f58; } .ours { fill: #2f81f7; }
}
</style>"""
_WIDTH, _LABEL, _ROW, _VALUE = 820, 300, 24, 70


def bars(panels: list[Panel]) -> str:
    """Return an SVG of horizontal bars: for each panel its title, and its bars by name and value.

    Bars of auditdb stand out. Every panel has a scale of its own, from zero.

    >>> "auditdb" in bars([("Cost, s", [("auditdb", 1.0)])])
    True
    """
    body, y = [], 8
    for title, values in panels:
        scale = (_WIDTH - _LABEL - _VALUE) / max([value for _, value in values] + [1e-9])
        y += 18
        body.append(f'<text class="title" x="8" y="{y}">{escape(title)}</text>')
        y += 8
        for name, value in values:
            width = max(value * scale, 1)
            kind = "bar ours" if name.startswith("auditdb") else "bar"
            body.append(
                f'<text x="{_LABEL - 8}" y="{y + 16}" text-anchor="end">{escape(name)}</text>'
                f'<rect class="{kind}" x="{_LABEL}" y="{y + 4}" width="{width:.1f}" height="16"/>'
                f'<text x="{_LABEL + width + 6:.1f}" y="{y + 16}">{_number(value)}</text>'
            )
            y += _ROW
        y += 10
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" '
        f'width="{_WIDTH}" height="{y}" role="img">\n{_STYLE}\n' + "\n".join(body) + "\n</svg>\n"
    )


def _number(value: float) -> str:
    return f"{value:,.1f}" if abs(value) >= 1 else f"{value:.3g}"
