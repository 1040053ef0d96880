#!/usr/bin/env python3
"""A picture of the charts of a report, as an SVG: the page's own curves and labels, without a browser.

    target/release/simmer report target/images/run
    python3 docs/images/report.py target/images/run/report.html docs/images/report.svg
"""

import re
import sys
from html import escape, unescape

FIGURE = re.compile(r"<figure>(.*?)</figure>", re.DOTALL)
TITLE = re.compile(r"<figcaption><b>(.*?)</b> <span class=soft>(.*?)</span>", re.DOTALL)
SVG = re.compile(r"<svg [^>]*>(.*?)</svg>", re.DOTALL)
VALUE = re.compile(r'<span class=y style="bottom:([\d.]+)%">(.*?)</span>')
STEP = re.compile(r'<span class=x style="left:([\d.]+)%">(.*?)</span>')
KEY = re.compile(r'<span><i class="?key ?(\w*)"?></i>(.*?)</span>')

WIDTH, GAP = 960, 24
LEFT, RIGHT, ABOVE, BELOW = 56, 12, 30, 28
# the rules of the page's CSS that the curves need
STYLE = """text{font:12px system-ui,sans-serif;fill:#24292f}.soft{fill:#57606a}.title{font-weight:600;font-size:14px}
path{fill:none;vector-effect:non-scaling-stroke}.grid{stroke:#d0d7de}.line{stroke-width:2;stroke-linejoin:round}
.line.each{stroke-width:1;opacity:.35}.line.dots{stroke-width:1.5;stroke-dasharray:5 4}.dot{stroke-width:7;stroke-linecap:round}"""
RUNS = {"0": "#2563eb", "1": "#d9480f", "2": "#2b8a3e", "3": "#9c36b5"}


def plain(html):
    return escape(unescape(re.sub(r"<[^>]*>", "", html)).strip())


def chart(figure, x, y, width, height):
    """A figure of the page, in a box."""
    title, unit = TITLE.search(figure).groups()
    inside = SVG.search(figure).group(1)
    w, h = width - LEFT - RIGHT, height - ABOVE - BELOW
    keys = [name for _, name in KEY.findall(figure)]
    legend = f" ({', '.join(plain(name) for name in keys)})" if keys else ""
    yield f'<g transform="translate({x} {y})">'
    yield (f'<text y="14"><tspan class="title">{plain(title)}</tspan> '
           f'<tspan class="soft" dx="4">{plain(unit)}{legend}</tspan></text>')
    for percent, label in VALUE.findall(figure):
        at = ABOVE + h * (1 - float(percent) / 100)
        yield f'<text class="soft" x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{plain(label)}</text>'
    for percent, label in STEP.findall(figure):
        at = LEFT + w * float(percent) / 100
        yield f'<text class="soft" x="{at:.1f}" y="{height - 10}" text-anchor="middle">{plain(label)}</text>'
    yield (f'<svg x="{LEFT}" y="{ABOVE}" width="{w}" height="{h}" viewBox="0 0 1000 1000" preserveAspectRatio="none" '
           f'overflow="visible">{quoted(inside)}</svg></g>')


def quoted(inside):
    """HTML's attributes without quotes as XML has them, and the colours of the runs."""
    inside = re.sub(r"<(\w+) class=(\w+)", r'<\1 class="\2"', inside)
    return re.sub(r"var\(--run(\d)\)", lambda run: RUNS[run.group(1)], inside)


def picture(page):
    """The first chart over the whole width, the others two a row."""
    figures = FIGURE.findall(page)
    first, others = figures[0], figures[1:]
    half = (WIDTH - GAP) // 2
    boxes = [(first, 0, 0, WIDTH, 300)]
    for at, figure in enumerate(others):
        boxes.append((figure, (at % 2) * (half + GAP), 316 + at // 2 * 206, half, 190))
    height = max(y + tall for _, _, y, _, tall in boxes)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-16 -16 {WIDTH + 32} {height + 32}" width="{WIDTH + 32}" '
        f'height="{height + 32}" role="img" aria-label="Charts of a run"><style>{STYLE}</style>',
        f'<rect x="-16" y="-16" width="{WIDTH + 32}" height="{height + 32}" rx="8" fill="#fff"/>',
    ]
    for box in boxes:
        lines += chart(*box)
    return "\n".join([*lines, "</svg>", ""])


def main():
    page, out = sys.argv[1:]
    with open(page, encoding="utf-8") as file:
        svg = picture(file.read())
    with open(out, "w", encoding="utf-8") as file:
        file.write(svg)
    print(f"{out}: {len(svg.encode()) / 1000:.1f} kB")


if __name__ == "__main__":
    main()
