#!/usr/bin/env python3
"""A picture of a terminal in which a command runs, as an SVG.

    python -m venv target/images && target/images/bin/pip install pyte
    cargo build --release
    target/images/bin/python docs/images/terminal.py docs/images/train.svg --when "1[0-9][0-9]/296 " \
        --path target/release --  simmer train recipes/quickstart.toml --out target/images/run

The command runs in a pseudo-terminal, and pyte, a terminal emulator, holds the screen. The picture shows the screen when
the regular expression of --when is first found on it, or at the end.
"""

import argparse
import fcntl
import os
import pty
import re
import select
import shlex
import signal
import struct
import termios
from html import escape

import pyte

# a character is 8 x 18 units
WIDTH, HEIGHT, MARGIN, TOP = 8, 18, 14, 34
BACK, FRONT = "#17191c", "#d5d8dc"
COLOURS = {
    "black": "#3b4048", "red": "#ff7b72", "green": "#69db7c", "brown": "#fbbf24",
    "blue": "#74a9ff", "magenta": "#da77f2", "cyan": "#66d9e8", "white": FRONT,
}
BLOCKS = "▁▂▃▄▅▆▇█"


def screen_of(args):
    """The screen of the command, at the moment that --when names."""
    screen = pyte.Screen(args.columns, args.rows)
    stream = pyte.ByteStream(screen)
    stream.feed(f"$ {shlex.join(args.command)}\r\n".encode())
    child, terminal = pty.fork()
    if child == 0:
        path = os.path.abspath(args.path) + ":" + os.environ["PATH"]
        os.execvpe(args.command[0], args.command, {**os.environ, "PATH": path, "TERM": "xterm-256color"})
    size = struct.pack("HHHH", args.rows, args.columns, 0, 0)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, size)
    while True:
        select.select([terminal], [], [])
        try:
            data = os.read(terminal, 65536)
        except OSError:  # the program has ended
            data = b""
        if not data:
            break
        stream.feed(data)
        if args.when and re.search(args.when, "\n".join(screen.display)):
            os.kill(child, signal.SIGKILL)
            break
    os.waitpid(child, 0)
    return screen


def row_of(cells, columns, y):
    """The SVG of a row: texts of one colour, and the block characters of curves as rectangles."""
    column = 0
    while column < columns:
        cell = cells[column]
        if cell.data in BLOCKS:
            tall = (BLOCKS.index(cell.data) + 1) * HEIGHT / 8
            yield (f'<rect x="{column * WIDTH + MARGIN}" y="{y + HEIGHT - tall:g}" width="{WIDTH}" '
                   f'height="{tall:g}" fill="{COLOURS["blue"]}"/>')
            column += 1
            continue
        begin = column
        while column < columns and cells[column].data not in BLOCKS and look(cells[column]) == look(cell):
            column += 1
        text = "".join(cells[at].data for at in range(begin, column))
        if text.strip():
            begin += len(text) - len(text.lstrip())
            text = text.strip()
            colour, bold = look(cell)
            weight = ' font-weight="bold"' if bold else ""
            yield (f'<text x="{begin * WIDTH + MARGIN}" y="{y + 14}" textLength="{len(text) * WIDTH}" '
                   f'fill="{COLOURS.get(colour, FRONT)}"{weight}>{escape(text)}</text>')


def look(cell):
    return cell.fg, cell.bold


def picture(screen, title):
    """The screen's rows up to the last that has text, in a window."""
    used = [row for row in range(screen.lines) if screen.display[row].strip()]
    rows = max(used, default=0) + 1
    width = screen.columns * WIDTH + 2 * MARGIN
    height = rows * HEIGHT + TOP + MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(title)}" font-family="ui-monospace, Menlo, Consolas, monospace" '
        'font-size="13" xml:space="preserve">',
        f'<rect width="{width}" height="{height}" rx="8" fill="{BACK}"/>',
    ]
    lines += [
        f'<circle cx="{MARGIN + 6 + 18 * at}" cy="16" r="5" fill="{colour}"/>'
        for at, colour in enumerate(["#ff5f57", "#febc2e", "#28c840"])
    ]
    for row in range(rows):
        lines += row_of(screen.buffer[row], screen.columns, TOP + row * HEIGHT)
    return "\n".join([*lines, "</svg>", ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="SVG to write")
    parser.add_argument("--columns", type=int, default=100)
    parser.add_argument("--rows", type=int, default=40)
    parser.add_argument("--when", help="regular expression of what the screen shows when the picture is taken")
    parser.add_argument("--path", default="target/release", help="folder of the program")
    parser.add_argument("--title", default="simmer in a terminal")
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    svg = picture(screen_of(args), args.title)
    with open(args.out, "w", encoding="utf-8") as file:
        file.write(svg)
    print(f"{args.out}: {len(svg.encode()) / 1000:.1f} kB")


if __name__ == "__main__":
    main()
