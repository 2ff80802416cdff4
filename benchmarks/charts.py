"""Line charts as SVG text, with a logarithmic axis from left to right."""

import math
from collections.abc import Mapping, Sequence

WIDTH, HEIGHT, MARGIN, LEGEND = 340, 240, 40, 16
COLOURS = ('#1b6ca8', '#d1495b', '#2e8b57', '#edae49', '#7b4fa3', '#00798c', '#8d6a4f', '#e07a5f', '#5c6b73', '#b5179e')

Points = Sequence[tuple[float, float]]


def line_chart(panels: Mapping[str, Mapping[str, Points]], across: str) -> str:
    """Panels side by side, by their titles; in each a line for every name of `(x > 0, y)` points; one legend below."""
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}
    height = HEIGHT + LEGEND * (len(names) + 1)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH * len(panels)}" height="{height}" '
             'font-family="sans-serif" font-size="11">', '<rect width="100%" height="100%" fill="white"/>']
    for index, (title, lines) in enumerate(panels.items()):
        parts += [f'<g transform="translate({index * WIDTH} 0)">', *_panel(title, lines, colours, across), '</g>']
    for index, name in enumerate(names):
        y = HEIGHT + LEGEND * (index + 1)
        parts += [f'<path d="M{MARGIN} {y - 4}h24" stroke="{colours[name]}" stroke-width="2"/>',
                  f'<text x="{MARGIN + 30}" y="{y}">{_escaped(name)}</text>']
    return '\n'.join([*parts, '</svg>']) + '\n'


def _panel(title: str, lines: Mapping[str, Points], colours: Mapping[str, str], across: str) -> list[str]:
    points = [point for line in lines.values() for point in line]
    parts = [f'<text x="{WIDTH / 2:.0f}" y="16" text-anchor="middle">{_escaped(title)}</text>']
    if not points:
        return parts
    left, right = (math.log(f(x for x, _ in points)) for f in (min, max))
    low, high = (f(y for _, y in points) for f in (min, max))

    def place(x: float, y: float) -> tuple[float, float]:
        share_x, share_y = (math.log(x) - left) / ((right - left) or 1), (y - low) / ((high - low) or 1)
        return MARGIN + share_x * (WIDTH - 1.5 * MARGIN), HEIGHT - MARGIN - share_y * (HEIGHT - 2 * MARGIN)

    for x in sorted({x for x, _ in points}):
        parts.append(f'<text x="{place(x, low)[0]:.1f}" y="{HEIGHT - MARGIN + 16}" text-anchor="middle">{x:g}</text>')
    for y in (low, high):
        height = place(math.exp(left), y)[1] + 4
        parts.append(f'<text x="{MARGIN - 5}" y="{height:.1f}" text-anchor="end">{y:.2f}</text>')
    parts.append(f'<text x="{WIDTH / 2:.0f}" y="{HEIGHT - 6}" text-anchor="middle">{_escaped(across)}</text>')
    for name, line in lines.items():
        path = ' L'.join('{:.1f} {:.1f}'.format(*place(x, y)) for x, y in sorted(line))
        parts.append(f'<path d="M{path}" fill="none" stroke="{colours[name]}" stroke-width="1.6"/>')
    return parts


def _escaped(text: str) -> str:
    return text.replace('&', '&amp;').replace('<', '&lt;').replace('>', '&gt;')
