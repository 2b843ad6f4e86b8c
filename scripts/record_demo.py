"""Records a run of the demo in a terminal, and writes the recording as an animated SVG.

    uv run --no-project --with 'pyte==0.8.2' scripts/record_demo.py docs/demo.svg -- \\
        .venv/bin/tunewheel demo --quick --stop

The command runs in a pseudo-terminal. ``pyte`` keeps the picture of the terminal; a picture that differs
from the one before becomes a frame. The recording shows a frame for a fraction of its real time, and a clock
below it counts the real seconds. Exit code: the command's.
"""

from __future__ import annotations

import argparse
import os
import pty
import select
import struct
import sys
import termios
import time
from dataclasses import dataclass
from fcntl import ioctl
from html import escape
from itertools import groupby, pairwise
from pathlib import Path

import pyte

COLUMNS, ROWS = 100, 40
CELL_WIDTH, LINE_HEIGHT = 7.8, 17
SECONDS_BETWEEN_FRAMES = 4.0
LONGEST_FRAME, SHORTEST_FRAME, LAST_FRAME = 1.2, 0.12, 6.0
"""Seconds of the recording."""
COLORS = {
    "default": "#c8ccd4", "green": "#98c379", "red": "#e06c75", "brown": "#e5c07b",
    "magenta": "#c678dd", "cyan": "#56b6c2", "blue": "#61afef", "brightblack": "#7f848e",
}  # fmt: skip


@dataclass(frozen=True)
class Frame:
    """What the terminal showed ``at`` so many seconds after the start: the SVG text of each line."""

    at: float
    lines: tuple[str, ...]


def record(command: list[str]) -> tuple[list[Frame], int]:
    """Run ``command`` in a pseudo-terminal; return its frames and its exit code."""
    child, terminal = pty.fork()
    if child == 0:
        os.execvpe(command[0], command, os.environ | {"TERM": "xterm-256color", "COLUMNS": str(COLUMNS)})
    ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    screen = pyte.Screen(COLUMNS, ROWS)
    stream, began, frames = pyte.ByteStream(screen), time.monotonic(), list[Frame]()
    while (said := _read(terminal)) is not None:
        sys.stdout.buffer.write(said)
        sys.stdout.buffer.flush()
        stream.feed(said)
        at = time.monotonic() - began
        if not frames or at - frames[-1].at >= SECONDS_BETWEEN_FRAMES:
            _keep(frames, Frame(at, _lines(screen)))
    _keep(frames, Frame(time.monotonic() - began, _lines(screen)))
    return frames, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _read(terminal: int) -> bytes | None:
    """Return what the command wrote in the last moment; None: it ended."""
    if not select.select([terminal], [], [], 0.2)[0]:
        return b""
    try:
        return os.read(terminal, 65_536) or None
    except OSError:
        return None


def _keep(frames: list[Frame], frame: Frame) -> None:
    if not frames or frames[-1].lines != frame.lines:
        frames.append(frame)


def _lines(screen: pyte.Screen) -> tuple[str, ...]:
    return tuple(_line(screen, row) for row in range(ROWS))


def _line(screen: pyte.Screen, row: int) -> str:
    cells = [screen.buffer[row][column] for column in range(COLUMNS)]
    spans: list[str] = []
    column = 0
    for style, run in groupby(cells, key=lambda cell: (cell.fg, cell.bold)):
        text = "".join(cell.data for cell in run)
        if text.strip():
            weight = ' font-weight="bold"' if style[1] else ""
            color = COLORS.get(style[0], f"#{style[0]}" if len(style[0]) == 6 else COLORS["default"])
            spans.append(
                f'<tspan x="{column * CELL_WIDTH:.1f}" fill="{color}"{weight}>{escape(text)}</tspan>'
            )
        column += len(text)
    return "".join(spans)


def picture(frames: list[Frame]) -> str:
    """Return the frames as an SVG that shows one after the other, again and again."""
    shown = [
        min(max((after.at - frame.at) / 20, SHORTEST_FRAME), LONGEST_FRAME)
        for frame, after in pairwise(frames)
    ]
    shown.append(LAST_FRAME)
    total, start, drawn = sum(shown), 0.0, list[str]()
    for frame, seconds in zip(frames, shown, strict=True):
        drawn.append(_drawn(frame, start / total, (start + seconds) / total, total))
        start += seconds
    width, height = COLUMNS * CELL_WIDTH + 24, (ROWS + 1) * LINE_HEIGHT + 24
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" '
        f'font-family="ui-monospace, Menlo, Consolas, monospace" font-size="13">'
        f'<rect width="100%" height="100%" rx="8" fill="#1e2127"/>{"".join(drawn)}</svg>\n'
    )


def _drawn(frame: Frame, begin: float, end: float, total: float) -> str:
    times, values = f"0;{begin:.5f};{end:.5f};1", "hidden;visible;hidden;hidden"
    if begin == 0:
        times, values = f"0;{end:.5f};1", "visible;hidden;hidden"
    if end >= 1:
        times, values = f"0;{begin:.5f};1", "hidden;visible;visible"
    lines = "".join(
        f'<text xml:space="preserve" y="{(number + 1) * LINE_HEIGHT}">{line}</text>'
        for number, line in enumerate(frame.lines)
        if line
    )
    clock = f'<text y="{(ROWS + 1) * LINE_HEIGHT}" fill="#7f848e">{frame.at:.0f} s</text>'
    return (
        '<g transform="translate(12 6)" visibility="hidden"><animate attributeName="visibility" '
        f'values="{values}" keyTimes="{times}" dur="{total:.1f}s" '
        'calcMode="discrete" repeatCount="indefinite"/>'
        f"{lines}{clock}</g>"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("svg", type=Path)
    parser.add_argument("command", nargs=argparse.REMAINDER, help="what to run, behind --")
    options = parser.parse_args()
    frames, code = record([word for word in options.command if word != "--"])
    options.svg.write_text(picture(frames), "utf-8")
    print(
        f"{len(frames)} frames, {options.svg.stat().st_size / 1024:.0f} KiB in {options.svg}", file=sys.stderr
    )
    sys.exit(code)


if __name__ == "__main__":
    main()
